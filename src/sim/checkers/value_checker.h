// What a read shows is what the changes up to its index leave over: reads of every level, replayed in the order of the
// log.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "sim/checkers/violations.h"

namespace uccp::sim {

class ValueChecker {
 public:
  explicit ValueChecker(Violations& violations) : violations_(violations) {}

  // The first application of each change, in the order of the log.
  void wrote(const std::string& key, LogIndex index, uint64_t value) { history_[key].emplace_back(index, value); }
  // Where the change was made that wrote `value`, which no other change of the key writes; 0: nowhere.
  LogIndex index_of(const std::string& key, uint64_t value) {
    const auto& history = history_[key];
    const auto wrote_it = [&](const auto& change) { return change.second == value; };
    const auto found = std::find_if(history.rbegin(), history.rend(), wrote_it);
    return found == history.rend() ? LogIndex(0) : found->first;
  }
  // A view at `index` showed `value`; 0: nothing.
  void read(const std::string& reader, const std::string& key, LogIndex index, uint64_t value) {
    const auto& history = history_[key];
    const auto after = std::ranges::upper_bound(history, index, {}, &std::pair<LogIndex, uint64_t>::first);
    const uint64_t expected = after == history.begin() ? 0 : std::prev(after)->second;
    if (value == expected) return;
    violations_.add("values", reader + " read " + std::to_string(value) + " of " + key + " at index " +
                                  std::to_string(index.value) + ", where it is " + std::to_string(expected));
  }

 private:
  Violations& violations_;
  std::map<std::string, std::vector<std::pair<LogIndex, uint64_t>>> history_;
};

}  // namespace uccp::sim
