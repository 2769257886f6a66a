// How many bytes the entries of a group's log have, well enough to say from where on they have at most so many.
//
// Counts what was appended since the start; entries from before it count as nothing. Loop thread only.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "base/log_types.h"

namespace uccp::node {

class LogBytes {
 public:
  // `mark_bytes` is how exact it is.
  explicit LogBytes(uint64_t mark_bytes = 256u << 10) : mark_bytes_(mark_bytes) {}

  void append(const std::vector<Entry>& entries);
  // Entries up to `index` are gone.
  void drop_before(LogIndex index);
  // The last entry that has to go so that those behind it have about `bytes` at most; 0 if none has to.
  LogIndex last_beyond(uint64_t bytes) const;
  // Of all entries ever appended.
  uint64_t total() const { return total_; }

 private:
  struct Mark {
    LogIndex index;      // the last entry before the mark
    uint64_t total = 0;  // bytes up to and with it
  };
  const uint64_t mark_bytes_;
  uint64_t total_ = 0;
  std::deque<Mark> marks_;
};

}  // namespace uccp::node
