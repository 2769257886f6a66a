// WalLogStore: the logs of all groups of a node in one write-ahead log of segment files.
//
// What is written is gathered in one buffer; sync() writes it as one frame with one write and one fdatasync, so any
// number of groups share a sync. Segments are allocated whole, and what small frames will go to is written ahead with
// zeros, so that few syncs change metadata. The oldest segment
// is deleted when no group needs an entry in it; hard states and starts never pin one, because each segment begins with
// all of them. A few entries of a quiet group that pin the oldest segment are moved: written again when the next
// segment begins.
//
// Format: format.h and docs/formats/wal.md. Recovery: recovery.h. One thread at a time.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "storage/log_store.h"
#include "storage/wal/group_index.h"
#include "storage/wal/recovery.h"

namespace uccp::storage {

class WalLogStore final : public LogStore {
 public:
  struct Options {
    // Size of a segment; one that has to hold a larger frame is larger. At most 1 GiB.
    uint64_t segment_bytes = 64u << 20;
    // Size of the first one; each further one has up to eight times that of the one before. So a log that hardly
    // anything is written to is small. It is also the size of one for which the disk has no more room.
    uint64_t first_segment_bytes = 1u << 20;
    // A buffer larger than this is synced at once. At most 1 GiB.
    uint64_t buffer_bytes_max = 64u << 20;
    // Memory for recent entries, of all groups together.
    uint64_t cache_bytes_max = 32u << 20;
    // With this many segments, the entries that pin the oldest are moved, if they have at most `moved_bytes_max`.
    size_t segments_before_moving = 4;
    uint64_t moved_bytes_max = 8u << 20;
    // Bytes that one read of old entries asks of the disk at once.
    uint64_t read_bytes = 1u << 20;
    CompressionOptions compression;
    Counter* saved_bytes = nullptr;
  };

  // Opens the log in `directory`, which must exist, or begins a new one there. `files` must outlive the store. Errors:
  // those of wal::recover; exhausted NO_SPACE; invalid WAL_OPTIONS for a cluster id over 64 bytes or options out of
  // bounds.
  static Result<std::unique_ptr<WalLogStore>> open(FileSystem& files, std::string directory, StoreIdentity identity,
                                                   Options options, RecoveryReport& report);
  ~WalLogStore() override;

  std::vector<GroupId> groups() override;
  Result<GroupLog> load(GroupId group) override;
  Status append(GroupId group, std::span<const Entry> entries) override;
  Status set_hard_state(GroupId group, const HardState& state) override;
  Status sync() override;
  Status begin_sync() override;
  Result<std::vector<Entry>> read(GroupId group, LogIndex from, LogIndex to, uint64_t bytes_max) override;
  Result<Term> term(GroupId group, LogIndex index) override;
  Status truncate_before(GroupId group, LogPosition position) override;
  Status remove(GroupId group) override;
  uint64_t size_bytes() override;
  uint64_t sync_count() const override { return sync_count_; }

  // Writes an empty frame, behind which damage of the last real frame is told from a torn tail.
  Status close() override;

  size_t segment_count() const { return segments_.size(); }
  uint64_t cached_bytes() const;

 private:
  struct Segment {
    uint64_t sequence = 0;
    uint64_t end = 0;  // where the next frame goes
    uint64_t capacity = 0;
    uint32_t version = 0;
    std::unique_ptr<File> file;
    uint64_t prepared = 0;  // its blocks are known to the file system up to here
  };
  // What the first frame of a segment begins with, besides what was asked to be written.
  struct Preamble {
    struct Moved {
      GroupId group;
      LogIndex index;
      uint32_t offset = 0;  // in `bytes`
      uint32_t size = 0;
    };
    std::string bytes;
    uint32_t records = 0;
    std::vector<Moved> moved;
  };

  WalLogStore(FileSystem& files, std::string directory, StoreIdentity identity, Options options);

  Status adopt(wal::RecoveredLog log);
  std::string path_of(uint64_t sequence) const;
  wal::GroupIndex& group(GroupId id);
  Status usable() const;
  Status fail_for_good(Status why);

  Status write_frame();
  Status finish_frame();
  void prepare_ahead(Segment& head);
  static bool has_room(const Segment& head, uint64_t frame_bytes);
  Status make_room(uint64_t frame_bytes);
  // Of the segment that follows the first `segments` ones.
  uint64_t capacity_behind(size_t segments) const;
  Status begin_segment(uint64_t capacity);
  Result<Preamble> make_preamble();
  Status move_entries(uint64_t segment, Preamble& preamble);
  void settle_places(uint64_t segment, uint64_t frame_offset, const Preamble& preamble);
  void reset_buffer();
  Status drop_segments();
  Status sync_file(File& file);

  Segment& segment(uint64_t sequence);
  Result<Entry> read_entry(GroupId id, wal::GroupIndex& index, LogIndex at);
  Status read_run(GroupId id, wal::GroupIndex& index, LogIndex from, LogIndex to, uint64_t bytes_max,
                  std::vector<Entry>& out);
  Result<Entry> parse_place(GroupId id, wal::GroupIndex& index, LogIndex at, std::string_view bytes);
  void trim_cache();

  FileSystem& files_;
  const std::string directory_;
  const StoreIdentity identity_;
  const Options options_;
  Packer packer_;
  std::vector<Segment> segments_;  // ascending; the last one is written to
  wal::SegmentUse use_;
  std::map<GroupId, wal::GroupIndex> groups_;
  // The next frame: room for its header, then records. Entries in it have the place {0, offset in the buffer}.
  std::string buffer_;
  uint32_t buffer_records_ = 0;
  std::set<GroupId> buffer_groups_;  // with entries in the buffer
  // The buffer was written as a frame behind this preamble, and waits for its sync.
  std::optional<Preamble> written_;
  uint64_t next_frame_ = 1;
  uint32_t small_frames_ = 0;  // in a row
  uint64_t cached_bytes_ = 0;
  uint64_t sync_count_ = 0;
  Status failure_;
};

}  // namespace uccp::storage
