// WorkRuntime, the part that says why a task does not run.
#include "services/tasks/task_arrays.h"
#include "services/tasks/work_runtime.h"

namespace uccp::tasks {
namespace {

v1::WaitCause cause_of(Obstacle obstacle) {
  switch (obstacle) {
    case Obstacle::kNone: return v1::WAIT_CAUSE_NONE;
    case Obstacle::kNotConnected: return v1::WAIT_CAUSE_NOT_CONNECTED;
    case Obstacle::kCordoned: return v1::WAIT_CAUSE_CORDONED;
    case Obstacle::kLabels: return v1::WAIT_CAUSE_LABELS;
    case Obstacle::kTooSmall: return v1::WAIT_CAUSE_TOO_SMALL;
    case Obstacle::kBusy: return v1::WAIT_CAUSE_BUSY;
    case Obstacle::kSlots: return v1::WAIT_CAUSE_SLOTS;
    case Obstacle::kTaints: return v1::WAIT_CAUSE_TAINTS;
    case Obstacle::kReserved: return v1::WAIT_CAUSE_RESERVED;
    case Obstacle::kNear: return v1::WAIT_CAUSE_NEAR;
    case Obstacle::kQuota: return v1::WAIT_CAUSE_QUOTA;
  }
  return v1::WAIT_CAUSE_UNSPECIFIED;
}

}  // namespace

Status WorkRuntime::explain(const TaskRef& ref, const internal::v1::TaskRow& row, v1::TaskExplanation& out) const {
  if (!leading_)
    return Status(Code::kUnavailable, "WORK_NOT_READY", "the scheduler is starting; ask again in a moment");
  const v1::Task& task = row.task();
  out.set_workers(static_cast<int32_t>(workers_.size()));
  if (work::is_terminal(task.status())) {
    out.set_summary("it has ended: " + task.status_reason());
    return Status::ok();
  }
  if (const auto live = attempts_.find(ref); live != attempts_.end()) {
    out.set_summary((live->second.started ? "it runs on " : "it was given to ") + live->second.id.worker_id());
    return Status::ok();
  }
  if (work::makes_tasks(task.type())) {
    out.set_summary(TaskMakers::explain(task));
    return Status::ok();
  }
  if (task.status() == v1::TASK_STATUS_PENDING) {
    *out.mutable_waits_for() = row.waiting_for();
    out.set_summary("waits for the end of " + std::to_string(row.waiting_for_size()) + " tasks");
    return Status::ok();
  }
  if (is_held(ref)) {
    out.set_summary(
        "it may run on a worker that has not connected since the change of leader; decided when it has, or when its "
        "lease is over");
    return Status::ok();
  }
  if (is_array(task)) {
    out.set_summary(explain_array(ref, row));
    return Status::ok();
  }
  const auto explanation = scheduler_->explain(ref);
  if (!explanation) {
    out.set_summary(is_element(task) ? "waits for its turn among the elements of its array" : "it is being placed");
    return Status::ok();
  }
  const std::string scaling = scaling_note(ref);
  out.set_summary(explanation->summary + (scaling.empty() ? "" : "; " + scaling));
  out.set_tasks_ahead(static_cast<int32_t>(explanation->ahead));
  for (const Explanation::Reason& reason : explanation->reasons) {
    v1::WaitReason& item = *out.add_reasons();
    item.set_cause(cause_of(reason.obstacle));
    item.set_workers(static_cast<int32_t>(reason.workers));
    item.set_message(reason.message);
  }
  return Status::ok();
}

std::string WorkRuntime::why(const TaskRef& ref) const {
  const auto row = row_of(ref);
  v1::TaskExplanation out;
  if (!row) return "there is no such task";
  const Status status = explain(ref, *row, out);
  return status.is_ok() ? out.summary() : std::string(status.message());
}

}  // namespace uccp::tasks
