// LogStore: the durable logs of the groups of a node.
//
// Calls block and belong to one thread at a time (the node's disk executor). Writes are buffered until sync(); one sync
// serves all groups, and is atomic: after a crash, all that was written between two syncs is there, or nothing of it.
// Writes are visible to load, read and term at once.
//
// After an error of append, set_hard_state, truncate_before, remove or sync the store refuses everything
// (unavailable LOG_STORE_FAILED): the node stops, because what is on disk is no longer known. Two errors leave the
// store as it was: `invalid`, and `exhausted` NO_SPACE, after which nothing was written and sync() may be called again.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/log_types.h"
#include "base/status.h"

namespace uccp::storage {

// Written into every file of a data directory, so that files of another node or cluster are refused.
struct StoreIdentity {
  std::string cluster_id;  // at most 64 bytes
  NodeId node;
  Incarnation incarnation;

  bool operator==(const StoreIdentity&) const = default;
};

// What a group finds when its node starts.
struct GroupLog {
  HardState hard_state;
  LogPosition start;  // the entry before the first one kept; {0, 0} for a whole log
  LogPosition last;   // equals start when no entry is kept
};

class LogStore {
 public:
  virtual ~LogStore() = default;
  // Groups that have a hard state, entries or a start, in ascending order.
  virtual std::vector<GroupId> groups() = 0;
  // The state of a group, all zero for one never seen.
  virtual Result<GroupLog> load(GroupId group) = 0;
  // Appends entries with consecutive indexes. The first index may be at most last + 1; entries from it on are replaced.
  // Requires first index > start.index. Errors: invalid LOG_APPEND_GAP, LOG_APPEND_COMPACTED.
  virtual Status append(GroupId group, std::span<const Entry> entries) = 0;
  virtual Status set_hard_state(GroupId group, const HardState& state) = 0;
  // Everything written before is on stable storage after return.
  virtual Status sync() = 0;
  // Hands what was written to the disk without waiting for it, so that the syncs of several stores overlap. The next
  // call must be sync(). Errors are those of sync().
  virtual Status begin_sync() { return Status(); }
  // Entries in [from, to), at least one if there is one, then while their data is at most `bytes_max` together. Errors:
  // not_found LOG_COMPACTED if `from` <= start.index; invalid LOG_RANGE if `to` > last + 1 or `from` > `to`;
  // corruption.
  virtual Result<std::vector<Entry>> read(GroupId group, LogIndex from, LogIndex to, uint64_t bytes_max) = 0;
  // Term of the entry at `index`; start.index is answered too. Errors as read.
  virtual Result<Term> term(GroupId group, LogIndex index) = 0;
  // Drops entries up to and including `position.index`, which becomes the start. A position beyond the last entry
  // empties the log and continues behind it (a snapshot was installed); so does a position whose entry here has another
  // term, because then all entries after it conflict with the snapshot. A position at or before the start changes
  // nothing. Space comes back at some later time.
  virtual Status truncate_before(GroupId group, LogPosition position) = 0;
  // Forgets the group.
  virtual Status remove(GroupId group) = 0;
  virtual uint64_t size_bytes() = 0;
  // Of them, those of a store that holds nothing but this group; 0 if it shares one.
  virtual uint64_t own_bytes(GroupId /*group*/) { return 0; }
  // Calls to the file system's sync so far, for benchmarks and metrics.
  virtual uint64_t sync_count() const = 0;
  // For an orderly stop: syncs, and leaves what a later open needs to tell damage from a crash. The store refuses
  // everything afterwards.
  virtual Status close() = 0;
};

}  // namespace uccp::storage
