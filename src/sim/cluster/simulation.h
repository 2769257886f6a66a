// One run: faults while clients work, then healing and progress, then the last checks.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "sim/cluster/sim_options.h"

namespace uccp::sim {

struct SimResult {
  std::vector<std::string> violations;
  size_t nodes = 0;  // founders
  uint64_t operations = 0;
  std::array<uint64_t, kFaults> faults{};
  uint64_t attempts = 0;   // that ran on workers
  uint64_t elections = 0;  // terms that had a leader
  uint64_t undecided = 0;  // histories that were too hard for the search; their order was checked by replay
  int64_t virtual_us = 0;
  uint64_t events = 0;
  uint64_t trace_hash = 0;
};

// The same options give the same result. `tracing` prints what happens.
SimResult simulate(const SimOptions& options, bool tracing);

}  // namespace uccp::sim
