// A subscription: each event that was acknowledged to its publisher is delivered, and none comes again that was
// confirmed.
//
// A delivery counts from the moment at which it was asked for: its answer may have been on its way for long.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "sim/checkers/event_checker.h"
#include "sim/checkers/violations.h"

namespace uccp::sim {

class SubscriptionChecker {
 public:
  explicit SubscriptionChecker(Violations& violations) : violations_(violations) {}

  // Asked for at `asked_us`.
  void delivered(const EventChecker::Place& place, uint64_t offset, int64_t asked_us) {
    delivered_[place].insert(offset);
    const auto of_place = confirmed_.find(place);
    if (of_place == confirmed_.end()) return;
    const auto at = of_place->second.find(offset);
    if (at == of_place->second.end() || at->second >= asked_us) return;
    violations_.add("subscriptions", place.topic + "/" + std::to_string(place.partition) + "@" +
                                         std::to_string(offset) + " was confirmed at " + std::to_string(at->second) +
                                         " us, and comes again to who asked at " + std::to_string(asked_us) + " us");
  }
  // The confirmation was answered at `now_us`.
  void confirmed(const EventChecker::Place& place, uint64_t offset, int64_t now_us) {
    confirmed_[place].try_emplace(offset, now_us);
  }
  bool was_delivered(const EventChecker::Place& place, uint64_t offset) const {
    const auto at = delivered_.find(place);
    return at != delivered_.end() && at->second.contains(offset);
  }
  uint64_t confirmed_count() const {
    uint64_t count = 0;
    for (const auto& [place, offsets] : confirmed_) count += offsets.size();
    return count;
  }

 private:
  Violations& violations_;
  std::map<EventChecker::Place, std::set<uint64_t>> delivered_;
  std::map<EventChecker::Place, std::map<uint64_t, int64_t>> confirmed_;
};

}  // namespace uccp::sim
