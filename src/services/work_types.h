// The vocabulary that the services of the work group share: tables, topics and small rules about tasks and workers.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "machine/envelope.h"
#include "machine/table.h"
#include "uccp/internal/v1/work_state.pb.h"
#include "uccp/v1/resources.pb.h"

namespace uccp::work {

// Tables of the work group; the numbers are part of the on-disk format.
inline constexpr machine::Table<internal::v1::TaskRow> kTasks(32);
// (tenant, namespace, id) of tasks that have not ended; for a new leader and for counts.
inline constexpr machine::BytesTable kActiveTasks(33);
// id of a dependency, id of a task that waits for it.
inline constexpr machine::BytesTable kDependents(34);
inline constexpr machine::Table<internal::v1::WorkerRow> kWorkers(35);
// (machine time at which it is forgotten, tenant, namespace, id) of each task that has ended; kept in the empty scope.
inline constexpr machine::BytesTable kTaskExpiry(36);

// What each quota limits; key as quota_key() says, scope as quota_scope().
inline constexpr machine::Table<v1::ResourceQuota> kQuotas(37);

// Name of an actor, id of its task: of the living one, or else of the last one that had the name.
inline constexpr machine::BytesTable kActorNames(38);

// Where elements of arrays stand: key part id of the array, u32 number of the row.
inline constexpr machine::Table<internal::v1::ElementStates> kElementStates(39);
// What sets an element apart from its array, if its states do not say all: key part id of the array, u32 index.
inline constexpr machine::Table<internal::v1::TaskRow> kElements(47);
inline constexpr uint32_t kElementsPerRow = 256;

// Gangs of which a task has not ended, by their ids.
inline constexpr machine::Table<internal::v1::GangRow> kGangs(71);

// Workers serve all tenants and belong to none.
inline const machine::Scope kWorkerScope{};

inline constexpr std::string_view kTaskTopic = "tasks";
inline constexpr std::string_view kWorkerTopic = "workers";
inline constexpr std::string_view kQuotaTopic = "quotas";
enum class ChangeKind : uint8_t { kAdded = 1, kUpdated = 2, kRemoved = 3 };

inline constexpr size_t kAttemptHistoryMax = 20;
inline constexpr int32_t kLostAttemptsMax = 100;
// Faults of a worker within the window that put it into quarantine, whose length is doubled with each one in a row up
// to this. Afterwards it is on probation: one attempt at a time, until so many have ended without a fault.
inline constexpr int kWorkerFaultsMax = 3;
inline constexpr int64_t kWorkerFaultWindowMs = 300'000;
inline constexpr int64_t kQuarantineMsMax = 3'600'000;
inline constexpr int32_t kProbationAttempts = 3;
// Tasks that a CRON, EVENT or SYSTEM task may have made and that have not ended.
inline constexpr int kMadeTasksMax = 10'000;
inline constexpr int kMadeByTimeMax = 100;
inline constexpr size_t kCheckpointsMax = 16;
// Dead letters are kept so many times as long as other tasks.
inline constexpr int64_t kDeadLetterRetention = 4;
// Label by which a task is bound to one worker.
inline constexpr std::string_view kWorkerLabel = "uccp/worker";
inline constexpr int64_t kRetentionDefaultMs = 7LL * 24 * 3600 * 1000;
inline constexpr int32_t kPriorityDefault = 50;

// Quotas are of a tenant; namespaces are among what they limit.
inline machine::Scope quota_scope(const std::string& tenant) { return {tenant, ""}; }

// "namespace:default", "user:default/alice", "team:search", "project:web", "template:small", "global:".
inline std::string quota_key(const v1::ResourceQuota& quota) {
  switch (quota.scope()) {
    case v1::QUOTA_SCOPE_USER: return "user:" + quota.namespace_() + "/" + quota.subject();
    case v1::QUOTA_SCOPE_TEAM: return "team:" + quota.subject();
    case v1::QUOTA_SCOPE_PROJECT: return "project:" + quota.subject();
    case v1::QUOTA_SCOPE_GLOBAL: return "global:";
    case v1::QUOTA_SCOPE_TEMPLATE: return "template:" + quota.subject();
    default: return "namespace:" + quota.namespace_();
  }
}

// The key of the quota above, set or by default; there need not be one.
inline std::string quota_parent(const v1::ResourceQuota& quota) {
  if (!quota.parent().empty()) return quota.parent();
  switch (quota.scope()) {
    case v1::QUOTA_SCOPE_GLOBAL:
    case v1::QUOTA_SCOPE_TEMPLATE: return "";
    case v1::QUOTA_SCOPE_USER: return "namespace:" + quota.namespace_();
    default: return "global:";
  }
}

inline Status no_such_quota(const std::string& key) {
  return Status(Code::kNotFound, "QUOTA_NOT_FOUND", "there is no quota " + key).with_resource("quota", key);
}

// A limit that the scheduler enforces; get() answers less than nothing if it is absent.
struct QuotaAmount {
  int field;
  std::string_view json_name;
  double (*get)(const v1::QuotaLimits&);
  void (*set)(v1::QuotaLimits&, double);
};

inline const std::array<QuotaAmount, 7>& quota_amount_table() {
  using L = v1::QuotaLimits;
  static constexpr std::array<QuotaAmount, 7> kTable = {{
      {L::kCpuFieldNumber, "cpu", [](const L& l) { return l.has_cpu() ? l.cpu() : -1; },
       [](L& l, double v) { l.set_cpu(v); }},
      {L::kMemoryFieldNumber, "memory",
       [](const L& l) { return l.has_memory() ? static_cast<double>(l.memory()) : -1; },
       [](L& l, double v) { l.set_memory(static_cast<uint64_t>(v)); }},
      {L::kGpuFieldNumber, "gpu", [](const L& l) { return l.has_gpu() ? l.gpu() : -1; },
       [](L& l, double v) { l.set_gpu(v); }},
      {L::kTpuFieldNumber, "tpu", [](const L& l) { return l.has_tpu() ? l.tpu() : -1; },
       [](L& l, double v) { l.set_tpu(v); }},
      {L::kDiskFieldNumber, "disk", [](const L& l) { return l.has_disk() ? static_cast<double>(l.disk()) : -1; },
       [](L& l, double v) { l.set_disk(static_cast<uint64_t>(v)); }},
      {L::kNetworkBpsFieldNumber, "networkBps", [](const L& l) { return l.has_network_bps() ? l.network_bps() : -1; },
       [](L& l, double v) { l.set_network_bps(v); }},
      {L::kTasksRunningFieldNumber, "tasksRunning",
       [](const L& l) { return l.has_tasks_running() ? static_cast<double>(l.tasks_running()) : -1; },
       [](L& l, double v) { l.set_tasks_running(static_cast<int32_t>(v)); }},
  }};
  return kTable;
}

// When a task that has ended is forgotten, milliseconds of machine time.
inline int64_t expiry_ms(const internal::v1::TaskRow& row) {
  const auto& retention = row.task().retention();
  const int64_t kept =
      row.task().has_retention() ? retention.seconds() * 1000 + retention.nanos() / 1'000'000 : kRetentionDefaultMs;
  return row.ended_ms() + kept * (row.task().dead_letter() ? kDeadLetterRetention : 1);
}

// Tasks of these types never run: they make tasks that do.
inline bool makes_tasks(v1::TaskType type) {
  return type == v1::TASK_TYPE_CRON || type == v1::TASK_TYPE_EVENT || type == v1::TASK_TYPE_SYSTEM;
}

inline bool is_terminal(v1::TaskStatus status) {
  return status == v1::TASK_STATUS_SUCCEEDED || status == v1::TASK_STATUS_FAILED ||
         status == v1::TASK_STATUS_CANCELLED || status == v1::TASK_STATUS_TIMED_OUT;
}

}  // namespace uccp::work
