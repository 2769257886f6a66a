// What the leader decides about quotas beyond what runs: budgets of a calendar month, bursts, alerts.
//
// Loop thread only. The use of months is in the replicated state; what was used since it was charged last is here, and
// is lost with the leadership. Bursts are memory of the leader: a new one begins with whole ones.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "machine/key_reader.h"
#include "services/quota_use_types.h"
#include "services/tasks/quota_book.h"

namespace uccp::tasks {

struct QuotaAlert {
  std::string tenant, key, name_space;
  std::string limit;  // as in the contract: "gpuHours"
  double used = 0, hard = 0;
  double threshold = 0;  // the share that was reached
};

class QuotaBudgets {
 public:
  using Key = std::pair<std::string, std::string>;  // tenant, key of the quota

  // What counts of a month, from the state as it is.
  void load(const machine::KeyReader& state, WallTime now);
  void clear();
  // A definition with what its template gives it.
  void set(const std::string& tenant, const std::string& key, const v1::ResourceQuota& quota);
  void remove(const std::string& tenant, const std::string& key);

  struct Charge {
    int64_t gpu_ms = 0, tpu_ms = 0, cost_millionths = 0;
  };
  void charge(const QuotaBook::Owner& owner, const Charge& charge, WallTime now);
  // What is to be charged to the state, by tenant; taken once.
  std::map<std::string, internal::v1::ChargeCommand> take_pending();
  void give_back(const std::string& tenant, const internal::v1::ChargeCommand& command);

  // How many topics a quota counts; without it none are.
  using CountTopics = std::function<uint64_t(const std::string& tenant, const v1::ResourceQuota& quota)>;
  void set_count_topics(CountTopics count) { count_topics_ = std::move(count); }

  // Time has passed: use is summed up, bursts go on or end, thresholds are looked at. `machine_ms`: machine time.
  void refresh(const machine::KeyReader& state, const QuotaBook& book, BootTime now, WallTime wall,
               int64_t machine_ms = 0);
  // The quota as it limits now: in a burst its hard limits are larger, and what is used up is closed.
  QuotaView view_of(const std::string& tenant, QuotaView view) const;
  // Quotas whose view_of() may have changed since this was asked last.
  std::vector<Key> take_changed() { return std::exchange(changed_, {}); }
  std::vector<QuotaAlert> take_alerts() { return std::exchange(alerts_, {}); }
  // What is used of the budgets of a quota, as the last refresh saw it.
  v1::QuotaLimits used(const Key& key) const;
  bool has_budgets() const;

 private:
  struct Quota {
    v1::ResourceQuota definition;
    v1::QuotaLimits used;
    double burst_left_ms = -1;  // -1: it has never been looked at
    bool bursts = true;         // may exceed its hard limits now
    std::map<size_t, std::string> closed;
    std::map<std::string, double> alerted;  // by limit: the threshold that was told last
  };
  struct Use {
    Charge charged;  // in the state, or on its way there
    Charge pending;
  };

  void sum_up(const machine::KeyReader& state, const QuotaBook& book);
  void count_calls(const machine::KeyReader& state, const Key& key, Quota& quota, WallTime wall,
                   int64_t machine_ms) const;
  void burst(const Key& key, Quota& quota, const QuotaBook& book, int64_t passed_ms);
  void close(const Key& key, Quota& quota);
  void alert(const Key& key, Quota& quota, const QuotaBook& book);
  void begin_month(const std::string& month);

  std::map<Key, Quota> quotas_;
  std::string month_;
  std::map<QuotaBook::Owner, Use> uses_;
  BootTime refreshed_;
  std::vector<Key> changed_;
  std::vector<QuotaAlert> alerts_;
  CountTopics count_topics_;
};

// "2026-11"
std::string month_of(WallTime wall);

}  // namespace uccp::tasks
