#include "services/tasks/live_tasks.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "services/work_types.h"

namespace uccp::tasks {

Shape shape_of(const v1::Resources& r) {
  return {.cpu_milli = static_cast<int64_t>(std::llround(r.cpu() * 1000)),
          .memory = static_cast<int64_t>(r.memory()),
          .disk = static_cast<int64_t>(r.disk()),
          .gpus = static_cast<int64_t>(std::llround(r.gpu().count()))};
}

void set_resources(v1::Resources& out, const Shape& shape) {
  out.set_cpu(static_cast<double>(shape.cpu_milli) / 1000);
  out.set_memory(static_cast<uint64_t>(std::max<int64_t>(0, shape.memory)));
  out.set_disk(static_cast<uint64_t>(std::max<int64_t>(0, shape.disk)));
  if (shape.gpus > 0) out.mutable_gpu()->set_count(static_cast<double>(shape.gpus));
}

void LiveTasks::set(const TaskRef& ref, const LiveAttempt& attempt) {
  {
    std::lock_guard lock(mutex_);
    tasks_[ref] = attempt;
  }
  notify(ref);
}

void LiveTasks::erase(const TaskRef& ref) {
  std::lock_guard lock(mutex_);
  tasks_.erase(ref);
}

void LiveTasks::clear() {
  std::lock_guard lock(mutex_);
  tasks_.clear();
}

std::optional<LiveAttempt> LiveTasks::find(const TaskRef& ref) const {
  std::lock_guard lock(mutex_);
  const auto it = tasks_.find(ref);
  return it == tasks_.end() ? std::nullopt : std::optional(it->second);
}

size_t LiveTasks::running() const {
  std::lock_guard lock(mutex_);
  size_t count = 0;
  for (const auto& [ref, attempt] : tasks_) count += attempt.started ? 1 : 0;
  return count;
}

void LiveTasks::set_worker(const std::string& id, const LiveWorker& worker) {
  {
    std::lock_guard lock(mutex_);
    workers_[id] = worker;
  }
  if (on_worker_) on_worker_();
}

size_t LiveTasks::workers_connected() const {
  std::lock_guard lock(mutex_);
  return static_cast<size_t>(std::ranges::count_if(workers_, [](const auto& w) { return w.second.connected; }));
}

void LiveTasks::erase_worker(const std::string& id) {
  std::lock_guard lock(mutex_);
  workers_.erase(id);
}

std::optional<LiveWorker> LiveTasks::find_worker(const std::string& id) const {
  std::lock_guard lock(mutex_);
  const auto it = workers_.find(id);
  return it == workers_.end() ? std::nullopt : std::optional(it->second);
}

void LiveTasks::overlay(const std::string& tenant, v1::Task& task) const {
  if (work::is_terminal(task.status())) return;
  const auto live = find({tenant, task.namespace_(), task.id()});
  // What ran belongs to the attempt after the last one recorded; anything older is about to go.
  if (!live || !live->started || live->id.attempt_number() != task.attempts() + 1) return;
  if (task.status() == v1::TASK_STATUS_QUEUED) {
    task.set_status(v1::TASK_STATUS_RUNNING);
    task.clear_status_reason();
  }
  task.set_attempts(live->id.attempt_number());
  task.set_worker_id(live->id.worker_id());
  *task.mutable_start_time() = live->start_time;
  task.clear_exit_code();
  task.clear_next_attempt_time();
  if (live->usage) *task.mutable_usage() = *live->usage;
  if (live->progress) task.set_progress(*live->progress);
}

void LiveTasks::overlay(v1::Worker& worker, bool cordoned) const {
  const auto live = find_worker(worker.id());
  v1::WorkerResources& resources = *worker.mutable_resources();
  const Shape total = shape_of(resources.total());
  const Shape used = live ? live->used : Shape{};
  Shape available = total;
  available -= used;
  set_resources(*resources.mutable_allocated(), used);
  set_resources(*resources.mutable_available(), available);
  worker.set_running_tasks(live ? static_cast<int32_t>(live->running) : 0);
  const bool connected = live && live->connected;
  if (connected) {
    worker.set_status(cordoned ? v1::WORKER_STATUS_CORDONED : v1::WORKER_STATUS_READY);
    worker.clear_status_reason();
  } else if (worker.status() != v1::WORKER_STATUS_LOST && worker.status() != v1::WORKER_STATUS_REGISTERED) {
    worker.set_status(v1::WORKER_STATUS_UNREACHABLE);
    worker.set_status_reason("no heartbeat from its agent");
  }
  worker.set_health(connected ? v1::HEALTH_STATUS_HEALTHY : v1::HEALTH_STATUS_UNHEALTHY);
  worker.set_health_score(connected ? 1 : 0);
  if (live && live->last_seen.us > 0) {
    worker.mutable_last_seen()->set_seconds(live->last_seen.us / 1'000'000);
    worker.mutable_last_seen()->set_nanos(static_cast<int32_t>(live->last_seen.us % 1'000'000 * 1000));
  }
  if (live && live->load) *worker.mutable_load() = *live->load;
}

uint64_t LiveTasks::listen(Listener listener) {
  std::lock_guard lock(mutex_);
  listeners_[next_listener_] = std::move(listener);
  return next_listener_++;
}

void LiveTasks::unlisten(uint64_t id) {
  std::lock_guard lock(mutex_);
  listeners_.erase(id);
}

void LiveTasks::notify(const TaskRef& ref) {
  std::vector<Listener> listeners;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [id, listener] : listeners_) listeners.push_back(listener);
  }
  for (const Listener& listener : listeners) listener(ref);
}

}  // namespace uccp::tasks
