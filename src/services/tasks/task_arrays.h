// Arrays of tasks in the replicated state: one row for all elements, and of each one only what sets it apart.
//
// An element is read as a row like that of any task: what it has in common with the array, and what is its own. Where
// elements stand is kept as runs of equal states, 256 elements a row; one that succeeded at once and left nothing is
// an entry of that row, all others that have run have a row of their own. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "machine/domain.h"
#include "machine/key_reader.h"
#include "services/work_types.h"

namespace uccp::tasks {

struct ElementId {
  std::string array;
  uint32_t index = 0;
};
// "render:17" as an element of "render", whether or not that is an array.
std::optional<ElementId> element_of(std::string_view id);
std::string element_id(std::string_view array, uint32_t index);

inline bool is_element(const v1::Task& task) { return task.has_array_index(); }
inline bool is_array(const v1::Task& task) { return task.has_array() && !is_element(task); }

// The row of a task, or of an element as if it had one.
std::optional<internal::v1::TaskRow> find_task(const machine::KeyReader& state, const machine::Scope& scope,
                                               std::string_view id);
// Of an array that is known already.
internal::v1::TaskRow element_row(const machine::KeyReader& state, const machine::Scope& scope,
                                  const internal::v1::TaskRow& array, uint32_t index);

// Visits runs of elements from `from` on, until `visit` returns false. TASK_STATUS_UNSPECIFIED: they never ran.
using VisitElements = std::function<bool(uint32_t first, uint32_t count, v1::TaskStatus status)>;
void visit_elements(const machine::KeyReader& state, const machine::Scope& scope, const v1::Task& array, uint32_t from,
                    const VisitElements& visit);

// Visits the rows of elements from `from` on, until `visit` returns false.
using VisitElementRows = std::function<bool(internal::v1::TaskRow element)>;
void visit_element_rows(const machine::KeyReader& state, const machine::Scope& scope,
                        const internal::v1::TaskRow& array, uint32_t from, const VisitElementRows& visit);

// Elements that have ended.
uint32_t ended_elements(const v1::Task& array);

// Inside apply. Writes what is the element's own and counts it in its array, whose row is written too.
void store_element(machine::ApplyContext& c, const machine::Scope& scope, internal::v1::TaskRow& element);
// Ends elements of an array that have not ended, all or some: those that may run are asked to stop, the others get
// `status`. Counts them in the row, which is written by the caller. Answers the indexes that were asked to stop.
std::vector<uint32_t> end_elements(machine::ApplyContext& c, const machine::Scope& scope, internal::v1::TaskRow& array,
                                   const internal::v1::ElementsToEnd& which, v1::TaskStatus status);
// Lets elements that have not succeeded begin anew: one, or all.
void restart_elements(machine::ApplyContext& c, const machine::Scope& scope, internal::v1::TaskRow& array,
                      std::optional<uint32_t> only);
// Removes what is kept of elements, at most `rows_max` rows of their own. False: there are more.
bool erase_elements(machine::ApplyContext& c, const machine::Scope& scope, internal::v1::TaskRow& array,
                    size_t rows_max);

// "0-9,42" as ranges. Errors: invalid FIELD_INVALID: a range that is no range, not behind the one before, or beyond
// the array.
Result<std::vector<internal::v1::ElementRange>> parse_ranges(std::string_view text, uint32_t size);

}  // namespace uccp::tasks
