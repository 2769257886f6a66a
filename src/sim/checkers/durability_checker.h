// Nothing acknowledged is lost: what a client was told is in the state after every restart.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "base/ids.h"
#include "sim/checkers/violations.h"

namespace uccp::sim {

class DurabilityChecker {
 public:
  explicit DurabilityChecker(Violations& violations) : violations_(violations) {}

  // A client was told that the write named `key`, of which the state keeps a trace for ever, happened at `index`.
  void acknowledged(GroupId group, std::string key, LogIndex index) { acknowledged_[group].emplace(key, index); }
  // `contains` asks the state of the group at `applied`.
  void check(GroupId group, LogIndex applied, const std::function<bool(const std::string& key)>& contains) {
    for (const auto& [key, index] : acknowledged_[group]) {
      if (index <= applied && contains(key)) continue;
      violations_.add("durability", key + " was acknowledged at index " + std::to_string(index.value) +
                                        " and is missing at index " + std::to_string(applied.value));
    }
  }

 private:
  Violations& violations_;
  std::map<GroupId, std::map<std::string, LogIndex>> acknowledged_;
};

}  // namespace uccp::sim
