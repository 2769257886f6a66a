// TasksState, the part about the life of a task beyond its attempts: graphs, deadlines, checkpoints, what begins anew.
#include <algorithm>

#include "machine/stable_bytes.h"
#include "services/message_types.h"
#include "services/tasks/task_arrays.h"
#include "services/tasks/task_rows.h"
#include "services/tasks/task_use.h"
#include "services/tasks/tasks_state.h"

namespace uccp::tasks {

using internal::v1::TaskRow;
using machine::ApplyContext;
using machine::ApplyResult;
using services::parse;
using services::set_wall;
using v1::Task;
using work::ChangeKind;
using work::is_terminal;

// The rows come in an order in which each finds its dependencies; one that is refused takes all with it.
ApplyResult TasksState::schedule_graph(ApplyContext& c, std::string_view payload) {
  auto command = parse<internal::v1::ScheduleGraphCommand>(payload);
  v1::ScheduleTaskGraphResponse response;
  for (TaskRow& row : *command.mutable_rows()) {
    UCCP_RETURN_IF_ERROR(accept(c, row));
    *response.add_tasks() = row.task();
  }
  return machine::stable_bytes(response);
}

namespace {

Status check_resumable(const TaskRow& row, const std::string& checkpoint) {
  const Task& task = row.task();
  const bool paused = task.type() == v1::TASK_TYPE_CRON && task.schedule().paused();
  if (!is_terminal(task.status()) && !paused) {
    return Status(Code::kFailedPrecondition, "TASK_NOT_ENDED",
                  "the task has not ended; only what has ended is resumed, and a paused CRON task");
  }
  if (task.status() == v1::TASK_STATUS_SUCCEEDED) {
    return Status(Code::kFailedPrecondition, "TASK_SUCCEEDED",
                  "the task has succeeded; schedule a new one to run it again");
  }
  const auto named = [&](const v1::Checkpoint& one) { return one.name() == checkpoint; };
  if (!checkpoint.empty() && std::ranges::none_of(task.checkpoints(), named)) {
    return Status(Code::kNotFound, "CHECKPOINT_NOT_FOUND",
                  "the task has no checkpoint " + checkpoint + "; it has " + std::to_string(task.checkpoints_size()))
        .with_resource("checkpoint", checkpoint);
  }
  return Status::ok();
}

// A task that has ended counts again as one that has not.
Status reopen(ApplyContext& c, TaskRow& row) {
  // Before anything changes: the key is made of the time of the end and the retention.
  work::kTaskExpiry.erase(c.state(), {}, expiry_key(c.scope(), row));
  work::kActiveTasks.put(c.state(), c.scope(), row.task().id(), "");
  UCCP_RETURN_IF_ERROR(check_room(c, row.task()));
  UCCP_RETURN_IF_ERROR(take_actor_name(c, row.task()));
  begin_anew(c, row);
  count_active(c, c.scope(), row, true);
  return Status::ok();
}

// What has not succeeded of an array that has ended, or one element of any array.
ApplyResult resume_array(ApplyContext& c, TaskRow array, std::optional<uint32_t> only) {
  Task& task = *array.mutable_task();
  if (is_terminal(task.status())) {
    UCCP_RETURN_IF_ERROR(reopen(c, array));
    task.set_status(v1::TASK_STATUS_QUEUED);
    task.set_status_reason("resumed by " + c.envelope().principal);
    set_wall(task.mutable_queue_time(), c.envelope().wall);
  }
  restart_elements(c, c.scope(), array, only);
  store_task(c, c.scope(), array, ChangeKind::kUpdated);
  if (!only) return machine::stable_bytes(task);
  TaskRow element = element_row(c.state(), c.scope(), array, *only);
  c.emit(work::kTaskTopic, element.task().id(), static_cast<uint8_t>(ChangeKind::kUpdated),
         machine::stable_bytes(element));
  return machine::stable_bytes(element.task());
}

}  // namespace

void begin_anew(ApplyContext& c, TaskRow& row) {
  Task& task = *row.mutable_task();
  row.set_cancel_requested(false);
  row.set_cancel_grace_ms(-1);
  row.set_deadline_passed(false);
  row.set_not_before_ms(0);
  row.set_lost_attempts(0);
  row.set_ended_ms(0);
  row.clear_stopped();
  row.set_created_ms(c.now_ms());
  task.clear_end_time();
  task.clear_exit_code();
  task.clear_signal();
  task.clear_value();
  task.set_retry_count(0);
  task.set_dead_letter(false);
}

ApplyResult TasksState::resume(ApplyContext& c, std::string_view payload) {
  const auto request = parse<v1::ResumeTaskRequest>(payload);
  auto row = find_task(c.state(), c.scope(), request.id());
  if (!row) return fail(no_such_task(request.id()));
  UCCP_RETURN_IF_ERROR(check_resumable(*row, request.checkpoint()));
  Task& task = *row->mutable_task();
  if (is_array(task)) return resume_array(c, std::move(*row), std::nullopt);
  if (is_element(task)) {
    auto array = work::kTasks.get(c.state(), c.scope(), task.parent_id());
    return resume_array(c, std::move(*array), static_cast<uint32_t>(task.array_index()));
  }
  if (is_terminal(task.status())) {
    UCCP_RETURN_IF_ERROR(reopen(c, *row));
  }
  row->set_resume_from(request.checkpoint());
  if (work::makes_tasks(task.type())) {
    if (task.has_schedule()) task.mutable_schedule()->set_paused(false);
    // What was missed meanwhile was meant to be: it is not made up for.
    row->set_last_fire(std::max(row->last_fire(), c.envelope().wall.us));
    task.set_status(v1::TASK_STATUS_PENDING);
  } else {
    task.set_status(v1::TASK_STATUS_QUEUED);
    set_wall(task.mutable_queue_time(), c.envelope().wall);
  }
  task.set_status_reason("resumed by " + c.envelope().principal);
  store_task(c, c.scope(), *row, ChangeKind::kUpdated);
  return machine::stable_bytes(task);
}

ApplyResult TasksState::deadline(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::DeadlineCommand>(payload);
  auto row = work::kTasks.get(c.state(), c.scope(), command.id());
  if (!row || is_terminal(row->task().status())) return std::string();
  Task& task = *row->mutable_task();
  const std::string reason = "not finished within its deadline of " + std::to_string(task.deadline().seconds()) + " s";
  row->set_deadline_passed(true);
  if (is_array(task) && task.status() != v1::TASK_STATUS_PENDING) {
    task.set_status(v1::TASK_STATUS_STOPPING);
    task.set_status_reason(reason);
    end_elements(c, c.scope(), *row, command.elements(), v1::TASK_STATUS_TIMED_OUT);
    store_task(c, c.scope(), *row, ChangeKind::kUpdated);
    end_if_over(c, c.scope(), *row);
    return std::string();
  }
  if (command.final() || task.status() == v1::TASK_STATUS_PENDING) {
    end_task(c, c.scope(), *row, v1::TASK_STATUS_TIMED_OUT, reason);
    return std::string();
  }
  if (!row->cancel_requested()) row->set_cancel_grace_ms(-1);
  row->set_cancel_requested(true);
  task.set_status(v1::TASK_STATUS_STOPPING);
  task.set_status_reason(reason);
  store_task(c, c.scope(), *row, ChangeKind::kUpdated);
  return std::string();
}

// Half a gang is of no use to anybody: that all of it stops is known to every leader from here on. What has ended
// meanwhile has ended.
ApplyResult TasksState::stop_gangs(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::StopGangsCommand>(payload);
  for (const internal::v1::StopItem& item : command.items()) {
    const machine::Scope scope{item.task().tenant(), item.task().namespace_()};
    auto row = work::kTasks.get(c.state(), scope, item.task().id());
    if (!row || is_terminal(row->task().status()) || row->task().attempts() + 1 != item.attempt().number()) continue;
    *row->mutable_stopped() = item.attempt();
    store_task(c, scope, *row, ChangeKind::kUpdated);
  }
  return std::string();
}

ApplyResult TasksState::checkpoint(ApplyContext& c, std::string_view payload) {
  const auto request = parse<v1::SaveCheckpointRequest>(payload);
  auto row = find_task(c.state(), c.scope(), request.id());
  if (!row) return fail(no_such_task(request.id()));
  Task& task = *row->mutable_task();
  v1::Checkpoint checkpoint = request.checkpoint();
  if (is_terminal(task.status()) || checkpoint.attempt() != task.attempts() + 1) {
    return fail(Code::kFailedPrecondition, "TASK_NOT_RUNNING",
                "the attempt " + std::to_string(checkpoint.attempt()) +
                    " has ended meanwhile; checkpoints are of the attempt that runs");
  }
  set_wall(checkpoint.mutable_create_time(), c.envelope().wall);
  auto& all = *task.mutable_checkpoints();
  const auto same = std::ranges::find_if(all, [&](const auto& one) { return one.name() == checkpoint.name(); });
  if (same != all.end()) all.erase(same);
  *task.add_checkpoints() = checkpoint;
  while (task.checkpoints_size() > static_cast<int>(work::kCheckpointsMax)) all.erase(all.begin());
  // Later attempts go on from the newest, whatever an earlier resumption named.
  row->clear_resume_from();
  store_task(c, c.scope(), *row, ChangeKind::kUpdated);
  return machine::stable_bytes(checkpoint);
}

}  // namespace uccp::tasks
