#include "services/tasks/scheduler.h"

#include <algorithm>

namespace uccp::tasks {
namespace {

// So many workers that have got room are tried for a class one by one; with more, all are searched again.
constexpr size_t kCandidatesMax = 256;
const LabelMap kNoLabels;
constexpr std::string_view kDefaultQueue = "default";

}  // namespace

SchedulerOptions scheduler_options(const SchedulerPolicy& policy) {
  SchedulerOptions options;
  options.headroom_percent = policy.headroom_percent;
  options.gang_reservations_max = policy.gang_reservations;
  options.backfill = policy.backfill;
  options.backfill_rules = policy.backfill_rules;
  return options;
}

Scheduler::Scheduler(SchedulerOptions options)
    : options_(options), fleet_(options.packing), queues_(options.fairness) {}

Scheduler::~Scheduler() = default;

const LabelMap& Scheduler::Running::labels() const { return extras ? extras->labels : kNoLabels; }

std::vector<std::string> Scheduler::path_of(const QueuedTask& task) {
  return {task.ref.tenant, task.ref.name_space, task.queue, task.user};
}

// --- classes

Scheduler::Class* Scheduler::class_of(Demand demand) {
  const auto found = classes_.find(demand);
  if (found != classes_.end()) return &found->second;
  Demand key = demand;
  Class& cls = classes_.try_emplace(std::move(key), std::move(demand), fleet_, next_class_++).first->second;
  cls.footprint = footprint_of(cls.asked.demand().shape);
  if (!cls.asked.demand().near.empty()) {
    near_classes_.emplace(cls.number, &cls);
    near_.add_class(cls.number, cls.asked.demand(), residents());
  }
  return &cls;
}

void Scheduler::leave_class(Class* cls) {
  if (--cls->members > 0) return;
  end_reservation(*cls);
  limited_.erase(cls->number);
  if (near_classes_.erase(cls->number) > 0) near_.remove_class(cls->number, cls->asked.demand());
  --cls->footprint->users;
  classes_.erase(classes_.find(cls->asked.demand()));
}

// For one more user, who takes itself off the count at its end.
Scheduler::Footprint* Scheduler::footprint_of(const Shape& shape) {
  if (footprints_.size() >= footprints_swept_at_) {
    std::erase_if(footprints_, [](const auto& one) { return one.second.users == 0; });
    footprints_swept_at_ = std::max(kFootprintsSweptAt, 2 * footprints_.size());
  }
  const auto [it, is_new] = footprints_.try_emplace(shape);
  if (is_new) {
    it->second.needs = fleet_.needs_of(shape);
    it->second.amounts = quota_amounts(shape);
  }
  ++it->second.users;
  return &it->second;
}

// --- queued tasks

void Scheduler::add_task(QueuedTask task) {
  remove_task(task.ref);
  expect_end(task);
  leave_headroom(task);
  task.demand.backfill = backfill_of(task);
  const TaskRef ref = task.ref;
  Class* cls = class_of(std::move(task.demand));
  task.demand = {};
  ++cls->members;
  Queued& queued = queued_.add(ref, {std::move(task), cls});
  if (queued.task.not_before_ms <= 0) return enqueue(queued);
  delayed_.emplace(queued.task.not_before_ms, ref);
  if (!queued.task.gang.empty()) gangs_[gang_of(ref, queued.task.gang)].delayed.insert(ref);
}

void Scheduler::expect_end(QueuedTask& task) const {
  if (task.name.empty()) return;
  const auto run_ms = run_times_.estimate_ms({task.ref.tenant, task.ref.name_space, task.name});
  int64_t& duration_ms = task.demand.duration_ms;
  if (run_ms && (duration_ms == 0 || *run_ms < duration_ms)) duration_ms = *run_ms;
}

// What nobody waits for uses CPU of two kinds: that of the worker, and the part of it that is not kept for others.
void Scheduler::leave_headroom(QueuedTask& task) const {
  constexpr int32_t kBand = 10, kPriorityMax = 100;
  if (task.interactive) task.priority = std::min(task.priority + kBand, kPriorityMax);
  else if (options_.headroom_percent > 0 && task.demand.shape.cpu_milli > 0)
    task.demand.shape.counted[kOrdinaryCpu] = task.demand.shape.cpu_milli;
}

void Scheduler::enqueue(Queued& queued) {
  const QueuedTask& task = queued.task;
  const auto gang = task.gang.empty() ? gangs_.end() : gangs_.find(gang_of(task.ref, task.gang));
  const bool together = !task.gang.empty() && !task.gang_alone && (gang == gangs_.end() || !runs(gang->second));
  if (together || is_to_rejoin(task)) return join_gang(queued);
  queued.line = queues_.push(queues_.leaf(path_of(task)), task.priority, queued.cls->number, queued.cls,
                             {task.order, &queued.task.ref}, task.queued_ms);
}

Backfill Scheduler::backfill_of(const QueuedTask& task) const {
  const std::string_view queue = task.queue.empty() ? kDefaultQueue : std::string_view(task.queue);
  const auto fits = [](const std::string& pattern, std::string_view name) { return pattern == "*" || pattern == name; };
  const auto rule = std::ranges::find_if(options_.backfill_rules, [&](const BackfillRule& one) {
    return fits(one.name_space, task.ref.name_space) && fits(one.queue, queue);
  });
  return rule == options_.backfill_rules.end() ? options_.backfill : rule->backfill;
}

void Scheduler::leave_line(Queued& queued) {
  FairQueues::Line* line = std::exchange(queued.line, nullptr);
  if (line->parked && line->tasks.size() == 1) {
    std::erase(queued.cls->parked_lines, line);
    if (const auto over = over_quota_.find(queued.task.ref.tenant); over != over_quota_.end())
      std::erase(over->second, line);
  }
  queues_.erase(line, {queued.task.order, &queued.task.ref});
}

bool Scheduler::remove_task(const TaskRef& ref) {
  Queued* queued = queued_.find(ref);
  if (queued == nullptr) return false;
  forget(*queued);
  return true;
}

// Drops a task from all that knows of it as queued.
void Scheduler::forget(Queued& queued) {
  const TaskRef ref = queued.task.ref;
  if (queued.line != nullptr) leave_line(queued);
  else if (delayed_.erase({queued.task.not_before_ms, ref}) == 0) leave_gang(queued);
  else leave_delayed(queued.task);
  leave_class(queued.cls);
  queued_.erase(ref);
}

int64_t Scheduler::next_due_ms() const {
  int64_t due = delayed_.empty() ? -1 : delayed_.begin()->first;
  for (const auto& [key, gang] : gangs_) {
    if (gang.line != nullptr && gang.line->parked && (due < 0 || gang.retry_ms < due)) due = gang.retry_ms;
  }
  return due;
}

// --- workers

WorkerView Scheduler::with_headroom(WorkerView view) const {
  if (options_.headroom_percent > 0)
    view.capacity.counted[kOrdinaryCpu] = view.capacity.cpu_milli * (100 - options_.headroom_percent) / 100;
  return view;
}

void Scheduler::set_worker(WorkerView view) {
  view = with_headroom(std::move(view));
  const WorkerSlot known = fleet_.find(view.id);
  const bool moved = known != kNoWorker && fleet_.view(known).labels != view.labels;
  const WorkerSlot slot = fleet_.set(view);
  if (moved && !near_.empty()) near_.recount(residents());
  if (on_worker_.size() <= slot) on_worker_.resize(slot + 1);
  if (!fleet_.open(slot)) end_reservations(slot);
  ++room_changes_;
}

void Scheduler::disconnect_worker(const std::string& id) {
  const WorkerSlot slot = fleet_.find(id);
  if (slot == kNoWorker) return;
  WorkerView view = fleet_.view(slot);
  view.connected = false;
  set_worker(view);
}

void Scheduler::remove_worker(const std::string& id) {
  const WorkerSlot slot = fleet_.find(id);
  if (slot == kNoWorker) return;
  end_reservations(slot);
  while (!on_worker_[slot].empty()) release(on_worker_[slot].back()->ref());
  fleet_.remove(slot);
  for (auto& [number, cls] : limited_) cls->candidates.erase(slot);
}

void Scheduler::occupy(const std::string& worker, QueuedTask task, int64_t ran_ms) {
  release(task.ref);
  leave_headroom(task);
  if (fleet_.find(worker) == kNoWorker) set_worker({.id = worker, .connected = false});
  start(task, task.demand,
        {.leaf = queues_.leaf(path_of(task)),
         .footprint = footprint_of(task.demand.shape),
         .worker = fleet_.find(worker)});
  if (ran_ms <= 0) return;
  Running& running = *running_.find(task.ref);
  running.started_ms -= ran_ms;
  if (running.ends_ms > 0) running.ends_ms = std::max<int64_t>(1, running.ends_ms - ran_ms);
}

void Scheduler::start(const QueuedTask& task, const Demand& demand, Running running) {
  running_.prefetch(task.ref);
  running.id = task.ref.id;
  running.priority = static_cast<int16_t>(task.priority);
  running.preemptible = task.preemptible;
  running.started_ms = now_ms_;
  if (demand.duration_ms > 0) running.ends_ms = now_ms_ + demand.duration_ms;
  const int64_t share = gpu_share(demand.shape);
  const SharedDevices::Id device = share > 0 ? take_share(running.worker, demand) : 0;
  if (!task.labels.empty() || !task.gang.empty() || device != 0)
    running.extras = std::make_unique<const Running::Extras>(task.labels, task.gang, device, share);
  running.account = &quota_book_.account({task.ref.tenant, task.ref.name_space, task.user});
  const Footprint& footprint = *running.footprint;
  const WorkerSlot worker = running.worker;
  fleet_.take(worker, footprint.needs);
  queues_.charge(running.leaf, footprint.needs, 1);
  if (preemptible_on_.size() <= worker) preemptible_on_.resize(worker + 1);
  count_preemptible(running, 1);
  quota_book_.charge(*running.account, footprint.amounts, 1);
  count_running(running, 1);
  near_.started(running.resident(fleet_));
  on_worker_[worker].push_back(&running_.add(task.ref, std::move(running)));
}

void Scheduler::count_preemptible(const Running& running, int sign) {
  if (!running.preemptible) return;
  preemptible_on_[running.worker] += static_cast<size_t>(sign);
  preemptible_ += static_cast<size_t>(sign);
}

void Scheduler::release(const TaskRef& task) {
  const Running* found = running_.find(task);
  if (found == nullptr) return;
  const Running& running = *found;
  auto& beside = on_worker_[running.worker];
  // All of this is needed below, and was not looked at for long.
  fleet_.prefetch(running.worker);
  __builtin_prefetch(beside.data());
  ++room_changes_;
  if (!saved_ms_.empty()) saved_ms_.erase(task);
  queues_.charge(running.leaf, running.footprint->needs, -1);
  count_preemptible(running, -1);
  if (!over_quota_.empty() && over_quota_.contains(task.tenant)) quota_freed_.insert(task.tenant);
  count_running(running, -1);
  near_.ended(running.resident(fleet_));
  fleet_.give(running.worker, running.footprint->needs);
  if (running.extras && running.extras->device != 0 && shared_.leave(running.extras->device, running.extras->share))
    fleet_.give(running.worker, Fleet::one_gpu());
  *std::ranges::find(beside, found) = beside.back();
  beside.pop_back();
  --running.footprint->users;
  QuotaBook::Account& account = *running.account;
  const QuotaAmounts& amounts = running.footprint->amounts;
  running_.erase(task);
  quota_book_.charge(account, amounts, -1);  // may be the end of the account, by which the task is known
}

NearBook::ForEachResident Scheduler::residents() const {
  return [this](const NearBook::Visit& visit) {
    for (const auto& on_one : on_worker_) {
      for (const Running* running : on_one) {
        visit(running->resident(fleet_));
      }
    }
  };
}

// --- rounds

std::vector<Assignment> Scheduler::assign(int64_t now_ms, size_t count_max) {
  pass_time(now_ms);
  queues_.refresh(now_ms_, fleet_);
  while (!delayed_.empty() && delayed_.begin()->first <= now_ms) {
    Queued& queued = *queued_.find(delayed_.begin()->second);
    delayed_.erase(delayed_.begin());
    enqueue(queued);
    leave_delayed(queued.task);
  }
  unpark_for_quota();
  try_freed_workers();
  try_moved_neighbours();
  retry_gangs();
  plan();
  std::vector<Assignment> out;
  while (out.size() < count_max) {
    FairQueues::Line* line = queues_.next();
    if (line == nullptr) {
      if (try_moved_neighbours()) continue;
      break;
    }
    Class& cls = *static_cast<Class*>(line->owner);
    if (!cls.parked && over_quota(line, cls)) {
      park_for_quota(line);
      continue;
    }
    if (cls.gang != nullptr) {
      if (start_gang(*cls.gang, out)) continue;
      preempt_for(*cls.gang, line->queue->priority);
      park(cls, line);
      continue;
    }
    const WorkerSlot worker = cls.parked ? kNoWorker : pick(cls);
    if (worker == kNoWorker) {
      preempt(cls, line->queue->priority);
      park(cls, line);
      continue;
    }
    Queued& queued = *queued_.find(*line->tasks.begin()->second);
    if (is_to_rejoin(queued.task)) {
      leave_line(queued);
      join_gang(queued);
      continue;
    }
    fleet_.prefetch(worker);
    out.push_back({queued.task.ref, {}});
    queues_.served(line);
    end_reservation(cls);
    cls.starving_since_ms = -1;
    start_queued(queued, worker, line->queue->leaf);
    out.back().worker = fleet_.view(worker).id;
  }
  return out;
}

void Scheduler::start_queued(Queued& queued, WorkerSlot worker, FairQueues::Node* leaf) {
  Footprint* footprint = queued.cls->footprint;
  ++footprint->users;
  start(queued.task, queued.cls->asked.demand(), {.leaf = leaf, .footprint = footprint, .worker = worker});
  forget(queued);
}

// The best worker of all. What a task wishes of its neighbours comes before what is tightest.
WorkerSlot Scheduler::search(Class& cls) {
  const Demand& demand = cls.asked.demand();
  if (gpu_share(demand.shape) > 0) {
    if (const WorkerSlot worker = search_shared(cls); worker != kNoWorker) return worker;
  }
  if (demand.near.empty()) return fleet_.pick(cls.asked);
  for (const bool wishes : {true, false}) {
    const WorkerSlot worker =
        fleet_.pick(cls.asked, [&](WorkerSlot slot) { return near_.allows(demand, fleet_.view(slot), wishes); });
    if (worker != kNoWorker) return worker;
  }
  return kNoWorker;
}

// A worker for the next task of the class.
WorkerSlot Scheduler::pick(Class& cls) {
  Fleet::Asked& asked = cls.asked;
  if (!cls.limited) {
    const WorkerSlot worker = search(cls);
    if (worker != kNoWorker) return worker;
    cls.limited = true;
    limited_.emplace(cls.number, &cls);
    // What is held for others is not searched, but may be lent, or be its own.
    for (const auto& [slot, holds] : holds_) {
      if (fleet_.meets(slot, asked)) cls.candidates.insert(slot);
    }
  }
  WorkerSlot best = kNoWorker;
  for (auto it = cls.candidates.begin(); it != cls.candidates.end();) {
    if (!fleet_.open(*it) || !has_room(cls, *it)) {
      it = cls.candidates.erase(it);
      continue;
    }
    if (usable(cls, *it) && (best == kNoWorker || fleet_.better(*it, best, asked))) best = *it;
    ++it;
  }
  return best;
}

void Scheduler::park(Class& cls, FairQueues::Line* line) {
  cls.parked = true;
  cls.priority = std::max(cls.priority, line->queue->priority);
  if (cls.starving_since_ms < 0) cls.starving_since_ms = now_ms_;
  cls.parked_lines.push_back(line);
  queues_.park(line);
}

// Takes up a class that was parked. False if it was not.
bool Scheduler::retry(Class& cls) {
  if (!std::exchange(cls.parked, false)) return false;
  for (FairQueues::Line* line : std::exchange(cls.parked_lines, {})) queues_.unpark(line);
  return true;
}

// Takes up the classes for which a worker has got room.
void Scheduler::try_freed_workers() {
  const std::vector<WorkerSlot> freed = fleet_.take_freed();
  if (freed.empty()) return;
  for (auto it = limited_.begin(); it != limited_.end();) {
    Class& cls = *(it++)->second;
    for (const WorkerSlot slot : freed) {
      if (fleet_.open(slot) && has_room(cls, slot) && fleet_.meets(slot, cls.asked)) {
        cls.candidates.insert(slot);
      }
    }
    if (cls.candidates.size() > kCandidatesMax) {
      cls.candidates.clear();
      cls.limited = false;
      limited_.erase(cls.number);
    } else if (cls.candidates.empty()) {
      continue;
    }
    retry(cls);
  }
}

// Takes up the classes whose tasks may now run where their near tasks did not let them. False if there is none.
bool Scheduler::try_moved_neighbours() {
  bool any = false;
  for (const uint64_t number : near_.take_changed()) {
    Class& cls = *near_classes_.at(number);
    cls.limited = false;
    cls.candidates.clear();
    limited_.erase(number);
    any = retry(cls) || any;
  }
  return any;
}

// --- quotas

void Scheduler::set_quota(const std::string& tenant, QuotaView quota) {
  quota_book_.set(tenant, std::move(quota));
  quota_freed_.insert(tenant);
}

void Scheduler::remove_quota(const std::string& tenant, const std::string& key) {
  quota_book_.remove(tenant, key);
  quota_freed_.insert(tenant);
}

// Why the next task of the line, or the gang that it stands for, may not run now whatever is free.
std::optional<std::string> Scheduler::over_quota(const FairQueues::Line* line, const Class& cls) const {
  if (quota_book_.empty()) return std::nullopt;
  const QueuedTask& first = queued_.find(*line->tasks.begin()->second)->task;
  const QuotaBook::Owner owner{first.ref.tenant, first.ref.name_space, first.user};
  const int32_t priority = line->queue->priority;
  if (cls.gang == nullptr) return quota_book_.refusal(owner, quota_amounts(cls.asked.demand().shape), priority);
  QuotaAmounts all{};
  size_t counted = 0;
  for (const auto& [position, member] : cls.gang->members) {
    if (counted++ == cls.gang->size) break;
    const QuotaAmounts one = quota_amounts(member->asked.demand().shape);
    for (size_t u = 0; u < kQuotaUnits; ++u) all[u] += one[u];
  }
  return quota_book_.refusal(owner, all, priority);
}

void Scheduler::park_for_quota(FairQueues::Line* line) {
  over_quota_[line->tasks.begin()->second->tenant].push_back(line);
  queues_.park(line);
}

void Scheduler::unpark_for_quota() {
  for (const std::string& tenant : std::exchange(quota_freed_, {})) {
    const auto lines = over_quota_.extract(tenant);
    if (lines.empty()) continue;
    for (FairQueues::Line* line : lines.mapped()) queues_.unpark(line);
  }
}

// --- use

Scheduler::Usage Scheduler::usage(const std::string& id) const {
  const WorkerSlot slot = fleet_.find(id);
  return slot == kNoWorker ? Usage{} : Usage{fleet_.view(slot).capacity, fleet_.used(slot), on_worker_[slot].size()};
}

Scheduler::Usage Scheduler::total_usage() const {
  return {fleet_.total_capacity(), fleet_.total_used(), running_.size()};
}

}  // namespace uccp::tasks
