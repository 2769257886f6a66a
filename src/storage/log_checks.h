// The preconditions of LogStore, checked the same way by every implementation. None of these errors changes the store.
#pragma once

#include <span>

#include "storage/log_store.h"

namespace uccp::storage {

// Errors: invalid LOG_APPEND_GAP if the indexes have a gap, before the entries or between them; invalid
// LOG_APPEND_COMPACTED if they begin at or below the start.
Status check_append(GroupId group, LogIndex start, LogIndex last, std::span<const Entry> entries);

// Errors: not_found LOG_COMPACTED, invalid LOG_RANGE, as LogStore::read says.
Status check_read(GroupId group, LogIndex start, LogIndex last, LogIndex from, LogIndex to);

// Errors: not_found LOG_COMPACTED below the start, invalid LOG_RANGE behind the last entry.
Status check_term(GroupId group, LogIndex start, LogIndex last, LogIndex index);

}  // namespace uccp::storage
