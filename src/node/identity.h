// Who a data directory belongs to: cluster, node, and a random incarnation made when the directory was.
#pragma once

#include <string>

#include "base/file_system.h"
#include "base/ids.h"
#include "base/random.h"
#include "base/status.h"
#include "storage/kv.h"
#include "storage/log_store.h"

namespace uccp::node {

// Reads `<directory>/identity`, or creates it for a new directory (cluster_id empty: a random one is made).
// Errors: failed_precondition IDENTITY_MISMATCH if the directory belongs to another node or cluster, IDENTITY_VERSION
// if another version of the program wrote it; corruption.
Result<storage::StoreIdentity> open_identity(FileSystem& files, const std::string& directory, NodeId node,
                                             const std::string& cluster_id, Random& random);

// Makes sure that the state in `path` belongs to this directory: writes the identity into it, or compares. The write is
// durable with the next flush, and until then there is nothing in the state that could be mistaken.
// Errors: failed_precondition STATE_OF_ANOTHER_NODE; corruption.
Status claim_state(storage::Kv& kv, const std::string& path, const storage::StoreIdentity& identity);

}  // namespace uccp::node
