#include "services/tasks/log_format.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace uccp::tasks {
namespace {

std::string sample() {
  std::string log = log_header();
  append_log_record(log, {1, LogStreamKind::kStdout, "hello\n"});
  append_log_record(log, {2, LogStreamKind::kStderr, std::string_view("\xff\0x", 3)});
  append_log_record(log, {3, LogStreamKind::kNotice, ""});
  return log;
}

TEST(LogFormat, RecordsComeBackInOrderWithTheirPositions) {
  const std::string log = sample();
  LogReader reader(log, 0);
  auto first = reader.next();
  ASSERT_TRUE(first && *first);
  EXPECT_EQ((*first)->bytes, "hello\n");
  EXPECT_EQ((*first)->time_us, 1);
  EXPECT_EQ(reader.position(), kLogHeaderBytes + log_record_size(6));
  LogReader resumed(std::string_view(log).substr(reader.position()), reader.position());
  auto second = resumed.next();
  ASSERT_TRUE(second && *second);
  EXPECT_EQ((*second)->bytes, std::string_view("\xff\0x", 3));
  EXPECT_EQ((*second)->stream, LogStreamKind::kStderr);
  auto third = resumed.next();
  ASSERT_TRUE(third && *third);
  EXPECT_EQ((*third)->stream, LogStreamKind::kNotice);
  auto end = resumed.next();
  ASSERT_TRUE(end);
  EXPECT_FALSE(*end);
  EXPECT_EQ(resumed.position(), log.size());
}

// The format is stored: these bytes must stay readable for ever.
TEST(LogFormat, TheBytesOfVersionOneDoNotChange) {
  std::string log = log_header();
  append_log_record(log, {0x0102030405060708, LogStreamKind::kStdout, "abc"});
  EXPECT_EQ(to_hex(std::string_view(log).substr(0, 8)), "554343504c4f4701");
  EXPECT_EQ(to_hex(std::string_view(log).substr(12)), "00000003010203040506070801616263");
  EXPECT_EQ(to_hex(std::string_view(log).substr(8, 4)), to_hex([&] {
              ByteWriter w;
              w.u32(crc32c(std::string_view(log).substr(12)));
              return w.take();
            }()));
}

TEST(LogFormat, AnyFlippedBitIsFoundOrEndsTheLog) {
  const std::string log = sample();
  for (size_t at = 0; at < log.size(); ++at) {
    std::string damaged = log;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    LogReader reader(damaged, 0);
    size_t records = 0;
    for (;;) {
      auto next = reader.next();
      if (!next || !*next) break;
      ++records;
    }
    EXPECT_LT(records, 3u) << "bit of byte " << at;
  }
}

TEST(LogFormat, ATornTailIsNoRecord) {
  const std::string log = sample();
  for (size_t size = 0; size < log.size(); ++size) {
    LogReader reader(std::string_view(log).substr(0, size), 0);
    for (;;) {
      auto next = reader.next();
      ASSERT_TRUE(next) << size;
      if (!*next) break;
    }
    EXPECT_LE(reader.position(), size);
  }
}

}  // namespace
}  // namespace uccp::tasks
