// What the write-ahead log knows of one group in memory: hard state, start, and where each entry lies. Recent entries
// are cached. One thread, the store's.
//
// Invariant: the entries are start.index + 1 to last(), without a hole; the cached ones are a tail of them.
#pragma once

#include <cstdint>
#include <deque>
#include <map>

#include "base/log_types.h"
#include "storage/log_store.h"
#include "storage/term_runs.h"
#include "storage/wal/format.h"

namespace uccp::storage::wal {

// Where the record of an entry lies.
struct EntryPlace {
  uint64_t segment = 0;  // 0: in the buffer that is not written yet
  uint32_t offset = 0;
  uint32_t bytes = 0;
};

// How much of each segment is still needed. The buffer counts as segment 0.
class SegmentUse {
 public:
  struct Use {
    uint64_t entries = 0;
    uint64_t bytes = 0;
  };

  void add(const EntryPlace& place);
  void drop(const EntryPlace& place);
  Use of(uint64_t segment) const;

 private:
  std::map<uint64_t, Use> uses_;
};

class GroupIndex {
 public:
  explicit GroupIndex(SegmentUse& use) : use_(&use) {}
  GroupIndex(GroupIndex&&) = default;
  GroupIndex& operator=(GroupIndex&&) = default;

  HardState hard_state;

  LogPosition start() const { return start_; }
  LogIndex last() const { return LogIndex(start_.index.value + places_.size()); }
  LogPosition last_position() const { return {term(last()), last()}; }
  // Requires start().index <= index <= last().
  Term term(LogIndex index) const;
  // Requires start().index < index <= last().
  const EntryPlace& place(LogIndex index) const { return places_[offset_of(index)]; }
  void set_place(LogIndex index, EntryPlace place);

  // Puts an entry at `index`, dropping those from there on. Requires start().index < index <= last() + 1.
  void append(LogIndex index, Term term, EntryPlace place);
  // LogStore::truncate_before. Requires start().index < position.index.
  Following set_start(LogPosition position);
  // Drops everything, for LogStore::remove.
  void clear();

  // Requires that `entry` is the last one.
  void cache(const Entry& entry);
  // None if the entry is not cached.
  const Entry* cached(LogIndex index) const;
  uint64_t cached_bytes() const { return cached_bytes_; }
  void drop_oldest_cached();

 private:
  size_t offset_of(LogIndex index) const { return index.value - start_.index.value - 1; }
  void drop_from(LogIndex index);
  void drop_cached_from(LogIndex index);

  SegmentUse* use_;
  LogPosition start_;
  std::deque<EntryPlace> places_;
  TermRuns runs_;
  std::deque<Entry> cached_;
  uint64_t cached_bytes_ = 0;
};

}  // namespace uccp::storage::wal
