#include "services/tasks/task_rows.h"

#include <algorithm>
#include <vector>

#include "base/bytes.h"
#include "machine/stable_bytes.h"
#include "services/message_types.h"
#include "services/tasks/task_arrays.h"
#include "services/tasks/task_use.h"

namespace uccp::tasks {
namespace {

using internal::v1::TaskRow;
using machine::ApplyContext;
using machine::Scope;
using services::set_wall;
using v1::Task;
using work::ChangeKind;
using work::is_terminal;

std::string dependent_key(std::string_view dependency, std::string_view task) {
  return ByteWriter().key_part(dependency).raw(task).take();
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

}  // namespace

std::string expiry_key(const Scope& scope, const TaskRow& row) {
  ByteWriter key;
  key.u64(static_cast<uint64_t>(work::expiry_ms(row))).key_part(scope.tenant).key_part(scope.name_space);
  return key.raw(row.task().id()).take();
}

void store_task(ApplyContext& c, const Scope& scope, TaskRow& row, ChangeKind kind) {
  Task& task = *row.mutable_task();
  task.set_revision(c.index().value);
  task.set_etag(std::to_string(c.index().value));
  set_wall(task.mutable_update_time(), c.envelope().wall);
  if (is_element(task)) store_element(c, scope, row);
  else work::kTasks.put(c.state(), scope, task.id(), row);
  c.emit_in(scope, work::kTaskTopic, task.id(), static_cast<uint8_t>(kind), machine::stable_bytes(row));
}

namespace {

// Ends one task. What waits for it is settled by the caller.
void end_one(ApplyContext& c, const Scope& scope, TaskRow& row, v1::TaskStatus status, std::string reason) {
  Task& task = *row.mutable_task();
  task.set_status(status);
  task.set_status_reason(std::move(reason));
  task.clear_next_attempt_time();
  set_wall(task.mutable_end_time(), c.envelope().wall);
  if (is_element(task)) return store_task(c, scope, row, ChangeKind::kUpdated);
  row.set_ended_ms(c.now_ms());
  for (const std::string& dependency : row.waiting_for()) {
    work::kDependents.erase(c.state(), scope, dependent_key(dependency, task.id()));
  }
  row.clear_waiting_for();
  work::kActiveTasks.erase(c.state(), scope, task.id());
  count_active(c, scope, row, false);
  work::kTaskExpiry.put_new(c.state(), {}, expiry_key(scope, row), "");
  store_task(c, scope, row, ChangeKind::kUpdated);
}

// Ends an array with the last of its elements. False: there are more, or it has ended.
bool end_array(ApplyContext& c, const Scope& scope, TaskRow& row) {
  const Task& task = row.task();
  if (is_terminal(task.status()) || ended_elements(task) < static_cast<uint32_t>(task.array().size())) return false;
  const v1::ArrayElements& all = task.elements();
  const std::string of_all = " of " + std::to_string(task.array().size()) + " elements ";
  if (row.cancel_requested() || row.deadline_passed()) {
    end_one(c, scope, row, row.deadline_passed() ? v1::TASK_STATUS_TIMED_OUT : v1::TASK_STATUS_CANCELLED,
            task.status_reason());
  } else if (const int failed = all.failed() + all.timed_out(); failed > 0) {
    end_one(c, scope, row, v1::TASK_STATUS_FAILED, std::to_string(failed) + of_all + "failed");
  } else if (all.cancelled() > 0) {
    end_one(c, scope, row, v1::TASK_STATUS_CANCELLED, std::to_string(all.cancelled()) + of_all + "were cancelled");
  } else {
    end_one(c, scope, row, v1::TASK_STATUS_SUCCEEDED, "all" + of_all.substr(3) + "succeeded");
  }
  return true;
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
  store_task(c, scope, row, ChangeKind::kUpdated);
  return false;
}

// A worklist, not recursion: a chain of tasks may be long.
void settle_dependents(ApplyContext& c, const Scope& scope, std::vector<Task> ended) {
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
      auto dependent = work::kTasks.get(c.state(), scope, id);  // elements wait for nothing of their own
      if (!dependent || is_terminal(dependent->task().status())) continue;
      if (dependency_ended(c, scope, *dependent, task)) ended.push_back(dependent->task());
    }
  }
}

}  // namespace

Awaited::Awaited(const machine::KeyReader& state, const Ranges& ids) : all_(false) {
  constexpr size_t kRowsMax = 1'000;
  size_t rows = 0;
  for (const auto& [scope, range] : ids) {
    const std::string from = ByteWriter().key_part(range.first).take(),
                      last = ByteWriter().key_part(range.second).take();
    work::kDependents.scan(state, scope, "", from, [&](std::string_view key, std::string_view) {
      if (all_ || key.substr(0, last.size()) > last) return false;
      ids_.emplace(scope, ByteReader(key).key_part());
      all_ = ++rows == kRowsMax;
      return !all_;
    });
  }
}

void end_task(ApplyContext& c, const Scope& scope, TaskRow& row, v1::TaskStatus status, std::string reason,
              const Awaited& awaited) {
  end_one(c, scope, row, status, std::move(reason));
  std::vector<Task> ended;
  if (awaited.may_be(scope, row.task().id())) ended.push_back(row.task());
  if (is_element(row.task())) {
    auto array = work::kTasks.get(c.state(), scope, row.task().parent_id());
    if (array && end_array(c, scope, *array)) ended.push_back(std::move(*array->mutable_task()));
  }
  settle_dependents(c, scope, std::move(ended));
}

void end_if_over(ApplyContext& c, const Scope& scope, TaskRow& array) {
  if (end_array(c, scope, array)) settle_dependents(c, scope, {array.task()});
}

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

namespace {

Status task_exists(const std::string& what, const std::string& id) {
  return Status(Code::kAlreadyExists, "TASK_EXISTS", what).with_resource("task", id);
}

// An id is that of one task or element.
Status check_id(ApplyContext& c, const Task& task) {
  if (work::kTasks.contains(c.state(), c.scope(), task.id()))
    return task_exists("there is a task " + task.id() + " already", task.id());
  if (find_task(c.state(), c.scope(), task.id()))
    return task_exists(task.id() + " is an element of an array already", task.id());
  if (!task.has_array()) return Status::ok();
  std::string taken;
  work::kTasks.scan(c.state(), c.scope(), task.id() + ":", "", [&](std::string_view id, const TaskRow&) {
    const auto element = element_of(id);
    if (element && element->array == task.id() && element->index < static_cast<uint32_t>(task.array().size()))
      taken = id;
    return taken.empty();
  });
  if (taken.empty()) return Status::ok();
  return task_exists("the task " + taken + " has the id that an element of the array would get", taken);
}

}  // namespace

Status accept(ApplyContext& c, TaskRow& row) {
  Task& task = *row.mutable_task();
  UCCP_RETURN_IF_ERROR(check_id(c, task));
  UCCP_RETURN_IF_ERROR(check_room(c, task));
  row.set_tenant(c.scope().tenant);
  set_wall(task.mutable_create_time(), c.envelope().wall);
  row.set_created_ms(c.now_ms());
  if (task.has_array()) row.set_accepted(c.index().value);
  std::string failed;
  for (int i = 0; i < task.dependencies_size(); ++i) {
    const v1::Dependency& dependency = task.dependencies(i);
    const auto found = find_task(c.state(), c.scope(), dependency.task_id());
    if (!found) {
      // A task can only depend on what exists already, so the graph has no cycles.
      return Status(Code::kNotFound, "DEPENDENCY_NOT_FOUND",
                    "the dependency " + dependency.task_id() + " does not exist in this namespace; schedule it first")
          .with_field("task.dependencies[" + std::to_string(i) + "].taskId", "no such task");
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
  count_active(c, c.scope(), row, true);
  if (!failed.empty()) {
    end_task(c, c.scope(), row, v1::TASK_STATUS_FAILED, failed);
    return Status::ok();
  }
  if (work::makes_tasks(task.type())) {
    task.set_status(v1::TASK_STATUS_PENDING);
  } else if (row.waiting_for().empty()) {
    task.set_status(v1::TASK_STATUS_QUEUED);
    set_wall(task.mutable_queue_time(), c.envelope().wall);
  } else {
    task.set_status(v1::TASK_STATUS_PENDING);
    task.set_status_reason("waits for " + std::to_string(row.waiting_for_size()) + " dependencies");
  }
  store_task(c, c.scope(), row, ChangeKind::kAdded);
  return Status::ok();
}

void stop_task(ApplyContext& c, TaskRow& row, const std::string& reason) {
  if (row.task().status() == v1::TASK_STATUS_PENDING)
    return end_task(c, c.scope(), row, v1::TASK_STATUS_CANCELLED, reason);
  if (is_terminal(row.task().status()) || row.cancel_requested()) return;
  row.set_cancel_requested(true);
  row.set_cancel_grace_ms(-1);
  row.mutable_task()->set_status(v1::TASK_STATUS_STOPPING);
  row.mutable_task()->set_status_reason(reason);
  store_task(c, c.scope(), row, ChangeKind::kUpdated);
}

Status no_such_task(std::string_view id) {
  return Status(Code::kNotFound, "TASK_NOT_FOUND", "there is no task " + std::string(id) + " in this namespace")
      .with_resource("task", std::string(id));
}

}  // namespace uccp::tasks
