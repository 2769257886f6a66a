#include "storage/log_checks.h"

#include <string>

namespace uccp::storage {
namespace {

std::string describe(GroupId group, LogIndex start, LogIndex last) {
  return "group " + std::to_string(group.value) + " whose log begins after " + std::to_string(start.value) +
         " and ends at " + std::to_string(last.value);
}

Status compacted(GroupId group, LogIndex start, LogIndex last, LogIndex index) {
  return Status(Code::kNotFound, "LOG_COMPACTED",
                "entry " + std::to_string(index.value) + " was asked of " + describe(group, start, last) +
                    "; send a snapshot instead");
}

}  // namespace

Status check_append(GroupId group, LogIndex start, LogIndex last, std::span<const Entry> entries) {
  if (entries.empty()) return {};
  const LogIndex first = entries.front().index;
  if (first <= start) {
    return Status(Code::kInvalid, "LOG_APPEND_COMPACTED",
                  "entry " + std::to_string(first.value) + " was appended to " + describe(group, start, last));
  }
  LogIndex expected = std::min(first, last.next());
  for (const Entry& entry : entries) {
    if (entry.index != expected) {
      return Status(Code::kInvalid, "LOG_APPEND_GAP",
                    "entry " + std::to_string(entry.index.value) + " was appended where " +
                        std::to_string(expected.value) + " is next in " + describe(group, start, last));
    }
    expected = expected.next();
  }
  return {};
}

Status check_read(GroupId group, LogIndex start, LogIndex last, LogIndex from, LogIndex to) {
  if (from <= start) return compacted(group, start, last, from);
  if (from > to || to > last.next()) {
    return Status(Code::kInvalid, "LOG_RANGE",
                  "entries [" + std::to_string(from.value) + ", " + std::to_string(to.value) + ") were asked of " +
                      describe(group, start, last));
  }
  return {};
}

Status check_term(GroupId group, LogIndex start, LogIndex last, LogIndex index) {
  if (index < start) return compacted(group, start, last, index);
  if (index > last) {
    return Status(Code::kInvalid, "LOG_RANGE",
                  "the term of entry " + std::to_string(index.value) + " was asked of " + describe(group, start, last));
  }
  return {};
}

}  // namespace uccp::storage
