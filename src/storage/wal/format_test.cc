#include "storage/wal/format.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace uccp::storage::wal {
namespace {

const SegmentHeader kHeader{{"cluster", NodeId(3), Incarnation(0x1122334455667788)}, 5, 42};

TEST(WalFormat, ASegmentHeaderIsReadBack) {
  const std::string bytes = encode(kHeader);
  EXPECT_EQ(bytes.size(), kSegmentHeaderBytes);
  EXPECT_EQ(*decode_segment_header(bytes), kHeader);
  SegmentHeader longest = kHeader;
  longest.identity.cluster_id = std::string(kClusterIdBytesMax, 'x');
  EXPECT_EQ(*decode_segment_header(encode(longest)), longest);
}

TEST(WalFormat, ASegmentHeaderWithAnyBitFlippedIsDamaged) {
  for (size_t bit = 0; bit < kSegmentHeaderBytes * 8; ++bit) {
    std::string bytes = encode(kHeader);
    bytes[bit / 8] ^= static_cast<char>(1 << bit % 8);
    EXPECT_EQ(decode_segment_header(bytes).error().code(), Code::kCorruption) << bit;
  }
  EXPECT_EQ(decode_segment_header(encode(kHeader).substr(1)).error().code(), Code::kCorruption);
}

TEST(WalFormat, SegmentNamesSortAsTheirNumbers) {
  EXPECT_EQ(segment_name(0x1f), "000000000000001f.wal");
  EXPECT_EQ(parse_segment_name("000000000000001f.wal"), 0x1f);
  EXPECT_EQ(parse_segment_name("00000000000000zz.wal"), std::nullopt);
  EXPECT_EQ(parse_segment_name("1f.wal"), std::nullopt);
  EXPECT_EQ(parse_segment_name("000000000000001f.tmp"), std::nullopt);
}

TEST(WalFormat, AFrameHeaderIsValidOnlyInItsPlace) {
  std::string frame(kFrameHeaderBytes, '\0');
  write_frame_header(frame, {100, 3, 7}, frame_seed(Incarnation(1), 2, 128));
  const auto header = parse_frame_header(frame, frame_seed(Incarnation(1), 2, 128));
  ASSERT_TRUE(header);
  EXPECT_EQ(header->body_bytes, 100u);
  EXPECT_EQ(header->records, 3u);
  EXPECT_EQ(header->number, 7u);
  EXPECT_FALSE(parse_frame_header(frame, frame_seed(Incarnation(1), 2, 129)));
  EXPECT_FALSE(parse_frame_header(frame, frame_seed(Incarnation(1), 3, 128)));
  EXPECT_FALSE(parse_frame_header(frame, frame_seed(Incarnation(2), 2, 128)));
  EXPECT_FALSE(parse_frame_header(frame.substr(1), frame_seed(Incarnation(1), 2, 128)));
}

TEST(WalFormat, ZerosAreNoFrameAndNoRecord) {
  const std::string zeros(100, '\0');
  for (uint64_t at = 0; at < 1000; ++at) EXPECT_FALSE(parse_frame_header(zeros, frame_seed(Incarnation(1), 1, at)));
  EXPECT_FALSE(parse_record(zeros));
}

TEST(WalFormat, RecordsAreReadBack) {
  const Entry entry{Term(2), LogIndex(9), EntryKind::kConfiguration, std::string("a\0b", 3)};
  std::string bytes;
  Packer raw;
  const size_t entry_bytes = append_entry(bytes, RecordType::kMoved, GroupId(4), entry, raw);
  EXPECT_EQ(entry_bytes, bytes.size());
  append_hard_state(bytes, GroupId(5), {Term(1), NodeId(2), LogIndex(3)});
  append_start(bytes, GroupId(6), {{Term(7), LogIndex(8)}, Following::kDropped});
  append_remove(bytes, GroupId(7));
  std::string_view in = bytes;
  auto record = parse_record(in);
  ASSERT_TRUE(record);
  EXPECT_EQ(record->type, RecordType::kMoved);
  EXPECT_EQ(record->group, GroupId(4));
  EXPECT_EQ(parse_entry(record->payload)->to_entry(), entry);
  in.remove_prefix(record->bytes);
  record = parse_record(in);
  EXPECT_EQ(parse_hard_state(record->payload), (HardState{Term(1), NodeId(2), LogIndex(3)}));
  in.remove_prefix(record->bytes);
  record = parse_record(in);
  EXPECT_EQ(parse_start(record->payload), (StartPayload{{Term(7), LogIndex(8)}, Following::kDropped}));
  in.remove_prefix(record->bytes);
  record = parse_record(in);
  EXPECT_EQ(record->type, RecordType::kRemove);
  EXPECT_EQ(record->bytes, in.size());
}

TEST(WalFormat, TheBytesOfARecordStayAsTheyWereReleased) {
  std::string bytes;
  Packer raw;
  append_entry(bytes, RecordType::kMoved, GroupId(4), {Term(2), LogIndex(9), EntryKind::kNoop, "ab"}, raw);
  EXPECT_EQ(to_hex(bytes),
            "7c07e0e0"
            "00000013"
            "05"
            "0000000000000004"
            "0000000000000009"
            "0000000000000002"
            "02"
            "6162");
}

TEST(WalFormat, ALargeEntryIsCompressed) {
  for (const Encoding encoding : {Encoding::kLz4, Encoding::kZstd}) {
    const Entry entry{Term(2), LogIndex(9), EntryKind::kNoop, std::string(10'000, 'a')};
    std::string bytes;
    Packer packer({encoding, 1000});
    append_entry(bytes, RecordType::kEntry, GroupId(4), entry, packer);
    EXPECT_LT(bytes.size(), 200u);
    const auto payload = parse_entry(parse_record(bytes)->payload);
    ASSERT_TRUE(payload);
    EXPECT_EQ(payload->encoding, encoding);
    EXPECT_EQ(payload->to_entry(), entry);
  }
}

TEST(WalFormat, ARecordWithAnyBitFlippedOrCutOffIsNone) {
  std::string bytes;
  Packer raw;
  append_entry(bytes, RecordType::kEntry, GroupId(4), {Term(2), LogIndex(9), EntryKind::kNoop, "ab"}, raw);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] ^= static_cast<char>(1 << bit % 8);
    EXPECT_FALSE(parse_record(flipped)) << bit;
  }
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(parse_record(bytes.substr(0, size)));
}

TEST(WalFormat, PayloadsOfAnotherShapeAreNone) {
  EXPECT_FALSE(parse_entry("short"));
  EXPECT_FALSE(parse_entry(ByteWriter().u64(0).u64(1).u8(1).data()));
  EXPECT_FALSE(parse_entry(ByteWriter().u64(1).u64(1).u8(9).data()));
  EXPECT_FALSE(parse_entry(ByteWriter().u64(1).u64(1).u8(0x31).data()));  // an encoding that is none
  EXPECT_FALSE(parse_entry(ByteWriter().u64(UINT64_MAX).u64(1).u8(1).data()));
  EXPECT_FALSE(parse_hard_state(std::string(23, '\0')));
  EXPECT_FALSE(parse_hard_state(std::string(25, '\0')));
  EXPECT_FALSE(parse_start(std::string(18, '\0')));
}

}  // namespace
}  // namespace uccp::storage::wal
