// Scheduler, the part about gangs: tasks that start together or not at all.
//
// The members of a gang wait beside the queues until all are there. Then one entry stands for them where the first of
// them would stand. On its turn each member takes a worker, and when one finds none all are given back: nobody else is
// asked in between, so half a gang never holds anything. One that does not fit for long has workers kept free for it.
#include <fmt/format.h>

#include <algorithm>

#include "services/tasks/scheduler.h"

namespace uccp::tasks {

// A part of it has begun and is not being stopped.
bool Scheduler::runs(const Gang& gang) const {
  return std::ranges::any_of(gang.running, [&](const TaskRef& ref) { return !running_.find(ref)->leaving; });
}

void Scheduler::join_gang(Queued& queued) {
  const QueuedTask& task = queued.task;
  Gang& gang = gangs_[gang_of(task.ref, task.gang)];
  // One that has its turn, with less than all if some have ended, does not wait for those that come now.
  if (gang.line == nullptr) gang.size = std::max(gang.size, task.gang_size);
  gang.members.emplace(FairQueues::Position{task.order, &queued.task.ref}, queued.cls);
  if (task.gang_again && gang.again_since_ms < 0) gang.again_since_ms = now_ms_;
  line_up(gang);
}

void Scheduler::leave_gang(Queued& queued) {
  const QueuedTask& task = queued.task;
  const auto it = gangs_.find(gang_of(task.ref, task.gang));
  if (it == gangs_.end()) return;
  Gang& gang = it->second;
  const FairQueues::Position position{task.order, &queued.task.ref};
  end_reservation(gang);
  if (gang.line != nullptr) {
    if (const auto over = over_quota_.find(task.ref.tenant); over != over_quota_.end())
      std::erase(over->second, gang.line);
    queues_.erase(std::exchange(gang.line, nullptr), gang.at);
    gang.turn.reset();
  }
  gang.members.erase(position);
  if (gang.members.empty() && gang.running.empty()) gangs_.erase(it);
  else line_up(gang);
}

// A task of a gang began or ended. Once one has begun, those that are queued, or come back, go alone.
void Scheduler::count_running(const Running& running, int sign) {
  if (!running.extras || running.extras->gang.empty()) return;
  const auto it = gangs_.try_emplace(gang_of(running.ref, running.extras->gang)).first;
  Gang& gang = it->second;
  if (sign > 0) gang.running.insert(running.ref);
  else gang.running.erase(running.ref);
  if (!gang.running.empty()) return;
  if (gang.members.empty()) gangs_.erase(it);
  else line_up(gang);  // that was stopped as a whole
}

// Puts a gang that is complete into the queues.
void Scheduler::line_up(Gang& gang) {
  if (gang.line != nullptr || !gang.running.empty() || gang.members.empty() || gang.members.size() < gang.size) return;
  gang.at = gang.members.begin()->first;
  const Queued& first = *queued_.find(*gang.at.second);
  gang.turn = std::make_unique<Class>(first.cls->asked.demand(), fleet_, next_class_++);
  gang.turn->gang = &gang;
  gang.line = queues_.push(queues_.leaf(path_of(first.task)), first.task.priority, gang.turn->number, gang.turn.get(),
                           gang.at, first.task.queued_ms);
}

// Those of a gang that start together.
std::vector<Scheduler::Class*> Scheduler::first_members(const Gang& gang) {
  std::vector<Class*> first;
  for (const auto& [position, cls] : gang.members) {
    if (first.size() == gang.size) break;
    first.push_back(cls);
  }
  return first;
}

// False if there is not room for all.
bool Scheduler::start_gang(Gang& gang, std::vector<Assignment>& out) {
  set_held(gang, false);
  std::vector<std::pair<const TaskRef*, WorkerSlot>> chosen;
  std::vector<Class*> classes;
  for (const auto& [position, cls] : gang.members) {
    if (chosen.size() == gang.size) break;
    const WorkerSlot worker = search(*cls);
    if (worker == kNoWorker) break;
    fleet_.take(worker, cls->asked.needs());
    chosen.emplace_back(position.second, worker);
    classes.push_back(cls);
  }
  for (size_t i = 0; i < chosen.size(); ++i) fleet_.give(chosen[i].second, classes[i]->asked.needs());
  if (chosen.size() < gang.size) {
    set_held(gang, true);
    gang.retry_ms = now_ms_ + options_.retry_ms;
    if (gang.starving_since_ms < 0) gang.starving_since_ms = now_ms_;
    return false;
  }
  end_reservation(gang);
  FairQueues::Node* leaf = gang.line->queue->leaf;
  queues_.served(gang.line);
  queues_.erase(std::exchange(gang.line, nullptr), gang.at);
  gang.again_since_ms = -1;
  for (const auto& [ref, worker] : chosen) {
    out.push_back({*ref, fleet_.view(worker).id});
    start_queued(*queued_.find(*ref), worker, leaf);
  }
  // From now on the others go alone.
  for (const auto& [position, cls] : std::exchange(gang.members, {})) enqueue(*queued_.find(*position.second));
  return true;
}

// Gangs that did not fit are tried again now and then, whatever has changed since.
void Scheduler::retry_gangs() {
  for (auto& [key, gang] : gangs_) {
    if (gang.line != nullptr && gang.line->parked && gang.retry_ms <= now_ms_) retry(*gang.turn);
    // Of those that were stopped together some may have ended just then: the others do not wait for them for ever.
    const bool incomplete = gang.again_since_ms >= 0 && gang.line == nullptr && gang.running.empty();
    if (!incomplete || now_ms_ - gang.again_since_ms < options_.reserve_after_ms) continue;
    gang.size = gang.members.size();
    line_up(gang);
  }
}

// --- reservations

// When how many more tasks of such needs fit on the worker, as far as is known of what runs there.
std::vector<std::pair<int64_t, int64_t>> Scheduler::members_by_time(WorkerSlot worker, const Needs& needs) const {
  std::vector<const Running*> ends;
  for (const Running* running : on_worker_[worker]) {
    if (running->ends_ms > 0) ends.push_back(running);
  }
  std::ranges::sort(ends, {}, &Running::ends_ms);
  Needs free = needs;
  for (Need& one : free) one.amount = fleet_.free(worker, one.dimension);
  const auto fit = [&] {
    int64_t count = std::numeric_limits<int64_t>::max();
    for (size_t i = 0; i < needs.size(); ++i)
      count = std::min(count, std::max<int64_t>(0, free[i].amount) / needs[i].amount);
    return count;
  };
  std::vector<std::pair<int64_t, int64_t>> out;
  int64_t before = 0;
  const auto note = [&](int64_t at_ms) {
    const int64_t now = fit();
    if (now > before) out.emplace_back(at_ms, now - before);
    before = now;
  };
  note(now_ms_);
  for (const Running* one : ends) {
    for (const Need& freed : one->footprint->needs) {
      for (Need& have : free) {
        if (have.dimension == freed.dimension) have.amount += freed.amount;
      }
    }
    note(std::max(one->ends_ms, now_ms_));
  }
  return out;
}

// The workers that have room for all soonest. Members that differ are taken to need the most that one of them does.
void Scheduler::reserve(Gang& gang) {
  gang.starving_since_ms = now_ms_;  // asked again only after as long a wait: nothing that exists may hold it
  Class& first = *gang.members.begin()->second;
  Needs needs = first.asked.needs();
  for (Class* cls : first_members(gang)) {
    for (const Need& need : cls->asked.needs()) {
      const auto same = std::ranges::find(needs, need.dimension, &Need::dimension);
      if (same == needs.end()) needs.push_back(need);
      else same->amount = std::max(same->amount, need.amount);
    }
  }
  std::vector<std::tuple<int64_t, WorkerSlot, int64_t>> room;  // from when, where, for how many more
  for (const auto& [id, slot] : fleet_.by_id()) {
    if (!fleet_.open(slot) || fleet_.held(slot)) continue;
    const bool meets_all =
        std::ranges::all_of(gang.members, [&](const auto& member) { return fleet_.meets(slot, member.second->asked); });
    if (!meets_all) continue;
    for (const auto& [at_ms, count] : members_by_time(slot, needs)) room.emplace_back(at_ms, slot, count);
  }
  std::ranges::sort(room);
  auto missing = static_cast<int64_t>(gang.size);
  std::set<WorkerSlot> chosen;
  for (const auto& [at_ms, slot, count] : room) {
    if (missing <= 0) break;
    missing -= count;
    chosen.insert(slot);
    gang.starts_ms = at_ms;
  }
  if (missing > 0) return;
  keep_for(gang, chosen, gang.starts_ms);
}

// Keeps workers free for a gang, which expects to start there at the latest then.
void Scheduler::keep_for(Gang& gang, const std::set<WorkerSlot>& workers, int64_t starts_ms) {
  gang_reserved_ = &gang;
  gang.starts_ms = starts_ms;
  gang.reserved.assign(workers.begin(), workers.end());
  for (const WorkerSlot slot : gang.reserved) reservations_[slot] = gang.turn.get();
  set_held(gang, true);
}

void Scheduler::reserve_for_a_gang() {
  if (gang_reserved_ != nullptr) {
    // What was sure to end has not: what is kept free is of no use there.
    if (now_ms_ > gang_reserved_->starts_ms + options_.reserve_after_ms) end_reservation(*gang_reserved_);
    return;
  }
  Gang* longest = nullptr;
  for (auto& [key, gang] : gangs_) {
    if (gang.line == nullptr || gang.starving_since_ms < 0) continue;
    if (longest == nullptr || gang.starving_since_ms < longest->starving_since_ms) longest = &gang;
  }
  if (longest != nullptr && now_ms_ - longest->starving_since_ms >= options_.reserve_after_ms) reserve(*longest);
}

void Scheduler::set_held(const Gang& gang, bool held) {
  for (const WorkerSlot slot : gang.reserved) fleet_.hold(slot, held);
}

void Scheduler::end_reservation(Gang& gang) {
  if (gang.reserved.empty()) return;
  set_held(gang, false);
  for (const WorkerSlot slot : gang.reserved) reservations_.erase(slot);
  gang.reserved.clear();
  gang_reserved_ = nullptr;
}

std::string Scheduler::explain_gang(const Gang& gang) {
  if (gang.members.size() < gang.size) {
    return fmt::format("waits for its gang: {} of {} tasks are queued", gang.members.size(), gang.size);
  }
  // How many tasks such as the first would fit, were nothing running.
  Fleet::Asked& asked = gang.members.begin()->second->asked;
  int64_t room = 0;
  for (const auto& [id, slot] : fleet_.by_id()) {
    if (!fleet_.open(slot) || !fleet_.meets(slot, asked)) continue;
    int64_t here = std::numeric_limits<int64_t>::max();
    for (const Need& need : asked.needs()) here = std::min(here, fleet_.capacity(slot, need.dimension) / need.amount);
    room += here;
  }
  if (room < static_cast<int64_t>(gang.size)) {
    return fmt::format(
        "its gang of {} tasks does not fit into the cluster even if nothing else runs: there is room for {}", gang.size,
        room);
  }
  if (gang.members.size() > gang.size)
    return fmt::format("waits until there is room for {} of the {} tasks of its gang at once", gang.size,
                       gang.members.size());
  return fmt::format("waits until there is room for all {} tasks of its gang at once", gang.size);
}

}  // namespace uccp::tasks
