#include "storage/wal/recovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace uccp::storage {

std::string RecoveryReport::to_string() const {
  std::string text = fmt::format("{} segments, {} frames, {} records, {} bytes", segments, frames, records, bytes);
  if (!torn_file.empty()) {
    text += fmt::format("; cut off {} bytes that were never acknowledged at byte {} of {}", torn_bytes, torn_offset,
                        torn_file);
  }
  if (!removed_file.empty()) text += "; removed the unfinished " + removed_file;
  return text;
}

namespace wal {
namespace {

std::unexpected<Status> damaged(const std::string& path, uint64_t offset, std::string_view what) {
  return fail(Code::kCorruption, "WAL_DAMAGED",
              fmt::format("{} is damaged at byte {}: {}. What was acknowledged is lost here, so it cannot be repaired "
                          "on this node alone: remove the node from the cluster, clear its data directory and add it "
                          "again; on a single node restore a backup",
                          path, offset, what));
}

// Of a segment that was allocated whole nearly everything: each byte is compared with the one before it.
bool all_zero(std::string_view bytes) {
  return bytes.empty() || (bytes[0] == '\0' && bytes.substr(1) == bytes.substr(0, bytes.size() - 1));
}

class Recovery {
 public:
  Recovery(FileSystem& files, const std::string& directory, const StoreIdentity& identity, RecoveryReport& report)
      : files_(files), directory_(directory), identity_(identity), report_(report) {}

  Result<RecoveredLog> run() {
    UCCP_TRY(const std::vector<uint64_t> sequences, list_segments());
    for (size_t i = 0; i < sequences.size(); ++i) {
      is_first_ = i == 0;
      is_last_ = i + 1 == sequences.size();
      UCCP_RETURN_IF_ERROR(read_segment(sequences[i]));
    }
    UCCP_RETURN_IF_ERROR(check_holes());
    report_.segments = log_.segments.size();
    return std::move(log_);
  }

 private:
  Result<std::vector<uint64_t>> list_segments() {
    UCCP_TRY(const auto names, files_.list(directory_));
    std::vector<uint64_t> sequences;
    for (const std::string& name : names) {
      if (const auto sequence = parse_segment_name(name)) sequences.push_back(*sequence);
    }
    std::ranges::sort(sequences);
    for (size_t i = 1; i < sequences.size(); ++i) {
      if (sequences[i] == sequences[i - 1] + 1) continue;
      return damaged(directory_ + "/" + segment_name(sequences[i - 1] + 1), 0, "the segment is missing");
    }
    return sequences;
  }

  Status read_segment(uint64_t sequence) {
    sequence_ = sequence;
    path_ = directory_ + "/" + segment_name(sequence);
    UCCP_TRY(data_, read_file(files_, path_, kSegmentBytesLimit));
    auto header = decode_segment_header(data_);
    if (!header && header.error().code() == Code::kCorruption) return handle_damaged_header();
    if (!header) return Status(header.error().code(), header.error().reason(), path_ + ": " + header.error().message());
    UCCP_RETURN_IF_ERROR(check_header(*header));
    log_.next_frame = header->first_frame;
    UCCP_TRY(const uint64_t end, read_frames());
    log_.segments.push_back({sequence, end, std::max<uint64_t>(data_.size(), end), header->version});
    return {};
  }

  // A crash while a segment was made leaves a last one without a header, and then without frames.
  Status handle_damaged_header() {
    if (!is_last_) return damaged(path_, 0, "the segment header is bad and later segments exist").error();
    if (find_frame(0)) return damaged(path_, 0, "the segment header is bad and frames follow it").error();
    if (lost_its_beginning()) return damaged(path_, 0, "the only segment has no header").error();
    report_.removed_file = path_;
    UCCP_RETURN_IF_ERROR(files_.remove(path_));
    return files_.sync_directory(directory_);
  }

  // Earlier segments go only once the next one has a frame, which repeats what they said.
  bool lost_its_beginning() const { return is_first_ && sequence_ > 1; }

  Status check_header(const SegmentHeader& header) const {
    if (header.identity != identity_) {
      return Status(
          Code::kFailedPrecondition, "WAL_OF_ANOTHER_NODE",
          fmt::format("{} belongs to cluster '{}' node {} incarnation {:x}; this is cluster '{}' node {} "
                      "incarnation {:x}. Start with the data directory of this node",
                      path_, header.identity.cluster_id, header.identity.node.value, header.identity.incarnation.value,
                      identity_.cluster_id, identity_.node.value, identity_.incarnation.value));
    }
    if (header.sequence != sequence_) {
      return damaged(path_, 0, fmt::format("it is segment {} under another name", header.sequence)).error();
    }
    if (!is_first_ && header.first_frame != log_.next_frame) {
      return damaged(path_, 0,
                     fmt::format("it begins with frame {}, but the segment before ends before frame {}",
                                 header.first_frame, log_.next_frame))
          .error();
    }
    return {};
  }

  // Returns where the frames end.
  Result<uint64_t> read_frames() {
    uint64_t at = kSegmentHeaderBytes;
    while (const auto next = read_frame(at)) {
      UCCP_RETURN_IF_ERROR(apply_frame(at, *next));
      report_.frames += 1;
      report_.bytes += *next - at;
      log_.next_frame += 1;
      at = *next;
    }
    if (at == kSegmentHeaderBytes && lost_its_beginning()) return damaged(path_, at, "the first frame is bad");
    const std::string_view rest = std::string_view(data_).substr(at);
    if (all_zero(rest)) return at;
    if (!is_last_) return damaged(path_, at, "a frame is bad and later segments exist");
    if (const auto later = find_frame(at + 1)) {
      return damaged(path_, at, fmt::format("a frame is bad and another one begins at byte {}", *later));
    }
    UCCP_RETURN_IF_ERROR(cut_off(at, rest.find_last_not_of('\0') + 1));
    return at;
  }

  // The end of the frame at `at`; none if it is not whole and right.
  std::optional<uint64_t> read_frame(uint64_t at) const {
    const std::string_view bytes = std::string_view(data_).substr(at);
    const auto header = parse_frame_header(bytes, frame_seed(identity_.incarnation, sequence_, at));
    if (!header || header->number != log_.next_frame) return std::nullopt;
    if (bytes.size() - kFrameHeaderBytes < header->body_bytes) return std::nullopt;
    std::string_view body = bytes.substr(kFrameHeaderBytes, header->body_bytes);
    for (uint32_t i = 0; i < header->records; ++i) {
      const auto record = parse_record(body);
      if (!record) return std::nullopt;
      body.remove_prefix(record->bytes);
    }
    if (!body.empty()) return std::nullopt;
    return at + kFrameHeaderBytes + header->body_bytes;
  }

  // Where the first frame header at or after `from` is. Its checksum is enough: a header was written there once.
  std::optional<uint64_t> find_frame(uint64_t from) const {
    const std::string_view data = data_;
    for (uint64_t at = from; at + kFrameHeaderBytes <= data.size(); ++at) {
      if (!may_be_frame(data.substr(at, kFrameHeaderBytes))) continue;
      if (parse_frame_header(data.substr(at), frame_seed(identity_.incarnation, sequence_, at))) return at;
    }
    return std::nullopt;
  }

  // Rules out nearly all places before a checksum is computed: numbers only grow, by less than the bytes of a segment.
  bool may_be_frame(std::string_view header) const {
    uint64_t number = 0;
    for (size_t i = 12; i < kFrameHeaderBytes; ++i) number = number << 8 | static_cast<uint8_t>(header[i]);
    if (number == 0 || static_cast<uint8_t>(header[4]) > data_.size() >> 24) return false;
    const bool expected_is_known = !(is_first_ && log_.segments.empty() && log_.next_frame == 1);
    return !expected_is_known || number - log_.next_frame <= kSegmentBytesLimit;
  }

  Status cut_off(uint64_t at, uint64_t bytes) {
    report_.torn_file = path_;
    report_.torn_offset = at;
    report_.torn_bytes = bytes;
    UCCP_TRY(auto file, files_.open(path_, OpenMode::kReadWrite));
    UCCP_RETURN_IF_ERROR(file->truncate(at));
    UCCP_RETURN_IF_ERROR(file->sync());
    data_.resize(at);
    return {};
  }

  Status apply_frame(uint64_t begin, uint64_t end) {
    uint64_t at = begin + kFrameHeaderBytes;
    while (at < end) {
      const auto record = parse_record(std::string_view(data_).substr(at));
      if (!record || !apply_record(*record, static_cast<uint32_t>(at))) {
        return damaged(path_, at, "a record with a right checksum makes no sense").error();
      }
      at += record->bytes;
      report_.records += 1;
    }
    return {};
  }

  bool apply_record(const Record& record, uint32_t offset) {
    if (record.type == RecordType::kRemove) {
      log_.groups.erase(record.group);
      return record.payload.empty();
    }
    ReplayedGroup& group = log_.groups[record.group];
    switch (record.type) {
      case RecordType::kEntry:
      case RecordType::kMoved: {
        const auto entry = parse_entry(record.payload);
        if (!entry) return false;
        if (record.type == RecordType::kEntry) {
          group.entries.erase(group.entries.lower_bound(entry->index), group.entries.end());
        }
        const EntryPlace place{sequence_, offset, static_cast<uint32_t>(record.bytes)};
        group.entries.insert_or_assign(entry->index, ReplayedGroup::Item{entry->term, place});
        return true;
      }
      case RecordType::kHardState: {
        const auto state = parse_hard_state(record.payload);
        if (state) group.hard_state = *state;
        return state.has_value();
      }
      case RecordType::kStart: {
        const auto start = parse_start(record.payload);
        if (start) apply_start(group, *start);
        return start.has_value();
      }
      default: return false;
    }
  }

  // A segment begins with the starts as they are after its first frame, so one in that frame may come a second time: it
  // still has to drop entries.
  static void apply_start(ReplayedGroup& group, const StartPayload& start) {
    if (start.following == Following::kDropped) group.entries.clear();
    group.entries.erase(group.entries.begin(), group.entries.upper_bound(start.position.index));
    if (start.position.index > group.start.index) group.start = start.position;
  }

  // Holes are fine while replaying: segments go once later records have made their entries obsolete.
  Status check_holes() {
    for (auto& [id, group] : log_.groups) {
      group.entries.erase(group.entries.begin(), group.entries.upper_bound(group.start.index));
      LogIndex expected = group.start.index.next();
      for (const auto& [index, item] : group.entries) {
        if (index != expected) {
          const auto what =
              fmt::format("entry {} of group {} is missing, so a segment was lost", expected.value, id.value);
          return damaged(directory_, 0, what).error();
        }
        expected = expected.next();
      }
    }
    return {};
  }

  FileSystem& files_;
  const std::string& directory_;
  const StoreIdentity& identity_;
  RecoveryReport& report_;
  RecoveredLog log_;
  // The segment that is read.
  uint64_t sequence_ = 0;
  std::string path_;
  std::string data_;
  bool is_first_ = true;
  bool is_last_ = false;
};

}  // namespace

Result<RecoveredLog> recover(FileSystem& files, const std::string& directory, const StoreIdentity& identity,
                             RecoveryReport& report) {
  return Recovery(files, directory, identity, report).run();
}

}  // namespace wal
}  // namespace uccp::storage
