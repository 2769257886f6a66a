// How fast this node's groups notice a dead leader, and whether they serve reads under a leader's lease.
#pragma once

#include "base/status.h"
#include "node/node.h"
#include "server/config.h"

namespace uccp::server {

// Clocks of two nodes may run at rates that differ by this much of the election timeout; what lease reads rely on.
inline constexpr int64_t kLeaseDriftPercent = 10;

// Sets ticks, timeouts and leases of `options` from raft_election_timeout, raft_heartbeat_interval and
// raft_lease_reads. Errors: invalid CONFIG_INVALID naming the place, the value and the range.
Status apply_raft_settings(const Config& config, node::NodeOptions& options);

// The highest feature level to which this node lets its groups rise. Errors: invalid CONFIG_INVALID.
Result<uint32_t> feature_level_limit(const Config& config);
// How old what a node knows may be. Errors: as above.
Result<int64_t> state_age_max_ms(const Config& config);

}  // namespace uccp::server
