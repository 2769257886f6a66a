#include "sim/scheduling/virtual_cluster.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace uccp::sim {
namespace {

constexpr size_t kPlacedPerRound = 256;
constexpr int64_t kSlowdownFloorMs = 10'000;
constexpr int64_t kAwayMs = 120'000;  // from the fence to the return
constexpr uint64_t kWholeCheckEvery = 10'000;
constexpr uint32_t kGangSize = 4;
constexpr int64_t kTickMs = 1'000;
constexpr int64_t kGraceMs = 500;  // between the request to stop and the end

std::string zone_name(int64_t zone) { return std::string(1, static_cast<char>('a' + zone)); }

}  // namespace

VirtualCluster::VirtualCluster(uint64_t seed, const VirtualWorkload& workload, tasks::SchedulerOptions options)
    : workload_(workload),
      random_(seed),
      scheduler_(options),
      tasks_(workload.tasks),
      running_of_(workload.namespaces),
      slowdowns_(workload.namespaces) {
  make_workers();
  for (size_t n = 0; n < workload_.namespaces && workload_.quota_tasks > 0; ++n) {
    tasks::QuotaView quota{.key = tasks::namespace_quota_key("n" + std::to_string(n))};
    quota.hard[static_cast<size_t>(tasks::QuotaUnit::kTasks)] = workload_.quota_tasks;
    scheduler_.set_quota("t", quota);
  }
  double arrives_ms = 0;
  for (uint32_t id = 0; id < tasks_.size(); ++id) {
    make_task(id);
    arrives_ms -= std::log(1 - random_.unit()) * 1000 / workload_.tasks_per_s;
    at(static_cast<int64_t>(arrives_ms), Kind::kArrive, id);
  }
  arrivals_end_ms_ = static_cast<int64_t>(arrives_ms);
  if (workload_.failures_per_s > 0) at(exponential(1000 / workload_.failures_per_s), Kind::kCutOff, 0);
}

int64_t VirtualCluster::exponential(double mean) { return static_cast<int64_t>(-std::log(1 - random_.unit()) * mean); }

void VirtualCluster::at(int64_t at_ms, Kind kind, uint32_t id, uint32_t attempt) {
  queue_.push({at_ms, next_sequence_++, kind, id, attempt});
}

void VirtualCluster::make_workers() {
  workers_.resize(workload_.workers);
  for (uint32_t id = 0; id < workers_.size(); ++id) {
    const int64_t size = int64_t{1} << random_.below(3);
    tasks::WorkerView& view = workers_[id].view;
    view = {.id = "worker_" + std::to_string(id),
            .capacity = {16'000 * size, (int64_t{64} << 30) * size, int64_t{1} << 40},
            .slots = 100};
    view.labels = {{"zone", zone_name(static_cast<int64_t>(id / 10 % 3))}};
    if (id % 10 == 0) {
      view.capacity.gpus = 8;
      view.gpus = {{"nvidia-h100", 8, int64_t{80} << 30}};
      view.capacity.counted[tasks::kGpuShare] = 8 * tasks::SharedDevices::kWhole;
    }
    total_cpu_ += view.capacity.cpu_milli;
    worker_ids_[view.id] = id;
    scheduler_.set_worker(view);
  }
}

void VirtualCluster::make_task(uint32_t id) {
  Task& task = tasks_[id];
  task.shape.cpu_milli = workload_.cpu_milli_max >> random_.below(4);
  task.shape.memory = (int64_t{8} << 30) >> random_.below(4);
  if (random_.chance(workload_.gpu_share)) task.shape.gpus = static_cast<int64_t>(1 + random_.below(4));
  if (random_.chance(workload_.selector_share)) task.zone = static_cast<int8_t>(random_.below(3));
  task.duration_ms = 1 + exponential(static_cast<double>(workload_.duration_ms));
  task.name_space = static_cast<uint32_t>(random_.below(workload_.namespaces));
  task.priority = static_cast<int8_t>(40 + 10 * random_.below(3));
  if (workload_.gang_share > 0 && id % kGangSize == 0)
    gang_ = id + kGangSize <= tasks_.size() && random_.chance(workload_.gang_share) ? id / kGangSize + 1 : 0;
  if (gang_ != 0) {
    task.gang = gang_;
    task.name_space = tasks_[id - id % kGangSize].name_space;
  } else if (workload_.shared_gpu_share > 0 && random_.chance(workload_.shared_gpu_share)) {
    task.shape.gpus = 0;
    task.shape.counted[tasks::kGpuShare] = static_cast<int64_t>(100 * (1 + random_.below(9)));
  }
  if (workload_.preemptible_share == 0) return;
  const bool first = gang_ == 0 || id % kGangSize == 0;
  task.preemptible = first ? random_.chance(workload_.preemptible_share) : tasks_[id - 1].preemptible;
  if (task.preemptible) task.priority = 20;
}

// Tells tasks to make room. They do a moment later.
void VirtualCluster::stop(const std::vector<tasks::Eviction>& evictions) {
  std::set<uint32_t> gangs;
  for (const tasks::Eviction& one : evictions) {
    Task& task = tasks_[std::stoul(one.task.id)];
    if (task.state != State::kRunning || task.stopping) breach("a task was stopped that did not run");
    if (!task.preemptible) breach("a task was stopped that may not be");
    task.stopping = true;
    if (task.gang != 0) gangs.insert(task.gang);
    at(now_ms_ + kGraceMs, Kind::kStop, static_cast<uint32_t>(std::stoul(one.task.id)), task.attempt);
  }
  for (const uint32_t gang : gangs) {
    for (uint32_t id = (gang - 1) * kGangSize; id < gang * kGangSize; ++id) {
      if (tasks_[id].state == State::kRunning && !tasks_[id].stopping)
        breach("a part of gang " + std::to_string(gang) + " was stopped");
    }
  }
}

tasks::TaskRef VirtualCluster::ref_of(uint32_t id) const {
  return {"t", "n" + std::to_string(tasks_[id].name_space), std::to_string(id)};
}

void VirtualCluster::breach(const std::string& what) {
  if (violation_.empty())
    violation_ = "at " + std::to_string(now_ms_) + " ms, event " + std::to_string(events_) + ": " + what;
}

bool VirtualCluster::run(int64_t until_ms) {
  while (ended_ < tasks_.size() && violation_.empty()) {
    // Nothing happens any more but that time passes, which the scheduler sees once a second.
    if (queue_.empty() && scheduler_.queued() > 0) at(now_ms_ + kTickMs, Kind::kTick, 0);
    if (queue_.empty() || queue_.top().at_ms > until_ms) return false;
    const Event event = queue_.top();
    queue_.pop();
    const int64_t counted = std::min(event.at_ms, arrivals_end_ms_);
    cpu_ms_ += static_cast<double>(used_cpu_) * static_cast<double>(std::max<int64_t>(0, counted - counted_ms_));
    counted_ms_ = std::max(counted_ms_, counted);
    now_ms_ = event.at_ms;
    ++events_;
    handle(event);
    schedule();
    if (events_ % kWholeCheckEvery == 0) {
      for (uint32_t id = 0; id < workers_.size(); ++id) check_worker(id);
    }
  }
  return violation_.empty();
}

void VirtualCluster::handle(const Event& event) {
  mix(static_cast<uint64_t>(event.at_ms) * 8 + static_cast<uint64_t>(event.kind));
  switch (event.kind) {
    case Kind::kArrive: return queue(event.id);
    case Kind::kEnd:
      if (tasks_[event.id].state == State::kRunning && tasks_[event.id].attempt == event.attempt) end(event.id);
      return;
    case Kind::kCutOff: {
      at(now_ms_ + 1 + exponential(1000 / workload_.failures_per_s), Kind::kCutOff, 0);
      const auto id = static_cast<uint32_t>(random_.below(workers_.size()));
      if (workers_[id].cut_off) return;
      workers_[id].cut_off = true;
      scheduler_.disconnect_worker(workers_[id].view.id);
      return at(now_ms_ + workload_.lease_ms, Kind::kFence, id);
    }
    case Kind::kFence: {
      // What runs there counts no more; only now may it run elsewhere.
      Worker& worker = workers_[event.id];
      scheduler_.remove_worker(worker.view.id);
      for (const uint32_t task : std::set<uint32_t>(worker.tasks)) {
        leave_worker(task);
        ++lost_;
        queue(task);
      }
      return at(now_ms_ + kAwayMs, Kind::kBack, event.id);
    }
    case Kind::kBack:
      workers_[event.id].cut_off = false;
      scheduler_.set_worker(workers_[event.id].view);
      return;
    case Kind::kTick: return;
    case Kind::kStop: {
      Task& task = tasks_[event.id];
      if (task.state != State::kRunning || task.attempt != event.attempt || workers_[task.worker].cut_off) return;
      leave_worker(event.id);
      scheduler_.release(ref_of(event.id));
      ++stopped_;
      task.stopped = true;
      return queue(event.id);
    }
  }
}

void VirtualCluster::queue(uint32_t id) {
  Task& task = tasks_[id];
  if (task.state == State::kFuture) task.queued_ms = now_ms_;
  task.state = State::kQueued;
  tasks::QueuedTask queued{.ref = ref_of(id), .priority = task.priority};
  queued.demand.shape = task.shape;
  if (tasks::gpu_share(task.shape) > 0) {
    queued.demand.tenant = queued.ref.tenant;
    queued.demand.name_space = queued.ref.name_space;
  }
  queued.preemptible = queued.demand.preemptible = task.preemptible;
  if (task.gang != 0) {
    queued.gang = std::to_string(task.gang);
    queued.gang_size = kGangSize;
    queued.gang_again = task.stopped;
    queued.gang_alone = task.attempt > 0 && !task.stopped;
  }
  if (task.zone >= 0) queued.demand.selector = {{"zone", zone_name(task.zone)}};
  queued.order = id + 1;
  queued.queued_ms = task.queued_ms;
  scheduler_.add_task(std::move(queued));
}

void VirtualCluster::schedule() {
  while (true) {
    const auto placed = scheduler_.assign(now_ms_, kPlacedPerRound);
    for (const tasks::Assignment& one : placed) place(static_cast<uint32_t>(std::stoul(one.task.id)), one.worker);
    for (const tasks::Assignment& one : placed) check_worker(worker_ids_.at(one.worker));
    check_gangs(placed);
    stop(scheduler_.take_evictions());
    if (placed.size() < kPlacedPerRound) return;
  }
}

void VirtualCluster::place(uint32_t id, const std::string& worker_name) {
  ++decisions_;
  Task& task = tasks_[id];
  const auto found = worker_ids_.find(worker_name);
  UCCP_CHECK(found != worker_ids_.end(), "a task is given to a worker that there is");
  Worker& worker = workers_[found->second];
  mix(uint64_t{id} << 32 | found->second);
  if (task.state != State::kQueued) breach("task " + std::to_string(id) + " was placed while it was not queued");
  if (worker.cut_off) breach("a task was given to " + worker_name + ", which is cut off");
  if (task.zone >= 0 && worker.view.labels.at("zone") != zone_name(task.zone))
    breach("a task was placed in a wrong zone");
  task.state = State::kRunning;
  task.stopping = task.stopped = false;
  task.worker = found->second;
  task.started_ms = now_ms_;
  count_in_books(id, 1);
  if (workload_.quota_tasks > 0 && running_of_[task.name_space] > workload_.quota_tasks)
    breach("namespace n" + std::to_string(task.name_space) + " has more tasks than its quota");
  running_peak_ = std::max(running_peak_, running_);
  const int64_t factor = random_.chance(workload_.straggler_share) ? 10 : 1;
  at(now_ms_ + task.duration_ms * factor, Kind::kEnd, id, ++task.attempt);
}

void VirtualCluster::leave_worker(uint32_t id) { count_in_books(id, -1); }

void VirtualCluster::count_in_books(uint32_t id, int64_t sign) {
  const Task& task = tasks_[id];
  Worker& worker = workers_[task.worker];
  if (sign > 0) {
    worker.used += task.shape;
    worker.tasks.insert(id);
  } else {
    worker.used -= task.shape;
    worker.tasks.erase(id);
  }
  worker.shares[task.name_space] += sign * tasks::gpu_share(task.shape);
  used_cpu_ += sign * task.shape.cpu_milli;
  running_of_[task.name_space] += sign;
  running_ += static_cast<size_t>(sign);
}

// A gang that starts, starts whole. What was lost and comes back goes alone.
void VirtualCluster::check_gangs(const std::vector<tasks::Assignment>& placed) {
  std::map<uint32_t, size_t> started;
  for (const tasks::Assignment& one : placed) {
    const Task& task = tasks_[std::stoul(one.task.id)];
    if (task.gang != 0 && task.attempt == 1) ++started[task.gang];
  }
  for (const auto& [gang, count] : started) {
    if (count != kGangSize) breach(std::to_string(count) + " tasks of gang " + std::to_string(gang) + " started alone");
  }
}

void VirtualCluster::check_devices(const Worker& worker, const tasks::Scheduler::Usage& usage) {
  int64_t least = worker.used.gpus;
  for (const auto& [name_space, share] : worker.shares)
    least += (share + tasks::SharedDevices::kWhole - 1) / tasks::SharedDevices::kWhole;
  if (usage.used.gpus < least || usage.used.gpus > worker.view.capacity.gpus) {
    breach(worker.view.id + " has " + std::to_string(usage.used.gpus) + " devices in use, but its tasks need " +
           std::to_string(least) + " of " + std::to_string(worker.view.capacity.gpus));
  }
}

// An attempt on a worker that is cut off ends too, but nobody hears of it before the fence; then it does not count.
void VirtualCluster::end(uint32_t id) {
  Task& task = tasks_[id];
  if (workers_[task.worker].cut_off) return;
  leave_worker(id);
  task.state = State::kEnded;
  ++ended_;
  scheduler_.release(ref_of(id));
  const auto total = static_cast<double>(now_ms_ - task.queued_ms);
  const double slowdown = std::max(1.0, total / static_cast<double>(std::max(task.duration_ms, kSlowdownFloorMs)));
  slowdown_sum_ += slowdown;
  slowdowns_[task.name_space].first += slowdown;
  ++slowdowns_[task.name_space].second;
  check_worker(task.worker);
}

void VirtualCluster::check_worker(uint32_t id) {
  const Worker& worker = workers_[id];
  if (!worker.used.fits_in(worker.view.capacity)) breach(worker.view.id + " was given more than it has");
  if (worker.tasks.size() > worker.view.slots) breach(worker.view.id + " runs more attempts than it may");
  auto usage = scheduler_.usage(worker.view.id);
  check_devices(worker, usage);
  usage.used.gpus = worker.used.gpus;  // beside it are those that are shared
  if (usage.used != worker.used || usage.running != worker.tasks.size()) {
    breach("the books of " + worker.view.id + " are wrong: " + std::to_string(usage.running) + " tasks, but " +
           std::to_string(worker.tasks.size()) + " run there");
  }
}

double VirtualCluster::utilisation() const {
  return counted_ms_ == 0 ? 0 : cpu_ms_ / (static_cast<double>(total_cpu_) * static_cast<double>(counted_ms_));
}

double VirtualCluster::fairness() const {
  double sum = 0, squares = 0;
  size_t count = 0;
  for (const auto& [total, tasks] : slowdowns_) {
    if (tasks == 0) continue;
    const double mean = total / static_cast<double>(tasks);
    sum += mean;
    squares += mean * mean;
    ++count;
  }
  return count == 0 ? 1 : sum * sum / (static_cast<double>(count) * squares);
}

}  // namespace uccp::sim
