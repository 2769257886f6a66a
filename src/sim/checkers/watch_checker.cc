#include "sim/checkers/watch_checker.h"

#include <algorithm>
#include <cstddef>

namespace uccp::sim {
namespace {

std::string name(const WatchChecker::Position& p) {
  return std::to_string(p.first.value) + "." + std::to_string(p.second);
}

}  // namespace

void WatchChecker::check(const std::string& topic, const std::vector<Position>& all,
                         const std::vector<size_t>& caught_up) {
  for (size_t i = 0; i < watches_.size(); ++i) {
    const Watch& watch = watches_[i];
    if (watch.topic != topic) continue;
    const auto title = "watch " + std::to_string(i) + " of " + topic + " since " + std::to_string(watch.since.value);
    const auto first = std::ranges::upper_bound(all, Position{watch.since, UINT32_MAX});
    const auto expected = static_cast<size_t>(all.end() - first);
    for (size_t k = 0; k < watch.delivered.size(); ++k) {
      if (k < expected && watch.delivered[k] == first[static_cast<std::ptrdiff_t>(k)]) continue;
      violations_.add("watch",
                      title + " got change " + name(watch.delivered[k]) + " where " +
                          (k < expected ? name(first[static_cast<std::ptrdiff_t>(k)]) : std::string("nothing")) +
                          " follows");
      return;
    }
    const bool all_due = std::ranges::find(caught_up, i) != caught_up.end();
    if (all_due && watch.delivered.size() < expected) {
      violations_.add("watch", title + " ended after " + std::to_string(watch.delivered.size()) + " of " +
                                   std::to_string(expected) + " changes");
    }
  }
}

}  // namespace uccp::sim
