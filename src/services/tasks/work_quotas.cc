// WorkRuntime, the part about quotas and costs: what limits the scheduler, and what running costs.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/log.h"
#include "services/tasks/attempts.h"
#include "services/tasks/resources_service.h"
#include "services/tasks/task_use.h"
#include "services/tasks/topic_quotas.h"
#include "services/tasks/work_runtime.h"

namespace uccp::tasks {
namespace {

constexpr double kHourMs = 3'600'000;
constexpr uint64_t kChargeEveryTicks = 100;

// Units of the table of limits as the scheduler counts them.
constexpr std::array<double, kQuotaUnits> kScale = {1000, 1, 1, 1000, 1, 1, 1};

QuotaAmounts amounts_of(const v1::QuotaLimits& limits) {
  QuotaAmounts amounts = kNoLimits;
  for (size_t u = 0; u < kQuotaUnits; ++u) {
    const work::QuotaAmount& unit = work::quota_amount_table()[u];
    const double value = unit.get(limits);
    if (value >= 0) amounts[u] = static_cast<int64_t>(std::llround(value * kScale[u]));
  }
  return amounts;
}

}  // namespace

void set_limits(v1::QuotaLimits& out, const QuotaAmounts& amounts) {
  for (size_t u = 0; u < kQuotaUnits; ++u) {
    if (amounts[u] != kUnlimited) work::quota_amount_table()[u].set(out, static_cast<double>(amounts[u]) / kScale[u]);
  }
}

void WorkRuntime::load_quotas(const std::string& tenant) {
  const machine::GroupView view = env_.view();
  work::kQuotas.scan(view, work::quota_scope(tenant), "", "",
                     [&](std::string_view key, const v1::ResourceQuota& quota) {
                       set_quota(tenant, std::string(key), quota, view);
                       return true;
                     });
}

void WorkRuntime::set_quota(const std::string& tenant, const std::string& key, const v1::ResourceQuota& quota,
                            const machine::GroupView& view) {
  if (quota.scope() == v1::QUOTA_SCOPE_TEMPLATE) return;
  const v1::ResourceQuota whole = with_template(view, tenant, quota);
  budgets_.set(tenant, key, whole);
  scheduler_->set_quota(tenant, budgets_.view_of(tenant, {.key = key,
                                                          .parent = whole.parent(),
                                                          .hard = amounts_of(whole.hard()),
                                                          .soft = amounts_of(whole.soft()),
                                                          .lend = amounts_of(whole.lend()),
                                                          .reserve = amounts_of(whole.reserve().amounts()),
                                                          .reserve_priority = whole.reserve().min_priority()}));
  const int32_t weight = whole.weight() > 0 ? whole.weight() : 100;
  if (key.starts_with("namespace:")) scheduler_->set_weight({tenant, quota.namespace_()}, weight / 100.0);
}

void WorkRuntime::on_quota_change(const machine::Change& change) {
  if (!leading_) return;
  const std::string& tenant = change.scope.tenant;
  if (!work::kQuotas.contains(env_.view(), work::quota_scope(tenant), change.key)) {
    scheduler_->remove_quota(tenant, change.key);
    budgets_.remove(tenant, change.key);
    if (change.key.starts_with("namespace:"))
      scheduler_->set_weight({tenant, change.key.substr(change.key.find(':') + 1)}, 1);
  }
  // A template changes others.
  load_quotas(tenant);
  schedule_round();
}

void WorkRuntime::count_topics() {
  if (!env_.topics) return;
  budgets_.set_count_topics([this](const std::string& tenant, const v1::ResourceQuota& quota) {
    const auto names = namespaces_of(env_.view(), tenant, quota);
    uint64_t sum = names.empty() ? env_.topics({tenant, ""}) : 0;
    for (const std::string& name : names) sum += env_.topics({tenant, name});
    return sum;
  });
}

// Limits and use of namespaces as metrics, and of all for whoever asks.
void WorkRuntime::publish_quotas() {
  LiveTasks::QuotaUse used;
  scheduler_->quotas().each([&](const std::string& tenant, const QuotaView& quota, const QuotaAmounts& amounts) {
    used[{tenant, quota.key}] = {amounts, budgets_.used({tenant, quota.key})};
    constexpr std::string_view kPrefix = "namespace:";
    if (!quota.key.starts_with(kPrefix)) return;
    const std::string name_space = quota.key.substr(kPrefix.size());
    const auto set = [&](const char* unit, const char* what, QuotaUnit index) {
      const auto u = static_cast<size_t>(index);
      const std::string name = std::string("uccp_quota_") + unit;
      const Labels labels = {{"namespace", name_space}, {"tenant", tenant}};
      const double limit = quota.hard[u] == kUnlimited ? -1 : static_cast<double>(quota.hard[u]) / kScale[u];
      env_.metrics.gauge(name + "_limit", std::string(what) + " quota limit of a namespace; -1: none", labels)
          .set(limit);
      env_.metrics.gauge(name + "_used", std::string(what) + " quota used by a namespace", labels)
          .set(static_cast<double>(amounts[u]) / kScale[u]);
    };
    set("cpu", "CPU, cores,", QuotaUnit::kCpu);
    set("memory", "Memory, bytes,", QuotaUnit::kMemory);
    set("gpu", "GPU", QuotaUnit::kGpu);
  });
  live_.set_quota_use(std::move(used));
}

// The part of its worker that an attempt holds, and of what: the resource of which it has the largest share.
DominantShare dominant_share(const Shape& shape, const Shape& capacity) {
  DominantShare out;
  const auto consider = [&](const char* resource, int64_t amount, int64_t all) {
    const double share = all > 0 ? static_cast<double>(amount) / static_cast<double>(all) : 0;
    if (share > out.share) out = {resource, share};
  };
  consider("cpu", shape.cpu_milli, capacity.cpu_milli);
  consider("memory", shape.memory, capacity.memory);
  consider("gpu", shape.gpus, capacity.gpus);
  consider("disk", shape.disk, capacity.disk);
  consider("network", shape.network_bps, capacity.network_bps);
  for (const auto& [name, amount] : shape.counted) {
    const auto all = capacity.counted.find(name);
    if (all != capacity.counted.end()) consider("other", amount, all->second);
  }
  return out;
}

// Adds what the time since the last call cost: of each worker's price the share that its attempts hold.
void WorkRuntime::account_costs() {
  const BootTime now = env_.clock.boot();
  const double hours = costs_until_.us > 0 ? static_cast<double>(now.ms_since(costs_until_)) / kHourMs : 0;
  costs_until_ = now;
  std::map<std::string, double> by_resource;
  std::map<std::pair<std::string, std::string>, double> by_namespace, by_user;
  for (const auto& [ref, attempt] : attempts_) {
    const auto worker = workers_.find(attempt.id.worker_id());
    if (worker == workers_.end() || !attempt.started) continue;
    charge_budgets(ref, attempt, worker->second, hours);
    if (worker->second.price_per_hour <= 0) continue;
    const DominantShare share = dominant_share(attempt.shape, scheduler_->usage(worker->first).capacity);
    const double cost = worker->second.price_per_hour * hours * share.share;
    if (cost <= 0) continue;
    by_resource[share.resource] += cost;
    by_namespace[{ref.tenant, ref.name_space}] += cost;
    by_user[{ref.tenant, attempt.user}] += cost;
  }
  for (const auto& [resource, cost] : by_resource) {
    env_.metrics
        .gauge("uccp_cost_total", "Cost since this node began to lead, by the resource that was held most of",
               {{"resource", resource}})
        .add(cost);
  }
  for (const auto& [key, cost] : by_namespace) {
    env_.metrics
        .gauge("uccp_cost_per_namespace", "Cost since this node began to lead, by namespace",
               {{"tenant", key.first}, {"namespace", key.second}})
        .add(cost);
  }
  for (const auto& [key, cost] : by_user) {
    env_.metrics
        .gauge("uccp_cost_per_user", "Cost since this node began to lead, by who submitted the task",
               {{"tenant", key.first}, {"user", key.second}})
        .add(cost);
  }
}

// What an attempt has used of the budgets of this month since the last call.
void WorkRuntime::charge_budgets(const TaskRef& ref, const LiveAttempt& attempt, const Worker& worker, double hours) {
  if (!budgets_.has_budgets()) return;
  const QuotaAmounts held = quota_amounts(attempt.shape);
  const double ms = hours * kHourMs;
  QuotaBudgets::Charge charge;
  charge.gpu_ms = std::llround(static_cast<double>(held[static_cast<size_t>(QuotaUnit::kGpu)]) * ms);
  charge.tpu_ms = std::llround(static_cast<double>(held[static_cast<size_t>(QuotaUnit::kTpu)]) / 1000 * ms);
  const double share = dominant_share(attempt.shape, scheduler_->usage(worker.id).capacity).share;
  charge.cost_millionths = std::llround(worker.price_per_hour * hours * share * 1e6);
  budgets_.charge({ref.tenant, ref.name_space, attempt.user}, charge, env_.clock.wall());
}

// Once a second: what time changes about quotas.
void WorkRuntime::refresh_budgets() {
  const machine::GroupView view = env_.view();
  budgets_.refresh(view, scheduler_->quotas(), env_.clock.boot(), env_.clock.wall(), machine_now_ms());
  for (const auto& [tenant, key] : budgets_.take_changed()) {
    const auto quota = work::kQuotas.get(view, work::quota_scope(tenant), key);
    if (quota) set_quota(tenant, key, *quota, view);
    schedule_round();
  }
  for (const QuotaAlert& alert : budgets_.take_alerts()) {
    log::warn("a quota is nearly used up", {{"quota", alert.key},
                                            {"tenant", alert.tenant},
                                            {"limit", alert.limit},
                                            {"used", alert.used},
                                            {"hard", alert.hard}});
    env_.metrics
        .counter("uccp_quota_alerts_total", "Times that the use of a quota reached one of its thresholds",
                 {{"tenant", alert.tenant}, {"quota", alert.key}, {"limit", alert.limit}})
        .add();
    if (env_.on_quota_alert) env_.on_quota_alert(alert);
  }
  if (ticks_ % kChargeEveryTicks != 0) return;
  for (auto& [tenant, command] : budgets_.take_pending()) {
    machine::Envelope envelope = system_command("quotas.charge", command.SerializeAsString());
    envelope.scope = work::quota_scope(tenant);
    env_.proposer.propose(
        kWorkGroup, std::move(envelope), [this, tenant, command](const Result<machine::Applied>& applied) {
          if (!applied) {
            if (leading_) budgets_.give_back(tenant, command);
            return;
          }
          env_.metrics
              .counter("uccp_quota_charges_total", "Times that the use of budgets of the month was written down")
              .add();
        });
  }
}

namespace {

// What a quota says of calls and topics; empty if it has room for them.
std::string budget_refusal(const std::string& key, const v1::QuotaLimits& hard, const v1::QuotaLimits& used,
                           int32_t topics) {
  const auto look = [&](work::Budget budget, double asked) -> std::string {
    const work::BudgetLimit& limit = work::budget_limit(budget);
    const double most = limit.get(hard), now = std::max(0.0, limit.get(used));
    if (most < 0 || asked <= 0 || now + asked <= most) return {};
    return fmt::format("the quota {} has {:.6g} of {:.6g} {}, {:.6g} more are asked for", key, now, most, limit.words,
                       asked);
  };
  // The task itself is a call.
  if (std::string why = look(work::Budget::kRequestsPerDay, 1); !why.empty()) return why;
  return look(work::Budget::kTopics, topics);
}

}  // namespace

Status WorkRuntime::explain_quota(const std::string& tenant, const v1::ExplainQuotaRequest& request,
                                  v1::QuotaExplanation& out) {
  if (!leading_)
    return Status(Code::kUnavailable, "WORK_NOT_READY", "the scheduler is starting; ask again in a moment");
  load_quotas(tenant);  // whoever has just set one asks with it: its change may still be on its way here
  const machine::GroupView view = env_.view();
  budgets_.refresh(view, scheduler_->quotas(), env_.clock.boot(), env_.clock.wall(), machine_now_ms());
  Shape shape{.cpu_milli = std::llround(request.cpu() * 1000), .memory = static_cast<int64_t>(request.memory())};
  shape.gpus = static_cast<int64_t>(std::ceil(request.gpu()));
  const int32_t priority = request.has_priority() ? request.priority() : work::kPriorityDefault;
  const auto steps =
      scheduler_->quotas().steps({tenant, request.namespace_(), request.user()}, quota_amounts(shape), priority);
  if (steps.empty()) {
    return Status(
        Code::kNotFound, "QUOTA_NOT_FOUND",
        "no quota limits the namespace " + request.namespace_() + ", nor the user, nor all; everything is admitted");
  }
  out.set_admitted(true);
  for (const QuotaBook::Step& step : steps) {
    v1::QuotaStep& item = *out.add_steps();
    const auto stored = work::kQuotas.get(view, work::quota_scope(tenant), step.quota->key);
    const v1::QuotaLimits hard = stored ? with_template(view, tenant, *stored).hard() : v1::QuotaLimits();
    const v1::QuotaLimits used = budgets_.used({tenant, step.quota->key});
    const std::string budget = budget_refusal(step.quota->key, hard, used, request.topics());
    const std::string& refusal = step.refusal.empty() ? budget : step.refusal;
    item.set_quota(step.quota->key);
    item.set_room(refusal.empty());
    item.set_message(refusal.empty() ? "it has room" : refusal);
    *item.mutable_hard() = hard;
    set_limits(*item.mutable_hard(), step.quota->hard);
    set_limits(*item.mutable_soft(), step.quota->soft);
    *item.mutable_used() = used;
    set_limits(*item.mutable_used(), step.used);
    if (refusal.empty()) continue;
    if (out.admitted()) out.set_summary((step.refusal.empty() ? "it would be refused: " : "it would wait: ") + refusal);
    out.set_admitted(false);
  }
  if (out.admitted())
    out.set_summary("it would be admitted: each of " + std::to_string(steps.size()) + " quotas has room");
  return Status::ok();
}

}  // namespace uccp::tasks
