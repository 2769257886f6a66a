#include "sim/checkers/task_checker.h"

namespace uccp::sim {

void TaskChecker::worker_epoch(LogIndex index, const std::string& id, uint64_t epoch) {
  Worker& worker = workers_[id];
  if (index <= worker.last) return;
  if (epoch < worker.epoch) {
    violations_.add("tasks", "the epoch of worker " + id + " fell from " + std::to_string(worker.epoch) + " to " +
                                 std::to_string(epoch));
  }
  worker = {index, epoch};
}

void TaskChecker::violation(const Outcome& o, const std::string& what) {
  violations_.add("tasks", "index " + std::to_string(o.index.value) + ": an outcome of attempt " +
                               std::to_string(o.number) + " of " + o.task + " counted, " + what);
}

void TaskChecker::counted(const Outcome& o) {
  Task& task = tasks_[o.task];
  if (o.index <= task.last) return;
  task.last = o.index;
  if (task.ended) violation(o, "but the task was over");
  if (o.number != task.number + 1) violation(o, "after attempt " + std::to_string(task.number));
  const uint64_t present = workers_[o.worker].epoch;
  if (!o.lost && o.epoch != present) {
    violation(o, "from epoch " + std::to_string(o.epoch) + " of " + o.worker + ", which is in epoch " +
                     std::to_string(present));
  }
  task.number = o.number;
  task.ended = o.final;
}

void TaskChecker::ended(LogIndex index, const std::string& id) {
  Task& task = tasks_[id];
  if (index <= task.last) return;
  task.last = index;
  task.ended = true;
}

}  // namespace uccp::sim
