// One effect for each request id: a command that was sent again runs at one index only.
#pragma once

#include <string>
#include <unordered_map>

#include "base/ids.h"
#include "sim/checkers/violations.h"

namespace uccp::sim {

class DedupChecker {
 public:
  explicit DedupChecker(Violations& violations) : violations_(violations) {}

  // The command with this deduplication key ran at `index`. `key` names group, principal, method and id.
  void executed(const std::string& key, LogIndex index) {
    const auto [it, first] = executed_.try_emplace(key, index);
    if (first || it->second == index) return;
    violations_.add("dedup", "the request " + key + " ran at index " + std::to_string(it->second.value) + " and at " +
                                 std::to_string(index.value));
  }

 private:
  Violations& violations_;
  std::unordered_map<std::string, LogIndex> executed_;
};

}  // namespace uccp::sim
