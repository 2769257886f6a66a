#include "services/tasks/task_use.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "services/feature_types.h"

namespace uccp::tasks {
namespace {

using internal::v1::TaskRow;
using internal::v1::TaskUse;
using machine::ApplyContext;
using machine::KeyReader;
using machine::Scope;
using v1::ResourceQuota;

void add(ApplyContext& c, const Scope& scope, const std::string& user, int64_t active, int64_t bytes) {
  TaskUse use = work::kTaskUse.get(c.state(), scope, user).value_or(TaskUse());
  use.set_active(use.active() + active);
  use.set_bytes(use.bytes() + bytes);
  if (use.active() == 0 && use.bytes() == 0) work::kTaskUse.erase(c.state(), scope, user);
  else work::kTaskUse.put(c.state(), scope, user, use);
}

void set_bytes(ApplyContext& c, const Scope& scope, TaskRow& row, int64_t bytes) {
  if (bytes == row.stored_bytes() || c.envelope().feature_level < services::kSchedulingLevel) return;
  add(c, scope, row.task().principal(), 0, bytes - row.stored_bytes());
  row.set_stored_bytes(bytes);
}

// How many tasks it counts as.
int64_t weight_of(const v1::Task& task) { return task.has_array() ? task.array().size() : 1; }

ResourceQuota named(v1::QuotaScope scope, const std::string& name_space, const std::string& user) {
  ResourceQuota quota;
  quota.set_scope(scope);
  quota.set_namespace_(name_space);
  quota.set_subject(user);
  return quota;
}

}  // namespace

void count_active(ApplyContext& c, const Scope& scope, TaskRow& row, bool active) {
  // Nodes of before do not count, and the state has to be equal on all.
  if (row.counted() == active || c.envelope().feature_level < services::kSchedulingLevel) return;
  row.set_counted(active);
  add(c, scope, row.task().principal(), active ? weight_of(row.task()) : -weight_of(row.task()), 0);
  if (!row.task().has_gang()) return;
  const std::string& id = row.task().gang().id();
  internal::v1::GangRow gang = work::kGangs.get(c.state(), scope, id).value_or(internal::v1::GangRow());
  gang.set_active(gang.active() + (active ? 1 : -1));
  if (gang.active() > 0) work::kGangs.put(c.state(), scope, id, gang);
  else work::kGangs.erase(c.state(), scope, id);
}

void count_bytes(ApplyContext& c, const Scope& scope, TaskRow& row) {
  uint64_t bytes = 0;
  for (const v1::Artifact& artifact : row.task().artifacts()) bytes += artifact.size();
  for (const internal::v1::AttemptLog& log : row.logs()) {
    for (const internal::v1::LogBlob& blob : log.blobs()) bytes += blob.blob().size();
  }
  set_bytes(c, scope, row, static_cast<int64_t>(bytes));
}

void forget_bytes(ApplyContext& c, const Scope& scope, TaskRow& row) { set_bytes(c, scope, row, 0); }

ResourceQuota with_template(const KeyReader& state, const std::string& tenant, ResourceQuota quota) {
  if (quota.template_().empty()) return quota;
  const auto from = work::kQuotas.get(state, work::quota_scope(tenant), "template:" + quota.template_());
  if (!from) return quota;
  const auto merge = [](const v1::QuotaLimits& base, v1::QuotaLimits& own) {
    v1::QuotaLimits merged = base;
    merged.MergeFrom(own);
    own = std::move(merged);
  };
  merge(from->hard(), *quota.mutable_hard());
  merge(from->soft(), *quota.mutable_soft());
  merge(from->lend(), *quota.mutable_lend());
  if (quota.weight() == 0) quota.set_weight(from->weight());
  if (quota.burst_factor() == 0) quota.set_burst_factor(from->burst_factor());
  if (!quota.has_burst_duration() && from->has_burst_duration())
    *quota.mutable_burst_duration() = from->burst_duration();
  if (quota.alert_thresholds().empty()) *quota.mutable_alert_thresholds() = from->alert_thresholds();
  return quota;
}

std::vector<ResourceQuota> quota_way(const KeyReader& state, const Scope& scope, const std::string& user) {
  std::vector<ResourceQuota> way;
  std::set<std::string> seen;
  const Scope of_tenant = work::quota_scope(scope.tenant);
  for (const ResourceQuota& start :
       {named(v1::QUOTA_SCOPE_USER, scope.name_space, user), named(v1::QUOTA_SCOPE_NAMESPACE, scope.name_space, ""),
        named(v1::QUOTA_SCOPE_GLOBAL, "", "")}) {
    for (std::string key = work::quota_key(start); !key.empty() && seen.insert(key).second;) {
      auto quota = work::kQuotas.get(state, of_tenant, key);
      if (!quota) break;
      key = work::quota_parent(*quota);
      way.push_back(std::move(*quota));
    }
  }
  return way;
}

TaskUse task_use(const KeyReader& state, const std::string& tenant, const ResourceQuota& quota) {
  TaskUse sum;
  const auto take = [&](const TaskUse& use) {
    sum.set_active(sum.active() + use.active());
    sum.set_bytes(sum.bytes() + use.bytes());
  };
  const Scope scope{tenant, quota.namespace_()};
  if (quota.scope() == v1::QUOTA_SCOPE_USER)
    return work::kTaskUse.get(state, scope, quota.subject()).value_or(TaskUse());
  if (quota.scope() == v1::QUOTA_SCOPE_NAMESPACE) {
    work::kTaskUse.scan(state, scope, "", "", [&](std::string_view, const TaskUse& use) {
      take(use);
      return true;
    });
    return sum;
  }
  const std::string key = work::quota_key(quota);
  work::kTaskUse.scan_all(state, [&](const Scope& where, std::string_view user, const TaskUse& use) {
    if (where.tenant != tenant) return true;
    const auto way = quota_way(state, where, std::string(user));
    if (std::ranges::any_of(way, [&](const ResourceQuota& one) { return work::quota_key(one) == key; })) take(use);
    return true;
  });
  return sum;
}

Status check_room(ApplyContext& c, const v1::Task& task) {
  if (c.envelope().feature_level < services::kSchedulingLevel) return Status::ok();
  for (const ResourceQuota& stored : quota_way(c.state(), c.scope(), task.principal())) {
    const ResourceQuota quota = with_template(c.state(), c.scope().tenant, stored);
    const double active = work::budget_limit(work::Budget::kTasksActive).get(quota.hard());
    const double storage = work::budget_limit(work::Budget::kStorage).get(quota.hard());
    if (active < 0 && storage < 0) continue;
    const TaskUse use = task_use(c.state(), c.scope().tenant, quota);
    if (active >= 0 && static_cast<double>(use.active() + weight_of(task)) > active) {
      return Status(Code::kExhausted, "QUOTA_TASKS_EXHAUSTED",
                    fmt::format("the quota {} has {} of {} tasks that have not ended, and this would add {}; wait for "
                                "some to end",
                                work::quota_key(quota), use.active(), active, weight_of(task)))
          .with_resource("quota", work::quota_key(quota))
          .with_help("quotas.md#limits");
    }
    if (storage >= 0 && static_cast<double>(use.bytes()) >= storage) {
      return Status(Code::kExhausted, "QUOTA_STORAGE_EXHAUSTED",
                    fmt::format("the quota {} has {} of {} bytes of logs and artifacts; they go with the retention of "
                                "their tasks",
                                work::quota_key(quota), use.bytes(), storage))
          .with_resource("quota", work::quota_key(quota))
          .with_help("quotas.md#limits");
    }
  }
  return Status::ok();
}

}  // namespace uccp::tasks
