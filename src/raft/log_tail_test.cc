#include "raft/log_tail.h"

#include <gtest/gtest.h>

#include "raft/test_cluster.h"

namespace uccp::raft {
namespace {

Entry entry(uint64_t term, uint64_t index, size_t bytes = 1) {
  return {Term(term), LogIndex(index), EntryKind::kCommand, std::string(bytes, 'x')};
}

LogPosition at(uint64_t index, uint64_t term) { return {Term(term), LogIndex(index)}; }

// A disk with entries 4@1 5@1 6@2 behind the start 3@1.
class LogTailTest : public testing::Test {
 protected:
  LogTailTest() {
    disk_.start = at(3, 1);
    disk_.log = {entry(1, 4), entry(1, 5), entry(2, 6)};
  }
  TestDisk disk_;
};

TEST_F(LogTailTest, AnswersFromDiskMemoryAndBothEnds) {
  LogTail log(disk_, disk_.start, disk_.last());
  log.append(entry(3, 7));
  EXPECT_EQ(log.term(LogIndex(3)).value(), Term(1));
  EXPECT_EQ(log.term(LogIndex(5)).value(), Term(1));
  EXPECT_EQ(log.term(LogIndex(6)).value(), Term(2));
  EXPECT_EQ(log.term(LogIndex(7)).value(), Term(3));
  EXPECT_EQ(log.term(LogIndex(8)).value(), Term());
  EXPECT_EQ(log.term(LogIndex(2)).error().code(), Code::kNotFound);
  EXPECT_TRUE(log.holds(at(6, 2)));
  EXPECT_FALSE(log.holds(at(6, 1)));
  EXPECT_FALSE(log.holds(at(9, 0)));
}

TEST_F(LogTailTest, EntriesComeFromDiskFirstThenFromMemoryUpToTheBytes) {
  LogTail log(disk_, disk_.start, disk_.last());
  log.append(entry(3, 7, 10));
  log.append(entry(3, 8, 10));
  EXPECT_EQ(log.entries(LogIndex(5), 100).value().size(), 2u);
  EXPECT_EQ(log.entries(LogIndex(7), 1).value().size(), 1u);
  EXPECT_EQ(log.entries(LogIndex(7), 20).value().size(), 2u);
  EXPECT_EQ(log.entries(LogIndex(3), 100).error().reason(), "LOG_COMPACTED");
}

TEST_F(LogTailTest, OverwritingMovesTheDurablePartBack) {
  LogTail log(disk_, disk_.start, disk_.last());
  log.truncate_to(at(4, 1));
  EXPECT_EQ(log.durable(), LogIndex(4));
  log.append(entry(3, 5));
  log.append(entry(3, 6));
  EXPECT_EQ(log.term(LogIndex(5)).value(), Term(3));
  EXPECT_EQ(log.entries(LogIndex(5), 100).value()[0].term, Term(3));
  log.persisted(LogIndex(5));
  EXPECT_EQ(log.durable(), LogIndex(5));
  log.persisted(LogIndex(4));
  EXPECT_EQ(log.durable(), LogIndex(5));
}

TEST_F(LogTailTest, BacktrackingStopsAtTheLastTermThatCanMatch) {
  LogTail log(disk_, disk_.start, disk_.last());
  log.append(entry(5, 7));
  EXPECT_EQ(log.last_not_after(at(9, 5)), at(7, 5));
  EXPECT_EQ(log.last_not_after(at(9, 4)), at(6, 2));
  EXPECT_EQ(log.last_not_after(at(5, 1)), at(5, 1));
  EXPECT_EQ(log.last_not_after(at(9, 0)), at(2, 0));
}

TEST_F(LogTailTest, ASnapshotReplacesTheLogAndCompactionMovesItsStart) {
  LogTail log(disk_, disk_.start, disk_.last());
  disk_.compact(at(5, 1));
  log.compact(at(5, 1));
  EXPECT_EQ(log.start(), at(5, 1));
  EXPECT_EQ(log.term(LogIndex(4)).error().code(), Code::kNotFound);
  log.append(entry(2, 7));
  log.reset(at(20, 4));
  EXPECT_EQ(log.last(), at(20, 4));
  EXPECT_EQ(log.durable(), LogIndex(20));
  EXPECT_EQ(log.term(LogIndex(20)).value(), Term(4));
}

}  // namespace
}  // namespace uccp::raft
