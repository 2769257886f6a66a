// Three nodes in this process with any number of groups: real loops, logs, states and TLS connections, no doors and no
// services. For what a server cannot be asked for, because it has a fixed set of groups.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/histogram.h"

namespace uccp::bench {

struct GroupLoad {
  double rate = 0;       // changes a second, of all groups
  double cores = 0;      // CPU time of this process by wall time
  double us_per_op = 0;  // CPU time a change, all nodes and the little of the load
  LatencyHistogram latency;
  uint64_t failed = 0;
  std::string first_error;
};

class NodeCluster {
 public:
  // Returns when every group has a leader. `directory` must exist. Errors: those of stores; unavailable BENCH_FAILED.
  static Result<std::unique_ptr<NodeCluster>> start(const std::string& directory, size_t groups);
  ~NodeCluster();

  // Puts in a closed loop, spread evenly over the groups.
  GroupLoad puts(size_t in_flight, size_t value_bytes, double seconds);

 private:
  struct Member;
  struct Slots;
  NodeCluster() = default;

  size_t groups_ = 0;
  std::vector<std::unique_ptr<Member>> members_;
};

}  // namespace uccp::bench
