// WorkRuntime, the part about what is over by its time: tasks in the queue or as a whole, and objects.
#include "base/bytes.h"
#include "services/object_types.h"
#include "services/tasks/attempts.h"
#include "services/tasks/task_arrays.h"
#include "services/tasks/work_runtime.h"

namespace uccp::tasks {

// Both count from the creation of the task, so a new leader goes on where the last one was. By machine time: the wall
// clock may jump.
void WorkRuntime::note_deadlines(const TaskRef& ref, const internal::v1::TaskRow& row) {
  const v1::Task& task = row.task();
  const int64_t created_ms = row.created_ms() > 0 ? row.created_ms() : machine_now_ms();
  if (task.has_queue_timeout() && task.attempts() == 0)
    queue_timeouts_.emplace(created_ms + ms_of(task.queue_timeout()), ref);
  if (task.has_deadline() && !row.deadline_passed()) deadlines_.emplace(created_ms + ms_of(task.deadline()), ref);
}

void WorkRuntime::end_queue_timeouts() {
  const int64_t now_ms = machine_now_ms();
  while (!queue_timeouts_.empty() && queue_timeouts_.begin()->first <= now_ms) {
    const TaskRef ref = queue_timeouts_.begin()->second;
    queue_timeouts_.erase(queue_timeouts_.begin());
    const auto row = row_of(ref);
    if (!row || work::is_terminal(row->task().status()) || row->task().attempts() > 0 || attempts_.contains(ref))
      continue;
    // It may run on a worker that has not reported yet: decided when that is known.
    if (held_.contains(ref)) {
      queue_timeouts_.emplace(now_ms + kTickMs, ref);
      break;
    }
    if (!cancelling_.insert(ref).second) continue;
    internal::v1::CancelCommand command;
    command.set_id(ref.id);
    command.set_reason("not started within its queue timeout");
    command.set_final(true);
    command.set_timed_out(true);
    propose_end(ref, system_command("tasks.cancel", command.SerializeAsString()));
  }
}

void WorkRuntime::end_deadlines() {
  const int64_t now_ms = machine_now_ms();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now_ms) {
    const auto [due_ms, ref] = *deadlines_.begin();
    deadlines_.erase(deadlines_.begin());
    const auto row = row_of(ref);
    if (!row || work::is_terminal(row->task().status()) || row->deadline_passed()) continue;
    // It was resumed since: then another entry stands for it.
    if (row->created_ms() + ms_of(row->task().deadline()) > now_ms) continue;
    // Of an array each element is decided for, and none is started meanwhile.
    const bool may_run =
        !is_array(row->task()) && (attempts_.contains(ref) || held_.contains(ref) || settling_.contains(ref));
    if (!may_run && !cancelling_.insert(ref).second) {
      deadlines_.emplace(now_ms + kTickMs, ref);  // what ends it is under way, and may be refused
      break;
    }
    internal::v1::DeadlineCommand command;
    command.set_id(ref.id);
    command.set_final(!may_run);
    if (is_array(row->task())) set_may_run(ref, *command.mutable_elements());
    propose_end(ref, system_command("tasks.deadline", command.SerializeAsString()));
  }
}

void WorkRuntime::propose_end(const TaskRef& ref, machine::Envelope envelope) {
  envelope.scope = {ref.tenant, ref.name_space};
  env_.proposer.propose(kWorkGroup, std::move(envelope), [this, ref](const Result<machine::Applied>& applied) {
    cancelling_.erase(ref);
    if (!leading_) return;
    if (const auto row = row_of(ref); !applied && row) note_deadlines(ref, *row);
    track(ref);
  });
}

// What is over by machine time, which stands still while nothing is applied.
void WorkRuntime::end_objects() {
  bool due = false;
  objectstores::kExpiry.scan(env_.view(), {}, "", "", [&](std::string_view key, std::string_view) {
    due = static_cast<int64_t>(ByteReader(key).u64()) <= machine_now_ms();
    return false;
  });
  if (due)
    env_.proposer.propose(kWorkGroup, system_command("compute.remove_over", ""),
                          [](const Result<machine::Applied>&) {});
}

}  // namespace uccp::tasks
