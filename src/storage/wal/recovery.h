// Reads the segments of a write-ahead log back after a start. Tells a torn tail, which a crash leaves and which is cut
// off, from damage in the middle, which is refused.
//
// A frame is written only after the sync of the one before. So a bad frame with another one behind it was acknowledged
// once: that is damage. A bad frame with nothing behind it is one that a crash interrupted.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "storage/wal/format.h"
#include "storage/wal/group_index.h"

namespace uccp::storage {

// What opening a write-ahead log found.
struct RecoveryReport {
  uint64_t segments = 0;
  uint64_t frames = 0;
  uint64_t records = 0;
  uint64_t bytes = 0;  // of frames
  // The torn tail that was cut off; torn_file is empty if there was none.
  std::string torn_file;
  uint64_t torn_offset = 0;
  uint64_t torn_bytes = 0;
  // A last segment whose creation a crash interrupted; empty if there was none.
  std::string removed_file;

  std::string to_string() const;
};

namespace wal {

// The log of a group while it is replayed. Entries may have holes, until what filled or dropped them is replayed too.
struct ReplayedGroup {
  struct Item {
    Term term;
    EntryPlace place;
  };
  HardState hard_state;
  LogPosition start;
  std::map<LogIndex, Item> entries;
};

struct RecoveredSegment {
  uint64_t sequence = 0;
  uint64_t end = 0;       // of the last frame
  uint64_t capacity = 0;  // of the file
  uint32_t version = 0;
};

struct RecoveredLog {
  std::vector<RecoveredSegment> segments;  // ascending, without a gap
  std::map<GroupId, ReplayedGroup> groups;
  uint64_t next_frame = 1;
};

// Reads all segments in `directory`, repairs a torn tail durably, and fills `report`. Errors: corruption WAL_DAMAGED
// with file, offset and what to do; failed_precondition WAL_OF_ANOTHER_NODE, WAL_VERSION_UNSUPPORTED; those of the file
// system.
Result<RecoveredLog> recover(FileSystem& files, const std::string& directory, const StoreIdentity& identity,
                             RecoveryReport& report);

}  // namespace wal
}  // namespace uccp::storage
