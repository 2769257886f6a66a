// Scheduler, the part about gangs: tasks that start together or not at all.
//
// The members of a gang wait beside the queues until all are there. Then one entry stands for them where the first of
// them would stand. On its turn each member takes a worker, and when one finds none all are given back: nobody else is
// asked in between, so half a gang never holds anything.
#include <fmt/format.h>

#include <algorithm>

#include "services/tasks/scheduler.h"

namespace uccp::tasks {

void Scheduler::join_gang(Queued& queued) {
  const QueuedTask& task = queued.task;
  Gang& gang = gangs_[gang_of(task.ref, task.gang)];
  gang.size = std::max(gang.size, task.gang_size);
  gang.members.emplace(FairQueues::Position{task.order, &task.ref}, queued.cls);
  line_up(gang);
}

void Scheduler::leave_gang(Queued& queued) {
  const QueuedTask& task = queued.task;
  const auto it = gangs_.find(gang_of(task.ref, task.gang));
  if (it == gangs_.end()) return;
  Gang& gang = it->second;
  const FairQueues::Position position{task.order, &task.ref};
  if (gang.line != nullptr) {
    if (const auto over = over_quota_.find(task.ref.tenant); over != over_quota_.end())
      std::erase(over->second, gang.line);
    queues_.erase(std::exchange(gang.line, nullptr), gang.at);
    gang.turn.reset();
  }
  gang.members.erase(position);
  if (gang.members.empty() && gang.running == 0) gangs_.erase(it);
  else line_up(gang);
}

// A task of a gang began or ended. Once one has begun, those that are queued, or come back, go alone.
void Scheduler::count_running(const TaskRef& ref, const std::string& gang_id, int sign) {
  if (gang_id.empty()) return;
  const auto it = gangs_.try_emplace(gang_of(ref, gang_id)).first;
  Gang& gang = it->second;
  gang.running += static_cast<size_t>(sign);
  if (gang.running == 0 && gang.members.empty()) gangs_.erase(it);
}

// Puts a gang that is complete into the queues.
void Scheduler::line_up(Gang& gang) {
  if (gang.line != nullptr || gang.running > 0 || gang.members.empty() || gang.members.size() < gang.size) return;
  gang.at = gang.members.begin()->first;
  const Queued& first = queued_.at(*gang.at.second);
  gang.turn = std::make_unique<Class>(first.cls->asked.demand(), fleet_, next_class_++);
  gang.turn->gang = &gang;
  gang.line = queues_.push(queues_.leaf(path_of(first.task)), first.task.priority, gang.turn->number, gang.turn.get(),
                           gang.at, first.task.queued_ms);
}

// False if there is not room for all.
bool Scheduler::start_gang(Gang& gang, std::vector<Assignment>& out) {
  std::vector<std::pair<const TaskRef*, WorkerSlot>> chosen;
  std::vector<Class*> classes;
  for (const auto& [position, cls] : gang.members) {
    const WorkerSlot worker = search(*cls);
    if (worker == kNoWorker) break;
    fleet_.take(worker, cls->asked.needs());
    chosen.emplace_back(position.second, worker);
    classes.push_back(cls);
  }
  for (size_t i = 0; i < chosen.size(); ++i) fleet_.give(chosen[i].second, classes[i]->asked.needs());
  if (chosen.size() < gang.members.size()) {
    gang.retry_ms = now_ms_ + options_.retry_ms;
    return false;
  }
  FairQueues::Node* leaf = gang.line->queue->leaf;
  queues_.served(gang.line);
  queues_.erase(std::exchange(gang.line, nullptr), gang.at);
  for (const auto& [ref, worker] : chosen) {
    out.push_back({*ref, fleet_.view(worker).id});
    start_queued(queued_.at(*ref), worker, leaf);
  }
  return true;
}

// Gangs that did not fit are tried again now and then, whatever has changed since.
void Scheduler::retry_gangs() {
  for (auto& [key, gang] : gangs_) {
    if (gang.line != nullptr && gang.line->parked && gang.retry_ms <= now_ms_) retry(*gang.turn);
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
  if (room < static_cast<int64_t>(gang.members.size())) {
    return fmt::format(
        "its gang of {} tasks does not fit into the cluster even if nothing else runs: there is room for {}",
        gang.members.size(), room);
  }
  return fmt::format("waits until there is room for all {} tasks of its gang at once", gang.members.size());
}

}  // namespace uccp::tasks
