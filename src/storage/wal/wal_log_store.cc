#include "storage/wal/wal_log_store.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "storage/log_checks.h"
#include "storage/planted.h"
#include "storage/wal/format.h"

namespace uccp::storage {

using wal::EntryPlace;
using wal::GroupIndex;
using wal::RecordType;

namespace {

constexpr uint64_t kOptionBytesLimit = 1u << 30;
// Trimming to a little below the limit keeps it from happening at every append.
constexpr uint64_t kCacheTrimDivisor = 8;
constexpr uint64_t kSegmentGrowth = 8;
// Zeros that are written ahead of frames, which costs as many bytes again: only of those that are so small that most of
// what a sync writes is the rest of a block, and where one comes after the other.
constexpr uint64_t kBlockBytes = 4096;
constexpr uint64_t kPreparedBytes = 64u << 10;
constexpr uint64_t kPreparedFrameBytesMax = 4096;
constexpr uint32_t kSmallFramesMin = 16;

bool is_no_space(const Status& status) { return status.code() == Code::kExhausted; }

}  // namespace

WalLogStore::WalLogStore(FileSystem& files, std::string directory, StoreIdentity identity, Options options)
    : files_(files),
      directory_(std::move(directory)),
      identity_(std::move(identity)),
      options_(options),
      packer_(options.compression, options.saved_bytes) {
  reset_buffer();
}

WalLogStore::~WalLogStore() = default;

Result<std::unique_ptr<WalLogStore>> WalLogStore::open(FileSystem& files, std::string directory, StoreIdentity identity,
                                                       Options options, RecoveryReport& report) {
  const bool bounded = options.segment_bytes >= wal::kSegmentHeaderBytes &&
                       options.segment_bytes <= kOptionBytesLimit && options.buffer_bytes_max <= kOptionBytesLimit &&
                       options.moved_bytes_max <= kOptionBytesLimit;
  if (!bounded || identity.cluster_id.size() > wal::kClusterIdBytesMax) {
    return fail(Code::kInvalid, "WAL_OPTIONS",
                "segments and buffers have at most 1 GiB, segments at least 128 bytes, a cluster id at most 64 bytes");
  }
  report = {};
  UCCP_TRY(auto log, wal::recover(files, directory, identity, report));
  std::unique_ptr<WalLogStore> store(new WalLogStore(files, std::move(directory), std::move(identity), options));
  UCCP_RETURN_IF_ERROR(store->adopt(std::move(log)));
  return store;
}

Status WalLogStore::adopt(wal::RecoveredLog log) {
  next_frame_ = log.next_frame;
  for (const auto& segment : log.segments) {
    UCCP_TRY(auto file, files_.open(path_of(segment.sequence), OpenMode::kReadWrite));
    segments_.push_back({segment.sequence, segment.end, segment.capacity, segment.version, std::move(file)});
  }
  for (const auto& [id, replayed] : log.groups) {
    GroupIndex& index = group(id);
    index.hard_state = replayed.hard_state;
    if (replayed.start.index > LogIndex()) index.set_start(replayed.start);
    for (const auto& [at, item] : replayed.entries) index.append(at, item.term, item.place);
  }
  // Nothing is written to a segment of an older format. One without a frame is made again, not followed: a log must not
  // begin with it.
  if (!segments_.empty() && segments_.back().version != wal::kFormatVersion &&
      segments_.back().end == wal::kSegmentHeaderBytes) {
    UCCP_RETURN_IF_ERROR(files_.remove(path_of(segments_.back().sequence)));
    UCCP_RETURN_IF_ERROR(files_.sync_directory(directory_));
    segments_.pop_back();
    return begin_segment(capacity_behind(segments_.size()));
  }
  if (segments_.empty()) return begin_segment(capacity_behind(0));
  Segment& head = segments_.back();
  // A process that died left what it wrote in the page cache. It counts as durable from here on, so it has to be.
  UCCP_RETURN_IF_ERROR(sync_file(*head.file));
  UCCP_RETURN_IF_ERROR(files_.sync_directory(directory_));
  const uint64_t capacity = capacity_behind(segments_.size() - 1);
  if (head.capacity >= capacity) return {};
  // The head was cut. Without room the next frame goes to a new segment, or waits until there is space.
  const Status allocated = head.file->allocate(capacity);
  if (allocated.is_ok()) head.capacity = capacity;
  return is_no_space(allocated) ? Status() : allocated;
}

std::string WalLogStore::path_of(uint64_t sequence) const { return directory_ + "/" + wal::segment_name(sequence); }

GroupIndex& WalLogStore::group(GroupId id) { return groups_.try_emplace(id, use_).first->second; }

Status WalLogStore::usable() const {
  if (failure_.is_ok()) return {};
  return Status(Code::kUnavailable, "LOG_STORE_FAILED",
                "the log in " + directory_ + " stopped: " + failure_.to_string() + ". Restart the node");
}

Status WalLogStore::fail_for_good(Status why) {
  failure_ = why;
  return why;
}

std::vector<GroupId> WalLogStore::groups() {
  std::vector<GroupId> ids;
  for (const auto& [id, index] : groups_) {
    if (index.hard_state != HardState() || index.last_position() != LogPosition()) ids.push_back(id);
  }
  return ids;
}

Result<GroupLog> WalLogStore::load(GroupId id) {
  UCCP_RETURN_IF_ERROR(usable());
  const auto it = groups_.find(id);
  if (it == groups_.end()) return GroupLog();
  return GroupLog{it->second.hard_state, it->second.start(), it->second.last_position()};
}

Status WalLogStore::append(GroupId id, std::span<const Entry> entries) {
  UCCP_RETURN_IF_ERROR(usable());
  if (entries.empty()) return {};
  const auto known = groups_.find(id);
  const LogIndex start = known == groups_.end() ? LogIndex() : known->second.start().index;
  const LogIndex last = known == groups_.end() ? LogIndex() : known->second.last();
  UCCP_RETURN_IF_ERROR(check_append(id, start, last, entries));
  GroupIndex& index = group(id);
  cached_bytes_ -= index.cached_bytes();
  for (const Entry& entry : entries) {
    const auto offset = static_cast<uint32_t>(buffer_.size());
    const auto bytes = static_cast<uint32_t>(wal::append_entry(buffer_, RecordType::kEntry, id, entry, packer_));
    index.append(entry.index, entry.term, {0, offset, bytes});
    index.cache(entry);
    ++buffer_records_;
  }
  cached_bytes_ += index.cached_bytes();
  buffer_groups_.insert(id);
  trim_cache();
  return buffer_.size() > options_.buffer_bytes_max ? sync() : Status();
}

Status WalLogStore::set_hard_state(GroupId id, const HardState& state) {
  UCCP_RETURN_IF_ERROR(usable());
  group(id).hard_state = state;
  wal::append_hard_state(buffer_, id, state);
  ++buffer_records_;
  return {};
}

Status WalLogStore::truncate_before(GroupId id, LogPosition position) {
  UCCP_RETURN_IF_ERROR(usable());
  const auto it = groups_.find(id);
  const LogIndex start = it == groups_.end() ? LogIndex() : it->second.start().index;
  if (position.index <= start) return {};
  GroupIndex& index = group(id);
  cached_bytes_ -= index.cached_bytes();
  const wal::Following following = index.set_start(position);
  cached_bytes_ += index.cached_bytes();
  wal::append_start(buffer_, id, {position, following});
  ++buffer_records_;
  return {};
}

Status WalLogStore::remove(GroupId id) {
  UCCP_RETURN_IF_ERROR(usable());
  const auto it = groups_.find(id);
  if (it == groups_.end()) return {};
  cached_bytes_ -= it->second.cached_bytes();
  it->second.clear();
  groups_.erase(it);
  buffer_groups_.erase(id);
  wal::append_remove(buffer_, id);
  ++buffer_records_;
  return {};
}

Result<Term> WalLogStore::term(GroupId id, LogIndex at) {
  UCCP_RETURN_IF_ERROR(usable());
  UCCP_TRY(const GroupLog log, load(id));
  UCCP_RETURN_IF_ERROR(check_term(id, log.start.index, log.last.index, at));
  if (at == log.start.index) return log.start.term;
  return group(id).term(at);
}

uint64_t WalLogStore::size_bytes() {
  uint64_t bytes = buffer_.size();
  for (const Segment& segment : segments_) bytes += segment.capacity;
  return bytes;
}

uint64_t WalLogStore::cached_bytes() const { return cached_bytes_; }

void WalLogStore::trim_cache() {
  if (cached_bytes_ <= options_.cache_bytes_max) return;
  const uint64_t target = options_.cache_bytes_max - options_.cache_bytes_max / kCacheTrimDivisor;
  while (cached_bytes_ > target) {
    auto largest = std::ranges::max_element(groups_, {}, [](const auto& item) { return item.second.cached_bytes(); });
    const uint64_t before = largest->second.cached_bytes();
    UCCP_CHECK(before > 0, "cached bytes belong to a group");
    largest->second.drop_oldest_cached();
    cached_bytes_ -= before - largest->second.cached_bytes();
  }
}

Status WalLogStore::sync() {
  UCCP_RETURN_IF_ERROR(usable());
  if (buffer_records_ == 0) return {};
  if (!written_) UCCP_RETURN_IF_ERROR(write_frame());
  UCCP_RETURN_IF_ERROR(finish_frame());
  return drop_segments();
}

Status WalLogStore::begin_sync() {
  UCCP_RETURN_IF_ERROR(usable());
  if (buffer_records_ == 0 || written_) return {};
  UCCP_RETURN_IF_ERROR(write_frame());
  segments_.back().file->start_writing(segments_.back().end, buffer_.size());
  return {};
}

Status WalLogStore::close() {
  UCCP_RETURN_IF_ERROR(sync());
  UCCP_RETURN_IF_ERROR(write_frame());
  UCCP_RETURN_IF_ERROR(finish_frame());
  failure_ = Status(Code::kUnavailable, "LOG_STORE_CLOSED", "it was closed");
  return {};
}

Status WalLogStore::write_frame() {
  const uint64_t frame_bytes = buffer_.size();
  Segment* head = &segments_.back();
  Preamble preamble;
  if (!has_room(*head, frame_bytes) || head->end == wal::kSegmentHeaderBytes) {
    auto made = make_preamble();
    if (!made) return fail_for_good(made.error());
    preamble = std::move(*made);
  }
  UCCP_RETURN_IF_ERROR(make_room(frame_bytes + preamble.bytes.size()));
  head = &segments_.back();
  buffer_.insert(wal::kFrameHeaderBytes, preamble.bytes);
  const wal::FrameHeader header{static_cast<uint32_t>(buffer_.size() - wal::kFrameHeaderBytes),
                                buffer_records_ + preamble.records, next_frame_};
  wal::write_frame_header(buffer_, header, wal::frame_seed(identity_.incarnation, head->sequence, head->end));
  if (Status written = head->file->write_at(head->end, buffer_); !written.is_ok()) {
    return fail_for_good(std::move(written));
  }
  prepare_ahead(*head);
  written_ = std::move(preamble);
  return {};
}

void WalLogStore::prepare_ahead(Segment& head) {
  const uint64_t end = head.end + buffer_.size();
  small_frames_ = buffer_.size() <= kPreparedFrameBytesMax ? small_frames_ + 1 : 0;
  if (end <= head.prepared || small_frames_ < kSmallFramesMin) return;
  const uint64_t first = (end + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  head.prepared = std::min(first + kPreparedBytes, head.capacity);
  if (first < head.prepared) head.file->prepare(first, head.prepared - first);
}

Status WalLogStore::finish_frame() {
  Segment& head = segments_.back();
  if (Status synced = sync_file(*head.file); !synced.is_ok()) return fail_for_good(std::move(synced));
  settle_places(head.sequence, head.end, *written_);
  head.end += buffer_.size();
  ++next_frame_;
  reset_buffer();
  return {};
}

bool WalLogStore::has_room(const Segment& head, uint64_t frame_bytes) {
  return head.version == wal::kFormatVersion && head.end + frame_bytes <= head.capacity;
}

// Makes the last segment one that `frame_bytes` more fit into. NO_SPACE leaves everything as it was.
Status WalLogStore::make_room(uint64_t frame_bytes) {
  Segment& head = segments_.back();
  const uint64_t needed = head.end + frame_bytes;
  UCCP_CHECK(needed <= wal::kSegmentBytesLimit, "a frame is bounded by the options and by the largest append");
  if (has_room(head, frame_bytes)) return {};
  if (head.end > wal::kSegmentHeaderBytes) {
    const uint64_t least = std::max(capacity_behind(0), wal::kSegmentHeaderBytes + frame_bytes);
    const uint64_t wanted = std::max(capacity_behind(segments_.size()), least);
    Status begun = begin_segment(wanted);
    // On a disk that is nearly full a small one will do: what is left of it is there for the log.
    if (is_no_space(begun) && wanted > least) begun = begin_segment(least);
    return begun;
  }
  Status allocated = head.file->allocate(needed);
  if (allocated.is_ok()) {
    head.capacity = needed;
    return {};
  }
  return is_no_space(allocated) ? allocated : fail_for_good(std::move(allocated));
}

uint64_t WalLogStore::capacity_behind(size_t segments) const {
  const uint64_t wanted =
      segments == 0 ? options_.first_segment_bytes : segments_[segments - 1].capacity * kSegmentGrowth;
  return std::min(options_.segment_bytes, wanted);
}

Status WalLogStore::begin_segment(uint64_t capacity) {
  const uint64_t sequence = segments_.empty() ? 1 : segments_.back().sequence + 1;
  const std::string path = path_of(sequence);
  const auto create = [&]() -> Result<std::unique_ptr<File>> {
    // One that an earlier attempt left behind.
    UCCP_RETURN_IF_ERROR(files_.remove(path));
    UCCP_TRY(auto file, files_.open(path, OpenMode::kCreate));
    UCCP_RETURN_IF_ERROR(file->allocate(capacity));
    UCCP_RETURN_IF_ERROR(file->write_at(0, wal::encode(wal::SegmentHeader{identity_, sequence, next_frame_})));
    // The header is durable before the first frame is written, so a bad header with frames behind it is damage.
    UCCP_RETURN_IF_ERROR(sync_file(*file));
    UCCP_RETURN_IF_ERROR(files_.sync_directory(directory_));
    return file;
  };
  auto file = create();
  if (!file) {
    if (!is_no_space(file.error())) return fail_for_good(file.error());
    const Status removed = files_.remove(path);
    return removed.is_ok() ? file.error() : fail_for_good(removed);
  }
  segments_.push_back({sequence, wal::kSegmentHeaderBytes, capacity, wal::kFormatVersion, std::move(*file)});
  return {};
}

Result<WalLogStore::Preamble> WalLogStore::make_preamble() {
  Preamble preamble;
  for (const auto& [id, index] : groups_) {
    if (index.hard_state != HardState()) {
      wal::append_hard_state(preamble.bytes, id, index.hard_state);
      ++preamble.records;
    }
    if (index.start() != LogPosition()) {
      wal::append_start(preamble.bytes, id, {index.start(), wal::Following::kKept});
      ++preamble.records;
    }
  }
  if (segments_.size() >= options_.segments_before_moving && segments_.size() > 1) {
    const uint64_t oldest = segments_.front().sequence;
    if (use_.of(oldest).bytes <= options_.moved_bytes_max) UCCP_RETURN_IF_ERROR(move_entries(oldest, preamble));
  }
  return preamble;
}

Status WalLogStore::move_entries(uint64_t segment, Preamble& preamble) {
  for (auto& [id, index] : groups_) {
    for (LogIndex at = index.start().index.next(); at <= index.last(); at = at.next()) {
      // Entries were written in order, except for those that were moved before.
      if (index.place(at).segment != segment) continue;
      UCCP_TRY(const Entry entry, read_entry(id, index, at));
      const auto offset = static_cast<uint32_t>(preamble.bytes.size());
      const auto size =
          static_cast<uint32_t>(wal::append_entry(preamble.bytes, RecordType::kMoved, id, entry, packer_));
      preamble.moved.push_back({id, at, offset, size});
      ++preamble.records;
    }
  }
  return {};
}

void WalLogStore::settle_places(uint64_t segment, uint64_t frame_offset, const Preamble& preamble) {
  for (const Preamble::Moved& moved : preamble.moved) {
    const uint64_t offset = frame_offset + wal::kFrameHeaderBytes + moved.offset;
    group(moved.group).set_place(moved.index, {segment, static_cast<uint32_t>(offset), moved.size});
  }
  const uint64_t shift = frame_offset + preamble.bytes.size();
  for (const GroupId id : buffer_groups_) {
    GroupIndex& index = group(id);
    // Entries in the buffer are the last ones of their group.
    for (LogIndex at = index.last(); at > index.start().index && index.place(at).segment == 0; at = at.prev()) {
      const EntryPlace& place = index.place(at);
      index.set_place(at, {segment, static_cast<uint32_t>(shift + place.offset), place.bytes});
    }
  }
}

void WalLogStore::reset_buffer() {
  // A rare large frame must not hold its memory for ever.
  if (buffer_.capacity() > (4u << 20)) buffer_ = std::string();
  buffer_.assign(wal::kFrameHeaderBytes, '\0');
  buffer_records_ = 0;
  buffer_groups_.clear();
  written_.reset();
}

Status WalLogStore::drop_segments() {
  while (segments_.size() > 1 && use_.of(segments_.front().sequence).entries == 0) {
    // One at a time, and durably: a gap after a crash would look like a lost segment.
    const std::string path = path_of(segments_.front().sequence);
    segments_.erase(segments_.begin());
    Status removed = files_.remove(path);
    if (removed.is_ok()) removed = files_.sync_directory(directory_);
    if (!removed.is_ok()) return fail_for_good(std::move(removed));
  }
  return {};
}

Status WalLogStore::sync_file(File& file) {
  ++sync_count_;
  if (planted_bug("skip_fsync")) return {};
  return file.sync();
}

}  // namespace uccp::storage
