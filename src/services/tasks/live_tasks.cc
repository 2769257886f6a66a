#include "services/tasks/live_tasks.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "services/quota_use_types.h"
#include "services/tasks/attempts.h"
#include "services/tasks/resources_service.h"
#include "services/tasks/task_arrays.h"

namespace uccp::tasks {

namespace {

int64_t thousandths(double amount) { return static_cast<int64_t>(std::llround(amount * 1000)); }
double from_thousandths(int64_t amount) { return static_cast<double>(amount) / 1000; }

// Kinds and types of accelerators have no blanks in their kind, names of declared resources have none at all.
std::string accelerator_key(const v1::AcceleratorRequest& accelerator, bool typed) {
  return "accelerator " + accelerator.kind() + (typed ? " " + accelerator.type() : "");
}

void set_counted(v1::Resources& out, const std::string& name, int64_t amount) {
  if (name == kGpuShare || name == kOrdinaryCpu) return;  // the device, and the CPU, are counted
  constexpr std::string_view kAccelerator = "accelerator ";
  if (!name.starts_with(kAccelerator)) {
    (*out.mutable_extended())[name] = from_thousandths(amount);
    return;
  }
  const std::string kind = name.substr(kAccelerator.size());
  if (kind.find(' ') != std::string::npos) return;  // a type, counted under its kind as well
  v1::AcceleratorRequest& accelerator = *out.add_accelerators();
  accelerator.set_kind(kind);
  accelerator.set_count(from_thousandths(amount));
}

}  // namespace

Shape shape_of(const v1::Resources& r) {
  Shape shape{.cpu_milli = thousandths(r.cpu()),
              .memory = static_cast<int64_t>(r.memory()),
              .disk = static_cast<int64_t>(r.disk()),
              .network_bps = static_cast<int64_t>(r.network_bps())};
  if (const double gpus = r.gpu().count(); gpus < 1 && thousandths(gpus) > 0)
    shape.counted[kGpuShare] = thousandths(gpus);
  else shape.gpus = static_cast<int64_t>(gpus);
  for (const auto& [name, amount] : r.extended()) {
    if (thousandths(amount) > 0) shape.counted[name] += thousandths(amount);
  }
  for (const v1::AcceleratorRequest& accelerator : r.accelerators()) {
    if (thousandths(accelerator.count()) <= 0) continue;
    shape.counted[accelerator_key(accelerator, false)] += thousandths(accelerator.count());
    if (!accelerator.type().empty())
      shape.counted[accelerator_key(accelerator, true)] += thousandths(accelerator.count());
  }
  return shape;
}

void set_resources(v1::Resources& out, const Shape& shape) {
  out.set_cpu(static_cast<double>(shape.cpu_milli) / 1000);
  out.set_memory(static_cast<uint64_t>(std::max<int64_t>(0, shape.memory)));
  out.set_disk(static_cast<uint64_t>(std::max<int64_t>(0, shape.disk)));
  if (shape.gpus > 0) out.mutable_gpu()->set_count(static_cast<double>(shape.gpus));
  out.set_network_bps(static_cast<uint64_t>(std::max<int64_t>(0, shape.network_bps)));
  for (const auto& [name, amount] : shape.counted) {
    if (amount > 0) set_counted(out, name, amount);
  }
}

namespace {

GpuLink link_of(v1::GpuTopology topology) {
  switch (topology) {
    case v1::GPU_TOPOLOGY_NUMA: return GpuLink::kNuma;
    case v1::GPU_TOPOLOGY_PCIE: return GpuLink::kPcie;
    case v1::GPU_TOPOLOGY_NVLINK: return GpuLink::kNvlink;
    default: return GpuLink::kAny;
  }
}

TaintKind kind_of(v1::TaintEffect effect, TaintKind unspecified) {
  switch (effect) {
    case v1::TAINT_EFFECT_NO_SCHEDULE: return TaintKind::kNoSchedule;
    case v1::TAINT_EFFECT_PREFER_NO_SCHEDULE: return TaintKind::kPreferNot;
    case v1::TAINT_EFFECT_NO_EXECUTE: return TaintKind::kNoExecute;
    default: return unspecified;
  }
}

// "HIGH_MEMORY" of WORKER_TYPE_HIGH_MEMORY as people write it: high-memory.
std::string type_word(v1::WorkerType type) {
  std::string word = v1::WorkerType_Name(type == v1::WORKER_TYPE_UNSPECIFIED ? v1::WORKER_TYPE_DEDICATED : type);
  word.erase(0, std::string_view("WORKER_TYPE_").size());
  for (char& c : word) c = c == '_' ? '-' : static_cast<char>(c - 'A' + 'a');
  return word;
}

}  // namespace

Marks tolerations_of(const v1::Task& task) {
  Marks marks;
  for (const v1::Toleration& one : task.tolerations()) {
    marks.push_back({one.key(), one.value(), kind_of(one.effect(), TaintKind::kAny)});
  }
  return marks;
}

namespace {

void set_affinity(Demand& demand, const v1::Task& task) {
  const v1::Affinity& affinity = task.affinity();
  demand.required.assign(affinity.worker_required().begin(), affinity.worker_required().end());
  for (const v1::WeightedSelector& one : affinity.worker_preferred()) {
    demand.preferred.emplace_back(one.selector(), one.weight() == 0 ? 1 : one.weight());
  }
  const auto add = [&](const auto& terms, bool away) {
    for (const v1::TaskAffinity& one : terms)
      demand.near.push_back({one.selector(), one.topology_key(), away, one.preferred()});
  };
  add(affinity.near_tasks(), false);
  add(affinity.away_from_tasks(), true);
  if (!demand.near.empty()) demand.labels.insert(task.labels().begin(), task.labels().end());
}

}  // namespace

QueuedTask queued_of(const TaskRef& ref, const v1::Task& task) {
  QueuedTask queued{.ref = ref};
  queued.priority = task.has_priority() ? task.priority() : work::kPriorityDefault;
  Demand& demand = queued.demand;
  demand.shape = shape_of(task.resources());
  const v1::GpuRequest& gpu = task.resources().gpu();
  demand.gpu = {gpu.type(), static_cast<int64_t>(gpu.memory()), link_of(gpu.topology()),
                dotted_version(gpu.driver_version_min())};
  demand.tolerations = tolerations_of(task);
  demand.selector.insert(task.node_selector().begin(), task.node_selector().end());
  set_affinity(demand, task);
  if (!demand.near.empty() || gpu_share(demand.shape) > 0) {
    demand.tenant = ref.tenant;
    demand.name_space = ref.name_space;
  }
  // The time limit is what is sure of its length; what is lent to it is taken back then. The stop takes its grace.
  if (task.has_timeout())
    demand.duration_ms = ms_of(task.timeout()) + (task.has_grace_period() ? ms_of(task.grace_period()) : 10'000);
  queued.preemptible = demand.preemptible = task.preemptible();
  // What comes back alone goes alone; a gang that was stopped as a whole starts again as one.
  const bool stopped = task.attempts() > 0 && task.attempt_history_size() > 0 &&
                       task.attempt_history().rbegin()->outcome() == v1::ATTEMPT_OUTCOME_KIND_PREEMPTED;
  if (task.has_gang()) {
    queued.gang = task.gang().id();
    queued.gang_size = static_cast<size_t>(task.gang().min_size() > 0 ? task.gang().min_size() : task.gang().size());
    queued.gang_again = stopped;
    queued.gang_alone = task.attempts() > 0 && !stopped;
  }
  queued.interactive = task.type() == v1::TASK_TYPE_INTERACTIVE;
  queued.labels.insert(task.labels().begin(), task.labels().end());
  queued.queue = task.queue();
  queued.user = task.principal();
  queued.name = task.name();
  queued.order = task.revision();
  return queued;
}

std::optional<EndedRun> ended_run(const machine::Scope& scope, const v1::Task& task) {
  if (task.status() != v1::TASK_STATUS_SUCCEEDED || task.name().empty()) return std::nullopt;
  if (task.attempt_history().empty()) return std::nullopt;
  const v1::Attempt& last = *task.attempt_history().rbegin();
  if (!last.has_start_time() || !last.has_end_time()) return std::nullopt;
  const int64_t end_us = services::us_of(last.end_time());
  const int64_t run_ms = (end_us - services::us_of(last.start_time())) / 1000;
  if (run_ms < 0) return std::nullopt;
  return EndedRun{{scope.tenant, scope.name_space, task.name()}, end_us, run_ms};
}

void set_gang_start(const internal::v1::TaskRow& row, bool stops_are_kept, QueuedTask& queued) {
  const int32_t attempts = row.task().attempts();
  if (attempts == 0) return;
  // However its last attempt ended: it was to stop with its gang, and starts with it again.
  const bool together = row.has_stopped() && row.stopped().number() == attempts;
  // One that a drain or a taint has stopped was stopped by itself, and nobody comes that it could wait for.
  if (!together && !stops_are_kept) return;
  queued.gang_again = together;
  queued.gang_alone = !together;
}

WorkerView view_of(const internal::v1::WorkerRow& row, size_t slots) {
  WorkerView view{.id = row.worker().id(),
                  .capacity = shape_of(row.worker().resources().total()),
                  .slots = slots,
                  .accepts = !row.cordoned() && !row.has_drain()};
  view.labels.insert(row.worker().labels().begin(), row.worker().labels().end());
  const v1::Worker& worker = row.worker();
  view.labels[std::string(work::kWorkerLabel)] = worker.id();
  view.labels["uccp/pool"] = worker.pool().empty() ? "default" : worker.pool();
  view.labels["uccp/type"] = type_word(worker.type());
  if (!worker.region().empty()) view.labels["uccp/region"] = worker.region();
  if (!worker.zone().empty()) view.labels["uccp/zone"] = worker.zone();
  for (const v1::Taint& taint : worker.taints()) {
    view.taints.push_back({taint.key(), taint.value(), kind_of(taint.effect(), TaintKind::kNoSchedule)});
  }
  for (const v1::WorkerGpu& gpu : worker.gpus()) {
    view.gpus.push_back({gpu.type(), gpu.count(), static_cast<int64_t>(gpu.memory()), link_of(gpu.topology()),
                         dotted_version(gpu.driver_version())});
  }
  view.spot = worker.type() == v1::WORKER_TYPE_SPOT;
  if (const double cores = worker.resources().total().cpu(); cores > 0)
    view.price = std::llround(worker.price_per_hour() / cores * 1'000'000);
  if (view.capacity.gpus > 0) view.capacity.counted[kGpuShare] = view.capacity.gpus * SharedDevices::kWhole;
  return view;
}

void LiveTasks::set(const TaskRef& ref, const LiveAttempt& attempt) {
  bool shows = attempt.started;
  {
    std::lock_guard lock(mutex_);
    LiveAttempt& known = tasks_[ref];
    shows = shows || known.started;
    if (attempt.started != known.started) count_element(ref, attempt.started ? 1 : -1);
    known = attempt;
  }
  // What has not started is laid over nothing.
  if (shows) notify(ref);
}

void LiveTasks::erase(const TaskRef& ref) {
  std::lock_guard lock(mutex_);
  const auto known = tasks_.find(ref);
  if (known == tasks_.end()) return;
  if (known->second.started) count_element(ref, -1);
  tasks_.erase(known);
}

void LiveTasks::clear() {
  std::lock_guard lock(mutex_);
  tasks_.clear();
  running_elements_.clear();
}

void LiveTasks::count_element(const TaskRef& ref, int32_t change) {
  const auto element = element_of(ref.id);
  if (!element) return;
  const auto sum = running_elements_.try_emplace({ref.tenant, ref.name_space, element->array}).first;
  sum->second += change;
  if (sum->second == 0) running_elements_.erase(sum);
}

int32_t LiveTasks::running_elements(const TaskRef& array) const {
  std::lock_guard lock(mutex_);
  const auto sum = running_elements_.find(array);
  return sum == running_elements_.end() ? 0 : sum->second;
}

namespace {

// An array runs while one of its elements does.
void overlay_array(v1::Task& task, int32_t running) {
  v1::ArrayElements& all = *task.mutable_elements();
  const int32_t left =
      work::is_terminal(task.status()) ? 0 : task.array().size() - static_cast<int32_t>(ended_elements(task));
  all.set_running(std::min(running, left));
  all.set_waiting(left - all.running());
  if (all.running() == 0 || task.status() != v1::TASK_STATUS_QUEUED) return;
  task.set_status(v1::TASK_STATUS_RUNNING);
  task.clear_status_reason();
}

}  // namespace

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
  if (is_array(task)) return overlay_array(task, running_elements({tenant, task.namespace_(), task.id()}));
  if (work::is_terminal(task.status())) return;
  std::lock_guard lock(mutex_);
  const auto found = tasks_.find({tenant, task.namespace_(), task.id()});
  if (found == tasks_.end()) return;
  const LiveAttempt* live = &found->second;
  // What ran belongs to the attempt after the last one recorded; anything older is about to go.
  if (!live->started || live->id.attempt_number() != task.attempts() + 1) return;
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

namespace {

// The part of its health that its faults leave a worker.
double trusted_share(const LiveTrust& trust) {
  constexpr double kQuarantined = 0.1, kOnProbation = 0.5, kEachFault = 0.1;
  if (trust.quarantined) return kQuarantined;
  if (trust.probation_left > 0) return kOnProbation;
  return std::max(kOnProbation, 1 - kEachFault * trust.faults);
}

void set_trust(v1::Worker& worker, const LiveTrust& trust) {
  worker.set_recent_faults(trust.faults);
  worker.set_probation_left(trust.quarantined ? 0 : trust.probation_left);
  if (trust.quarantined) services::set_wall(worker.mutable_quarantine_until(), trust.until);
}

}  // namespace

void LiveTasks::overlay(v1::Worker& worker, const internal::v1::WorkerRow& row) const {
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
    worker.clear_status_reason();
    if (row.has_drain()) {
      worker.set_status(live->running > 0 ? v1::WORKER_STATUS_DRAINING : v1::WORKER_STATUS_DRAINED);
      worker.set_status_reason(row.drain().reason());
    } else if (row.cordoned()) {
      worker.set_status(v1::WORKER_STATUS_CORDONED);
      worker.set_status_reason(row.cordon_reason());
    } else if (live->trust.quarantined) {
      worker.set_status(v1::WORKER_STATUS_QUARANTINED);
      worker.set_status_reason("too many attempts failed by a fault of the worker; uncordon trusts it again at once");
    } else {
      worker.set_status(v1::WORKER_STATUS_READY);
      if (live->trust.probation_left > 0)
        worker.set_status_reason("on probation after a quarantine: one attempt at a time");
    }
  } else if (worker.status() != v1::WORKER_STATUS_LOST && worker.status() != v1::WORKER_STATUS_REGISTERED) {
    worker.set_status(v1::WORKER_STATUS_UNREACHABLE);
    worker.set_status_reason("no heartbeat from its agent");
  }
  if (row.has_drain()) {
    worker.mutable_drain_deadline()->set_seconds(row.drain().deadline_wall_us() / 1'000'000);
    worker.mutable_drain_deadline()->set_nanos(static_cast<int32_t>(row.drain().deadline_wall_us() % 1'000'000 * 1000));
  }
  const double score = connected ? live->health_score * trusted_share(live->trust) : 0;
  if (live) set_trust(worker, live->trust);
  worker.set_health(score >= 1  ? v1::HEALTH_STATUS_HEALTHY
                    : score > 0 ? v1::HEALTH_STATUS_DEGRADED
                                : v1::HEALTH_STATUS_UNHEALTHY);
  worker.set_health_score(score);
  if (connected && live->health_score < 1)
    worker.set_status_reason("heartbeats are missing; nothing is placed there meanwhile");
  if (live && live->last_seen.us > 0) {
    worker.mutable_last_seen()->set_seconds(live->last_seen.us / 1'000'000);
    worker.mutable_last_seen()->set_nanos(static_cast<int32_t>(live->last_seen.us % 1'000'000 * 1000));
  }
  if (live && live->load) *worker.mutable_load() = *live->load;
  if (live && !live->gpus.empty()) *worker.mutable_gpus() = {live->gpus.begin(), live->gpus.end()};
}

void LiveTasks::set_queued(size_t count) {
  std::lock_guard lock(mutex_);
  queued_ = count;
}

size_t LiveTasks::queued() const {
  std::lock_guard lock(mutex_);
  return queued_;
}

void LiveTasks::set_quota_use(QuotaUse use) {
  std::lock_guard lock(mutex_);
  quota_use_ = std::move(use);
}

void LiveTasks::overlay(const std::string& tenant, v1::ResourceQuota& quota) const {
  QuotaUsed used;
  {
    std::lock_guard lock(mutex_);
    const auto found = quota_use_.find({tenant, work::quota_key(quota)});
    if (found != quota_use_.end()) used = found->second;
  }
  *quota.mutable_used() = used.budgets;
  set_limits(*quota.mutable_used(), used.now);
  double share = 0;
  const auto consider = [&](const auto& unit) {
    const double limit = unit.get(quota.hard());
    if (limit > 0) share = std::max(share, unit.get(quota.used()) / limit);
  };
  std::ranges::for_each(work::quota_amount_table(), consider);
  std::ranges::for_each(work::budget_table(), consider);
  quota.set_dominant_share(share);
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
