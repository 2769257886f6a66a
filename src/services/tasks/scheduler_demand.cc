// Scheduler, the part that says what waits and fits nowhere.
#include "services/tasks/scheduler.h"

namespace uccp::tasks {

std::vector<Scheduler::Unplaced> Scheduler::unplaced(int64_t now_ms) const {
  std::vector<Unplaced> out;
  const auto since = [&](const FairQueues::Line& line, int64_t otherwise) {
    const int64_t queued_ms = queued_.find(*line.tasks.begin()->second)->task.queued_ms;
    return queued_ms > 0 ? queued_ms : otherwise;
  };
  for (const auto& [demand, cls] : classes_) {
    if (!cls.parked || cls.parked_lines.empty()) continue;
    Unplaced one{.key = cls.number, .members = {demand}};
    for (const FairQueues::Line* line : cls.parked_lines) {
      one.count += line->tasks.size();
      one.waited_ms = std::max(one.waited_ms, now_ms - since(*line, cls.starving_since_ms));
    }
    out.push_back(std::move(one));
  }
  for (const auto& [key, gang] : gangs_) {
    if (gang.turn == nullptr || gang.line == nullptr || !gang.turn->parked) continue;
    Unplaced one{.key = gang.turn->number, .count = 1, .gang = true};
    one.waited_ms = now_ms - since(*gang.line, gang.turn->starving_since_ms);
    // Those beyond its size start by themselves, and count then.
    for (const auto& [position, cls] : gang.members) {
      if (one.members.size() < gang.size) one.members.push_back(cls->asked.demand());
    }
    out.push_back(std::move(one));
  }
  return out;
}

std::optional<uint64_t> Scheduler::unplaced_key(const TaskRef& ref) const {
  const Queued* queued = queued_.find(ref);
  if (queued == nullptr) return std::nullopt;
  if (queued->line != nullptr) return queued->cls->number;
  const auto gang = gangs_.find(gang_of(ref, queued->task.gang));
  if (queued->task.gang.empty() || gang == gangs_.end() || gang->second.turn == nullptr) return std::nullopt;
  return gang->second.turn->number;
}

}  // namespace uccp::tasks
