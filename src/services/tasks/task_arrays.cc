#include "services/tasks/task_arrays.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <ranges>

#include "base/bytes.h"
#include "base/check.h"
#include "base/dotted_numbers.h"
#include "services/message_types.h"
#include "services/tasks/task_checks.h"
#include "services/tasks/task_rows.h"
#include "services/tasks/task_use.h"

namespace uccp::tasks {
namespace {

using internal::v1::ElementsToEnd;
using internal::v1::TaskRow;
using machine::ApplyContext;
using machine::KeyReader;
using machine::Scope;
using v1::Task;
using v1::TaskStatus;
using work::is_terminal;

constexpr uint32_t kStatusBits = 4;
constexpr const char* kQuietReason = "exit code 0";

std::string number_key(std::string_view array, uint32_t number) {
  return ByteWriter().key_part(array).u32(number).take();
}

// A row of kElementStates, taken apart.
class States {
 public:
  States(const KeyReader& state, const Scope& scope, std::string_view array, uint32_t row)
      : scope_(scope),
        key_(number_key(array, row)),
        row_(work::kElementStates.get(state, scope, key_).value_or(internal::v1::ElementStates())) {
    size_t at = 0;
    for (const uint32_t run : row_.runs()) {
      const size_t count = run >> kStatusBits;
      UCCP_CHECK(at + count <= status_.size(), "runs of elements fit into their row");
      std::fill_n(status_.begin() + static_cast<ptrdiff_t>(at), count,
                  static_cast<uint8_t>(run & ((1u << kStatusBits) - 1)));
      at += count;
    }
  }

  TaskStatus status(uint32_t position) const { return static_cast<TaskStatus>(status_[position]); }
  void set_status(uint32_t position, TaskStatus status) { status_[position] = static_cast<uint8_t>(status); }

  const internal::v1::QuietElement* quiet(uint32_t position) const {
    const auto found = std::ranges::find(row_.quiet(), position, &internal::v1::QuietElement::position);
    return found == row_.quiet().end() ? nullptr : &*found;
  }
  const std::string& worker(uint32_t number) const { return row_.workers(static_cast<int>(number)); }
  void add_quiet(uint32_t position, const Task& element) {
    auto& quiet = *row_.add_quiet();
    const auto worker = std::ranges::find(row_.workers(), element.worker_id());
    quiet.set_worker(static_cast<uint32_t>(worker - row_.workers().begin()));
    if (worker == row_.workers().end()) row_.add_workers(element.worker_id());
    quiet.set_position(position);
    quiet.set_start_us(services::us_of(element.start_time()));
    quiet.set_run_us(services::us_of(element.attempt_history(0).end_time()) - quiet.start_us());
    if (element.usage().ByteSizeLong() > 0) *quiet.mutable_usage() = element.usage();
  }

  void store(ApplyContext& c) {
    row_.clear_runs();
    for (size_t at = 0; at < status_.size();) {
      const auto end = std::find_if(status_.begin() + static_cast<ptrdiff_t>(at), status_.end(),
                                    [&](uint8_t one) { return one != status_[at]; });
      const auto count = static_cast<uint32_t>(end - status_.begin()) - static_cast<uint32_t>(at);
      if (end != status_.end() || status_[at] != 0) row_.add_runs(count << kStatusBits | status_[at]);
      at += count;
    }
    work::kElementStates.put(c.state(), scope_, key_, row_);
  }

 private:
  const Scope& scope_;
  const std::string key_;
  internal::v1::ElementStates row_;
  std::array<uint8_t, work::kElementsPerRow> status_{};
};

uint32_t size_of(const Task& array) { return static_cast<uint32_t>(array.array().size()); }

// Elements in a state count with their array only once they have ended.
void count(Task& array, TaskStatus status, int32_t change) {
  v1::ArrayElements& all = *array.mutable_elements();
  switch (status) {
    case v1::TASK_STATUS_SUCCEEDED: return all.set_succeeded(all.succeeded() + change);
    case v1::TASK_STATUS_FAILED: return all.set_failed(all.failed() + change);
    case v1::TASK_STATUS_CANCELLED: return all.set_cancelled(all.cancelled() + change);
    case v1::TASK_STATUS_TIMED_OUT: return all.set_timed_out(all.timed_out() + change);
    default: return;
  }
}

void set_status(Task& array, States& states, uint32_t position, TaskStatus status) {
  count(array, states.status(position), -1);
  count(array, status, 1);
  states.set_status(position, status);
}

// It succeeded at once and left nothing: an entry of the states says all there is.
bool is_quiet(const TaskRow& element) {
  const Task& task = element.task();
  return task.status() == v1::TASK_STATUS_SUCCEEDED && task.attempts() == 1 && task.attempt_history_size() == 1 &&
         task.has_start_time() && task.attempt_history(0).reason() == kQuietReason && task.artifacts().empty() &&
         !task.has_value() && task.checkpoints().empty() && element.lost_attempts() == 0 && element.logs_size() == 1 &&
         element.logs(0).blobs().empty() && !element.logs(0).truncated();
}

// What is the element's own.
TaskRow own_part(const TaskRow& element) {
  TaskRow own;
  own.set_cancel_requested(element.cancel_requested());
  if (element.cancel_requested()) own.set_cancel_grace_ms(element.cancel_grace_ms());
  own.set_not_before_ms(element.not_before_ms());
  own.set_lost_attempts(element.lost_attempts());
  *own.mutable_logs() = element.logs();
  own.set_created_ms(element.created_ms());
  own.set_resume_from(element.resume_from());
  own.set_stored_bytes(element.stored_bytes());
  const Task& from = element.task();
  Task& task = *own.mutable_task();
  task.set_status_reason(from.status_reason());
  if (from.has_exit_code()) task.set_exit_code(from.exit_code());
  task.set_signal(from.signal());
  task.set_attempts(from.attempts());
  task.set_retry_count(from.retry_count());
  *task.mutable_attempt_history() = from.attempt_history();
  task.set_worker_id(from.worker_id());
  if (from.has_start_time()) *task.mutable_start_time() = from.start_time();
  if (from.has_end_time()) *task.mutable_end_time() = from.end_time();
  if (from.has_update_time()) *task.mutable_update_time() = from.update_time();
  if (from.has_next_attempt_time()) *task.mutable_next_attempt_time() = from.next_attempt_time();
  if (from.has_usage()) *task.mutable_usage() = from.usage();
  *task.mutable_artifacts() = from.artifacts();
  *task.mutable_checkpoints() = from.checkpoints();
  task.set_dead_letter(from.dead_letter());
  task.set_etag(from.etag());
  task.set_revision(from.revision());
  return own;
}

// What an element has of its array: all but what became of it.
TaskRow common_part(const TaskRow& array, uint32_t index) {
  TaskRow element = array;
  Task& task = *element.mutable_task();
  task.set_parent_id(array.task().id());
  task.set_id(element_id(array.task().id(), index));
  task.set_array_index(static_cast<int32_t>(index));
  task.clear_elements();
  task.clear_status_reason();
  task.clear_end_time();
  element.set_stored_bytes(0);
  element.set_ended_ms(0);
  element.set_counted(false);
  return element;
}

void set_quiet(const internal::v1::QuietElement& quiet, const std::string& worker, TaskRow& element) {
  Task& task = *element.mutable_task();
  task.set_attempts(1);
  task.set_exit_code(0);
  task.set_status_reason(kQuietReason);
  task.set_worker_id(worker);
  services::set_wall(task.mutable_start_time(), {quiet.start_us()});
  services::set_wall(task.mutable_end_time(), {quiet.start_us() + quiet.run_us()});
  if (quiet.has_usage()) *task.mutable_usage() = quiet.usage();
  v1::Attempt& attempt = *task.add_attempt_history();
  attempt.set_number(1);
  attempt.set_worker_id(worker);
  *attempt.mutable_start_time() = task.start_time();
  *attempt.mutable_end_time() = task.end_time();
  attempt.set_outcome(v1::ATTEMPT_OUTCOME_KIND_EXITED);
  attempt.set_exit_code(0);
  attempt.set_reason(kQuietReason);
  *attempt.mutable_usage() = task.usage();
  element.add_logs()->set_attempt(1);
}

TaskRow compose(const KeyReader& state, const Scope& scope, const TaskRow& array, const States& states,
                uint32_t index) {
  TaskRow element = common_part(array, index);
  Task& task = *element.mutable_task();
  const uint32_t position = index % work::kElementsPerRow;
  const TaskStatus status = states.status(position);
  if (const auto* quiet = states.quiet(position)) {
    set_quiet(*quiet, states.worker(quiet->worker()), element);
  } else if (status != v1::TASK_STATUS_UNSPECIFIED) {
    if (const auto own = work::kElements.get(state, scope, number_key(array.task().id(), index))) {
      element.MergeFrom(*own);
      if (own->cancel_requested()) element.set_cancel_grace_ms(own->cancel_grace_ms());
    }
  }
  // What never ran stands where its array does.
  const bool waits = status == v1::TASK_STATUS_UNSPECIFIED || status == v1::TASK_STATUS_QUEUED;
  task.set_status(waits ? array.task().status() : status);
  if (!is_terminal(task.status()) && waits) return element;
  if (status == v1::TASK_STATUS_STOPPING) element.set_cancel_requested(true);
  if (task.status_reason().empty()) task.set_status_reason(array.task().status_reason());
  return element;
}

// Writes into `states` and beside them what the element has come to, and counts it in its array.
void write(ApplyContext& c, const Scope& scope, TaskRow& array, States& states, const TaskRow& element) {
  const auto index = static_cast<uint32_t>(element.task().array_index());
  const uint32_t position = index % work::kElementsPerRow;
  set_status(*array.mutable_task(), states, position, element.task().status());
  const std::string key = number_key(array.task().id(), index);
  if (is_quiet(element)) {
    states.add_quiet(position, element.task());
    work::kElements.erase(c.state(), scope, key);
  } else {
    work::kElements.put(c.state(), scope, key, own_part(element));
  }
}

bool named(const ElementsToEnd& which, uint32_t index) {
  return which.only().empty() || std::ranges::any_of(which.only(), [&](const internal::v1::ElementRange& range) {
           return index >= range.first() && index - range.first() < range.count();
         });
}

}  // namespace

std::optional<ElementId> element_of(std::string_view id) {
  const size_t colon = id.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return std::nullopt;
  const std::string_view digits = id.substr(colon + 1);
  ElementId element{.array = std::string(id.substr(0, colon))};
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), element.index);
  // One way to write a number, so that an element has one id.
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  if (digits.size() > 1 && digits.front() == '0') return std::nullopt;
  return element;
}

std::string element_id(std::string_view array, uint32_t index) {
  return std::string(array) + ":" + std::to_string(index);
}

std::optional<TaskRow> find_task(const KeyReader& state, const Scope& scope, std::string_view id) {
  if (auto row = work::kTasks.get(state, scope, id)) return row;
  const auto element = element_of(id);
  if (!element) return std::nullopt;
  const auto array = work::kTasks.get(state, scope, element->array);
  if (!array || !is_array(array->task()) || element->index >= size_of(array->task())) return std::nullopt;
  return element_row(state, scope, *array, element->index);
}

TaskRow element_row(const KeyReader& state, const Scope& scope, const TaskRow& array, uint32_t index) {
  const States states(state, scope, array.task().id(), index / work::kElementsPerRow);
  return compose(state, scope, array, states, index);
}

void visit_elements(const KeyReader& state, const Scope& scope, const Task& array, uint32_t from,
                    const VisitElements& visit) {
  const uint32_t size = size_of(array);
  while (from < size) {
    const uint32_t row = from / work::kElementsPerRow;
    const States states(state, scope, array.id(), row);
    const uint32_t end = std::min(size, (row + 1) * work::kElementsPerRow);
    while (from < end) {
      const uint32_t first = from;
      const TaskStatus status = states.status(first % work::kElementsPerRow);
      while (from < end && states.status(from % work::kElementsPerRow) == status) ++from;
      if (!visit(first, from - first, status)) return;
    }
  }
}

void visit_element_rows(const KeyReader& state, const Scope& scope, const TaskRow& array, uint32_t from,
                        const VisitElementRows& visit) {
  const uint32_t size = size_of(array.task());
  while (from < size) {
    const uint32_t row = from / work::kElementsPerRow;
    const States states(state, scope, array.task().id(), row);
    for (const uint32_t end = std::min(size, (row + 1) * work::kElementsPerRow); from < end; ++from) {
      if (!visit(compose(state, scope, array, states, from))) return;
    }
  }
}

uint32_t ended_elements(const Task& array) {
  const v1::ArrayElements& all = array.elements();
  return static_cast<uint32_t>(all.succeeded() + all.failed() + all.cancelled() + all.timed_out());
}

void store_element(ApplyContext& c, const Scope& scope, TaskRow& element) {
  auto array = work::kTasks.get(c.state(), scope, element.task().parent_id());
  UCCP_CHECK(array.has_value(), "an element is stored while its array is there");
  States states(c.state(), scope, array->task().id(),
                static_cast<uint32_t>(element.task().array_index()) / work::kElementsPerRow);
  write(c, scope, *array, states, element);
  states.store(c);
  store_task(c, scope, *array, work::ChangeKind::kUpdated);
}

std::vector<uint32_t> end_elements(ApplyContext& c, const Scope& scope, TaskRow& array, const ElementsToEnd& which,
                                   TaskStatus status) {
  Task& task = *array.mutable_task();
  std::vector<uint32_t> asked;
  for (uint32_t first = 0; first < size_of(task); first += work::kElementsPerRow) {
    States states(c.state(), scope, task.id(), first / work::kElementsPerRow);
    bool changed = false;
    const uint32_t end = std::min(size_of(task), first + work::kElementsPerRow);
    for (uint32_t index = first; index < end; ++index) {
      const TaskStatus now = states.status(index % work::kElementsPerRow);
      if (is_terminal(now) || !named(which, index)) continue;
      const bool may_run = which.all_may_run() || std::ranges::binary_search(which.may_run(), index);
      if (may_run && now == v1::TASK_STATUS_STOPPING) continue;
      if (may_run) asked.push_back(index);
      set_status(task, states, index % work::kElementsPerRow, may_run ? v1::TASK_STATUS_STOPPING : status);
      changed = true;
    }
    if (changed) states.store(c);
  }
  return asked;
}

void restart_elements(ApplyContext& c, const Scope& scope, TaskRow& array, std::optional<uint32_t> only) {
  const uint32_t size = size_of(array.task());
  const uint32_t begin = only ? *only : 0;
  const uint32_t end = only ? *only + 1 : size;
  for (uint32_t index = begin; index < end;) {
    States states(c.state(), scope, array.task().id(), index / work::kElementsPerRow);
    const uint32_t row_end = std::min(end, (index / work::kElementsPerRow + 1) * work::kElementsPerRow);
    for (; index < row_end; ++index) {
      const TaskStatus status = states.status(index % work::kElementsPerRow);
      if (!is_terminal(status) || status == v1::TASK_STATUS_SUCCEEDED) continue;
      TaskRow element = compose(c.state(), scope, array, states, index);
      if (element.task().attempts() == 0) {
        work::kElements.erase(c.state(), scope, number_key(array.task().id(), index));
        set_status(*array.mutable_task(), states, index % work::kElementsPerRow, v1::TASK_STATUS_UNSPECIFIED);
        continue;
      }
      begin_anew(c, element);
      element.mutable_task()->set_status(v1::TASK_STATUS_QUEUED);
      element.mutable_task()->set_status_reason("resumed by " + c.envelope().principal);
      write(c, scope, array, states, element);
    }
    states.store(c);
  }
}

bool erase_elements(ApplyContext& c, const Scope& scope, TaskRow& array, size_t rows_max) {
  const std::string prefix = ByteWriter().key_part(array.task().id()).take();
  std::vector<std::pair<std::string, TaskRow>> own;
  work::kElements.scan(c.state(), scope, prefix, "", [&](std::string_view key, TaskRow row) {
    own.emplace_back(key, std::move(row));
    return own.size() < rows_max;
  });
  for (auto& [key, row] : own) {
    row.mutable_task()->set_principal(array.task().principal());
    forget_bytes(c, scope, row);
    work::kElements.erase(c.state(), scope, key);
  }
  if (own.size() >= rows_max) return false;
  for (uint32_t row = 0; row * work::kElementsPerRow < size_of(array.task()); ++row)
    work::kElementStates.erase(c.state(), scope, number_key(array.task().id(), row));
  return true;
}

Result<std::vector<internal::v1::ElementRange>> parse_ranges(std::string_view text, uint32_t size) {
  std::vector<internal::v1::ElementRange> ranges;
  uint64_t next = 0;
  const auto index_of = [](std::string_view digits) -> std::optional<uint64_t> {
    std::array<uint64_t, 1> number{};
    return parse_dotted_numbers(digits, number) ? std::optional(number[0]) : std::nullopt;
  };
  const auto wrong = [](const std::string& what) { return fail(invalid_field("elements", what, "0-9,42")); };
  if (text.empty()) return wrong("names no element");
  for (const auto piece : std::views::split(text, ',')) {
    const std::string_view part(piece);
    const size_t dash = part.find('-');
    const auto first = index_of(part.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : index_of(part.substr(dash + 1));
    if (!first || !last) return wrong("must be indexes and ranges of them");
    const std::string shown = std::to_string(*first) + "-" + std::to_string(*last);
    if (*last < *first) return wrong("has the range " + shown + ", which ends before it begins");
    if (*first < next) return wrong("has the range " + shown + ", which begins before the one in front of it ends");
    if (*last >= size)
      return wrong("names element " + std::to_string(*last) + " of an array of " + std::to_string(size));
    auto& range = ranges.emplace_back();
    range.set_first(static_cast<uint32_t>(*first));
    range.set_count(static_cast<uint32_t>(*last - *first + 1));
    next = *last + 1;
  }
  return ranges;
}

}  // namespace uccp::tasks
