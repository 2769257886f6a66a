// What the checkers of histories let pass, and what they do not. The others are tested by planted bugs.
#include "sim/checkers/checkers.h"

#include <gtest/gtest.h>

namespace uccp::sim {
namespace {

constexpr int64_t kDriftPpm = 20'000;
using Health = ListingChecker::Health;

std::string first(const Violations& violations) { return violations.empty() ? "" : violations.found()[0]; }

TEST(TermChecker, ATermHasOneLeaderWhoeverTellsOfIt) {
  Violations violations;
  TermChecker terms(violations);
  terms.led(1, "a");
  terms.began(10 << 16, 1, "a");
  terms.began(12 << 16, 2, "b");
  terms.led(2, "b");
  EXPECT_TRUE(violations.empty()) << first(violations);
  terms.led(2, "a");
  EXPECT_EQ(first(violations), "terms: term 2 is led by b and by a");
}

TEST(CommitChecker, WhatWasToldToBeCommittedIsInTheLogOfEveryLaterLeader) {
  Violations violations;
  CommitChecker commits(violations);
  const auto log = [](std::map<uint64_t, uint64_t> terms) {
    return [terms](LogIndex index) {
      const auto found = terms.find(index.value);
      return found == terms.end() ? std::nullopt : std::optional<Term>(found->second);
    };
  };
  commits.told(kCoreGroup, Term(2), LogIndex(5), log({{5, 2}}));
  // Its commit index is behind, and then ahead.
  commits.told(kCoreGroup, Term(3), LogIndex(4), log({{4, 1}, {5, 2}, {6, 3}}));
  commits.told(kCoreGroup, Term(3), LogIndex(6), log({{4, 1}, {5, 2}, {6, 3}}));
  // Nothing can be said of a log that has it no more; another group has a log of its own.
  commits.told(kCoreGroup, Term(4), LogIndex(9), log({{9, 4}}));
  commits.told(kWorkGroup, Term(4), LogIndex(6), log({{6, 4}}));
  EXPECT_TRUE(violations.empty()) << first(violations);
  commits.told(kCoreGroup, Term(5), LogIndex(8), log({{6, 5}, {8, 5}}));
  EXPECT_EQ(first(violations),
            "commits: group 1 index 6 was committed with term 3, and the leader of term 5 committed term 5 there");
}

TEST(TermChecker, TermsGrowInTheOrderOfTheLogWhateverTheOrderInWhichTheyAreTold) {
  Violations violations;
  TermChecker terms(violations);
  terms.began(30 << 16, 3, "c");
  terms.began(10 << 16, 1, "a");
  terms.began(20 << 16, 2, "b");
  terms.began(10 << 16, 1, "a");
  EXPECT_TRUE(violations.empty()) << first(violations);
  terms.began(40 << 16, 3, "c");
  EXPECT_TRUE(first(violations).starts_with("terms: the leadership of c at index 40 has term 3")) << first(violations);
}

TEST(ListingChecker, NothingIsListedOnceItsEndIsCommitted) {
  Violations violations;
  ListingChecker listings(violations);
  listings.changed(LogIndex(5), "a", "web", Health::kHealthy);
  listings.changed(LogIndex(6), "b", "web", Health::kUnhealthy);
  listings.changed(LogIndex(9), "a", "", Health::kGone);
  listings.listed("r", LogIndex(4), "web", {});
  listings.listed("r", LogIndex(8), "web", {"a"});
  listings.listed("r", LogIndex(9), "web", {});
  listings.listed("r", LogIndex(9), "other", {});
  EXPECT_TRUE(violations.empty()) << first(violations);
  listings.listed("r", LogIndex(9), "web", {"a"});
  EXPECT_EQ(first(violations), "listings: r was shown a at index 9, where it is gone");
}

TEST(ListingChecker, WhatIsHealthyIsListedAndWhatIsNotIsNot) {
  for (const bool shows : {true, false}) {
    Violations violations;
    ListingChecker listings(violations);
    listings.changed(LogIndex(5), "a", "web", shows ? Health::kUnhealthy : Health::kHealthy);
    listings.listed("r", LogIndex(7), "web", shows ? std::set<std::string>{"a"} : std::set<std::string>{});
    EXPECT_EQ(first(violations), shows ? "listings: r was shown a at index 7, where it is not healthy"
                                       : "listings: r was not shown a at index 7, where it is healthy");
  }
}

TEST(QueueChecker, NobodyWaitsForWhatNobodyHolds) {
  Violations violations;
  QueueChecker queues(violations);
  queues.left("lock", 7, 0, 0);
  queues.left("lock", 8, 2, 1);
  queues.waited("a", 99, 100);
  EXPECT_TRUE(violations.empty()) << first(violations);
  queues.left("lock", 9, 2, 0);
  EXPECT_EQ(first(violations), "queues: 2 wait for lock after index 9, which nobody holds");
}

TEST(QueueChecker, WhoCameFirstIsServedFirstAndWithinTheBound) {
  Violations violations;
  QueueChecker queues(violations);
  queues.served("lock", 10, 3);
  queues.served("lock", 11, 5);
  EXPECT_TRUE(violations.empty()) << first(violations);
  queues.served("lock", 12, 4);
  queues.waited("a", 101'000, 100'000);
  ASSERT_EQ(violations.found().size(), 2u);
  EXPECT_EQ(violations.found()[0], "queues: waiter 4 of lock was served after waiter 5, which came later");
  EXPECT_EQ(violations.found()[1], "queues: a waited for 101 ms where at most 100 ms can be needed");
}

TEST(KvChecker, OnlyWhatIsCompactedIsRefused) {
  Violations violations;
  KvChecker kv(violations);
  for (int64_t revision = 1; revision <= 9; ++revision) kv.changed(revision, "k", std::to_string(revision));
  kv.compacted(5);
  kv.refused("r", 4);
  kv.refused("r", 4, 5);
  kv.read("r", 6, "k", "l", {{"k", "6", 6}});
  EXPECT_TRUE(violations.empty()) << first(violations);
  kv.refused("r", 5);
  EXPECT_EQ(first(violations), "kv: r was told that revision 5 is compacted, and 0 not; 5 is");
  kv.refused("r", 3, 7);
  kv.compacted(4);
  EXPECT_EQ(violations.found().size(), 3u);
}

TEST(HoldChecker, NobodyAcquiresWhatAnotherMayRelyOn) {
  Violations violations;
  HoldChecker holds(violations, kDriftPpm);
  holds.holds("lock", "a", 0, 100, 10);
  holds.released("lock", "a");
  holds.holds("lock", "b", 20, 100, 30);
  holds.holds("lock", "c", 110'000, 100, 120'000);
  EXPECT_TRUE(violations.empty()) << first(violations);
  holds.holds("lock", "d", 120'000, 100, 130'000);
  EXPECT_TRUE(first(violations).starts_with("holds: d was given lock at 130000 us, which c holds"))
      << first(violations);
}

}  // namespace
}  // namespace uccp::sim
