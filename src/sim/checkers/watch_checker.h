// A watch sees every change behind its cursor once, in order, and nothing that did not happen.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "sim/checkers/violations.h"

namespace uccp::sim {

class WatchChecker {
 public:
  // Index and sequence within it.
  using Position = std::pair<LogIndex, uint32_t>;

  explicit WatchChecker(Violations& violations) : violations_(violations) {}

  // One subscription, from the cursor on.
  size_t subscribed(std::string topic, LogIndex since) {
    watches_.push_back({std::move(topic), since, {}});
    return watches_.size() - 1;
  }
  void delivered(size_t watch, Position position) { watches_[watch].delivered.push_back(position); }
  // `all`: every change of the topic that the state keeps. Watches named in `caught_up` must have all of them.
  void check(const std::string& topic, const std::vector<Position>& all, const std::vector<size_t>& caught_up);

 private:
  struct Watch {
    std::string topic;
    LogIndex since;
    std::vector<Position> delivered;
  };
  Violations& violations_;
  std::vector<Watch> watches_;
};

}  // namespace uccp::sim
