// The log as the core sees it: the durable part behind LogReader, and in memory the tail that is output for persisting
// but not known to be durable.
//
//     start         durable          last
//       |--- LogReader ---|--- tail_ ---|        an index i in (durable, last] is tail_[i - durable - 1]
//
// Invariants: start.index <= durable <= last.index; tail_ holds exactly (durable, last]. Overwriting entries moves
// `durable` back below them, although the disk still has their old versions until the new ones are written.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "base/log_types.h"
#include "base/status.h"

namespace uccp::raft {

class LogReader;

class LogTail {
 public:
  LogTail(const LogReader& reader, LogPosition start, LogPosition last);

  LogPosition start() const { return start_; }
  LogPosition last() const { return last_; }
  // Up to here the log is on disk.
  LogIndex durable() const { return durable_; }

  // Term at `index`; 0 behind the last entry. Errors: not_found for compacted entries, and the reader's own.
  Result<Term> term(LogIndex index) const;
  // True if the log holds this position. False if that cannot be read just now.
  bool holds(LogPosition position) const;
  // The greatest index <= position.index whose term is at most position.term, with its term (0 where it is compacted):
  // no entry behind it can match a log that has `position` (etcd's fast backtracking).
  LogPosition last_not_after(LogPosition position) const;
  // Entries from `from` on, at least one, about `bytes_max`. Requires from <= last. Errors as LogReader::entries.
  Result<std::vector<Entry>> entries(LogIndex from, uint64_t bytes_max) const;

  // Requires entry.index == last.index + 1.
  void append(Entry entry);
  // Drops what follows `position`, which must be in the log, so that other entries can be appended.
  void truncate_to(LogPosition position);
  // Everything up to `index` is on disk. Requires index <= last.index.
  void persisted(LogIndex index);
  // The log is `position` and nothing else (a snapshot was installed).
  void reset(LogPosition position);
  // Entries up to `position` are no longer there. Requires position.index <= durable.
  void compact(LogPosition position);

 private:
  const LogReader& reader_;
  LogPosition start_;
  LogPosition last_;
  LogIndex durable_;
  std::deque<Entry> tail_;
};

}  // namespace uccp::raft
