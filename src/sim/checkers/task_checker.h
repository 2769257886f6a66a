// Outcomes of tasks as apply counted them: attempt numbers are consecutive, one outcome an attempt, none after the end,
// none of an epoch that had passed.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/ids.h"
#include "sim/checkers/violations.h"

namespace uccp::sim {

class TaskChecker {
 public:
  struct Outcome {
    LogIndex index;
    std::string task;
    int32_t number = 0;
    std::string worker;
    uint64_t epoch = 0;
    bool lost = false;   // reported by the leader for a fenced worker: of an epoch that has passed
    bool final = false;  // the task is over
  };

  explicit TaskChecker(Violations& violations) : violations_(violations) {}

  // Each comes in the order of the log; what is replayed after a restart comes again and is known by its index.
  void worker_epoch(LogIndex index, const std::string& worker, uint64_t epoch);
  void counted(const Outcome& outcome);
  // The task ended without an outcome, by a cancellation.
  void ended(LogIndex index, const std::string& task);

 private:
  struct Task {
    LogIndex last;
    int32_t number = 0;
    bool ended = false;
  };
  struct Worker {
    LogIndex last;
    uint64_t epoch = 0;
  };
  void violation(const Outcome& outcome, const std::string& what);

  Violations& violations_;
  std::map<std::string, Task> tasks_;
  std::map<std::string, Worker> workers_;
};

}  // namespace uccp::sim
