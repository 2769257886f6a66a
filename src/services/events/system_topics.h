// Topics of the cluster's own changes, "$sys.NAME": which there are, and reading them. They are views of the changes
// that groups keep and of their audit trails; nothing is stored for them.
//
// In each group they are one sequence in the order of the log, so that one place of it is all that a cursor needs. The
// place of a change is (log index, number within its command); a record of the audit trail comes behind the changes of
// its command.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "services/change_types.h"
#include "services/events/batches.h"

namespace uccp::events {

inline constexpr std::string_view kSystemPrefix = "$sys";
inline bool is_system(std::string_view pattern) { return pattern == kSystemPrefix || pattern.starts_with("$sys."); }

// A place behind everything of the log entry.
inline LogPlace behind(LogIndex index) { return {index.value, UINT32_MAX, UINT32_MAX}; }

struct SystemEvent {
  LogPlace place;
  std::string event;  // serialized Event
};
struct SystemRead {
  std::vector<SystemEvent> events;
  LogPlace next;      // everything up to here was looked at
  bool whole = true;  // there is nothing behind, as of now
};

using ChangeTopics = std::vector<const services::ChangeTopic*>;

// What the topics, all of one group, have behind `after`; a place of index 0: from the oldest that is kept. About
// `count_max` changes are looked at. Errors: failed_precondition CURSOR_COMPACTED.
Result<SystemRead> read_system(const machine::GroupView& view, const ChangeTopics& topics, const machine::Scope& scope,
                               LogPlace after, size_t count_max);

}  // namespace uccp::events
