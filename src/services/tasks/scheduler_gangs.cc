// Scheduler, the part about gangs: tasks that start together or not at all.
//
// The members of a gang wait beside the queues until all are there. Then one entry stands for them where the first of
// them would stand. On its turn each member takes a worker, and when one finds none all are given back: nobody else is
// asked in between, so half a gang never holds anything. One that does not fit for long has workers kept free for it.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "services/tasks/scheduler.h"

namespace uccp::tasks {

// A part of it has begun and is not being stopped.
bool Scheduler::runs(const Gang& gang) const {
  return std::ranges::any_of(gang.running, [&](const TaskRef& ref) { return !running_.find(ref)->leaving; });
}

// It would go alone, but all of its gang is being stopped.
bool Scheduler::is_to_rejoin(const QueuedTask& task) const {
  if (task.gang.empty()) return false;
  const auto gang = gangs_.find(gang_of(task.ref, task.gang));
  return gang != gangs_.end() && !gang->second.running.empty() && !runs(gang->second);
}

void Scheduler::join_gang(Queued& queued) {
  const QueuedTask& task = queued.task;
  queued.task.gang_alone = false;
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
  line_up(gang);
  drop_if_empty(GangKey(it->first));
}

void Scheduler::leave_delayed(const QueuedTask& task) {
  if (task.gang.empty()) return;
  const GangKey key = gang_of(task.ref, task.gang);
  gangs_.at(key).delayed.erase(task.ref);
  drop_if_empty(key);
}

void Scheduler::drop_if_empty(const GangKey& key) {
  const auto it = gangs_.find(key);
  if (it->second.members.empty() && it->second.running.empty() && it->second.delayed.empty()) gangs_.erase(it);
}

void Scheduler::gang_has_begun(const TaskRef& member, const std::string& gang) {
  const auto it = gangs_.find(gang_of(member, gang));
  if (it == gangs_.end()) return;
  std::vector<TaskRef> waiting(it->second.delayed.begin(), it->second.delayed.end());
  for (const auto& [position, cls] : it->second.members) waiting.push_back(*position.second);
  for (const TaskRef& ref : waiting) {
    Queued& queued = *queued_.find(ref);
    if (queued.task.gang_again || std::exchange(queued.task.gang_alone, true)) continue;
    if (delayed_.contains({queued.task.not_before_ms, ref})) continue;
    leave_gang(queued);
    enqueue(queued);
  }
}

// A task of a gang began or ended. Once one has begun, those that are queued, or come back, go alone.
void Scheduler::count_running(const Running& running, int sign) {
  if (!running.in_gang()) return;
  const TaskRef ref = running.ref();
  const auto it = gangs_.try_emplace(gang_of(ref, running.extras->gang)).first;
  Gang& gang = it->second;
  if (sign > 0) gang.running.insert(ref);
  else gang.running.erase(ref);
  if (!gang.running.empty()) return;
  line_up(gang);  // that was stopped as a whole
  drop_if_empty(GangKey(it->first));
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

// Where a gang that is being placed looks among the workers that are kept for somebody. Members of one class go on
// where the last one was: what is too small for one is so for the next.
struct Scheduler::Seats {
  const Class* cls = nullptr;
  size_t own = 0;        // into the gang's own
  WorkerSlot other = 0;  // the first one of all that is not yet full
};

// A worker for one more member: what is kept for the gang before what is free, and this before what others lend.
WorkerSlot Scheduler::seat(Class& cls, const Gang& gang, Seats& seats) {
  if (seats.cls != &cls) seats = {&cls};
  const auto takes = [&](WorkerSlot slot) {
    return fleet_.open(slot) && has_room(cls, slot) && fleet_.meets(slot, cls.asked) && usable(cls, slot, &gang);
  };
  for (; seats.own < gang.reserved.size(); ++seats.own) {
    if (takes(gang.reserved[seats.own])) return gang.reserved[seats.own];
  }
  if (const WorkerSlot worker = search(cls); worker != kNoWorker) return worker;
  for (auto it = holds_.lower_bound(seats.other); it != holds_.end(); ++it) {
    seats.other = it->first;
    if (takes(it->first)) return it->first;
    seats.other = it->first + 1;
  }
  return kNoWorker;
}

// False if there is not room for all.
bool Scheduler::start_gang(Gang& gang, std::vector<Assignment>& out) {
  std::vector<std::pair<const TaskRef*, WorkerSlot>> chosen;
  std::vector<Class*> classes;
  Seats seats;
  for (const auto& [position, cls] : gang.members) {
    if (chosen.size() == gang.size) break;
    const WorkerSlot worker = seat(*cls, gang, seats);
    if (worker == kNoWorker) break;
    fleet_.take(worker, cls->asked.needs());
    chosen.emplace_back(position.second, worker);
    classes.push_back(cls);
  }
  for (size_t i = 0; i < chosen.size(); ++i) fleet_.give_back(chosen[i].second, classes[i]->asked.needs());
  if (chosen.size() < gang.size) {
    gang.tried_at = room_changes_;
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

// Gangs that did not fit are tried again now and then, if anything has changed that they could fit for.
void Scheduler::retry_gangs() {
  for (auto& [key, gang] : gangs_) {
    if (gang.line != nullptr && gang.line->parked && gang.retry_ms <= now_ms_) {
      const bool may_fit = gang.tried_at != room_changes_ || preemptible_ > 0 || !near_.empty();
      if (may_fit) retry(*gang.turn);
      else gang.retry_ms = now_ms_ + options_.retry_ms;
    }
    // Of those that were stopped together some may have ended just then: the others do not wait for them for ever.
    const bool incomplete = gang.again_since_ms >= 0 && gang.line == nullptr && gang.running.empty();
    if (!incomplete || now_ms_ - gang.again_since_ms < reserve_after_ms(*gang.members.begin()->second)) continue;
    gang.size = gang.members.size();
    line_up(gang);
  }
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
  const std::string kept = gang.turn == nullptr ? "" : explain_hold(*gang.turn);
  if (gang.members.size() > gang.size)
    return fmt::format("waits until there is room for {} of the {} tasks of its gang at once{}", gang.size,
                       gang.members.size(), kept);
  return fmt::format("waits until there is room for all {} tasks of its gang at once{}", gang.size, kept);
}

}  // namespace uccp::tasks
