// Nothing acknowledged is lost: what a client was told is in the state of every later leader, and of every node at the
// end.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "sim/checkers/violations.h"

namespace uccp::sim {

class DurabilityChecker {
 public:
  using Contains = std::function<bool(const std::string& key)>;

  explicit DurabilityChecker(Violations& violations) : violations_(violations) {}

  // A client was told that the write named `key`, of which the state keeps a trace for ever, happened at `index`.
  void acknowledged(GroupId group, std::string key, LogIndex index) {
    acknowledged_[group].emplace_back(std::move(key), index);
  }
  // `contains` asks the state of the group at `applied`, which is a current one. Of the newest `count`, which a change
  // of leader may lose; the older ones are behind a digest that all nodes agreed on.
  void check(GroupId group, LogIndex applied, const Contains& contains, size_t count = SIZE_MAX) {
    const auto& all = acknowledged_[group];
    for (size_t i = all.size() - std::min(count, all.size()); i < all.size(); ++i) {
      const auto& [key, index] = all[i];
      if (index <= applied && contains(key)) continue;
      violations_.add("durability", key + " was acknowledged at index " + std::to_string(index.value) +
                                        " and is missing at index " + std::to_string(applied.value));
    }
  }

 private:
  Violations& violations_;
  std::map<GroupId, std::vector<std::pair<std::string, LogIndex>>> acknowledged_;
};

}  // namespace uccp::sim
