// What quotas count beyond what runs at this moment: tasks that have not ended, what is stored, calls, topics, and what
// a calendar month has used. Shared by the services of the work group.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "services/work_types.h"

namespace uccp::work {

// By user, in the scope of the namespace.
inline constexpr machine::Table<internal::v1::TaskUse> kTaskUse(58);
// By month, namespace and user as key parts; scope as quota_scope().
inline constexpr machine::Table<internal::v1::MonthUse> kMonthUse(59);

// Calls by day and quota as key parts; scope as quota_scope().
inline constexpr machine::Table<internal::v1::RequestUse> kRequestUse(72);
inline std::string request_use_key(std::string_view day, std::string_view quota) {
  return ByteWriter().key_part(day).key_part(quota).take();
}
// What a node said of its calls longer ago than this says nothing of now, in machine time.
inline constexpr int64_t kRequestRateMs = 5'000;

// A limit on what a calendar month uses, or on what is kept; get() answers less than nothing if it is absent.
struct BudgetLimit {
  int field;
  std::string_view json_name;
  std::string_view words;  // for messages: "GPU hours of this month"
  double (*get)(const v1::QuotaLimits&);
  void (*set)(v1::QuotaLimits&, double);
};

enum class Budget : uint8_t {
  kGpuHours,
  kTpuHours,
  kCost,
  kTasksActive,
  kStorage,
  kRequestsPerSecond,
  kRequestsPerDay,
  kTopics
};
inline constexpr size_t kBudgets = 8;

inline const std::array<BudgetLimit, kBudgets>& budget_table() {
  using L = v1::QuotaLimits;
  static constexpr std::array<BudgetLimit, kBudgets> kTable = {{
      {L::kGpuHoursFieldNumber, "gpuHours", "GPU hours of this month",
       [](const L& l) { return l.has_gpu_hours() ? l.gpu_hours() : -1; }, [](L& l, double v) { l.set_gpu_hours(v); }},
      {L::kTpuHoursFieldNumber, "tpuHours", "TPU hours of this month",
       [](const L& l) { return l.has_tpu_hours() ? l.tpu_hours() : -1; }, [](L& l, double v) { l.set_tpu_hours(v); }},
      {L::kCostFieldNumber, "cost", "of the cost of this month",
       [](const L& l) { return l.has_cost() ? l.cost() : -1; }, [](L& l, double v) { l.set_cost(v); }},
      {L::kTasksActiveFieldNumber, "tasksActive", "tasks that have not ended",
       [](const L& l) { return l.has_tasks_active() ? static_cast<double>(l.tasks_active()) : -1; },
       [](L& l, double v) { l.set_tasks_active(static_cast<int32_t>(v)); }},
      {L::kStorageFieldNumber, "storage", "bytes of stored logs and artifacts",
       [](const L& l) { return l.has_storage() ? static_cast<double>(l.storage()) : -1; },
       [](L& l, double v) { l.set_storage(static_cast<uint64_t>(v)); }},
      {L::kRequestsPerSecondFieldNumber, "requestsPerSecond", "calls a second",
       [](const L& l) { return l.has_requests_per_second() ? l.requests_per_second() : -1; },
       [](L& l, double v) { l.set_requests_per_second(v); }},
      {L::kRequestsPerDayFieldNumber, "requestsPerDay", "calls of this day",
       [](const L& l) { return l.has_requests_per_day() ? l.requests_per_day() : -1; },
       [](L& l, double v) { l.set_requests_per_day(v); }},
      {L::kTopicsFieldNumber, "topics", "topics",
       [](const L& l) { return l.has_topics() ? static_cast<double>(l.topics()) : -1; },
       [](L& l, double v) { l.set_topics(static_cast<int32_t>(v)); }},
  }};
  return kTable;
}

inline const BudgetLimit& budget_limit(Budget budget) { return budget_table()[static_cast<size_t>(budget)]; }

}  // namespace uccp::work
