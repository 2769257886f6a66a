#include "services/tasks/tasks_state.h"

#include <algorithm>

#include "machine/planted.h"
#include "machine/stable_bytes.h"
#include "services/feature_types.h"
#include "services/message_types.h"
#include "services/tasks/retry_rules.h"
#include "services/tasks/task_arrays.h"
#include "services/tasks/task_rows.h"
#include "services/tasks/task_use.h"
#include "services/tasks/worker_trust.h"

namespace uccp::tasks {
namespace {

using internal::v1::AttemptOutcome;
using internal::v1::TaskRow;
using machine::ApplyContext;
using machine::ApplyResult;
using machine::Scope;
using services::parse;
using services::set_wall;
using v1::Task;
using work::ChangeKind;
using work::is_terminal;

// Rows of elements that go with one command.
constexpr size_t kElementsPrunedMax = 1'000;

}  // namespace

std::map<std::string, machine::ApplyFunction, std::less<>> TasksState::commands() {
  return {{"schedule", schedule},
          {"cancel", cancel},
          {"outcomes", outcomes},
          {"set_priority", set_priority},
          {"schedule_graph", schedule_graph},
          {"resume", resume},
          {"deadline", deadline},
          {"checkpoint", checkpoint},
          {"fire", fire},
          {"stop_gangs", stop_gangs},
          {"prune", prune}};
}

ApplyResult TasksState::schedule(ApplyContext& c, std::string_view payload) {
  auto row = parse<TaskRow>(payload);
  UCCP_RETURN_IF_ERROR(accept(c, row));
  return machine::stable_bytes(row.task());
}

namespace {

// Some elements of an array, or what is left of all. The array ends with the last of them.
void cancel_elements(ApplyContext& c, TaskRow& array, const internal::v1::CancelCommand& command,
                     const std::string& reason) {
  const bool whole = command.elements().only().empty();
  if (whole) {
    array.set_cancel_requested(true);
    array.set_cancel_grace_ms(command.grace_ms());
    array.mutable_task()->set_status(v1::TASK_STATUS_STOPPING);
    array.mutable_task()->set_status_reason(reason);
  }
  const auto asked = end_elements(c, c.scope(), array, command.elements(), v1::TASK_STATUS_CANCELLED);
  store_task(c, c.scope(), array, ChangeKind::kUpdated);
  for (size_t i = 0; !whole && i < asked.size(); ++i) {
    TaskRow element = element_row(c.state(), c.scope(), array, asked[i]);
    element.set_cancel_grace_ms(command.grace_ms());
    element.mutable_task()->set_status_reason(reason);
    store_task(c, c.scope(), element, ChangeKind::kUpdated);
  }
  auto now = work::kTasks.get(c.state(), c.scope(), array.task().id());
  end_if_over(c, c.scope(), *now);
  array = std::move(*now);
}

}  // namespace

ApplyResult TasksState::cancel(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::CancelCommand>(payload);
  auto row = find_task(c.state(), c.scope(), command.id());
  if (!row) return fail(no_such_task(command.id()));
  // Cancelling what has ended is no error: the caller wanted it to be over.
  if (is_terminal(row->task().status())) return machine::stable_bytes(row->task());
  const std::string reason = command.reason().empty() ? "cancelled by " + c.envelope().principal : command.reason();
  if (is_array(row->task()) &&
      (row->task().status() != v1::TASK_STATUS_PENDING || command.elements().only_size() > 0)) {
    cancel_elements(c, *row, command, reason);
    return machine::stable_bytes(row->task());
  }
  row->set_cancel_requested(true);
  row->set_cancel_grace_ms(command.grace_ms());
  if (command.final() || row->task().status() == v1::TASK_STATUS_PENDING) {
    end_task(c, c.scope(), *row, command.timed_out() ? v1::TASK_STATUS_TIMED_OUT : v1::TASK_STATUS_CANCELLED, reason);
    // What a SYSTEM task keeps running ends with it; runs of a schedule that have begun go on.
    for (int i = 0; row->task().type() == v1::TASK_TYPE_SYSTEM && i < row->made_size(); ++i) {
      auto made = work::kTasks.get(c.state(), c.scope(), row->made(i));
      if (made) stop_task(c, *made, reason);
    }
  } else {
    row->mutable_task()->set_status(v1::TASK_STATUS_STOPPING);
    row->mutable_task()->set_status_reason(reason);
    store_task(c, c.scope(), *row, ChangeKind::kUpdated);
  }
  return machine::stable_bytes(row->task());
}

namespace {

void record_attempt(TaskRow& row, const AttemptOutcome& outcome) {
  Task& task = *row.mutable_task();
  task.set_attempts(outcome.attempt().attempt_number());
  task.set_worker_id(outcome.attempt().worker_id());
  v1::Attempt& attempt = *task.add_attempt_history();
  attempt.set_number(outcome.attempt().attempt_number());
  attempt.set_worker_id(outcome.attempt().worker_id());
  if (outcome.has_start_time()) *attempt.mutable_start_time() = outcome.start_time();
  *attempt.mutable_end_time() = outcome.end_time();
  attempt.set_outcome(outcome.kind());
  if (outcome.has_exit_code()) attempt.set_exit_code(outcome.exit_code());
  attempt.set_signal(outcome.signal());
  attempt.set_reason(outcome.message());
  *attempt.mutable_usage() = outcome.usage();
  while (task.attempt_history_size() > static_cast<int>(work::kAttemptHistoryMax)) {
    task.mutable_attempt_history()->DeleteSubrange(0, 1);
    if (row.logs_size() > static_cast<int>(work::kAttemptHistoryMax)) row.mutable_logs()->DeleteSubrange(0, 1);
  }
  internal::v1::AttemptLog& log = *row.add_logs();
  log.set_attempt(outcome.attempt().attempt_number());
  *log.mutable_blobs() = outcome.logs();
  log.set_truncated(outcome.log_truncated());
  if (outcome.has_start_time()) *task.mutable_start_time() = outcome.start_time();
  if (outcome.has_exit_code()) task.set_exit_code(outcome.exit_code());
  else task.clear_exit_code();
  task.set_signal(outcome.signal());
  *task.mutable_usage() = outcome.usage();
  *task.mutable_artifacts() = outcome.artifacts();
  if (outcome.has_value()) *task.mutable_value() = outcome.value();
}

// An attempt of a gang ended: it has had its start, unless all of it was told to stop and this task starts anew.
void note_gang(ApplyContext& c, const Scope& scope, const TaskRow& row, bool starts_anew) {
  auto gang = work::kGangs.get(c.state(), scope, row.task().gang().id());
  if (!gang) return;
  const bool again = starts_anew && row.has_stopped() && row.stopped().number() == row.task().attempts();
  if (gang->begun() == !again) return;
  gang->set_begun(!again);
  work::kGangs.put(c.state(), scope, row.task().gang().id(), *gang);
}

Awaited awaited_of(ApplyContext& c, const internal::v1::OutcomesCommand& command) {
  Awaited::Ranges ids;
  for (const auto& item : command.items()) {
    const internal::v1::AttemptId& attempt = item.outcome().attempt();
    const std::string& id = attempt.task_id();
    auto& [first, last] = ids.try_emplace({attempt.tenant(), attempt.namespace_()}, id, id).first->second;
    if (id < first) first = id;
    if (id > last) last = id;
  }
  return {c.state(), ids};
}

bool apply_outcome(ApplyContext& c, const internal::v1::OutcomeItem& item, int64_t quarantine_ms,
                   const Awaited& awaited) {
  const AttemptOutcome& outcome = item.outcome();
  const Scope scope{outcome.attempt().tenant(), outcome.attempt().namespace_()};
  auto row = find_task(c.state(), scope, outcome.attempt().task_id());
  const auto worker = work::kWorkers.get(c.state(), work::kWorkerScope, outcome.attempt().worker_id());
  if (!row || is_terminal(row->task().status())) return false;
  if (outcome.attempt().attempt_number() != row->task().attempts() + 1) return false;
  // The leader itself reports what was lost with a fenced epoch; all else must come from the present one.
  const bool lost = outcome.kind() == v1::ATTEMPT_OUTCOME_KIND_LOST;
  const bool fenced = !worker || worker->epoch() != outcome.attempt().worker_epoch();
  if (!lost && fenced && !machine::planted_bug("no_fence")) return false;
  const v1::TaskStatus status = status_of(outcome, *row);
  const RetryDecision decision = decide_retry(outcome, *row, status, c.now_ms() + item.backoff_ms());
  record_attempt(*row, outcome);
  count_bytes(c, scope, *row);
  note_outcome(c, outcome, quarantine_ms);
  if (row->task().has_gang()) note_gang(c, scope, *row, decision.again);
  Task& task = *row->mutable_task();
  if (!costs_a_retry(outcome)) row->set_lost_attempts(row->lost_attempts() + 1);
  if (!decision.again) {
    std::string reason = outcome.message();
    // Whoever asked for the end has said why.
    const bool asked =
        status == v1::TASK_STATUS_CANCELLED || (status == v1::TASK_STATUS_TIMED_OUT && row->deadline_passed());
    if (row->cancel_requested() && asked) reason = task.status_reason();
    if (!decision.refused_by.empty()) reason += "; not tried again: " + decision.refused_by;
    const bool failed = status == v1::TASK_STATUS_FAILED || status == v1::TASK_STATUS_TIMED_OUT;
    task.set_dead_letter(failed && !row->cancel_requested() && task.retry().max_attempts() > 1 &&
                         c.envelope().feature_level >= services::kSchedulingLevel);
    end_task(c, scope, *row, status, std::move(reason), awaited);
    return true;
  }
  if (runs_on(task.type()) && ran_ms(outcome) >= kServiceSteadyMs) task.set_retry_count(0);
  else if (costs_a_retry(outcome)) task.set_retry_count(task.retry_count() + 1);
  row->set_not_before_ms(c.now_ms() + item.backoff_ms());
  task.set_status(v1::TASK_STATUS_QUEUED);
  task.set_status_reason("attempt " + std::to_string(task.attempts()) + ": " + outcome.message());
  set_wall(task.mutable_next_attempt_time(), {c.envelope().wall.us + item.backoff_ms() * 1000});
  store_task(c, scope, *row, ChangeKind::kUpdated);
  return true;
}

}  // namespace

ApplyResult TasksState::outcomes(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::OutcomesCommand>(payload);
  internal::v1::OutcomesResult result;
  const Awaited awaited = awaited_of(c, command);
  for (const auto& item : command.items())
    result.add_accepted(apply_outcome(c, item, command.quarantine_ms(), awaited));
  return machine::stable_bytes(result);
}

ApplyResult TasksState::set_priority(ApplyContext& c, std::string_view payload) {
  const auto request = parse<v1::UpdateTaskPriorityRequest>(payload);
  auto row = find_task(c.state(), c.scope(), request.id());
  if (!row) return fail(no_such_task(request.id()));
  if (is_element(row->task())) {
    return fail(Code::kFailedPrecondition, "TASK_IS_ELEMENT",
                "all elements of an array have its priority; set that of " + row->task().parent_id());
  }
  if (!request.if_match().empty() && request.if_match() != row->task().etag()) {
    return fail(Code::kConflict, "ETAG_MISMATCH", "the task changed since it was read; read it again");
  }
  if (is_terminal(row->task().status())) {
    return fail(Code::kFailedPrecondition, "TASK_ENDED", "the task has ended; its priority means nothing any more");
  }
  row->mutable_task()->set_priority(request.priority());
  store_task(c, c.scope(), *row, ChangeKind::kUpdated);
  return machine::stable_bytes(row->task());
}

ApplyResult TasksState::prune(ApplyContext& c, std::string_view payload) {
  for (const auto& key : parse<internal::v1::PruneCommand>(payload).tasks()) {
    const Scope scope{key.tenant(), key.namespace_()};
    auto row = work::kTasks.get(c.state(), scope, key.id());
    if (!row || !is_terminal(row->task().status())) continue;
    // Comes again while there is more: one command does not take long.
    if (is_array(row->task()) && !erase_elements(c, scope, *row, kElementsPrunedMax)) continue;
    work::kTaskExpiry.erase(c.state(), {}, expiry_key(scope, *row));
    forget_bytes(c, scope, *row);
    work::kTasks.erase(c.state(), scope, key.id());
    if (const std::string& name = row->task().function().actor().name();
        !name.empty() && work::kActorNames.get(c.state(), scope, name) == key.id())
      work::kActorNames.erase(c.state(), scope, name);
    c.emit_in(scope, work::kTaskTopic, key.id(), static_cast<uint8_t>(ChangeKind::kRemoved),
              machine::stable_bytes(*row));
  }
  return std::string();
}

}  // namespace uccp::tasks
