#include "node/log_bytes.h"

#include <gtest/gtest.h>

#include "node/test_cluster.h"

namespace uccp::node {
namespace {

std::vector<Entry> entries(uint64_t first, uint64_t last, size_t bytes) {
  std::vector<Entry> out;
  for (uint64_t index = first; index <= last; ++index) {
    out.push_back({Term(1), LogIndex(index), EntryKind::kCommand, std::string(bytes - sizeof(Entry), 'x')});
  }
  return out;
}

TEST(LogBytes, SaysWhichEntriesHaveToGo) {
  LogBytes bytes(1000);
  EXPECT_EQ(bytes.last_beyond(0), LogIndex(0));
  bytes.append(entries(1, 100, 100));
  EXPECT_EQ(bytes.total(), 10'000u);
  EXPECT_EQ(bytes.last_beyond(10'000), LogIndex(0));
  EXPECT_EQ(bytes.last_beyond(9'999), LogIndex(10));
  EXPECT_EQ(bytes.last_beyond(5'000), LogIndex(50));
  EXPECT_EQ(bytes.last_beyond(0), LogIndex(100));
  bytes.drop_before(LogIndex(60));
  EXPECT_EQ(bytes.last_beyond(5'000), LogIndex(70));
}

TEST(LogBytes, ReplacedEntriesAreNotKeptForTheirPlace) {
  LogBytes bytes(1000);
  bytes.append(entries(1, 100, 100));
  bytes.append(entries(51, 60, 100));
  EXPECT_GE(bytes.last_beyond(0), LogIndex(51));
  EXPECT_LE(bytes.last_beyond(0), LogIndex(60));
}

uint64_t log_size_after(TestClusterOptions options) {
  TestCluster c(std::move(options));
  c.add_founders(1);
  const uint64_t leader = c.wait_leader();
  uint64_t largest = 0;
  for (int round = 0; round < 20; ++round) {
    EXPECT_EQ(c.put_many(leader, 100, "k" + std::to_string(round), 1000), 100u);
    c.run_ms(1500);
    largest = std::max(largest, c.member(leader).log.size_bytes());
  }
  return largest;
}

// 2,000 entries of 1 KB, far fewer than are flushed and kept by number.
TEST(LogBytes, LargeEntriesAreFlushedAndDroppedByTheirBytes) {
  TestClusterOptions options;
  EXPECT_GT(log_size_after(options), 2'000'000u);
  options.node.group.flush_every_bytes = 200'000;
  options.node.group.log_kept_bytes = 300'000;
  EXPECT_LT(log_size_after(options), 1'000'000u);
}

TEST(LogBytes, LogsBeyondTheLimitOfTheNodeForceAFlush) {
  TestClusterOptions options;
  options.node.log_bytes_max = 400'000;
  options.node.group.shortened_log_bytes = 100'000;
  EXPECT_LT(log_size_after(options), 1'000'000u);
}

}  // namespace
}  // namespace uccp::node
