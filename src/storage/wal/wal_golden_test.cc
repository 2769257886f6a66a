// The bytes of docs/formats/wal.md: logs of every format version are read, and the current one is written as it was.
#include <cstdlib>
#include <fstream>

#include "base/bytes.h"
#include "storage/wal/wal_test_support.h"

namespace uccp::storage {
namespace {

std::string path_of(uint32_t version) {
  return "tests/upgrade/wal-v" + std::to_string(version) + "/0000000000000001.wal.hex";
}

std::string golden(uint32_t version) {
  std::ifstream file(path_of(version));
  std::string bytes;
  for (std::string line; std::getline(file, line);) bytes += from_hex(line).value_or("<not hex>");
  EXPECT_FALSE(bytes.empty()) << "run the test in the root of the repository; it reads " << path_of(version);
  return bytes;
}

constexpr const char* kContent =
    "group 1 term 1 vote 3 commit 2 start 2@1 last 5@2: 3/1/3@1;........ 4/2/4@2;........ 5/3/5@2;........\n"
    "group 2 term 0 vote 0 commit 0 start 0@0 last 1@1: 1/2/1@1;........\n";

// Since version 2 the log of group 2 goes on with an entry that is compressed.
std::string content(uint32_t version) {
  std::string text = kContent;
  if (version == 1) return text;
  text.resize(text.size() - 1);
  text.replace(text.rfind("last 1@1"), 8, "last 2@1");
  return text + " 2/3/2@1;" + std::string(60, '.') + "\n";
}

// Every record type but kMoved, which needs several segments; that one is in format_test.
void write_log(WalFixture& wal) {
  wal.options.segment_bytes = 2048;
  wal.options.compression = {Encoding::kLz4, 64};
  wal.open_or_fail();
  ASSERT_TRUE(wal.store->append(kCoreGroup, make_entries(1, 4, 1, 12)).is_ok());
  ASSERT_TRUE(wal.store->set_hard_state(kCoreGroup, {Term(1), NodeId(3), LogIndex(2)}).is_ok());
  ASSERT_TRUE(wal.store->sync().is_ok());
  ASSERT_TRUE(wal.store->append(kCoreGroup, make_entries(4, 5, 2, 12)).is_ok());
  ASSERT_TRUE(wal.store->truncate_before(kCoreGroup, {Term(1), LogIndex(2)}).is_ok());
  wal.append_and_sync(make_entries(1, 2, 7, 12), GroupId(9));
  ASSERT_TRUE(wal.store->remove(GroupId(9)).is_ok());
  wal.append_and_sync(make_entries(1, 1, 1, 12), kWorkGroup);
  wal.append_and_sync(make_entries(2, 2, 1, 64), kWorkGroup);
  ASSERT_TRUE(wal.store->close().is_ok());
}

TEST(GoldenSegment, EveryVersionIsStillRead) {
  for (uint32_t version = wal::kOldestFormatVersion; version <= wal::kFormatVersion; ++version) {
    WalFixture wal;
    ASSERT_TRUE(write_file_atomically(wal.files, segment_path(1), golden(version)).is_ok());
    wal.open_or_fail();
    EXPECT_EQ(dump(*wal.store), content(version));
    EXPECT_EQ(wal.report.frames, version == 1 ? 4u : 5u);
    EXPECT_EQ(wal.report.torn_file, "");
  }
}

TEST(GoldenSegment, TheCurrentVersionIsStillWritten) {
  WalFixture wal;
  write_log(wal);
  std::string bytes = *read_file(wal.files, segment_path(1), 1 << 20);
  // The hex file ends with the last frame; the zeros behind it are not kept.
  bytes.resize(bytes.find_last_not_of('\0') + 1);
  if (std::getenv("UCCP_REWRITE") != nullptr) {
    std::ofstream file(path_of(wal::kFormatVersion));
    for (size_t at = 0; at < bytes.size(); at += 32) file << to_hex(std::string_view(bytes).substr(at, 32)) << "\n";
    return;
  }
  EXPECT_EQ(to_hex(bytes), to_hex(golden(wal::kFormatVersion)));
}

// An older segment is closed for good: what is new goes to a segment of its own, and a crash at any point in between
// leaves a log that opens.
TEST(GoldenSegment, ALogOfAnOlderVersionGoesOnInANewSegment) {
  WalFixture wal;
  ASSERT_TRUE(write_file_atomically(wal.files, segment_path(1), golden(1)).is_ok());
  const std::string before = *read_file(wal.files, segment_path(1), 1 << 20);
  wal.options.compression = {Encoding::kZstd, 64};
  wal.open_or_fail();
  wal.append_and_sync(make_entries(6, 7, 2, 500), kCoreGroup);
  EXPECT_EQ(wal.store->segment_count(), 2u);
  EXPECT_EQ(read_file(wal.files, segment_path(1), 1 << 20)->substr(0, before.size()), before);
  const std::string written = dump(*wal.store);
  wal.open_or_fail();
  EXPECT_EQ(dump(*wal.store), written);
}

TEST(GoldenSegment, AnEmptySegmentOfAnOlderVersionIsMadeAgain) {
  WalFixture wal;
  const wal::SegmentHeader header{.identity = kTestIdentity, .sequence = 1, .first_frame = 1, .version = 1};
  ASSERT_TRUE(write_file_atomically(wal.files, segment_path(1), wal::encode(header)).is_ok());
  wal.open_or_fail();
  wal.append_and_sync(make_entries(1, 3, 1));
  EXPECT_EQ(wal.store->segment_count(), 1u);
  const auto found = wal::decode_segment_header(*read_file(wal.files, segment_path(1), 1 << 20));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->version, wal::kFormatVersion);
}

}  // namespace
}  // namespace uccp::storage
