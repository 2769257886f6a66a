#include "storage/wal/group_index.h"

#include <gtest/gtest.h>

namespace uccp::storage::wal {
namespace {

struct Fixture {
  SegmentUse use;
  GroupIndex index{use};

  void append(uint64_t at, uint64_t term, uint64_t segment) {
    index.append(LogIndex(at), Term(term), {segment, static_cast<uint32_t>(at * 10), 10});
    index.cache({Term(term), LogIndex(at), EntryKind::kCommand, "x"});
  }
};

TEST(GroupIndex, CountsWhatEachSegmentIsNeededFor) {
  Fixture f;
  for (uint64_t i = 1; i <= 6; ++i) f.append(i, 1, i <= 3 ? 1 : 2);
  EXPECT_EQ(f.use.of(1).entries, 3u);
  EXPECT_EQ(f.use.of(1).bytes, 30u);
  f.append(3, 2, 3);
  EXPECT_EQ(f.use.of(1).entries, 2u);
  EXPECT_EQ(f.use.of(2).entries, 0u);
  f.index.set_start({Term(1), LogIndex(1)});
  EXPECT_EQ(f.use.of(1).entries, 1u);
  f.index.set_place(LogIndex(2), {4, 0, 10});
  EXPECT_EQ(f.use.of(1).entries, 0u);
  EXPECT_EQ(f.use.of(4).entries, 1u);
  f.index.clear();
  EXPECT_EQ(f.use.of(3).entries + f.use.of(4).entries, 0u);
}

TEST(GroupIndex, TermsFollowReplacementsAndTruncation) {
  Fixture f;
  for (uint64_t i = 1; i <= 9; ++i) f.append(i, 1 + (i - 1) / 3, 1);
  f.append(5, 7, 1);
  f.append(6, 7, 1);
  EXPECT_EQ(f.index.term(LogIndex(4)), Term(2));
  EXPECT_EQ(f.index.term(LogIndex(5)), Term(7));
  f.index.set_start({Term(7), LogIndex(5)});
  EXPECT_EQ(f.index.term(LogIndex(5)), Term(7));
  EXPECT_EQ(f.index.term(LogIndex(6)), Term(7));
  EXPECT_EQ(f.index.last(), LogIndex(6));
  f.index.set_start({Term(8), LogIndex(20)});
  f.append(21, 9, 1);
  EXPECT_EQ(f.index.term(LogIndex(21)), Term(9));
}

TEST(GroupIndex, TheCacheIsATailOfTheLog) {
  Fixture f;
  for (uint64_t i = 1; i <= 5; ++i) f.append(i, 1, 1);
  f.index.drop_oldest_cached();
  EXPECT_EQ(f.index.cached(LogIndex(1)), nullptr);
  ASSERT_NE(f.index.cached(LogIndex(2)), nullptr);
  f.append(4, 2, 1);
  EXPECT_EQ(f.index.cached(LogIndex(4))->term, Term(2));
  EXPECT_EQ(f.index.cached(LogIndex(5)), nullptr);
  f.index.set_start({Term(1), LogIndex(3)});
  EXPECT_EQ(f.index.cached(LogIndex(3)), nullptr);
  f.index.clear();
  EXPECT_EQ(f.index.cached_bytes(), 0u);
}

}  // namespace
}  // namespace uccp::storage::wal
