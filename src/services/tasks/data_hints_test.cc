#include "services/tasks/data_hints.h"

#include <gtest/gtest.h>

namespace uccp::tasks {
namespace {

using Workers = std::vector<std::pair<std::string, int32_t>>;

TEST(DataHints, WorkersCountByTheBytesTheyHave) {
  DataHints hints;
  hints.note("large", "w1");
  hints.note("large", "w2");
  hints.note("small", "w2");
  EXPECT_EQ(hints.workers({{"large", 900}, {"small", 100}}), (Workers{{"w1", 90}, {"w2", 100}}));
  EXPECT_EQ(hints.workers({{"small", 1}, {"unknown", 10'000}}), (Workers{{"w2", 1}})) << "little is not nothing";
  EXPECT_EQ(hints.workers({{"unknown", 5}}), Workers{});
  EXPECT_EQ(hints.workers({{"large", 0}}), Workers{}) << "nothing is nowhere";
}

TEST(DataHints, OnlyTheLatestWorkersOfAContentAreKnown) {
  DataHints hints;
  for (int i = 0; i < 6; ++i) hints.note("c", "w" + std::to_string(i));
  hints.note("c", "w2");
  hints.note("c", "w6");
  EXPECT_EQ(hints.workers({{"c", 1}}), (Workers{{"w2", 100}, {"w4", 100}, {"w5", 100}, {"w6", 100}}));
}

TEST(DataHints, TheContentFetchedLongestAgoIsForgottenFirst) {
  DataHints hints;
  hints.note("first", "w");
  hints.note("second", "w");
  for (size_t i = 2; i < DataHints::kContentsMax; ++i) hints.note(std::to_string(i), "w");
  hints.note("first", "w");
  hints.note("one more", "w");
  EXPECT_EQ(hints.workers({{"first", 1}}).size(), 1u);
  EXPECT_EQ(hints.workers({{"second", 1}}).size(), 0u);
}

}  // namespace
}  // namespace uccp::tasks
