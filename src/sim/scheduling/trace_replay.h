// Replays a workload of rigid jobs in virtual time: through the real scheduler, or by one of the policies that
// batch systems are measured against.
//
// The machine is nodes of equal numbers of processors. Through the scheduler a job is a task that takes so many cores
// of one worker, and a job larger than a node a gang of them; its limit is the task's timeout. The references see one
// pool of all processors, in which nothing is ever left over in pieces: that is an advantage of theirs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sim/scheduling/workload_trace.h"

namespace uccp::sim {

enum class Policy : uint8_t {
  kScheduler,
  kFcfs,          // in the order of arrival; who does not fit holds up all others
  kEasy,          // the first that does not fit gets a reservation; others start if they do not delay that one
  kConservative,  // each that waits has a reservation, and starts earlier only if it delays nobody before it
};
std::string_view name_of(Policy policy);

struct TraceMachine {
  int64_t nodes = 16;
  int64_t processors = 16;  // of each
};

struct ReplayResult {
  std::vector<int64_t> start_s;  // by job; -1: it never started, because it is larger than the machine
  size_t ended = 0, refused = 0;
  double utilisation = 0;  // processor time used, of what there was from the first submission to the last one
  double wait_mean_s = 0, wait_p95_s = 0;
  double slowdown_mean = 0;  // bounded: (wait + run) / max(run, 10 s), at least 1
  double fairness = 0;       // Jain's index of the mean bounded slowdowns of the users
  int64_t makespan_s = 0;
  std::string violation;  // first breach of a rule; empty: none
};

ReplayResult replay(const std::vector<TraceJob>& jobs, const TraceMachine& machine, Policy policy);

}  // namespace uccp::sim
