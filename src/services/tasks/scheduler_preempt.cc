// Scheduler, the part about preemption: which running tasks make room for one of a higher band.
#include <algorithm>

#include "services/tasks/scheduler.h"

namespace uccp::tasks {

// The tasks to stop on a worker so that the needs fit: those of the lowest priority, and of these the ones that began
// last, because they lose least; then none that is not needed after all. Empty if stopping them would not do.
std::vector<Scheduler::Running*> Scheduler::victims(WorkerSlot worker, const Needs& needs, int32_t priority) const {
  std::vector<Running*> all;
  for (Running* running : on_worker_[worker]) {
    if (running->leaving) return {};  // room is being made there already
    if (running->preemptible && running->priority + options_.preemption_gap <= priority) all.push_back(running);
  }
  std::ranges::sort(all, [](const Running* a, const Running* b) {
    if (a->priority != b->priority) return a->priority < b->priority;
    if (a->started_ms != b->started_ms) return a->started_ms > b->started_ms;
    return a->ref < b->ref;
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
  if (!enough()) return {};
  all.resize(taken);
  std::vector<Running*> chosen;
  for (size_t i = all.size(); i-- > 0;) {
    count(*all[i], -1);
    if (enough()) continue;
    count(*all[i], 1);
    chosen.push_back(all[i]);
  }
  return chosen;
}

// Makes room for a class that fits nowhere: on the worker where least is lost, which is kept for it until it runs.
void Scheduler::preempt(Class& cls, int32_t priority) {
  if (preemptible_ == 0 || cls.reserved != kNoWorker || single_reservations() >= options_.reservations_max) return;
  if (cls.preempted_ms >= 0 && now_ms_ < cls.preempted_ms + options_.retry_ms) return;
  cls.preempted_ms = now_ms_;
  const Needs& needs = cls.asked.needs();
  WorkerSlot best = kNoWorker;
  std::pair<int64_t, int64_t> best_cost;  // sum of the priorities and one for each, time of work that is lost
  std::vector<Running*> best_victims;
  for (WorkerSlot slot = 0; slot < preemptible_on_.size(); ++slot) {
    if (preemptible_on_[slot] == 0 || !fleet_.open(slot) || fleet_.held(slot)) continue;
    if (!fleet_.fits_empty(slot, needs) || !fleet_.meets(slot, cls.asked)) continue;
    if (!near_.allows(cls.asked.demand(), fleet_.view(slot), false)) continue;
    const auto chosen = victims(slot, needs, priority);
    if (chosen.empty()) continue;
    std::pair<int64_t, int64_t> cost{0, 0};
    for (const Running* running : chosen) {
      cost.first += running->priority + 1;
      cost.second += now_ms_ - running->started_ms;
    }
    if (best != kNoWorker && best_cost <= cost) continue;
    best = slot;
    best_cost = cost;
    best_victims = chosen;
  }
  if (best == kNoWorker) return;
  for (Running* running : best_victims) {
    running->leaving = true;
    evictions_.push_back({running->ref, "made room for a task of priority " + std::to_string(priority)});
  }
  cls.reserved = best;
  cls.candidates.insert(best);
  reservations_[best] = &cls;
  fleet_.hold(best, true);
}

}  // namespace uccp::tasks
