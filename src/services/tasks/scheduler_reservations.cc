// Scheduler, the part about room that is kept for what waits: for tasks that fit nowhere and for gangs.
//
// A hold is room on one worker that is kept for somebody from a moment on. Others may use it until then (backfilling):
// what ends before, and what leaves enough there for all that is to begin. What is planned counts for later plans as if
// it ran already, so one plan never delays another. Times are those at which what runs there is expected to end at the
// latest; plans are made anew as it ends earlier.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

#include "services/tasks/scheduler.h"

namespace uccp::tasks {
namespace {

constexpr uint64_t kLast = std::numeric_limits<uint64_t>::max();
constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
// Plans cost by what runs, so they are made as much more rarely: one more retry interval for each so many.
constexpr int64_t kRunningPerInterval = 10'000;

// Of what is asked for there is so many times `more` more; the rest of it does not matter.
void give_more(Needs& free, const Needs& more, int64_t times) {
  for (Need& one : free) {
    const auto same = std::ranges::find(more, one.dimension, &Need::dimension);
    if (same != more.end()) one.amount += times * same->amount;
  }
}

}  // namespace

// --- when there is room

// When it ends at the latest, as far as is known; never: it is not known. What ran for longer than it was expected to
// is given half as much again.
int64_t Scheduler::expected_end(const Running& running) const {
  if (running.leaving) return now_ms_;
  if (running.ends_ms == 0) return kNever;
  return running.ends_ms > now_ms_ ? running.ends_ms : now_ms_ + 1 + (now_ms_ - running.started_ms) / 2;
}

// When how many more tasks of such needs fit on the worker, beside all that is kept there.
std::vector<std::pair<int64_t, int64_t>> Scheduler::room_by_time(WorkerSlot worker, const Needs& needs) const {
  std::vector<std::pair<int64_t, const Needs*>> ends;
  Needs free = needs;
  for (Need& one : free) one.amount = fleet_.free(worker, one.dimension);
  for (const Running* running : on_worker_[worker]) {
    if (const int64_t at_ms = expected_end(*running); at_ms != kNever)
      ends.emplace_back(at_ms, &running->footprint->needs);
  }
  if (const auto held = holds_.find(worker); held != holds_.end()) {
    for (const Hold& hold : held->second) {
      give_more(free, hold.needs, -1);
      if (hold.ends_ms != kNever) ends.emplace_back(std::max(hold.ends_ms, now_ms_), &hold.needs);
    }
  }
  std::ranges::sort(ends, {}, [](const auto& end) { return end.first; });
  const auto fit = [&] {
    int64_t count = kNever;
    for (size_t i = 0; i < needs.size(); ++i)
      count = std::min(count, std::max<int64_t>(0, free[i].amount) / needs[i].amount);
    return count;
  };
  std::vector<std::pair<int64_t, int64_t>> out;
  int64_t before = 0;
  const auto note = [&](int64_t at_ms) {
    const int64_t count = fit();
    if (count > before) out.emplace_back(at_ms, count - before);
    before = std::max(before, count);
  };
  note(now_ms_);
  for (const auto& [at_ms, freed] : ends) {
    give_more(free, *freed, 1);
    note(std::max(at_ms, now_ms_));
  }
  return out;
}

int64_t Scheduler::free_at_ms(WorkerSlot worker, const Needs& needs) const {
  const auto room = room_by_time(worker, needs);
  return room.empty() ? kNever : room.front().first;
}

// --- who may use it until then

// Whether a task of the class, which may be of a gang, may begin on a worker that has room for it now.
bool Scheduler::usable(const Class& cls, WorkerSlot worker, const Gang* gang) const {
  if (!near_.allows(cls.asked.demand(), fleet_.view(worker), false)) return false;
  const auto held = holds_.find(worker);
  if (held == holds_.end()) return true;
  const auto is_own = [&](const Hold& hold) {
    return hold.owner == &cls || (gang != nullptr && hold.owner->gang == gang);
  };
  const int64_t duration_ms = cls.asked.demand().duration_ms;
  const int64_t ends_ms = duration_ms == 0 ? kNever : now_ms_ + duration_ms;
  return std::ranges::all_of(held->second, [&](const Hold& hold) {
    if (is_own(hold) || (ends_ms != kNever && ends_ms <= hold.starts_ms)) return true;
    if (hold.starts_ms == kNever) return false;
    // Both have to fit when that one begins, with all that is to run there by then.
    Needs left = cls.asked.needs();
    for (Need& one : left) one.amount = fleet_.free(worker, one.dimension) - one.amount;
    for (const Running* running : on_worker_[worker]) {
      if (expected_end(*running) <= hold.starts_ms) give_more(left, running->footprint->needs, 1);
    }
    for (const Hold& other : held->second) {
      if (!is_own(other) && other.starts_ms <= hold.starts_ms && other.ends_ms > hold.starts_ms)
        give_more(left, other.needs, -1);
    }
    return std::ranges::all_of(left, [](const Need& one) { return one.amount >= 0; });
  });
}

// --- holds

void Scheduler::keep(WorkerSlot worker, Hold hold) {
  holds_[worker].push_back(std::move(hold));
  fleet_.hold(worker, true);
}

// What else is kept there may be lent for longer now.
void Scheduler::stop_keeping(WorkerSlot worker, const Class* owner) {
  const auto held = holds_.find(worker);
  std::erase_if(held->second, [&](const Hold& hold) { return hold.owner == owner; });
  ++room_changes_;
  if (!held->second.empty()) return fleet_.note_freed(worker);
  holds_.erase(held);
  fleet_.hold(worker, false);
}

void Scheduler::end_reservation(Class& cls) {
  if (cls.reserved == kNoWorker) return;
  --reserved_count(cls);
  cls.makes_room = false;
  cls.planned_as = 0;
  stop_keeping(std::exchange(cls.reserved, kNoWorker), &cls);
}

void Scheduler::end_reservation(Gang& gang) {
  if (gang.reserved.empty()) return;
  gang.turn->makes_room = false;
  gang.turn->planned_as = 0;
  for (const WorkerSlot worker : std::exchange(gang.reserved, {})) stop_keeping(worker, gang.turn.get());
}

// The worker is gone, or takes nothing any more.
void Scheduler::end_reservations(WorkerSlot worker) {
  const auto held = holds_.find(worker);
  if (held == holds_.end()) return;
  std::vector<Class*> owners;
  for (const Hold& hold : held->second) owners.push_back(hold.owner);
  for (Class* owner : owners) {
    if (owner->gang != nullptr) end_reservation(*owner->gang);
    else end_reservation(*owner);
  }
}

// --- classes

Scheduler::Hold Scheduler::hold_for(Class& cls, int64_t starts_ms) const {
  const int64_t duration_ms = cls.asked.demand().duration_ms;
  const bool known = duration_ms > 0 && starts_ms != kNever;
  return {&cls, cls.asked.needs(), starts_ms, known ? starts_ms + duration_ms : kNever};
}

void Scheduler::keep_for(Class& cls, WorkerSlot worker, int64_t starts_ms) {
  keep(worker, hold_for(cls, starts_ms));
  cls.reserved = worker;
  cls.planned_as = next_plan_++;
  cls.candidates.insert(worker);
  ++reserved_count(cls);
}

int64_t Scheduler::reserve_after_ms(const Class& cls) const {
  return way_of(cls) == Backfill::kConservative ? 0 : options_.reserve_after_ms;
}

bool Scheduler::may_reserve(const Class& cls) const {
  const bool gang = cls.gang != nullptr;
  const size_t most = way_of(cls) == Backfill::kConservative ? kReservationsMax
                      : gang                                 ? options_.gang_reservations_max
                                                             : options_.reservations_max;
  return planned_[gang][static_cast<size_t>(way_of(cls))] < most;
}

void Scheduler::reserve_for_the_starved() {
  std::vector<std::tuple<int64_t, uint64_t, Class*>> starved;
  for (const auto& [number, cls] : limited_) {
    if (cls->parked && cls->reserved == kNoWorker && now_ms_ - cls->starving_since_ms >= reserve_after_ms(*cls)) {
      starved.emplace_back(cls->starving_since_ms, number, cls);
    }
  }
  std::ranges::sort(starved);
  for (const auto& [since, number, cls] : starved) {
    if (may_reserve(*cls)) reserve(*cls);
  }
}

// Keeps the worker that is free for the class soonest, or else the one that lacks least.
void Scheduler::reserve(Class& cls) {
  const Needs& needs = cls.asked.needs();
  WorkerSlot best = kNoWorker;
  std::pair<int64_t, double> best_cost;
  for (const auto& [id, slot] : fleet_.by_id()) {
    if (!fleet_.open(slot) || !fleet_.fits_empty(slot, needs) || !fleet_.meets(slot, cls.asked)) continue;
    const std::pair cost(free_at_ms(slot, needs), -fleet_.left(slot, needs));
    if (cost.first == kNever && fleet_.held(slot)) continue;
    if (best == kNoWorker || cost < best_cost) {
      best = slot;
      best_cost = cost;
    }
  }
  if (best != kNoWorker) keep_for(cls, best, best_cost.first);
  // Asked again only after as long a wait: nothing that exists may hold it.
  cls.starving_since_ms = now_ms_;
}

// --- gangs

void Scheduler::keep_for(Gang& gang, const std::map<WorkerSlot, Needs>& room, int64_t starts_ms) {
  int64_t longest_ms = 0;
  for (const Class* cls : first_members(gang)) {
    const int64_t duration_ms = cls->asked.demand().duration_ms;
    longest_ms = duration_ms == 0 ? kNever : std::max(longest_ms, duration_ms);
    if (longest_ms == kNever) break;
  }
  for (const auto& [worker, needs] : room) {
    keep(worker, {gang.turn.get(), needs, starts_ms, longest_ms == kNever ? kNever : starts_ms + longest_ms});
    gang.reserved.push_back(worker);
  }
}

// The workers that have room for all soonest. Members that differ are taken to need the most that one of them does.
// False if no time is known at which there is.
bool Scheduler::reserve(Gang& gang) {
  Needs needs = gang.members.begin()->second->asked.needs();
  const std::vector<Class*> first = first_members(gang);
  std::map<uint64_t, Class*> kinds;
  for (Class* cls : first) kinds.emplace(cls->number, cls);
  for (const auto& [number, cls] : kinds) {
    for (const Need& need : cls->asked.needs()) {
      const auto same = std::ranges::find(needs, need.dimension, &Need::dimension);
      if (same == needs.end()) needs.push_back(need);
      else same->amount = std::max(same->amount, need.amount);
    }
  }
  std::vector<std::tuple<int64_t, WorkerSlot, int64_t>> room;  // from when, where, for how many more
  for (const auto& [id, slot] : fleet_.by_id()) {
    if (!fleet_.open(slot)) continue;
    if (!std::ranges::all_of(kinds, [&](const auto& kind) { return fleet_.meets(slot, kind.second->asked); })) continue;
    for (const auto& [at_ms, count] : room_by_time(slot, needs)) room.emplace_back(at_ms, slot, count);
  }
  std::ranges::sort(room);
  auto missing = static_cast<int64_t>(first.size());
  int64_t starts_ms = now_ms_;
  std::map<WorkerSlot, Needs> chosen;
  for (const auto& [at_ms, slot, count] : room) {
    if (missing <= 0) break;
    const int64_t here = std::min(missing, count);
    missing -= here;
    starts_ms = at_ms;
    add_needs(chosen[slot], needs, here);
  }
  if (missing > 0) return false;
  keep_for(gang, chosen, starts_ms);
  return true;
}

// --- plans

// Room that is being made is there in a moment: nothing else is planned for it, unless what had to leave has not.
bool Scheduler::keeps_its_room(const Class& owner) const {
  return owner.makes_room && (owner.gang == nullptr || now_ms_ <= owner.gang->room_due_ms);
}

// All that has room kept, in the order in which it was planned, and then the gangs that could have it, by their wait.
std::vector<Scheduler::Class*> Scheduler::planned_anew() {
  std::vector<std::tuple<uint64_t, int64_t, Class*>> waiting;
  for (const auto& [worker, holds] : holds_) {
    for (const Hold& hold : holds) {
      if (hold.owner->gang == nullptr && !keeps_its_room(*hold.owner))
        waiting.emplace_back(hold.owner->planned_as, 0, hold.owner);
    }
  }
  for (auto& [key, gang] : gangs_) {
    if (gang.line == nullptr || gang.starving_since_ms < 0 || keeps_its_room(*gang.turn)) continue;
    if (now_ms_ - gang.starving_since_ms < reserve_after_ms(*gang.turn)) continue;
    const uint64_t planned_as = gang.turn->planned_as;
    waiting.emplace_back(planned_as == 0 ? kLast : planned_as, gang.starving_since_ms, gang.turn.get());
  }
  std::ranges::sort(waiting, [](const auto& a, const auto& b) {
    const auto key = [](const auto& one) {
      return std::tuple(std::get<0>(one), std::get<1>(one), std::get<2>(one)->number);
    };
    return key(a) < key(b);
  });
  std::vector<Class*> out;
  for (const auto& [planned_as, since, owner] : waiting) out.push_back(owner);
  return out;
}

// Takes all holds back but those of room that is being made.
void Scheduler::clear_plan() {
  for (auto& [worker, holds] : holds_)
    std::erase_if(holds, [&](const Hold& hold) { return !keeps_its_room(*hold.owner); });
  planned_[1] = {};
  for (auto& [key, gang] : gangs_) {
    if (gang.reserved.empty()) continue;
    if (keeps_its_room(*gang.turn)) {
      ++reserved_count(*gang.turn);
      continue;
    }
    gang.reserved.clear();
    gang.turn->makes_room = false;
  }
}

// Everything that is kept is planned anew, so that what has ended early brings all of it forward, and as many gangs as
// may are. A class stays with its worker. What was planned before others stays before them: they never delay it.
void Scheduler::plan() {
  reserve_for_the_starved();
  if (now_ms_ < plan_due_ms_ || (holds_.empty() && gangs_.empty())) return;
  plan_due_ms_ = now_ms_ + options_.retry_ms * (1 + static_cast<int64_t>(running_.size()) / kRunningPerInterval);
  const std::vector<Class*> waiting = planned_anew();
  if (waiting.empty() && holds_.empty()) return;
  // As long as nothing ended and nothing is late, it would be the same plan.
  const bool same = planned_at_ == std::pair(room_changes_, waiting.size());
  if (same && now_ms_ < plan_holds_until_ms_) return;
  const Holds before = holds_;
  clear_plan();
  std::array<size_t, 2> gangs_tried{};
  for (Class* owner : waiting) {
    if (owner->gang == nullptr) {
      holds_[owner->reserved].push_back(hold_for(*owner, free_at_ms(owner->reserved, owner->asked.needs())));
      continue;
    }
    size_t& tried = gangs_tried[static_cast<size_t>(way_of(*owner))];
    const size_t tries_max =
        2 * (way_of(*owner) == Backfill::kConservative ? kReservationsMax : options_.gang_reservations_max);
    if (!may_reserve(*owner) || ++tried > tries_max) continue;
    if (reserve(*owner->gang)) {
      ++reserved_count(*owner);
      if (owner->planned_as == 0) owner->planned_as = next_plan_++;
    } else {
      owner->planned_as = 0;
      owner->gang->starving_since_ms = now_ms_;  // after as long a wait again: nothing that exists may hold it
    }
  }
  for (auto it = holds_.begin(); it != holds_.end();) {
    const WorkerSlot worker = it->first;
    const auto old = before.find(worker);
    const bool is_new = old == before.end();
    if (!is_new && old->second != it->second) {
      ++room_changes_;
      fleet_.note_freed(worker);
    }
    const bool kept = !it->second.empty();
    it = kept ? std::next(it) : holds_.erase(it);
    fleet_.hold(worker, kept);
  }
  planned_at_ = {room_changes_, waiting.size()};
  plan_holds_until_ms_ = kNever;
  for (const auto& [worker, holds] : holds_) {
    for (const Hold& hold : holds)
      plan_holds_until_ms_ = std::min(plan_holds_until_ms_, std::max(hold.starts_ms, now_ms_ + 1));
  }
}

// To be said behind why it waits; empty if no room is kept for it.
std::string Scheduler::explain_hold(const Class& owner) const {
  const Hold* hold = nullptr;
  size_t workers = 0;
  std::string where;
  for (const auto& [worker, holds] : holds_) {
    for (const Hold& one : holds) {
      if (one.owner != &owner) continue;
      hold = &one;
      where = fleet_.view(worker).id;
      ++workers;
    }
  }
  if (hold == nullptr) return "";
  std::string text = owner.gang == nullptr ? "; " + where + " is kept free for it"
                                           : fmt::format("; room for all of it is kept on {} workers", workers);
  if (hold->starts_ms != kNever && hold->starts_ms > now_ms_)
    text += fmt::format(", in {} s at the latest", (hold->starts_ms - now_ms_ + 999) / 1'000);
  return text;
}

size_t Scheduler::gangs_reserved() const {
  return static_cast<size_t>(
      std::ranges::count_if(gangs_, [](const auto& one) { return !one.second.reserved.empty(); }));
}

std::string Scheduler::reserved_for(const TaskRef& ref) const {
  const Queued* queued = queued_.find(ref);
  return queued == nullptr || queued->cls->reserved == kNoWorker ? "" : fleet_.view(queued->cls->reserved).id;
}

}  // namespace uccp::tasks
