// Fairness of queues: those who wait for one thing are served in the order in which they came, and each within a bound
// once nothing hurts the cluster any more.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "sim/checkers/violations.h"

namespace uccp::sim {

class QueueChecker {
 public:
  explicit QueueChecker(Violations& violations) : violations_(violations) {}

  // A waiter of `name`, all of one priority, was served by the change at `position`. Numbers of waiters grow as they
  // come. Told again after a watch began anew.
  void served(const std::string& name, uint64_t position, uint64_t waiter) {
    auto& queue = served_[name];
    const auto [it, first] = queue.try_emplace(position, waiter);
    const bool overtook = it != queue.begin() && std::prev(it)->second > waiter;
    if (!first || !overtook) return;
    violations_.add("queues", "waiter " + std::to_string(waiter) + " of " + name + " was served after waiter " +
                                  std::to_string(std::prev(it)->second) + ", which came later");
  }
  // What a command left behind: nobody waits for what nobody holds.
  void left(const std::string& name, uint64_t index, size_t waiters, size_t holders) {
    if (waiters == 0 || holders > 0) return;
    violations_.add("queues", std::to_string(waiters) + " wait for " + name + " after index " + std::to_string(index) +
                                  ", which nobody holds");
  }
  // A wait that began after everything was healed took so long; the bound follows from how long others hold it.
  void waited(const std::string& who, int64_t waited_us, int64_t bound_us) {
    if (waited_us <= bound_us) return;
    violations_.add("queues", who + " waited for " + std::to_string(waited_us / 1000) + " ms where at most " +
                                  std::to_string(bound_us / 1000) + " ms can be needed");
  }

 private:
  Violations& violations_;
  std::map<std::string, std::map<uint64_t, uint64_t>> served_;
};

}  // namespace uccp::sim
