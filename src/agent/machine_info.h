// What the machine has and how busy it is, from /proc.
//
// Callable from one thread; reads small kernel files.
#pragma once

#include <cstdint>
#include <string>

#include "agent/executor.h"

namespace uccp::agent {

// Cores that this process may use (affinity and the quota of its control group), memory of the machine or of its
// control group if that is less, free disk at `directory`.
Capacity detect_capacity(const std::string& directory);
std::string host_name();

struct MachineLoad {
  double cpu = 0;  // 0 to 1 since the sample before
  uint64_t memory_used = 0;
  double load_average = 0;
};

class LoadSampler {
 public:
  MachineLoad sample();

 private:
  uint64_t busy_ = 0;
  uint64_t total_ = 0;
};

}  // namespace uccp::agent
