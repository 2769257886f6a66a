// Reading entries of a group's log again, for domains whose data stays in the log: the event bus. `node` implements it.
#pragma once

#include <functional>
#include <vector>

#include "base/log_types.h"
#include "base/status.h"

namespace uccp::machine {

class LogReader {
 public:
  using Done = std::move_only_function<void(Result<std::vector<Entry>>)>;
  virtual ~LogReader() = default;
  // Entries in [from, to) that are applied on this node: at least the first one, then further ones while all have at
  // most `bytes_max` bytes. Callable from any thread; `done` comes on the loop, exactly once.
  // Errors: not_found LOG_COMPACTED if `from` is no longer kept; invalid LOG_RANGE if it is not applied yet;
  // unavailable SHUTTING_DOWN; those of the log.
  virtual void read_log(GroupId group, LogIndex from, LogIndex to, uint64_t bytes_max, Done done) = 0;
};

}  // namespace uccp::machine
