// How old a read may be: a bounded read shows everything that was acknowledged longer ago than its bound, a read with a
// session's token everything up to the token.
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

class FreshnessChecker {
 public:
  // `drift_ppm_max`: how much slower than time a node's clock may run.
  FreshnessChecker(Violations& violations, int64_t drift_ppm_max)
      : violations_(violations), drift_ppm_max_(drift_ppm_max) {}

  // A client learned at `now_us`, which never falls, that the change at `index` happened.
  void acknowledged(GroupId group, LogIndex index, int64_t now_us) {
    auto& known = known_[group];
    if (known.empty() || known.back().second < index) known.emplace_back(now_us, index);
  }
  void bounded(GroupId group, int64_t called_us, int64_t bound_ms, LogIndex index) {
    const int64_t bound_us = bound_ms * 1000 + bound_ms * drift_ppm_max_ / 1000 + 1000;
    const auto& known = known_[group];
    const auto after = std::ranges::upper_bound(known, called_us - bound_us, {}, &std::pair<int64_t, LogIndex>::first);
    if (after == known.begin() || std::prev(after)->second <= index) return;
    violations_.add("freshness", "a read bounded by " + std::to_string(bound_ms) + " ms that was called at " +
                                     std::to_string(called_us) + " us saw index " + std::to_string(index.value) +
                                     "; index " + std::to_string(std::prev(after)->second.value) +
                                     " was acknowledged at " + std::to_string(std::prev(after)->first) + " us");
  }
  void session(GroupId group, LogIndex token, LogIndex index) {
    if (token <= index) return;
    violations_.add("freshness", "a read of group " + std::to_string(group.value) + " with the token " +
                                     std::to_string(token.value) + " saw index " + std::to_string(index.value));
  }

 private:
  Violations& violations_;
  const int64_t drift_ppm_max_;
  std::map<GroupId, std::vector<std::pair<int64_t, LogIndex>>> known_;
};

}  // namespace uccp::sim
