#include "services/tasks/tasks_state.h"

#include <algorithm>

#include "base/bytes.h"
#include "machine/planted.h"
#include "services/message_types.h"

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

std::string dependent_key(std::string_view dependency, std::string_view task) {
  return ByteWriter().key_part(dependency).raw(task).take();
}

std::string expiry_key(const Scope& scope, const TaskRow& row) {
  ByteWriter key;
  key.u64(static_cast<uint64_t>(work::expiry_ms(row))).key_part(scope.tenant).key_part(scope.name_space);
  return key.raw(row.task().id()).take();
}

// Writes a changed row and tells watchers.
void store(ApplyContext& c, const Scope& scope, TaskRow& row, ChangeKind kind) {
  Task& task = *row.mutable_task();
  task.set_revision(c.index().value);
  task.set_etag(std::to_string(c.index().value));
  set_wall(task.mutable_update_time(), c.envelope().wall);
  work::kTasks.put(c.state(), scope, task.id(), row);
  c.emit_in(scope, work::kTaskTopic, task.id(), static_cast<uint8_t>(kind), row.SerializeAsString());
}

bool satisfied(v1::DependencyCondition condition, v1::TaskStatus status) {
  switch (condition) {
    case v1::DEPENDENCY_CONDITION_COMPLETED: return true;
    case v1::DEPENDENCY_CONDITION_FAILED: return status != v1::TASK_STATUS_SUCCEEDED;
    default: return status == v1::TASK_STATUS_SUCCEEDED;
  }
}

std::string status_word(v1::TaskStatus status) {
  return v1::TaskStatus_Name(status).substr(std::string_view("TASK_STATUS_").size());
}

// Ends one task. What waits for it is settled by the caller.
void end_one(ApplyContext& c, const Scope& scope, TaskRow& row, v1::TaskStatus status, std::string reason) {
  Task& task = *row.mutable_task();
  task.set_status(status);
  task.set_status_reason(std::move(reason));
  task.clear_next_attempt_time();
  set_wall(task.mutable_end_time(), c.envelope().wall);
  row.set_ended_ms(c.now_ms());
  for (const std::string& dependency : row.waiting_for()) {
    work::kDependents.erase(c.state(), scope, dependent_key(dependency, task.id()));
  }
  row.clear_waiting_for();
  work::kActiveTasks.erase(c.state(), scope, task.id());
  work::kTaskExpiry.put(c.state(), {}, expiry_key(scope, row), "");
  store(c, scope, row, ChangeKind::kUpdated);
}

// Takes an ended dependency off what `row` waits for. True if that ended the task too.
bool dependency_ended(ApplyContext& c, const Scope& scope, TaskRow& row, const Task& dependency) {
  auto& waiting = *row.mutable_waiting_for();
  waiting.erase(std::remove(waiting.begin(), waiting.end(), dependency.id()), waiting.end());
  for (const v1::Dependency& d : row.task().dependencies()) {
    if (d.task_id() != dependency.id() || satisfied(d.condition(), dependency.status())) continue;
    end_one(c, scope, row, v1::TASK_STATUS_FAILED,
            "dependency " + dependency.id() + " ended " + status_word(dependency.status()));
    return true;
  }
  if (waiting.empty()) {
    row.mutable_task()->set_status(v1::TASK_STATUS_QUEUED);
    row.mutable_task()->clear_status_reason();
    set_wall(row.mutable_task()->mutable_queue_time(), c.envelope().wall);
  }
  store(c, scope, row, ChangeKind::kUpdated);
  return false;
}

// Ends a task and everything that its end decides. A worklist, not recursion: a chain of tasks may be long.
void end_task(ApplyContext& c, const Scope& scope, TaskRow& row, v1::TaskStatus status, std::string reason) {
  end_one(c, scope, row, status, std::move(reason));
  std::vector<Task> ended = {row.task()};
  while (!ended.empty()) {
    const Task task = std::move(ended.back());
    ended.pop_back();
    std::vector<std::string> dependents;
    const std::string prefix = ByteWriter().key_part(task.id()).take();
    work::kDependents.scan(c.state(), scope, prefix, "", [&](std::string_view key, std::string_view) {
      dependents.emplace_back(key.substr(prefix.size()));
      return true;
    });
    for (const std::string& id : dependents) {
      work::kDependents.erase(c.state(), scope, dependent_key(task.id(), id));
      auto dependent = work::kTasks.get(c.state(), scope, id);
      if (!dependent || is_terminal(dependent->task().status())) continue;
      if (dependency_ended(c, scope, *dependent, task)) ended.push_back(dependent->task());
    }
  }
}

std::unexpected<Status> no_such_task(std::string_view id) {
  return fail(Status(Code::kNotFound, "TASK_NOT_FOUND", "there is no task " + std::string(id) + " in this namespace")
                  .with_resource("task", std::string(id)));
}

// Among living actors of a namespace a name is one's.
Status take_actor_name(ApplyContext& c, const Task& task) {
  const std::string& name = task.function().actor().name();
  if (name.empty()) return Status::ok();
  if (const auto id = work::kActorNames.get(c.state(), c.scope(), name)) {
    const auto other = work::kTasks.get(c.state(), c.scope(), *id);
    if (other && !is_terminal(other->task().status())) {
      return Status(Code::kAlreadyExists, "ACTOR_EXISTS",
                    "there is an actor " + name + " already, task " + *id + "; call it by its name, or end it first")
          .with_resource("actor", name);
    }
  }
  work::kActorNames.put(c.state(), c.scope(), name, task.id());
  return Status::ok();
}

}  // namespace

std::map<std::string, machine::ApplyFunction, std::less<>> TasksState::commands() {
  return {{"schedule", schedule},
          {"cancel", cancel},
          {"outcomes", outcomes},
          {"set_priority", set_priority},
          {"prune", prune}};
}

ApplyResult TasksState::schedule(ApplyContext& c, std::string_view payload) {
  auto row = parse<TaskRow>(payload);
  Task& task = *row.mutable_task();
  if (work::kTasks.contains(c.state(), c.scope(), task.id())) {
    return fail(Status(Code::kAlreadyExists, "TASK_EXISTS", "there is a task " + task.id() + " already")
                    .with_resource("task", task.id()));
  }
  row.set_tenant(c.scope().tenant);
  set_wall(task.mutable_create_time(), c.envelope().wall);
  row.set_created_ms(c.now_ms());
  std::string failed;
  for (int i = 0; i < task.dependencies_size(); ++i) {
    const v1::Dependency& dependency = task.dependencies(i);
    const auto found = work::kTasks.get(c.state(), c.scope(), dependency.task_id());
    if (!found) {
      // A task can only depend on what exists already, so the graph has no cycles.
      return fail(
          Status(Code::kNotFound, "DEPENDENCY_NOT_FOUND",
                 "the dependency " + dependency.task_id() + " does not exist in this namespace; schedule it first")
              .with_field("task.dependencies[" + std::to_string(i) + "].taskId", "no such task"));
    }
    if (!is_terminal(found->task().status())) {
      if (std::ranges::find(row.waiting_for(), dependency.task_id()) == row.waiting_for().end()) {
        row.add_waiting_for(dependency.task_id());
      }
      work::kDependents.put(c.state(), c.scope(), dependent_key(dependency.task_id(), task.id()), "");
    } else if (failed.empty() && !satisfied(dependency.condition(), found->task().status())) {
      failed = "dependency " + dependency.task_id() + " ended " + status_word(found->task().status());
    }
  }
  UCCP_RETURN_IF_ERROR(take_actor_name(c, task));
  work::kActiveTasks.put(c.state(), c.scope(), task.id(), "");
  if (!failed.empty()) {
    end_task(c, c.scope(), row, v1::TASK_STATUS_FAILED, failed);
    return row.task().SerializeAsString();
  }
  if (row.waiting_for().empty()) {
    task.set_status(v1::TASK_STATUS_QUEUED);
    set_wall(task.mutable_queue_time(), c.envelope().wall);
  } else {
    task.set_status(v1::TASK_STATUS_PENDING);
    task.set_status_reason("waits for " + std::to_string(row.waiting_for_size()) + " dependencies");
  }
  store(c, c.scope(), row, ChangeKind::kAdded);
  return row.task().SerializeAsString();
}

ApplyResult TasksState::cancel(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::CancelCommand>(payload);
  auto row = work::kTasks.get(c.state(), c.scope(), command.id());
  if (!row) return no_such_task(command.id());
  // Cancelling what has ended is no error: the caller wanted it to be over.
  if (is_terminal(row->task().status())) return row->task().SerializeAsString();
  const std::string reason = command.reason().empty() ? "cancelled by " + c.envelope().principal : command.reason();
  row->set_cancel_requested(true);
  row->set_cancel_grace_ms(command.grace_ms());
  if (command.final() || row->task().status() == v1::TASK_STATUS_PENDING) {
    end_task(c, c.scope(), *row, command.timed_out() ? v1::TASK_STATUS_TIMED_OUT : v1::TASK_STATUS_CANCELLED, reason);
  } else {
    row->mutable_task()->set_status(v1::TASK_STATUS_STOPPING);
    row->mutable_task()->set_status_reason(reason);
    store(c, c.scope(), *row, ChangeKind::kUpdated);
  }
  return row->task().SerializeAsString();
}

namespace {

v1::TaskStatus status_of(const AttemptOutcome& outcome, const TaskRow& row) {
  using namespace v1;
  switch (outcome.kind()) {
    case ATTEMPT_OUTCOME_KIND_EXITED:
      if (outcome.exit_code() == 0) return TASK_STATUS_SUCCEEDED;
      break;
    case ATTEMPT_OUTCOME_KIND_TIMED_OUT: return TASK_STATUS_TIMED_OUT;
    case ATTEMPT_OUTCOME_KIND_CANCELLED: return TASK_STATUS_CANCELLED;
    default: break;
  }
  return row.cancel_requested() ? TASK_STATUS_CANCELLED : TASK_STATUS_FAILED;
}

bool costs_a_retry(const AttemptOutcome& outcome) {
  return outcome.kind() != v1::ATTEMPT_OUTCOME_KIND_LOST && outcome.kind() != v1::ATTEMPT_OUTCOME_KIND_PREEMPTED &&
         !outcome.worker_fault();
}

// Whether another attempt follows an unsuccessful one.
bool retries(const AttemptOutcome& outcome, const TaskRow& row, v1::TaskStatus status) {
  if (row.cancel_requested() || status == v1::TASK_STATUS_SUCCEEDED || status == v1::TASK_STATUS_CANCELLED)
    return false;
  if (!costs_a_retry(outcome)) return row.lost_attempts() < work::kLostAttemptsMax;
  const v1::RetryPolicy& policy = row.task().retry();
  const auto& fatal = policy.non_retryable_exit_codes();
  if (outcome.kind() == v1::ATTEMPT_OUTCOME_KIND_EXITED &&
      std::find(fatal.begin(), fatal.end(), outcome.exit_code()) != fatal.end()) {
    return false;
  }
  return row.task().retry_count() + 1 < std::max(1, policy.max_attempts());
}

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

bool apply_outcome(ApplyContext& c, const internal::v1::OutcomeItem& item) {
  const AttemptOutcome& outcome = item.outcome();
  const Scope scope{outcome.attempt().tenant(), outcome.attempt().namespace_()};
  auto row = work::kTasks.get(c.state(), scope, outcome.attempt().task_id());
  const auto worker = work::kWorkers.get(c.state(), work::kWorkerScope, outcome.attempt().worker_id());
  if (!row || is_terminal(row->task().status())) return false;
  if (outcome.attempt().attempt_number() != row->task().attempts() + 1) return false;
  // The leader itself reports what was lost with a fenced epoch; all else must come from the present one.
  const bool lost = outcome.kind() == v1::ATTEMPT_OUTCOME_KIND_LOST;
  const bool fenced = !worker || worker->epoch() != outcome.attempt().worker_epoch();
  if (!lost && fenced && !machine::planted_bug("no_fence")) return false;
  const v1::TaskStatus status = status_of(outcome, *row);
  const bool again = retries(outcome, *row, status);
  record_attempt(*row, outcome);
  Task& task = *row->mutable_task();
  if (costs_a_retry(outcome) && again) task.set_retry_count(task.retry_count() + 1);
  if (!costs_a_retry(outcome)) row->set_lost_attempts(row->lost_attempts() + 1);
  if (!again) {
    std::string reason = outcome.message();
    if (row->cancel_requested() && status == v1::TASK_STATUS_CANCELLED) reason = task.status_reason();
    end_task(c, scope, *row, status, std::move(reason));
    return true;
  }
  row->set_not_before_ms(c.now_ms() + item.backoff_ms());
  task.set_status(v1::TASK_STATUS_QUEUED);
  task.set_status_reason("attempt " + std::to_string(task.attempts()) + ": " + outcome.message());
  set_wall(task.mutable_next_attempt_time(), {c.envelope().wall.us + item.backoff_ms() * 1000});
  store(c, scope, *row, ChangeKind::kUpdated);
  return true;
}

}  // namespace

ApplyResult TasksState::outcomes(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::OutcomesCommand>(payload);
  internal::v1::OutcomesResult result;
  for (const auto& item : command.items()) result.add_accepted(apply_outcome(c, item));
  return result.SerializeAsString();
}

ApplyResult TasksState::set_priority(ApplyContext& c, std::string_view payload) {
  const auto request = parse<v1::UpdateTaskPriorityRequest>(payload);
  auto row = work::kTasks.get(c.state(), c.scope(), request.id());
  if (!row) return no_such_task(request.id());
  if (!request.if_match().empty() && request.if_match() != row->task().etag()) {
    return fail(Code::kConflict, "ETAG_MISMATCH", "the task changed since it was read; read it again");
  }
  if (is_terminal(row->task().status())) {
    return fail(Code::kFailedPrecondition, "TASK_ENDED", "the task has ended; its priority means nothing any more");
  }
  row->mutable_task()->set_priority(request.priority());
  store(c, c.scope(), *row, ChangeKind::kUpdated);
  return row->task().SerializeAsString();
}

ApplyResult TasksState::prune(ApplyContext& c, std::string_view payload) {
  for (const auto& key : parse<internal::v1::PruneCommand>(payload).tasks()) {
    const Scope scope{key.tenant(), key.namespace_()};
    const auto row = work::kTasks.get(c.state(), scope, key.id());
    if (!row || !is_terminal(row->task().status())) continue;
    work::kTaskExpiry.erase(c.state(), {}, expiry_key(scope, *row));
    work::kTasks.erase(c.state(), scope, key.id());
    if (const std::string& name = row->task().function().actor().name();
        !name.empty() && work::kActorNames.get(c.state(), scope, name) == key.id())
      work::kActorNames.erase(c.state(), scope, name);
    c.emit_in(scope, work::kTaskTopic, key.id(), static_cast<uint8_t>(ChangeKind::kRemoved), row->SerializeAsString());
  }
  return std::string();
}

}  // namespace uccp::tasks
