// Who a data directory belongs to: cluster, node, and a random incarnation made when the directory was.
#pragma once

#include <string>

#include "base/file_system.h"
#include "base/ids.h"
#include "base/random.h"
#include "base/status.h"
#include "storage/log_store.h"

namespace uccp::node {

// Reads `<directory>/identity`, or creates it for a new directory (cluster_id empty: a random one is made).
// Errors: failed_precondition IDENTITY_MISMATCH if the directory belongs to another node or cluster; corruption.
Result<storage::StoreIdentity> open_identity(FileSystem& files, const std::string& directory, NodeId node,
                                             const std::string& cluster_id, Random& random);

}  // namespace uccp::node
