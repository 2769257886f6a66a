// What discovery shows at an index is registered there: no instance is listed after its end, by expiry or otherwise,
// was committed, and none is missing that nothing ended.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "sim/checkers/violations.h"

namespace uccp::sim {

class ListingChecker {
 public:
  enum class Health : uint8_t { kGone, kUnhealthy, kHealthy };

  explicit ListingChecker(Violations& violations) : violations_(violations) {}

  // The first application of what changes an instance, in the order of the log.
  void changed(LogIndex index, const std::string& instance, const std::string& service, Health health) {
    Instance& known = instances_[instance];
    known.service = service.empty() ? known.service : service;
    known.changes.emplace_back(index, health);
  }
  // Asked for healthy instances of a service, `reader` was shown these, in the state at `index`.
  void listed(const std::string& reader, LogIndex index, const std::string& service,
              const std::set<std::string>& shown) {
    for (const auto& [name, instance] : instances_) {
      const Health health = at(instance, index);
      if (instance.service != service || shown.contains(name) == (health == Health::kHealthy)) continue;
      violations_.add("listings", reader + (shown.contains(name) ? " was shown " : " was not shown ") + name +
                                      " at index " + std::to_string(index.value) + ", where it is " +
                                      (health == Health::kGone      ? "gone"
                                       : health == Health::kHealthy ? "healthy"
                                                                    : "not healthy"));
    }
  }

 private:
  struct Instance {
    std::string service;
    std::vector<std::pair<LogIndex, Health>> changes;
  };
  static Health at(const Instance& instance, LogIndex index) {
    const auto after = std::ranges::upper_bound(instance.changes, index, {}, &std::pair<LogIndex, Health>::first);
    return after == instance.changes.begin() ? Health::kGone : std::prev(after)->second;
  }

  Violations& violations_;
  std::map<std::string, Instance> instances_;
};

}  // namespace uccp::sim
