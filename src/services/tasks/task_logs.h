// GetTaskLogs: the output of a task's attempts as lines, stored and live, in the order in which it was written.
//
// A follower reads the stored attempts from their blobs and then what the running attempt's agent sends. A cursor names
// the attempt and, of each output, the byte behind the line, so that a stream resumes without a gap or a repeat whether
// the attempt has ended meanwhile or not.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "services/tasks/task_follower.h"

namespace uccp::tasks {

struct LogCursor {
  int32_t attempt = 0;
  uint64_t stdout_offset = 0;
  uint64_t stderr_offset = 0;

  auto operator<=>(const LogCursor&) const = default;
};
std::string encode_cursor(const LogCursor& cursor);
// Errors: invalid CURSOR_INVALID.
Result<LogCursor> decode_cursor(std::string_view text);

// Answers the call, at once or when the task has ended.
void follow_logs(const LogEnvironment& environment, const call::CallPtr& call, const v1::GetTaskLogsRequest& request);

}  // namespace uccp::tasks
