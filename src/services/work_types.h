// The vocabulary that the services of the work group share: tables, topics and small rules about tasks and workers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "machine/envelope.h"
#include "machine/table.h"
#include "uccp/internal/v1/work_state.pb.h"

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

// Workers serve all tenants and belong to none.
inline const machine::Scope kWorkerScope{};

inline constexpr std::string_view kTaskTopic = "tasks";
inline constexpr std::string_view kWorkerTopic = "workers";
enum class ChangeKind : uint8_t { kAdded = 1, kUpdated = 2, kRemoved = 3 };

inline constexpr size_t kAttemptHistoryMax = 20;
inline constexpr int32_t kLostAttemptsMax = 100;
inline constexpr int64_t kRetentionDefaultMs = 7LL * 24 * 3600 * 1000;
inline constexpr int32_t kPriorityDefault = 50;

// When a task that has ended is forgotten, milliseconds of machine time.
inline int64_t expiry_ms(const internal::v1::TaskRow& row) {
  const auto& retention = row.task().retention();
  return row.ended_ms() + (row.task().has_retention() ? retention.seconds() * 1000 + retention.nanos() / 1'000'000
                                                      : kRetentionDefaultMs);
}

inline bool is_terminal(v1::TaskStatus status) {
  return status == v1::TASK_STATUS_SUCCEEDED || status == v1::TASK_STATUS_FAILED ||
         status == v1::TASK_STATUS_CANCELLED || status == v1::TASK_STATUS_TIMED_OUT;
}

}  // namespace uccp::work
