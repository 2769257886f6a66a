// Gangs that are stopped for others: all of a gang stops, and none of it begins anew before all have.
#pragma once

#include <map>
#include <set>
#include <string>

#include "sim/checkers/violations.h"

namespace uccp::sim {

class GangChecker {
 public:
  explicit GangChecker(Violations& violations) : violations_(violations) {}

  // It is committed that these attempts of the gang stop. May be told again.
  void stopped(const std::string& gang, const std::set<std::string>& attempts) {
    for (const std::string& attempt : attempts) {
      if (ended_.contains(attempt) || !known_.insert(attempt).second) continue;
      stopping_[gang].insert(attempt);
      ++stops_;
    }
  }
  void started(const std::string& gang, const std::string& attempt) {
    running_.insert(attempt);
    const auto found = stopping_.find(gang);
    if (found == stopping_.end() || found->second.contains(attempt)) return;
    for (const std::string& other : found->second) {
      if (running_.contains(other))
        violations_.add("gangs", "attempt " + attempt + " began while " + other + " of its gang was still to stop");
    }
  }
  void ended(const std::string& attempt) {
    running_.erase(attempt);
    ended_.insert(attempt);
    for (auto& [gang, attempts] : stopping_) attempts.erase(attempt);
  }
  // That an attempt of a gang, and with it the gang, was stopped.
  size_t stops() const { return stops_; }

 private:
  Violations& violations_;
  std::map<std::string, std::set<std::string>> stopping_;  // by gang; none of these has ended
  std::set<std::string> known_, running_, ended_;
  size_t stops_ = 0;
};

}  // namespace uccp::sim
