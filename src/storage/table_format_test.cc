// The bytes of docs/formats/log_table.md.
#include "storage/table_format.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace uccp::storage::table {
namespace {

const StoreIdentity kIdentity{"c1", NodeId(3), Incarnation(7)};
constexpr GroupId kGroup{2};

TEST(LogTableFormat, TheBytesAreWhatThePageSays) {
  EXPECT_EQ(to_hex(format_key()), "66");
  EXPECT_EQ(to_hex(group_key(kGroup)), "670000000000000002");
  EXPECT_EQ(to_hex(entry_key(kGroup, LogIndex(9))), "6500000000000000020000000000000009");
  const auto body = [](const std::string& value) { return to_hex(value.substr(4)); };
  const auto checksum = [](const std::string& value) { return to_hex(value.substr(0, 4)); };
  const std::string format = encode_format(kIdentity);
  EXPECT_EQ(body(format),
            "554343504c4f470a"
            "00000001"
            "0000000000000003"
            "0000000000000007"
            "026331");
  EXPECT_EQ(checksum(format), "e65e823a");
  const std::string group = encode_group(kGroup, {{Term(5), NodeId(1), LogIndex(8)}, {Term(4), LogIndex(6)}});
  EXPECT_EQ(body(group),
            "0000000000000005"
            "0000000000000001"
            "0000000000000008"
            "0000000000000004"
            "0000000000000006");
  EXPECT_EQ(checksum(group), "20685334");
  Packer raw;
  const std::string entry = encode_entry(kGroup, {Term(5), LogIndex(9), EntryKind::kCommand, "ab"}, raw);
  EXPECT_EQ(body(entry),
            "0000000000000005"
            "01"
            "6162");
  EXPECT_EQ(checksum(entry), "0b6b4079");
  Packer lz4({Encoding::kLz4, 1});
  const std::string packed = encode_entry(kGroup, {Term(5), LogIndex(9), EntryKind::kNoop, std::string(64, 'a')}, lz4);
  EXPECT_EQ(body(packed).substr(0, 26),
            "0000000000000005"
            "12"
            "00000040");
}

TEST(LogTableFormat, WhatWasWrittenIsReadAndDamageIsNot) {
  Packer zstd({Encoding::kZstd, 10});
  const Entry entry{Term(5), LogIndex(9), EntryKind::kConfiguration, std::string(64, 'a')};
  const GroupRow row{{Term(5), NodeId(1), LogIndex(8)}, {Term(4), LogIndex(6)}};
  const std::string entry_row = encode_entry(kGroup, entry, zstd);
  const std::string group_row = encode_group(kGroup, row);
  const std::string format_row = encode_format(kIdentity);
  EXPECT_EQ(parse_entry(kGroup, LogIndex(9), entry_row), entry);
  EXPECT_EQ(parse_group(kGroup, group_row), row);
  EXPECT_EQ(*parse_format(format_row), kIdentity);
  // A row in another row's place.
  EXPECT_FALSE(parse_entry(kGroup, LogIndex(8), entry_row));
  EXPECT_FALSE(parse_entry(GroupId(3), LogIndex(9), entry_row));
  EXPECT_FALSE(parse_group(GroupId(3), group_row));
  for (const std::string& value : {entry_row, group_row, format_row}) {
    for (size_t i = 0; i < value.size(); ++i) {
      std::string damaged = value;
      damaged[i] ^= 1;
      for (const std::string& bytes : {damaged, value.substr(0, i)}) {
        EXPECT_FALSE(parse_entry(kGroup, LogIndex(9), bytes));
        EXPECT_FALSE(parse_group(kGroup, bytes));
        EXPECT_FALSE(parse_format(bytes));
      }
    }
  }
}

TEST(LogTableFormat, AnotherVersionIsRefusedByName) {
  const std::string body = ByteWriter().raw("UCCPLOG\n").u32(2).raw("whatever").take();
  const auto parsed = parse_format(ByteWriter().u32(crc32c(body, crc32c(format_key()))).raw(body).data());
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().reason(), "LOG_VERSION_UNSUPPORTED");
}

}  // namespace
}  // namespace uccp::storage::table
