#include "services/tasks/task_graph.h"

#include <functional>
#include <map>
#include <queue>
#include <set>
#include <string>

namespace uccp::tasks {
namespace {

std::string field_of(int task) { return "tasks[" + std::to_string(task) + "]"; }

// What each task has to wait for, by places in the request.
using Before = std::vector<std::set<int>>;

// Goes from a task that is left over to one that it waits for and that is left over too, until one comes again.
std::string cycle_in(const v1::ScheduleTaskGraphRequest& request, const Before& before) {
  int at = 0;
  while (before[static_cast<size_t>(at)].empty()) ++at;
  std::vector<int> way;
  std::map<int, size_t> seen;
  while (seen.emplace(at, way.size()).second) {
    way.push_back(at);
    at = *before[static_cast<size_t>(at)].begin();
  }
  std::string text = request.tasks(at).key();
  // The way leads from tasks to what they wait for; people read it in the order in which things would run.
  for (size_t i = way.size(); i > seen[at]; --i) text += " -> " + request.tasks(way[i - 1]).key();
  return text;
}

}  // namespace

Result<std::vector<int>> order_of(const v1::ScheduleTaskGraphRequest& request) {
  std::map<std::string, int> places;
  for (int i = 0; i < request.tasks_size(); ++i) {
    const auto [other, is_new] = places.emplace(request.tasks(i).key(), i);
    if (is_new) continue;
    return fail(Status(Code::kInvalid, "GRAPH_KEY_TAKEN",
                       field_of(i) + ".key: " + request.tasks(i).key() + " is the key of " + field_of(other->second))
                    .with_field(field_of(i) + ".key", "must be unique in the request"));
  }
  const auto count = static_cast<size_t>(request.tasks_size());
  Before before(count);
  std::vector<std::vector<int>> behind(count);
  for (int i = 0; i < request.tasks_size(); ++i) {
    for (const v1::GraphDependency& after : request.tasks(i).after()) {
      const auto place = places.find(after.key());
      if (place == places.end()) {
        return fail(Status(Code::kInvalid, "GRAPH_KEY_UNKNOWN",
                           field_of(i) + " (" + request.tasks(i).key() + ") comes after " + after.key() +
                               ", which is no task of the request; what exists already goes into task.dependencies")
                        .with_field(field_of(i) + ".after", "names no task of the request"));
      }
      if (before[static_cast<size_t>(i)].insert(place->second).second)
        behind[static_cast<size_t>(place->second)].push_back(i);
    }
  }
  std::vector<int> order;
  std::priority_queue<int, std::vector<int>, std::greater<>> ready;
  for (int i = 0; i < request.tasks_size(); ++i) {
    if (before[static_cast<size_t>(i)].empty()) ready.push(i);
  }
  while (!ready.empty()) {
    const int next = ready.top();
    ready.pop();
    order.push_back(next);
    for (const int one : behind[static_cast<size_t>(next)]) {
      auto& waits = before[static_cast<size_t>(one)];
      waits.erase(next);
      if (waits.empty()) ready.push(one);
    }
  }
  if (order.size() == count) return order;
  return fail(Status(Code::kInvalid, "DEPENDENCY_CYCLE",
                     "the tasks wait for each other in a circle: " + cycle_in(request, before) +
                         "; take out one of these dependencies")
                  .with_field("tasks", "form a cycle"));
}

}  // namespace uccp::tasks
