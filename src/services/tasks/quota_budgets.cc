#include "services/tasks/quota_budgets.h"

#include <absl/time/civil_time.h>
#include <absl/time/time.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "services/message_types.h"
#include "services/tasks/request_keeper.h"
#include "services/tasks/resources_service.h"
#include "services/tasks/task_use.h"

namespace uccp::tasks {
namespace {

constexpr double kHourMs = 3'600'000;
constexpr double kBurstMsDefault = 600'000;
constexpr std::array<double, 2> kThresholds = {0.8, 1};
// A threshold is told again once the use was so far below it.
constexpr double kRearmed = 0.05;

void add(QuotaBudgets::Charge& to, const QuotaBudgets::Charge& one) {
  to.gpu_ms += one.gpu_ms;
  to.tpu_ms += one.tpu_ms;
  to.cost_millionths += one.cost_millionths;
}

bool is_nothing(const QuotaBudgets::Charge& one) {
  return one.gpu_ms == 0 && one.tpu_ms == 0 && one.cost_millionths == 0;
}

QuotaBudgets::Charge charge_of(const internal::v1::MonthUse& use) {
  return {.gpu_ms = use.gpu_ms(), .tpu_ms = use.tpu_ms(), .cost_millionths = use.cost_millionths()};
}

bool is_of_month(work::Budget budget) {
  return budget == work::Budget::kGpuHours || budget == work::Budget::kTpuHours || budget == work::Budget::kCost;
}

bool has_month_budget(const v1::ResourceQuota& quota) {
  for (size_t i = 0; i < work::kBudgets; ++i) {
    if (is_of_month(static_cast<work::Budget>(i)) && work::budget_table()[i].get(quota.hard()) >= 0) return true;
  }
  return false;
}

// What a budget that is used up keeps from starting: tasks with GPUs, with TPUs, or all.
size_t unit_of(work::Budget budget) {
  if (budget == work::Budget::kGpuHours) return static_cast<size_t>(QuotaUnit::kGpu);
  if (budget == work::Budget::kTpuHours) return static_cast<size_t>(QuotaUnit::kTpu);
  return static_cast<size_t>(QuotaUnit::kTasks);
}

bool is_beyond(const QuotaAmounts& used, const v1::ResourceQuota& definition) {
  v1::QuotaLimits now;
  set_limits(now, used);
  return std::ranges::any_of(work::quota_amount_table(), [&](const work::QuotaAmount& unit) {
    const double hard = unit.get(definition.hard());
    return hard >= 0 && unit.get(now) > hard;
  });
}

}  // namespace

std::string month_of(WallTime wall) {
  const absl::CivilMonth month = absl::ToCivilMonth(absl::FromUnixMicros(wall.us), absl::UTCTimeZone());
  return fmt::format("{:04}-{:02}", month.year(), month.month());
}

void QuotaBudgets::clear() {
  CountTopics count = std::move(count_topics_);
  *this = {};
  count_topics_ = std::move(count);
}

void QuotaBudgets::begin_month(const std::string& month) {
  if (month == month_) return;
  month_ = month;
  // What is not charged yet is of the month before, by seconds: it is counted to the new one.
  for (auto& [owner, use] : uses_) use.charged = {};
}

void QuotaBudgets::load(const machine::KeyReader& state, WallTime now) {
  begin_month(month_of(now));
  work::kMonthUse.scan_all(state,
                           [&](const machine::Scope& scope, std::string_view, const internal::v1::MonthUse& use) {
                             if (use.month() == month_)
                               add(uses_[{scope.tenant, use.namespace_(), use.user()}].charged, charge_of(use));
                             return true;
                           });
}

void QuotaBudgets::set(const std::string& tenant, const std::string& key, const v1::ResourceQuota& quota) {
  quotas_[{tenant, key}].definition = quota;
}

void QuotaBudgets::remove(const std::string& tenant, const std::string& key) { quotas_.erase({tenant, key}); }

bool QuotaBudgets::has_budgets() const {
  return std::ranges::any_of(quotas_, [](const auto& one) { return has_month_budget(one.second.definition); });
}

void QuotaBudgets::charge(const QuotaBook::Owner& owner, const Charge& charge, WallTime now) {
  begin_month(month_of(now));
  if (!is_nothing(charge)) add(uses_[owner].pending, charge);
}

std::map<std::string, internal::v1::ChargeCommand> QuotaBudgets::take_pending() {
  std::map<std::string, internal::v1::ChargeCommand> commands;
  for (auto& [owner, use] : uses_) {
    if (is_nothing(use.pending)) continue;
    internal::v1::MonthUse& item = *commands[owner.tenant].add_uses();
    item.set_month(month_);
    item.set_namespace_(owner.name_space);
    item.set_user(owner.user);
    item.set_gpu_ms(use.pending.gpu_ms);
    item.set_tpu_ms(use.pending.tpu_ms);
    item.set_cost_millionths(use.pending.cost_millionths);
    add(use.charged, std::exchange(use.pending, {}));
  }
  return commands;
}

void QuotaBudgets::give_back(const std::string& tenant, const internal::v1::ChargeCommand& command) {
  for (const internal::v1::MonthUse& item : command.uses()) {
    if (item.month() != month_) continue;
    Use& use = uses_[{tenant, item.namespace_(), item.user()}];
    const Charge charge = charge_of(item);
    add(use.pending, charge);
    add(use.charged, {-charge.gpu_ms, -charge.tpu_ms, -charge.cost_millionths});
  }
}

void QuotaBudgets::sum_up(const machine::KeyReader& state, const QuotaBook& book) {
  std::map<Key, Charge> sums;
  for (const auto& [owner, use] : uses_) {
    for (const std::string& key : book.keys_of(owner)) {
      Charge& sum = sums[{owner.tenant, key}];
      add(sum, use.charged);
      add(sum, use.pending);
    }
  }
  for (auto& [key, quota] : quotas_) {
    const v1::QuotaLimits& hard = quota.definition.hard();
    v1::QuotaLimits& used = quota.used;
    used.Clear();
    const Charge& sum = sums[key];
    if (hard.has_gpu_hours()) used.set_gpu_hours(static_cast<double>(sum.gpu_ms) / kHourMs);
    if (hard.has_tpu_hours()) used.set_tpu_hours(static_cast<double>(sum.tpu_ms) / kHourMs);
    if (hard.has_cost()) used.set_cost(static_cast<double>(sum.cost_millionths) / 1e6);
    if (!hard.has_tasks_active() && !hard.has_storage()) continue;
    const internal::v1::TaskUse tasks = task_use(state, key.first, quota.definition);
    if (hard.has_tasks_active()) used.set_tasks_active(static_cast<int32_t>(tasks.active()));
    if (hard.has_storage()) used.set_storage(static_cast<uint64_t>(std::max<int64_t>(0, tasks.bytes())));
  }
}

// Calls are of all nodes, as far as they have written down what they counted.
void QuotaBudgets::count_calls(const machine::KeyReader& state, const Key& key, Quota& quota, WallTime wall,
                               int64_t machine_ms) const {
  const v1::QuotaLimits& hard = quota.definition.hard();
  if (hard.has_topics() && count_topics_)
    quota.used.set_topics(static_cast<int32_t>(count_topics_(key.first, quota.definition)));
  if (!hard.has_requests_per_day() && !hard.has_requests_per_second()) return;
  const auto use =
      work::kRequestUse.get(state, work::quota_scope(key.first), work::request_use_key(day_of(wall), key.second))
          .value_or(internal::v1::RequestUse());
  if (hard.has_requests_per_day()) quota.used.set_requests_per_day(static_cast<double>(use.calls()));
  if (!hard.has_requests_per_second()) return;
  double rate = 0;
  for (const internal::v1::NodeRequests& node : use.nodes()) {
    if (machine_ms - node.at_ms() <= work::kRequestRateMs) rate += static_cast<double>(node.rate_milli()) / 1000;
  }
  quota.used.set_requests_per_second(rate);
}

// A burst is spent while its quota is beyond its hard limits and comes back as fast while it is not. One that was spent
// has to be whole again before the next.
void QuotaBudgets::burst(const Key& key, Quota& quota, const QuotaBook& book, int64_t passed_ms) {
  if (quota.definition.burst_factor() <= 1) return;
  const double whole = quota.definition.has_burst_duration()
                           ? static_cast<double>(services::ms_of(quota.definition.burst_duration()))
                           : kBurstMsDefault;
  if (quota.burst_left_ms < 0) quota.burst_left_ms = whole;
  const bool beyond = is_beyond(book.used(key.first, key.second), quota.definition);
  quota.burst_left_ms =
      std::clamp(quota.burst_left_ms + (beyond ? -1.0 : 1.0) * static_cast<double>(passed_ms), 0.0, whole);
  const bool bursts = quota.bursts ? quota.burst_left_ms > 0 : quota.burst_left_ms >= whole;
  if (std::exchange(quota.bursts, bursts) != bursts) changed_.push_back(key);
}

void QuotaBudgets::close(const Key& key, Quota& quota) {
  std::map<size_t, std::string> closed;
  for (size_t i = 0; i < work::kBudgets; ++i) {
    const auto budget = static_cast<work::Budget>(i);
    const work::BudgetLimit& limit = work::budget_table()[i];
    const double hard = limit.get(quota.definition.hard()), used = limit.get(quota.used);
    if (!is_of_month(budget) || hard < 0 || used < hard) continue;
    closed[unit_of(budget)] =
        fmt::format("the quota {} has used {:.6g} of {:.6g} {}", key.second, used, hard, limit.words);
  }
  // What is told differs with each second; what is closed does not.
  const auto same = [](const auto& a, const auto& b) { return a.first == b.first; };
  if (!std::ranges::equal(closed, quota.closed, same)) changed_.push_back(key);
  quota.closed = std::move(closed);
}

void QuotaBudgets::alert(const Key& key, Quota& quota, const QuotaBook& book) {
  v1::QuotaLimits now = quota.used;
  set_limits(now, book.used(key.first, key.second));
  const auto look = [&](std::string_view name, double used, double hard) {
    if (hard <= 0) return;
    double reached = 0;
    const auto consider = [&](double threshold) {
      if (used / hard >= threshold) reached = std::max(reached, threshold);
    };
    if (quota.definition.alert_thresholds().empty()) std::ranges::for_each(kThresholds, consider);
    else std::ranges::for_each(quota.definition.alert_thresholds(), consider);
    double& told = quota.alerted[std::string(name)];
    if (reached > told) {
      alerts_.push_back({.tenant = key.first,
                         .key = key.second,
                         .name_space = quota.definition.namespace_(),
                         .limit = std::string(name),
                         .used = used,
                         .hard = hard,
                         .threshold = reached});
      told = reached;
    } else if (used / hard < told - kRearmed) {
      told = reached;
    }
  };
  for (const auto& limit : work::quota_amount_table())
    look(limit.json_name, std::max(0.0, limit.get(now)), limit.get(quota.definition.hard()));
  for (const auto& limit : work::budget_table())
    look(limit.json_name, std::max(0.0, limit.get(now)), limit.get(quota.definition.hard()));
}

void QuotaBudgets::refresh(const machine::KeyReader& state, const QuotaBook& book, BootTime now, WallTime wall,
                           int64_t machine_ms) {
  const int64_t passed_ms = refreshed_.us > 0 ? now.ms_since(refreshed_) : 0;
  refreshed_ = now;
  if (quotas_.empty()) return;
  begin_month(month_of(wall));
  sum_up(state, book);
  for (auto& [key, quota] : quotas_) {
    count_calls(state, key, quota, wall, machine_ms);
    burst(key, quota, book, passed_ms);
    close(key, quota);
    alert(key, quota, book);
  }
}

QuotaView QuotaBudgets::view_of(const std::string& tenant, QuotaView view) const {
  const auto found = quotas_.find({tenant, view.key});
  if (found == quotas_.end()) return view;
  const Quota& quota = found->second;
  view.closed = quota.closed;
  if (quota.definition.burst_factor() <= 1 || !quota.bursts) return view;
  for (int64_t& amount : view.hard) {
    if (amount != kUnlimited)
      amount = static_cast<int64_t>(static_cast<double>(amount) * quota.definition.burst_factor());
  }
  return view;
}

v1::QuotaLimits QuotaBudgets::used(const Key& key) const {
  const auto found = quotas_.find(key);
  return found == quotas_.end() ? v1::QuotaLimits() : found->second.used;
}

}  // namespace uccp::tasks
