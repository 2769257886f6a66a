// StreamResults: the values that a function yields, stored and live, and then what its task came to.
//
// Values are numbered over the attempts of a task: one that is tried again yields from the beginning, and what was sent
// before is not sent again. A cursor names the attempt, the byte behind the value in its stream, and the next number,
// so that a stream resumes without a gap or a repeat. docs/design/compute.md describes how values are stored.
#pragma once

#include "services/tasks/task_logs.h"
#include "uccp/v1/compute.pb.h"

namespace uccp::tasks {

struct ResultCursor {
  int32_t attempt = 0;
  uint64_t offset = 0;   // behind the last value, among the bytes of values
  uint64_t skipped = 0;  // values of the attempt up to there
  uint64_t index = 0;    // number of the next value to send

  auto operator<=>(const ResultCursor&) const = default;
};
std::string encode_cursor(const ResultCursor& cursor);
// Errors: invalid CURSOR_INVALID.
Result<ResultCursor> decode_result_cursor(std::string_view text);

// What a task came to so far.
void fill_result(const v1::Task& task, v1::TaskResult& result);
// Answers the call when the task has ended.
void follow_results(const LogEnvironment& environment, const call::CallPtr& call,
                    const v1::StreamResultsRequest& request);

}  // namespace uccp::tasks
