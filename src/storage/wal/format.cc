#include "storage/wal/format.h"

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/check.h"
#include "storage/planted.h"

namespace uccp::storage::wal {
namespace {

constexpr std::string_view kMagic = "UCCPWAL\n";
constexpr size_t kSegmentCrcOffset = kSegmentHeaderBytes - 4;
// Where the kind of an entry is in its payload: kind in the low half of the byte, encoding in the high one.
constexpr size_t kKindOffset = 16;
constexpr int kEncodingShift = 4;
constexpr uint8_t kKindMask = 0x0f;

void put_u32(std::string& out, size_t at, uint32_t v) {
  for (int i = 0; i < 4; ++i) out[at + i] = static_cast<char>(v >> (24 - 8 * i));
}

void append_u64(std::string& out, uint64_t v) {
  for (int shift = 56; shift >= 0; shift -= 8) out.push_back(static_cast<char>(v >> shift));
}

std::string_view tail(const std::string& out, size_t at) { return std::string_view(out).substr(at); }

// Reserves the header; finish_record fills it in once the payload is there.
size_t begin_record(std::string& out, RecordType type, GroupId group) {
  const size_t at = out.size();
  out.append(8, '\0');
  out.push_back(static_cast<char>(type));
  append_u64(out, group.value);
  return at;
}

size_t finish_record(std::string& out, size_t at) {
  const size_t bytes = out.size() - at;
  put_u32(out, at + 4, static_cast<uint32_t>(bytes - kRecordHeaderBytes));
  put_u32(out, at, crc32c(tail(out, at + 4)));
  return bytes;
}

}  // namespace

std::string encode(const SegmentHeader& header) {
  const std::string& cluster = header.identity.cluster_id;
  UCCP_CHECK(cluster.size() <= kClusterIdBytesMax, "a cluster id fits into the segment header");
  ByteWriter out;
  out.raw(kMagic).u32(header.version).u64(header.sequence).u64(header.first_frame);
  out.u64(header.identity.node.value).u64(header.identity.incarnation.value);
  out.u8(static_cast<uint8_t>(cluster.size())).raw(cluster);
  out.raw(std::string(kSegmentCrcOffset - out.data().size(), '\0'));
  out.u32(crc32c(out.data()));
  return out.take();
}

Result<SegmentHeader> decode_segment_header(std::string_view bytes) {
  const auto damaged = [] { return fail(Code::kCorruption, "WAL_HEADER_DAMAGED", "the segment header is damaged"); };
  if (bytes.size() < kSegmentHeaderBytes) return damaged();
  bytes = bytes.substr(0, kSegmentHeaderBytes);
  ByteReader in(bytes);
  const std::string_view magic = in.raw(kMagic.size());
  const uint32_t version = in.u32();
  SegmentHeader header;
  header.sequence = in.u64();
  header.first_frame = in.u64();
  header.identity.node = NodeId(in.u64());
  header.identity.incarnation = Incarnation(in.u64());
  header.identity.cluster_id = std::string(in.raw(in.u8()));
  const bool crc_matches =
      ByteReader(bytes.substr(kSegmentCrcOffset)).u32() == crc32c(bytes.substr(0, kSegmentCrcOffset));
  if (!in.ok() || magic != kMagic || !crc_matches) return damaged();
  if (version < kOldestFormatVersion || version > kFormatVersion) {
    return fail(Code::kFailedPrecondition, "WAL_VERSION_UNSUPPORTED",
                fmt::format("the segment has format version {}; this program reads {} to {}. Start a newer program",
                            version, kOldestFormatVersion, kFormatVersion));
  }
  header.version = version;
  // Length, padding and all: what encode would write.
  if (header.identity.cluster_id.size() > kClusterIdBytesMax || encode(header) != bytes) return damaged();
  return header;
}

std::string segment_name(uint64_t sequence) { return fmt::format("{:016x}.wal", sequence); }

std::optional<uint64_t> parse_segment_name(std::string_view name) {
  if (name.size() != 20 || !name.ends_with(".wal")) return std::nullopt;
  const auto bytes = from_hex(name.substr(0, 16));
  if (!bytes) return std::nullopt;
  return ByteReader(*bytes).u64();
}

uint32_t frame_seed(Incarnation incarnation, uint64_t sequence, uint64_t offset) {
  return crc32c(ByteWriter().u64(incarnation.value).u64(sequence).u64(offset).data());
}

void write_frame_header(std::string& frame, const FrameHeader& header, uint32_t seed) {
  UCCP_CHECK(frame.size() >= kFrameHeaderBytes, "room for the frame header was reserved");
  put_u32(frame, 4, header.body_bytes);
  put_u32(frame, 8, header.records);
  put_u32(frame, 12, static_cast<uint32_t>(header.number >> 32));
  put_u32(frame, 16, static_cast<uint32_t>(header.number));
  put_u32(frame, 0, crc32c(std::string_view(frame).substr(4, kFrameHeaderBytes - 4), seed));
}

std::optional<FrameHeader> parse_frame_header(std::string_view bytes, uint32_t seed) {
  if (bytes.size() < kFrameHeaderBytes) return std::nullopt;
  ByteReader in(bytes.substr(0, kFrameHeaderBytes));
  const uint32_t crc = in.u32();
  if (crc != crc32c(bytes.substr(4, kFrameHeaderBytes - 4), seed)) return std::nullopt;
  FrameHeader header;
  header.body_bytes = in.u32();
  header.records = in.u32();
  header.number = in.u64();
  return header;
}

std::optional<Record> parse_record(std::string_view bytes) {
  if (bytes.size() < kRecordHeaderBytes) return std::nullopt;
  ByteReader in(bytes);
  const uint32_t crc = in.u32();
  const uint32_t length = in.u32();
  Record record;
  record.type = static_cast<RecordType>(in.u8());
  record.group = GroupId(in.u64());
  record.payload = in.raw(length);
  record.bytes = kRecordHeaderBytes + length;
  if (!in.ok()) return std::nullopt;
  if (crc != crc32c(bytes.substr(4, record.bytes - 4)) && !planted_bug("trust_torn")) return std::nullopt;
  return record;
}

size_t append_entry(std::string& out, RecordType type, GroupId group, const Entry& entry, Packer& packer) {
  const size_t at = begin_record(out, type, group);
  append_u64(out, entry.index.value);
  append_u64(out, entry.term.value);
  out.push_back(static_cast<char>(entry.kind));
  const auto encoding = static_cast<uint8_t>(packer.pack(entry, out));
  out[at + kRecordHeaderBytes + kKindOffset] =
      static_cast<char>(static_cast<uint8_t>(entry.kind) | encoding << kEncodingShift);
  return finish_record(out, at);
}

size_t append_hard_state(std::string& out, GroupId group, const HardState& state) {
  const size_t at = begin_record(out, RecordType::kHardState, group);
  append_u64(out, state.term.value);
  append_u64(out, state.vote.value);
  append_u64(out, state.commit.value);
  return finish_record(out, at);
}

size_t append_start(std::string& out, GroupId group, const StartPayload& start) {
  const size_t at = begin_record(out, RecordType::kStart, group);
  append_u64(out, start.position.term.value);
  append_u64(out, start.position.index.value);
  out.push_back(static_cast<char>(start.following));
  return finish_record(out, at);
}

size_t append_remove(std::string& out, GroupId group) {
  return finish_record(out, begin_record(out, RecordType::kRemove, group));
}

std::optional<EntryPayload> parse_entry(std::string_view payload) {
  ByteReader in(payload);
  EntryPayload entry;
  entry.index = LogIndex(in.u64());
  entry.term = Term(in.u64());
  const uint8_t kind = in.u8();
  entry.kind = static_cast<EntryKind>(kind & kKindMask);
  entry.encoding = static_cast<Encoding>(kind >> kEncodingShift);
  entry.packed = in.rest();
  const bool known =
      entry.kind >= EntryKind::kCommand && entry.kind <= EntryKind::kConfiguration && entry.encoding <= Encoding::kZstd;
  // The last index of all has no successor.
  if (!in.ok() || !known || entry.index.value == 0 || entry.index.value == UINT64_MAX) return std::nullopt;
  return entry;
}

std::optional<Entry> EntryPayload::to_entry() const {
  auto data = unpack(encoding, packed);
  if (!data) return std::nullopt;
  Entry entry{term, index, kind, std::move(*data)};
  if (encoding != Encoding::kRaw) {
    entry.packed = std::make_shared<const PackedData>(static_cast<uint8_t>(encoding), std::string(packed));
  }
  return entry;
}

std::optional<HardState> parse_hard_state(std::string_view payload) {
  ByteReader in(payload);
  HardState state;
  state.term = Term(in.u64());
  state.vote = NodeId(in.u64());
  state.commit = LogIndex(in.u64());
  if (!in.at_end()) return std::nullopt;
  return state;
}

std::optional<StartPayload> parse_start(std::string_view payload) {
  ByteReader in(payload);
  StartPayload start;
  start.position.term = Term(in.u64());
  start.position.index = LogIndex(in.u64());
  start.following = static_cast<Following>(in.u8());
  const bool known = start.following == Following::kKept || start.following == Following::kDropped;
  if (!in.at_end() || !known || start.position.index.value == UINT64_MAX) return std::nullopt;
  return start;
}

}  // namespace uccp::storage::wal
