// Replacing the state of a group by one from elsewhere.
//
// In a running cluster it goes through the group's log, so that every replica does the same at the same entry:
//   machine.restore_piece    bytes of the stream of snapshot chunks; kept as rows of the state (table 8)
//   machine.restore_commit   builds the new state in the spare slot and switches to it, in one write
//   machine.restore_drop     forgets pieces
// Until the commit nothing but table 8 changes. A stream that is damaged or not whole is refused then, with an error as
// the command's result. What belongs to the cluster and not to the state is carried over: the membership, machine time,
// and the tables that domains name with tables_of_the_cluster().
//
// Into an empty directory, StateReplacement alone does it.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "machine/machine.h"
#include "machine/snapshot.h"

namespace uccp::machine {

inline constexpr std::string_view kRestorePieceCommand = "machine.restore_piece";
inline constexpr std::string_view kRestoreCommitCommand = "machine.restore_commit";
inline constexpr std::string_view kRestoreDropCommand = "machine.restore_drop";

// Well below what a command may have.
inline constexpr size_t kRestorePieceBytes = 256u << 10;

// Payloads. `id` tells one restore from another: a first piece of another one drops what is there.
std::string encode_restore_piece(std::string_view id, uint64_t number, std::string_view bytes);
std::string encode_restore_commit(std::string_view id, uint64_t pieces);

// The form of the stream: each chunk behind its length.
std::string frame_chunk(std::string_view chunk);

// Takes the stream apart again. Errors: corruption RESTORE_DAMAGED for a length that no chunk has.
class ChunkReader {
 public:
  void add(std::string_view bytes) { buffer_.append(bytes); }
  // The next whole chunk; none if more bytes are needed.
  Result<std::optional<std::string>> next();
  bool empty() const { return buffer_.empty(); }

 private:
  std::string buffer_;
};

// The last restore of a group: row `restored` of table 1.
struct RestoredMark {
  uint64_t epoch = 0;  // 0: never; grows with each restore
  LogIndex index;      // of the entry that switched to it; what comes before it belongs to another history
  std::string id;
};
RestoredMark restored_mark(const KeyReader& state);

// The head records of a state as a snapshot of it says them. Errors: corruption.
Result<SnapshotHeader> read_snapshot_header(GroupId group, const GroupView& view);

// Builds the new state of a group in a slot that is not in use.
class StateReplacement {
 public:
  // `cluster_tables` are left out of the chunks.
  StateReplacement(GroupId group, storage::Kv& kv, StateSlot slot, std::set<TableNumber> cluster_tables)
      : group_(group), kv_(kv), slot_(slot), cluster_tables_(std::move(cluster_tables)), writer_(group, kv, slot) {}

  // Errors: as SnapshotWriter::add().
  Status add(std::string_view chunk) { return writer_.add(chunk); }
  bool complete() const { return writer_.complete(); }
  const SnapshotHeader& header() const { return writer_.header(); }

  struct Place {
    LogPosition position;            // the state is as of this entry of the log
    std::string membership;          // empty: to be founded
    const GroupView* old = nullptr;  // whose cluster tables and mark are carried over
    int64_t time_us_min = 0;
    Term clock_term;
    int64_t clock_boot_us = 0;
    std::string id;
  };
  // Makes it the state to open(), in one write. Requires complete().
  Status finish(const Place& place);

 private:
  Status replace_tables(const GroupView* old, Digest& digest);

  const GroupId group_;
  storage::Kv& kv_;
  const StateSlot slot_;
  const std::set<TableNumber> cluster_tables_;
  SnapshotWriter writer_;
};

}  // namespace uccp::machine
