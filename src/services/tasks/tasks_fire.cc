// TasksState, the part about tasks that make tasks: at times (CRON), for events (EVENT), one a worker (SYSTEM). The
// leader says when; what becomes of it is decided here, so that a time or an event counts once whoever leads.
#include <algorithm>
#include <vector>

#include "services/message_types.h"
#include "services/tasks/task_rows.h"
#include "services/tasks/tasks_state.h"

namespace uccp::tasks {
namespace {

using internal::v1::FireCommand;
using internal::v1::TaskRow;
using machine::ApplyContext;
using machine::ApplyResult;
using services::parse;
using services::set_wall;
using v1::Task;
using work::ChangeKind;
using work::is_terminal;

// Those that it has made and that have not ended, the oldest first.
std::vector<TaskRow> active_made(ApplyContext& c, TaskRow& maker) {
  std::vector<TaskRow> active;
  for (const std::string& id : maker.made()) {
    auto row = work::kTasks.get(c.state(), c.scope(), id);
    if (row && !is_terminal(row->task().status())) active.push_back(std::move(*row));
  }
  maker.clear_made();
  for (const TaskRow& row : active) maker.add_made(row.task().id());
  return active;
}

// What a task gets of its maker: all that a caller has said, but for when it is made.
Task made_of(const TaskRow& maker, const FireCommand& command) {
  Task task = maker.task();
  for (const int output : {Task::kStatusFieldNumber, Task::kStatusReasonFieldNumber, Task::kQueueTimeFieldNumber,
                           Task::kEndTimeFieldNumber, Task::kNextFireTimeFieldNumber, Task::kLastFireTimeFieldNumber,
                           Task::kRunsFieldNumber, Task::kSkippedRunsFieldNumber, Task::kDependenciesFieldNumber}) {
    task.GetReflection()->ClearField(&task, task.GetDescriptor()->FindFieldByNumber(output));
  }
  task.clear_schedule();
  task.clear_trigger();
  task.set_type(task.type() == v1::TASK_TYPE_SYSTEM ? v1::TASK_TYPE_SERVICE : v1::TASK_TYPE_BATCH);
  task.set_parent_id(maker.task().id());
  task.set_id(maker.task().id() + "." + std::to_string(maker.task().runs() + 1));
  for (const auto& [name, value] : command.env()) (*task.mutable_env())[name] = value;
  if (!command.stdin().empty()) task.set_stdin(command.stdin());
  if (!command.worker_id().empty())
    (*task.mutable_node_selector())[std::string(work::kWorkerLabel)] = command.worker_id();
  return task;
}

// False: the run is left out, because of those that have not ended.
bool settle_overlap(ApplyContext& c, const TaskRow& maker, std::vector<TaskRow>& active, TaskRow& child) {
  const bool by_worker = maker.task().type() == v1::TASK_TYPE_SYSTEM;
  if (static_cast<int>(active.size()) >= (by_worker ? work::kMadeTasksMax : work::kMadeByTimeMax)) return false;
  if (maker.task().type() != v1::TASK_TYPE_CRON || active.empty()) return true;
  switch (maker.task().schedule().overlap()) {
    case v1::OVERLAP_POLICY_ALLOW: return true;
    case v1::OVERLAP_POLICY_QUEUE: {
      v1::Dependency& before = *child.mutable_task()->add_dependencies();
      before.set_task_id(active.back().task().id());
      before.set_condition(v1::DEPENDENCY_CONDITION_COMPLETED);
      return true;
    }
    case v1::OVERLAP_POLICY_REPLACE:
      for (TaskRow& old : active) stop_task(c, old, "replaced by the next run of " + maker.task().id());
      return true;
    default: return false;
  }
}

}  // namespace

ApplyResult TasksState::fire(ApplyContext& c, std::string_view payload) {
  const auto command = parse<FireCommand>(payload);
  auto maker = work::kTasks.get(c.state(), c.scope(), command.id());
  if (!maker || is_terminal(maker->task().status()) || !work::makes_tasks(maker->task().type())) return std::string();
  // A new leader may say again what the last one has said.
  if (command.fire() != 0 && command.fire() <= maker->last_fire()) return std::string();
  Task& task = *maker->mutable_task();
  if (task.type() == v1::TASK_TYPE_CRON && command.fire() == 0) {
    set_wall(task.mutable_next_fire_time(), {command.next_fire()});
    store_task(c, c.scope(), *maker, ChangeKind::kUpdated);
    return std::string();
  }
  std::vector<TaskRow> active = active_made(c, *maker);
  TaskRow child;
  *child.mutable_task() = made_of(*maker, command);
  child.set_cancel_grace_ms(-1);
  const bool made = !command.skip() && settle_overlap(c, *maker, active, child);
  task.set_skipped_runs(task.skipped_runs() + command.left_out() + (made ? 0 : 1));
  if (made) {
    task.set_runs(task.runs() + 1);
    // Refused only if somebody has taken its id: then the number is left out.
    if (accept(c, child).is_ok()) maker->add_made(child.task().id());
    set_wall(task.mutable_last_fire_time(), c.envelope().wall);
  }
  if (command.fire() != 0) maker->set_last_fire(command.fire());
  if (!command.cursor().empty()) maker->set_cursor(command.cursor());
  if (command.next_fire() != 0) set_wall(task.mutable_next_fire_time(), {command.next_fire()});
  else task.clear_next_fire_time();
  if (task.type() == v1::TASK_TYPE_CRON && command.next_fire() == 0) {
    end_task(c, c.scope(), *maker, v1::TASK_STATUS_SUCCEEDED, "its schedule is over");
  } else {
    store_task(c, c.scope(), *maker, ChangeKind::kUpdated);
  }
  return child.task().id();
}

}  // namespace uccp::tasks
