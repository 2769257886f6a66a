// Quotas of calls: how many a second and a day a user, a namespace or all of a tenant may make.
//
// A call is charged to each quota on the way of its user and namespace up; the first that has nothing left refuses it,
// and then none is charged. Each node counts the calls that come to it. What others counted comes from the replicated
// state, in which each node writes down what it counted: a day's limit holds over all nodes but for what they have not
// written yet, and of a limit a second each node allows what the others leave. Callable from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace uccp::call {

class RequestQuotas {
 public:
  using Key = std::pair<std::string, std::string>;  // tenant, key of the quota: "namespace:default"

  // One quota; those without a limit of calls lead up to others. Less than nothing: not limited.
  struct Limit {
    Key key;
    std::string parent;  // key of the quota above; empty: none
    double per_second = -1;
    double per_day = -1;
  };
  // These and no others, from now on. What was counted of those that stay, stays counted.
  void set_limits(std::vector<Limit> limits);
  bool any() const { return any_.load(std::memory_order_relaxed); }

  struct Caller {
    const std::string& tenant;
    const std::string& name_space;
    const std::string& user;
    BootTime now;
    WallTime wall;  // a day begins at midnight, UTC
  };
  // Charges one call. Errors: exhausted QUOTA_REQUESTS_EXHAUSTED with the time after which to come again.
  Status admit(const Caller& caller);

  // What was counted of a quota here since the last time.
  struct Count {
    Key key;
    uint64_t calls = 0;
  };
  std::vector<Count> take_counts();
  // They were not written down: they are to be taken again.
  void give_back(const std::vector<Count>& counts);
  // What the state says of the day, in which these calls of this node are counted now.
  struct Known {
    Key key;
    uint64_t calls_of_day = 0;
    double others_per_second = 0;  // calls that other nodes take
    size_t others = 0;             // nodes that do
  };
  void set_known(const std::vector<Known>& known, const std::vector<Count>& written);
  // Quotas with a limit of calls.
  std::vector<Key> limited() const;

 private:
  struct Quota {
    Limit limit;
    double tokens = 0;
    BootTime filled;
    uint64_t known = 0;    // of the day, in the state
    uint64_t unseen = 0;   // counted here, and not among these yet
    uint64_t pending = 0;  // the part of it that was not taken yet
    double others_per_second = 0;
    size_t others = 0;

    double rate() const;
    bool is_limited() const { return limit.per_second >= 0 || limit.per_day >= 0; }
  };
  using Quotas = std::map<std::string, Quota>;

  std::vector<Quota*> way_of(Quotas& quotas, const Caller& caller) const;
  static Status check(Quota& quota, const Caller& caller);
  Quota* find(const Key& key);

  mutable std::mutex mutex_;               // of what follows
  std::map<std::string, Quotas> tenants_;  // that have a quota of calls
  std::atomic<bool> any_{false};           // without it nothing is locked
};

}  // namespace uccp::call
