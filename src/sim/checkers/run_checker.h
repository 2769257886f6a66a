// What really runs on the simulated workers: two attempts of one task never run at the same time.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "sim/checkers/violations.h"

namespace uccp::sim {

class RunChecker {
 public:
  explicit RunChecker(Violations& violations) : violations_(violations) {}

  void started(const std::string& task, const std::string& attempt, int64_t now_us) {
    if (!known_.insert(attempt).second) violations_.add("runs", "attempt " + attempt + " was started twice");
    const auto [it, alone] = running_.try_emplace(task, attempt);
    if (alone) return;
    violations_.add("runs", "task " + task + ": attempt " + attempt + " began at " + std::to_string(now_us) +
                                " us while " + it->second + " still ran");
  }
  void ended(const std::string& task, const std::string& attempt) {
    const auto it = running_.find(task);
    if (it != running_.end() && it->second == attempt) running_.erase(it);
  }
  size_t started_count() const { return known_.size(); }

 private:
  Violations& violations_;
  std::map<std::string, std::string> running_;
  std::set<std::string> known_;
};

}  // namespace uccp::sim
