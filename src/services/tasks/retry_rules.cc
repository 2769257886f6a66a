#include "services/tasks/retry_rules.h"

#include <algorithm>

#include "services/message_types.h"

namespace uccp::tasks {
namespace {

using internal::v1::AttemptOutcome;
using internal::v1::TaskRow;

v1::FailureClass class_of(const AttemptOutcome& outcome) {
  switch (outcome.kind()) {
    case v1::ATTEMPT_OUTCOME_KIND_EXITED: return v1::FAILURE_CLASS_EXIT_CODE;
    case v1::ATTEMPT_OUTCOME_KIND_SIGNALLED: return v1::FAILURE_CLASS_SIGNAL;
    case v1::ATTEMPT_OUTCOME_KIND_TIMED_OUT: return v1::FAILURE_CLASS_TIMEOUT;
    case v1::ATTEMPT_OUTCOME_KIND_LAUNCH_FAILED: return v1::FAILURE_CLASS_LAUNCH;
    default: return v1::FAILURE_CLASS_UNSPECIFIED;
  }
}

std::string class_word(v1::FailureClass one) {
  return v1::FailureClass_Name(one).substr(std::string_view("FAILURE_CLASS_").size());
}

template <typename List, typename Value>
bool has(const List& list, const Value& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

}  // namespace

bool costs_a_retry(const AttemptOutcome& outcome) {
  return outcome.kind() != v1::ATTEMPT_OUTCOME_KIND_LOST && outcome.kind() != v1::ATTEMPT_OUTCOME_KIND_PREEMPTED &&
         !outcome.worker_fault();
}

v1::TaskStatus status_of(const AttemptOutcome& outcome, const TaskRow& row) {
  using namespace v1;
  switch (outcome.kind()) {
    case ATTEMPT_OUTCOME_KIND_EXITED:
      if (outcome.exit_code() == 0) return TASK_STATUS_SUCCEEDED;
      break;
    case ATTEMPT_OUTCOME_KIND_TIMED_OUT: return TASK_STATUS_TIMED_OUT;
    case ATTEMPT_OUTCOME_KIND_CANCELLED: return row.deadline_passed() ? TASK_STATUS_TIMED_OUT : TASK_STATUS_CANCELLED;
    default: break;
  }
  if (row.deadline_passed()) return TASK_STATUS_TIMED_OUT;
  return row.cancel_requested() ? TASK_STATUS_CANCELLED : TASK_STATUS_FAILED;
}

RetryDecision decide_retry(const AttemptOutcome& outcome, const TaskRow& row, v1::TaskStatus status, int64_t next_ms) {
  const v1::Task& task = row.task();
  if (row.cancel_requested() || status == v1::TASK_STATUS_CANCELLED) return {};
  // A service runs until somebody stops it, however its command ends; a stream until its command says that it is over.
  if (task.type() == v1::TASK_TYPE_SERVICE) return {.again = true};
  if (status == v1::TASK_STATUS_SUCCEEDED) return {};
  if (task.type() == v1::TASK_TYPE_STREAMING) return {.again = true};
  if (!costs_a_retry(outcome)) return {.again = row.lost_attempts() < work::kLostAttemptsMax};
  const v1::RetryPolicy& policy = task.retry();
  if (task.retry_count() + 1 >= std::max(1, policy.max_attempts())) return {};
  if (outcome.kind() == v1::ATTEMPT_OUTCOME_KIND_EXITED &&
      has(policy.non_retryable_exit_codes(), outcome.exit_code())) {
    return {.refused_by = "nonRetryableExitCodes has " + std::to_string(outcome.exit_code())};
  }
  if (has(policy.non_retryable(), class_of(outcome)))
    return {.refused_by = "nonRetryable has " + class_word(class_of(outcome))};
  if (policy.has_budget() && next_ms - row.created_ms() > services::ms_of(policy.budget()))
    return {.refused_by = "its budget of time is used up"};
  return {.again = true};
}

int64_t ran_ms(const AttemptOutcome& outcome) {
  if (!outcome.has_start_time()) return 0;
  return std::max<int64_t>(0, (services::us_of(outcome.end_time()) - services::us_of(outcome.start_time())) / 1000);
}

}  // namespace uccp::tasks
