#include "services/tasks/scheduler.h"

#include <algorithm>

namespace uccp::tasks {

bool Shape::fits_in(const Shape& free) const {
  return cpu_milli <= free.cpu_milli && memory <= free.memory && disk <= free.disk && gpus <= free.gpus &&
         network_bps <= free.network_bps && std::ranges::all_of(counted, [&](const auto& need) {
           const auto have = free.counted.find(need.first);
           return have != free.counted.end() && need.second <= have->second;
         });
}

Shape& Shape::operator+=(const Shape& o) {
  cpu_milli += o.cpu_milli;
  memory += o.memory;
  disk += o.disk;
  gpus += o.gpus;
  network_bps += o.network_bps;
  for (const auto& [name, amount] : o.counted) {
    const auto sum = counted.try_emplace(name, 0).first;
    sum->second += amount;
    if (sum->second == 0) counted.erase(sum);
  }
  return *this;
}

Shape& Shape::operator-=(const Shape& o) {
  cpu_milli -= o.cpu_milli;
  memory -= o.memory;
  disk -= o.disk;
  gpus -= o.gpus;
  network_bps -= o.network_bps;
  for (const auto& [name, amount] : o.counted) {
    const auto rest = counted.try_emplace(name, 0).first;
    rest->second -= amount;
    if (rest->second == 0) counted.erase(rest);
  }
  return *this;
}

namespace {

// Per mille of the capacity that is free in the scarcest resource.
int64_t dominant_free_share(const Shape& capacity, const Shape& free) {
  int64_t share = 1000;
  const auto consider = [&](int64_t total, int64_t left) {
    if (total > 0) share = std::min(share, static_cast<int64_t>(static_cast<__int128>(left) * 1000 / total));
  };
  consider(capacity.cpu_milli, free.cpu_milli);
  consider(capacity.memory, free.memory);
  consider(capacity.gpus, free.gpus);
  consider(capacity.network_bps, free.network_bps);
  for (const auto& [name, total] : capacity.counted) {
    const auto left = free.counted.find(name);
    consider(total, left == free.counted.end() ? 0 : left->second);
  }
  return share;
}

bool selected(const LabelMap& selector, const LabelMap& labels) {
  return std::ranges::all_of(selector, [&](const auto& wanted) {
    const auto it = labels.find(wanted.first);
    return it != labels.end() && it->second == wanted.second;
  });
}

bool has_gpus(const GpuNeed& need, int64_t count, const std::vector<GpuKind>& kinds) {
  if (count == 0 || (need.type.empty() && need.memory == 0)) return true;
  return std::ranges::any_of(kinds, [&](const GpuKind& kind) {
    return kind.type.starts_with(need.type) && kind.memory >= need.memory && kind.count >= count;
  });
}

bool has_taint(const Marks& taints, const Marks& tolerations, bool preferred) {
  return std::ranges::any_of(taints, [&](const Mark& taint) {
    return (taint.kind == TaintKind::kPreferNot) == preferred && !tolerates(tolerations, taint);
  });
}

}  // namespace

bool tolerates(const Marks& tolerations, const Mark& taint) {
  return std::ranges::any_of(tolerations, [&](const Mark& one) {
    return (one.key.empty() || one.key == taint.key) && (one.value.empty() || one.value == taint.value) &&
           (one.kind == TaintKind::kAny || one.kind == taint.kind);
  });
}

bool Scheduler::GroupKey::operator<(const GroupKey& o) const {
  if (priority != o.priority) return priority > o.priority;
  if (shape != o.shape) return shape < o.shape;
  if (selector != o.selector) return selector < o.selector;
  if (gpu != o.gpu) return gpu < o.gpu;
  return tolerations < o.tolerations;
}

void Scheduler::enqueue(const QueuedTask& task) { groups_[key_of(task)].emplace(task.order, task.ref); }

void Scheduler::add_task(QueuedTask task) {
  remove_task(task.ref);
  if (task.not_before_ms > 0) delayed_.emplace(task.not_before_ms, task.ref);
  else enqueue(task);
  queued_.emplace(task.ref, std::move(task));
}

bool Scheduler::remove_task(const TaskRef& ref) {
  const auto it = queued_.find(ref);
  if (it == queued_.end()) return false;
  delayed_.erase({it->second.not_before_ms, ref});
  if (const auto group = groups_.find(key_of(it->second)); group != groups_.end()) {
    group->second.erase({it->second.order, ref});
    if (group->second.empty()) groups_.erase(group);
  }
  queued_.erase(it);
  return true;
}

void Scheduler::set_worker(const WorkerView& view) { workers_[view.id].view = view; }

void Scheduler::disconnect_worker(const std::string& id) {
  if (const auto worker = workers_.find(id); worker != workers_.end()) worker->second.view.connected = false;
}

void Scheduler::remove_worker(const std::string& id) {
  workers_.erase(id);
  std::erase_if(running_, [&](const auto& entry) { return entry.second.worker == id; });
}

void Scheduler::occupy(const std::string& worker, const TaskRef& task, const Shape& shape) {
  release(task);
  Worker& w = workers_[worker];
  w.view.id = worker;
  w.used += shape;
  w.running += 1;
  running_[task] = {worker, shape};
}

void Scheduler::release(const TaskRef& task) {
  const auto it = running_.find(task);
  if (it == running_.end()) return;
  if (const auto worker = workers_.find(it->second.worker); worker != workers_.end()) {
    worker->second.used -= it->second.shape;
    worker->second.running -= 1;
  }
  running_.erase(it);
}

Obstacle Scheduler::obstacle(const GroupKey& group, const Worker& worker) {
  const WorkerView& view = worker.view;
  if (!view.connected) return Obstacle::kNotConnected;
  if (!view.accepts) return Obstacle::kCordoned;
  if (!selected(group.selector, view.labels)) return Obstacle::kLabels;
  if (has_taint(view.taints, group.tolerations, false)) return Obstacle::kTaints;
  if (!group.shape.fits_in(view.capacity) || !has_gpus(group.gpu, group.shape.gpus, view.gpus)) return Obstacle::kTooSmall;
  if (worker.running >= view.slots) return Obstacle::kSlots;
  Shape free = view.capacity;
  free -= worker.used;
  return group.shape.fits_in(free) ? Obstacle::kNone : Obstacle::kBusy;
}

Scheduler::Worker* Scheduler::best_fit(const GroupKey& group) {
  Worker* best = nullptr;
  // Workers that it is better kept away from come last.
  std::pair<bool, int64_t> best_cost;
  for (auto& [id, worker] : workers_) {
    if (obstacle(group, worker) != Obstacle::kNone) continue;
    Shape free = worker.view.capacity;
    free -= worker.used;
    free -= group.shape;
    const std::pair cost(has_taint(worker.view.taints, group.tolerations, true),
                         dominant_free_share(worker.view.capacity, free));
    if (best == nullptr || cost < best_cost) {
      best = &worker;
      best_cost = cost;
    }
  }
  return best;
}

std::vector<Assignment> Scheduler::assign(int64_t now_ms, size_t count_max) {
  while (!delayed_.empty() && delayed_.begin()->first <= now_ms) {
    enqueue(queued_.at(delayed_.begin()->second));
    delayed_.erase(delayed_.begin());
  }
  std::vector<Assignment> out;
  for (auto group = groups_.begin(); group != groups_.end() && out.size() < count_max;) {
    while (!group->second.empty() && out.size() < count_max) {
      Worker* worker = best_fit(group->first);
      if (worker == nullptr) break;
      const TaskRef ref = group->second.begin()->second;
      group->second.erase(group->second.begin());
      queued_.erase(ref);
      out.push_back({ref, worker->view.id});
      occupy(worker->view.id, ref, group->first.shape);
    }
    group = group->second.empty() ? groups_.erase(group) : std::next(group);
  }
  return out;
}

int64_t Scheduler::next_due_ms() const { return delayed_.empty() ? -1 : delayed_.begin()->first; }

Scheduler::Usage Scheduler::usage(const std::string& id) const {
  const auto it = workers_.find(id);
  return it == workers_.end() ? Usage{} : Usage{it->second.view.capacity, it->second.used, it->second.running};
}

Scheduler::Usage Scheduler::total_usage() const {
  Usage total;
  for (const auto& [id, worker] : workers_) {
    total.capacity += worker.view.capacity;
    total.used += worker.used;
    total.running += worker.running;
  }
  return total;
}

}  // namespace uccp::tasks
