// The bytes of a write-ahead log segment, version 2; version 1 is read too. docs/formats/wal.md is the same in prose.
//
//   segment = segment header, frame*, zeros
//   frame   = frame header, record*      (one sync)
//   record  = record header, payload
//
// All integers are big endian.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/log_types.h"
#include "storage/compression.h"
#include "storage/log_store.h"

namespace uccp::storage::wal {

inline constexpr uint32_t kFormatVersion = 2;
// Version 1 has no compressed entries, and is the same otherwise.
inline constexpr uint32_t kOldestFormatVersion = 1;
inline constexpr size_t kClusterIdBytesMax = 64;
inline constexpr size_t kSegmentHeaderBytes = 128;
inline constexpr size_t kFrameHeaderBytes = 20;
inline constexpr size_t kRecordHeaderBytes = 17;
// Offsets in a segment are 32 bits wide.
inline constexpr uint64_t kSegmentBytesLimit = 0xffffffff;

struct SegmentHeader {
  StoreIdentity identity;
  uint64_t sequence = 0;     // of the segment, from 1
  uint64_t first_frame = 0;  // number of the first frame in it
  uint32_t version = kFormatVersion;

  bool operator==(const SegmentHeader&) const = default;
};

// Requires identity.cluster_id of at most kClusterIdBytesMax bytes.
std::string encode(const SegmentHeader& header);
// Errors: corruption for anything that encode did not write; failed_precondition WAL_VERSION_UNSUPPORTED.
Result<SegmentHeader> decode_segment_header(std::string_view bytes);

// "0000000000000001.wal"
std::string segment_name(uint64_t sequence);
std::optional<uint64_t> parse_segment_name(std::string_view name);

struct FrameHeader {
  uint32_t body_bytes = 0;
  uint32_t records = 0;
  uint64_t number = 0;  // from 1, over all segments of the log
};

// The frame's place goes into its checksum, so that a frame found elsewhere (in a payload, in a block that the disk
// misplaced) is not taken for one. The incarnation is random: a client cannot forge a frame in its data.
uint32_t frame_seed(Incarnation incarnation, uint64_t sequence, uint64_t offset);
// Writes the header into the first kFrameHeaderBytes of `frame`.
void write_frame_header(std::string& frame, const FrameHeader& header, uint32_t seed);
// None if the checksum is wrong or `bytes` is too short for a header.
std::optional<FrameHeader> parse_frame_header(std::string_view bytes, uint32_t seed);

enum class RecordType : uint8_t {
  kEntry = 1,  // replaces the group's entries from its index on
  kHardState = 2,
  kStart = 3,   // LogStore::truncate_before
  kRemove = 4,  // LogStore::remove
  kMoved = 5,   // an entry that is in the log, written again so that an old segment can go; replaces nothing else
};

struct Record {
  RecordType type{};
  GroupId group;
  std::string_view payload;
  size_t bytes = 0;  // header included
};

// The first record of `bytes`. None if it is cut off or its checksum is wrong. The type is not looked at.
std::optional<Record> parse_record(std::string_view bytes);

struct EntryPayload {
  LogIndex index;
  Term term;
  EntryKind kind{};
  Encoding encoding{};
  std::string_view packed;

  // None if the data cannot be unpacked.
  std::optional<Entry> to_entry() const;
};

// Which entries a new start drops is written out: replay may no longer have the entry that would tell.
enum class Following : uint8_t {
  kKept = 0,     // entries behind the start stay
  kDropped = 1,  // all entries go
};

struct StartPayload {
  LogPosition position;
  Following following = Following::kKept;

  bool operator==(const StartPayload&) const = default;
};

// These append one record and return its size.
size_t append_entry(std::string& out, RecordType type, GroupId group, const Entry& entry, Packer& packer);
size_t append_hard_state(std::string& out, GroupId group, const HardState& state);
size_t append_start(std::string& out, GroupId group, const StartPayload& start);
size_t append_remove(std::string& out, GroupId group);

// None for a payload that the function above did not write.
std::optional<EntryPayload> parse_entry(std::string_view payload);
std::optional<HardState> parse_hard_state(std::string_view payload);
std::optional<StartPayload> parse_start(std::string_view payload);

}  // namespace uccp::storage::wal
