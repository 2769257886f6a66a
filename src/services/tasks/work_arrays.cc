// WorkRuntime, the part about arrays: which of their elements are in the scheduler.
//
// Only so many elements wait there as are placed in the near future, and never more at a time than the array allows, so
// an array costs by what runs of it. Which come next is read from the replicated states of the elements.
#include <algorithm>

#include "services/tasks/attempts.h"
#include "services/tasks/task_arrays.h"
#include "services/tasks/work_runtime.h"

namespace uccp::tasks {
namespace {

using internal::v1::TaskRow;

// Elements of one array that wait in the scheduler.
constexpr size_t kElementsQueuedMax = 1'024;

TaskRef array_of(const TaskRef& ref, const ElementId& element) { return {ref.tenant, ref.name_space, element.array}; }

}  // namespace

bool WorkRuntime::is_held(const TaskRef& ref) const {
  if (held_.contains(ref)) return true;
  const auto element = element_of(ref.id);
  return element && held_.contains(array_of(ref, *element));
}

// Something that ends it is under way: start nothing.
bool WorkRuntime::is_cancelling(const TaskRef& ref) const {
  if (cancelling_.contains(ref)) return true;
  const auto element = element_of(ref.id);
  return element && cancelling_.contains(array_of(ref, *element));
}

void WorkRuntime::count_attempt(const TaskRef& ref, int change) {
  const auto element = element_of(ref.id);
  const auto row = element ? row_of(ref) : std::nullopt;
  if (!row || !is_element(row->task())) return;
  const TaskRef array = array_of(ref, *element);
  const auto found = change > 0 ? arrays_.try_emplace(array).first : arrays_.find(array);
  if (found == arrays_.end()) return;
  if (change > 0) found->second.out.insert(element->index);
  found->second.live += static_cast<size_t>(change);
}

void WorkRuntime::track_array(const TaskRef& ref, const TaskRow* row) {
  if (row == nullptr || work::is_terminal(row->task().status())) {
    const auto turn = arrays_.extract(ref);
    if (turn.empty()) return;
    for (const uint32_t index : turn.mapped().out) track({ref.tenant, ref.name_space, element_id(ref.id, index)});
    arrays_.erase(ref);  // what that has counted
    return;
  }
  if (row->task().status() == v1::TASK_STATUS_PENDING || held_.contains(ref)) return;
  ArrayTurn& turn = arrays_[ref];
  turn.waiting = static_cast<size_t>(row->task().array().size()) - ended_elements(row->task());
  if (row->task().status() == v1::TASK_STATUS_STOPPING) return stop_array(ref, *row);
  const int32_t priority = row->task().priority();
  if (turn.priority && *turn.priority != priority) {
    for (const uint32_t index : turn.out) {
      const TaskRef element{ref.tenant, ref.name_space, element_id(ref.id, index)};
      if (scheduler_->is_queued(element)) queue_element(element, *row, index);
    }
  }
  turn.priority = priority;
  feed(ref, *row);
}

void WorkRuntime::queue_element(const TaskRef& ref, const TaskRow& array, uint32_t index) {
  queue_task(ref, element_row(env_.view(), {ref.tenant, ref.name_space}, array, index));
}

// Puts elements into the scheduler as far as there is room for them.
void WorkRuntime::feed(const TaskRef& ref, const TaskRow& row) {
  ArrayTurn& turn = arrays_[ref];
  const auto size = static_cast<uint32_t>(row.task().array().size());
  const int32_t limit = row.task().array().parallelism();
  const size_t most = limit == 0 ? size : static_cast<size_t>(limit);
  const auto full = [&] { return turn.out.size() >= most || turn.out.size() - turn.live >= kElementsQueuedMax; };
  bool any = false;
  const auto put = [&](uint32_t index) {
    const TaskRef element{ref.tenant, ref.name_space, element_id(ref.id, index)};
    // Comes again when its outcome counts or is refused.
    if (settling_.contains(element) || !turn.out.insert(index).second) return;
    queue_element(element, row, index);
    any = true;
  };
  while (!full() && !turn.returned.empty()) put(turn.returned.extract(turn.returned.begin()).value());
  if (!full() && turn.next < size) {
    visit_elements(env_.view(), {ref.tenant, ref.name_space}, row.task(), turn.next,
                   [&](uint32_t first, uint32_t count, v1::TaskStatus status) {
                     turn.next = first;
                     const uint32_t end = first + count;
                     if (work::is_terminal(status)) turn.next = end;
                     for (; turn.next < end && !full(); ++turn.next) {
                       if (status == v1::TASK_STATUS_STOPPING)
                         track({ref.tenant, ref.name_space, element_id(ref.id, turn.next)});
                       else put(turn.next);
                     }
                     return !full();
                   });
  }
  if (any) schedule_round();
}

// An element that waits again keeps its turn, or gets one when there is room.
void WorkRuntime::track_element(const TaskRef& ref, const TaskRow& row) {
  const TaskRef array{ref.tenant, ref.name_space, row.task().parent_id()};
  const auto index = static_cast<uint32_t>(row.task().array_index());
  const auto found = arrays_.find(array);
  if (found == arrays_.end()) return;
  ArrayTurn& turn = found->second;
  const bool ended = work::is_terminal(row.task().status());
  if (!ended && turn.out.contains(index)) {
    queue_task(ref, row);
    return schedule_round();
  }
  if (ended) turn.out.erase(index);
  else if (index < turn.next) turn.returned.insert(index);
  if (ended) turn.returned.erase(index);
  const auto all = row_of(array);
  if (all && all->task().status() == v1::TASK_STATUS_QUEUED && !held_.contains(array)) feed(array, *all);
}

// An element whose attempt ended while its array is held on: it gets a turn when the array does.
void WorkRuntime::give_up_turn(const TaskRef& ref, const TaskRow& row) {
  const auto found = arrays_.find({ref.tenant, ref.name_space, row.task().parent_id()});
  if (found == arrays_.end()) return;
  const auto index = static_cast<uint32_t>(row.task().array_index());
  found->second.out.erase(index);
  if (index < found->second.next) found->second.returned.insert(index);
}

std::vector<uint32_t> WorkRuntime::elements_that_may_run(const TaskRef& array) const {
  std::vector<uint32_t> indexes;
  const auto take = [&](const auto& refs, const auto& ref_of_one) {
    for (auto at = refs.lower_bound({array.tenant, array.name_space, array.id + ":"}); at != refs.end(); ++at) {
      const TaskRef& ref = ref_of_one(*at);
      const auto element = element_of(ref.id);
      if (ref.tenant != array.tenant || ref.name_space != array.name_space || !ref.id.starts_with(array.id + ":"))
        break;
      if (element && element->array == array.id) indexes.push_back(element->index);
    }
  };
  take(attempts_, [](const auto& one) -> const TaskRef& { return one.first; });
  take(settling_, [](const auto& one) -> const TaskRef& { return one; });
  std::ranges::sort(indexes);
  indexes.erase(std::ranges::unique(indexes).begin(), indexes.end());
  return indexes;
}

// Elements that ended by a command for many of them, of which only the array tells.
void WorkRuntime::track_ended(const TaskRef& array, const internal::v1::ElementsToEnd& elements) {
  const auto turn = arrays_.find(array);
  if (turn == arrays_.end()) return;
  for (const uint32_t index : std::set<uint32_t>(turn->second.out)) {
    const auto named = [&](const auto& range) {
      return index >= range.first() && index - range.first() < range.count();
    };
    if (std::ranges::any_of(elements.only(), named))
      track({array.tenant, array.name_space, element_id(array.id, index)});
  }
}

// What a command that ends an array, or some elements of it, has to know of the present moment.
void WorkRuntime::set_may_run(const TaskRef& array, internal::v1::ElementsToEnd& elements) const {
  const auto indexes = elements_that_may_run(array);
  elements.mutable_may_run()->Assign(indexes.begin(), indexes.end());
  elements.set_all_may_run(held_.contains(array));
}

// Asks what runs to stop, and ends what does not, as soon as it is known which that is.
void WorkRuntime::stop_array(const TaskRef& ref, const TaskRow& row) {
  for (const uint32_t index : arrays_[ref].out) {
    const TaskRef element{ref.tenant, ref.name_space, element_id(ref.id, index)};
    scheduler_->remove_task(element);
    if (attempts_.contains(element))
      send_cancel(element, element_row(env_.view(), {ref.tenant, ref.name_space}, row, index));
  }
  internal::v1::CancelCommand command;
  set_may_run(ref, *command.mutable_elements());
  const size_t left = static_cast<size_t>(row.task().array().size()) - ended_elements(row.task());
  if (left <= static_cast<size_t>(command.elements().may_run_size()) || !cancelling_.insert(ref).second) return;
  if (row.deadline_passed()) {
    internal::v1::DeadlineCommand over;
    over.set_id(ref.id);
    *over.mutable_elements() = command.elements();
    return propose_end(ref, system_command("tasks.deadline", over.SerializeAsString()));
  }
  command.set_id(ref.id);
  command.set_reason(row.task().status_reason());
  command.set_grace_ms(row.cancel_grace_ms());
  propose_end(ref, system_command("tasks.cancel", command.SerializeAsString()));
}

std::string WorkRuntime::explain_array(const TaskRef& ref, const TaskRow& row) const {
  const v1::Task& task = row.task();
  const auto turn = arrays_.find(ref);
  const size_t live = turn == arrays_.end() ? 0 : turn->second.live;
  const size_t ended = ended_elements(task);
  const auto size = static_cast<size_t>(task.array().size());
  std::string text =
      std::to_string(ended) + " of " + std::to_string(size) + " elements have ended, " + std::to_string(live) + " run";
  if (turn == arrays_.end() || ended + live >= size) return text;
  if (const int32_t most = task.array().parallelism(); most > 0 && live >= static_cast<size_t>(most))
    return text + ", which is as many as its parallelism allows";
  for (const uint32_t index : turn->second.out) {
    const auto waits = scheduler_->explain({ref.tenant, ref.name_space, element_id(ref.id, index)});
    if (waits) return text + "; element " + std::to_string(index) + ": " + waits->summary;
  }
  return text;
}

size_t WorkRuntime::waiting_elements() const {
  size_t sum = 0;
  for (const auto& [ref, turn] : arrays_) sum += turn.waiting - std::min(turn.waiting, turn.out.size());
  return sum;
}

}  // namespace uccp::tasks
