// Scheduler, the part about preemption: which running tasks make room for one of a higher band, or for a gang.
//
// A gang is stopped as a whole or not at all: a part of it would be of no use to anybody.
#include <algorithm>
#include <ranges>
#include <utility>

#include "services/tasks/scheduler.h"

namespace uccp::tasks {
namespace {

// Time in which what is told to make room for a gang has to have left; then the gang plans anew.
constexpr int64_t kLeaveMs = 30'000;

}  // namespace

// Whether the task, and with it its gang, may be stopped for one of that priority.
bool Scheduler::may_stop(const Running& running, int32_t priority) const {
  const auto may = [&](const Running& one) {
    return one.preemptible && !one.leaving && one.priority + options_.preemption_gap <= priority;
  };
  if (!running.in_gang()) return may(running);
  const Gang& gang = gangs_.at(gang_of(running.ref(), running.extras->gang));
  return std::ranges::all_of(gang.running, [&](const TaskRef& ref) { return may(*running_.find(ref)); });
}

int64_t Scheduler::saved_ms(const Running& running) const {
  const auto saved = saved_ms_.empty() ? saved_ms_.end() : saved_ms_.find(running.ref());
  return saved == saved_ms_.end() ? running.started_ms : std::max(running.started_ms, saved->second);
}

Scheduler::Loss Scheduler::loss_of(const Victims& victims) const {
  Loss loss{0, 0};
  for (const Running* running : victims) {
    loss.first += running->priority + 1;
    loss.second += now_ms_ - saved_ms(*running);
  }
  return loss;
}

// With those of its gang.
void Scheduler::add_with_gang(Running* running, Victims& victims) {
  victims.insert(running);
  if (!running->in_gang()) return;
  for (const TaskRef& ref : gangs_.at(gang_of(running->ref(), running->extras->gang)).running)
    victims.insert(running_.find(ref));
}

// The tasks to stop on a worker so that the needs fit, beside those that are to be stopped anyway: those of the lowest
// priority, and of these the ones that began or saved a checkpoint last, because they lose least; then none that is not
// needed after all.
// Nothing if stopping them would not do.
std::optional<Scheduler::Victims> Scheduler::victims(WorkerSlot worker, const Needs& needs, int32_t priority,
                                                     const Victims& planned) {
  std::vector<Running*> all;
  for (Running* running : on_worker_[worker]) {
    if (running->leaving) return std::nullopt;  // room is being made there already
    if (!planned.contains(running) && may_stop(*running, priority)) all.push_back(running);
  }
  std::ranges::sort(all, [this](const Running* a, const Running* b) {
    if (a->priority != b->priority) return a->priority < b->priority;
    if (saved_ms(*a) != saved_ms(*b)) return saved_ms(*a) > saved_ms(*b);
    return a->order() < b->order();
  });
  Needs missing;
  for (const Need& need : needs) missing.push_back({need.dimension, need.amount - fleet_.free(worker, need.dimension)});
  const auto enough = [&] { return std::ranges::all_of(missing, [](const Need& need) { return need.amount <= 0; }); };
  const auto count = [&](const Running& running, int64_t sign) {
    for (const Need& freed : running.footprint->needs) {
      for (Need& need : missing) {
        if (need.dimension == freed.dimension) need.amount -= sign * freed.amount;
      }
    }
  };
  size_t taken = 0;
  while (taken < all.size() && !enough()) count(*all[taken++], 1);
  if (!enough()) return std::nullopt;
  all.resize(taken);
  Victims chosen;
  for (Running* running : all | std::views::reverse) {
    count(*running, -1);
    if (enough()) continue;
    count(*running, 1);
    add_with_gang(running, chosen);
  }
  return chosen;
}

// Room that is being made is for whom it is made; other room that is kept gives way to what is more urgent.
bool Scheduler::is_kept_from(int32_t priority, WorkerSlot worker) const {
  const auto held = holds_.find(worker);
  return held != holds_.end() && std::ranges::any_of(held->second, [&](const Hold& hold) {
           return hold.owner->makes_room || hold.owner->priority >= priority;
         });
}

// The worker where room for one more of the class costs least.
std::optional<std::pair<WorkerSlot, Scheduler::Victims>> Scheduler::cheapest(Class& cls, int32_t priority,
                                                                             const Victims& planned) {
  const Needs& needs = cls.asked.needs();
  std::optional<std::pair<WorkerSlot, Victims>> best;
  Loss best_loss;
  for (WorkerSlot slot = 0; slot < preemptible_on_.size(); ++slot) {
    if (preemptible_on_[slot] == 0 || !fleet_.open(slot) || is_kept_from(priority, slot)) continue;
    if (!fleet_.fits_empty(slot, needs) || !fleet_.meets(slot, cls.asked)) continue;
    if (!near_.allows(cls.asked.demand(), fleet_.view(slot), false)) continue;
    auto chosen = victims(slot, needs, priority, planned);
    if (!chosen || chosen->empty()) continue;
    const Loss loss = loss_of(*chosen);
    if (best && best_loss <= loss) continue;
    best = {slot, std::move(*chosen)};
    best_loss = loss;
  }
  return best;
}

void Scheduler::note_checkpoint(const TaskRef& task, int64_t age_ms) {
  if (running_.find(task) != nullptr) saved_ms_[task] = now_ms_ - std::max<int64_t>(0, age_ms);
}

void Scheduler::set_leaving(const TaskRef& task) {
  if (Running* running = running_.find(task)) running->leaving = true;
}

void Scheduler::set_preempting(bool preempting) {
  if (std::exchange(preempting_, preempting) || !preempting) return;
  for (auto& [number, cls] : limited_) retry(*cls);
}

void Scheduler::evict(const Victims& victims, int32_t priority) {
  for (Running* running : victims) {
    running->leaving = true;
    evictions_.push_back({running->ref(), "made room for a task of priority " + std::to_string(priority)});
  }
}

// Makes room for a class that fits nowhere: on the worker where least is lost, which is kept for it until it runs.
void Scheduler::preempt(Class& cls, int32_t priority) {
  if (!preempting_ || preemptible_ == 0 || cls.reserved != kNoWorker || !may_reserve(cls)) return;
  if (cls.preempted_ms >= 0 && now_ms_ < cls.preempted_ms + options_.retry_ms) return;
  cls.preempted_ms = now_ms_;
  const auto best = cheapest(cls, priority, {});
  if (!best) return;
  evict(best->second, priority);
  keep_for(cls, best->first, now_ms_);
  cls.makes_room = true;
}

// Makes room for a gang, where it costs least for one member after the other; the workers are kept for it. Nothing is
// stopped unless all of it fits then.
void Scheduler::preempt_for(Gang& gang, int32_t priority) {
  if (!preempting_ || preemptible_ == 0 || gang.turn->makes_room) return;
  if (gang.reserved.empty() && !may_reserve(*gang.turn)) return;
  if (gang.turn->preempted_ms >= 0 && now_ms_ < gang.turn->preempted_ms + options_.retry_ms) return;
  gang.turn->preempted_ms = now_ms_;
  Victims planned;
  std::vector<std::pair<WorkerSlot, const Needs*>> taken;
  // What is to be stopped counts as stopped while the others look, and comes back at the end.
  for (Class* cls : first_members(gang)) {
    WorkerSlot worker = search(*cls);
    if (worker == kNoWorker) {
      const auto best = cheapest(*cls, priority, planned);
      if (!best) break;
      worker = best->first;
      for (Running* running : best->second) {
        if (planned.insert(running).second) fleet_.give_back(running->worker, running->footprint->needs);
      }
    }
    fleet_.take(worker, cls->asked.needs());
    taken.emplace_back(worker, &cls->asked.needs());
  }
  for (const auto& [worker, needs] : taken) fleet_.give_back(worker, *needs);
  for (const Running* running : planned) fleet_.take(running->worker, running->footprint->needs);
  if (taken.size() < gang.size || planned.empty()) return;
  evict(planned, priority);
  std::map<WorkerSlot, Needs> room;
  for (const auto& [worker, needs] : taken) add_needs(room[worker], *needs);
  end_reservation(gang);
  keep_for(gang, room, now_ms_);
  ++reserved_count(*gang.turn);
  gang.turn->makes_room = true;
  gang.room_due_ms = now_ms_ + std::max(options_.reserve_after_ms, kLeaveMs);
}

}  // namespace uccp::tasks
