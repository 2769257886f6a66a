#include "services/tasks/quota_book.h"

#include <gtest/gtest.h>

namespace uccp::tasks {
namespace {

QuotaAmounts cores(int64_t milli) {
  return {milli, kUnlimited, kUnlimited, kUnlimited, kUnlimited, kUnlimited, kUnlimited};
}
QuotaAmounts task(int64_t milli) { return quota_amounts({milli}); }
const QuotaBook::Owner kAlice{"t", "n", "alice"};
const QuotaBook::Owner kBob{"t", "n", "bob"};
const QuotaBook::Owner kOther{"t", "m", "alice"};

TEST(QuotaBook, AHardLimitIsNeverExceeded) {
  QuotaBook book;
  book.set("t", {.key = "namespace:n", .hard = cores(2'000)});
  EXPECT_FALSE(book.refusal(kAlice, task(2'000)));
  EXPECT_TRUE(book.refusal(kAlice, task(2'001)));
  book.charge(kAlice, task(1'500), 1);
  EXPECT_EQ(book.refusal(kBob, task(1'000)), "the quota namespace:n has 1.5 of 2 CPU in use, 1 more are asked for");
  EXPECT_FALSE(book.refusal(kOther, task(1'000)));
  book.charge(kAlice, task(1'500), -1);
  EXPECT_FALSE(book.refusal(kBob, task(2'000)));
}

TEST(QuotaBook, EachOnTheWayHasToHaveRoom) {
  QuotaBook book;
  book.set("t", {.key = "global:", .hard = cores(10'000)});
  book.set("t", {.key = "team:search", .hard = cores(4'000)});
  book.set("t", {.key = "namespace:n", .parent = "team:search", .hard = cores(8'000)});
  book.set("t", {.key = "user:n/alice", .hard = cores(1'000)});
  const auto why = [&](const QuotaBook::Owner& owner, int64_t milli) {
    return book.refusal(owner, task(milli)).value_or("");
  };
  EXPECT_TRUE(why(kAlice, 1'001).starts_with("the quota user:n/alice"));
  EXPECT_TRUE(why(kBob, 4'001).starts_with("the quota team:search"));
  EXPECT_TRUE(why(kOther, 10'001).starts_with("the quota global:"));
  book.charge(kBob, task(4'000), 1);
  EXPECT_TRUE(why(kAlice, 1).starts_with("the quota team:search"));
  EXPECT_EQ(book.used("t", "global:")[0], 4'000);
  std::vector<std::string> keys;
  for (const auto& step : book.steps(kAlice, task(1))) keys.push_back(step.quota->key);
  EXPECT_EQ(keys, (std::vector<std::string>{"global:", "team:search", "namespace:n", "user:n/alice"}));
}

TEST(QuotaBook, QuotasComeAndGoWhileTasksRun) {
  QuotaBook book;
  book.charge(kAlice, task(3'000), 1);
  book.set("t", {.key = "namespace:n", .hard = cores(2'000)});
  EXPECT_EQ(book.used("t", "namespace:n")[0], 3'000);
  EXPECT_TRUE(book.refusal(kAlice, task(1)));
  book.remove("t", "namespace:n");
  EXPECT_FALSE(book.refusal(kAlice, task(1)));
  book.set("other", {.key = "namespace:n", .hard = cores(0)});
  EXPECT_FALSE(book.refusal(kAlice, task(1))) << "another tenant's";
}

TEST(QuotaBook, RunningTasksAreCounted) {
  QuotaBook book;
  QuotaAmounts one = kNoLimits;
  one[static_cast<size_t>(QuotaUnit::kTasks)] = 1;
  book.set("t", {.key = "user:n/alice", .hard = one});
  book.charge(kAlice, task(0), 1);
  EXPECT_EQ(book.refusal(kAlice, task(0)),
            "the quota user:n/alice has 1 of 1 running tasks in use, 1 more are asked for");
  EXPECT_FALSE(book.refusal(kBob, task(0)));
}

// Ten cores for two namespaces, five each of right.
TEST(QuotaBook, WhatIsIdleIsBorrowedAsFarAsItIsLent) {
  QuotaBook book;
  book.set("t", {.key = "global:", .hard = cores(10'000)});
  book.set("t", {.key = "namespace:n", .hard = cores(9'000), .soft = cores(5'000)});
  book.set("t", {.key = "namespace:m", .soft = cores(5'000), .lend = cores(2'000)});
  book.charge(kAlice, task(5'000), 1);
  EXPECT_FALSE(book.refusal(kAlice, task(2'000)));
  EXPECT_EQ(book.refusal(kAlice, task(3'000)), "the quota namespace:n is beyond its 5 CPU, and global: has 2 to lend");
  book.charge(kAlice, task(2'000), 1);
  EXPECT_FALSE(book.refusal(kOther, task(3'000))) << "what is not lent is there at once";
  book.charge(kOther, task(3'000), 1);
  EXPECT_TRUE(book.refusal(kOther, task(1'000))) << "all is in use";
  book.charge(kAlice, task(2'000), -1);
  EXPECT_FALSE(book.refusal(kOther, task(2'000)));
}

TEST(QuotaBook, ACycleEndsTheWay) {
  QuotaBook book;
  book.set("t", {.key = "team:a", .parent = "team:b", .hard = cores(1'000)});
  book.set("t", {.key = "team:b", .parent = "team:a"});
  book.set("t", {.key = "namespace:n", .parent = "team:a"});
  EXPECT_TRUE(book.refusal(kAlice, task(2'000)));
}

TEST(QuotaBook, APartIsKeptForUrgentTasks) {
  QuotaBook book;
  QuotaView view{.key = "namespace:n", .hard = cores(4'000), .reserve_priority = 80};
  view.reserve[0] = 1'000;
  book.set("t", view);
  EXPECT_FALSE(book.refusal(kAlice, task(3'000), 50));
  book.charge(kAlice, task(3'000), 1);
  EXPECT_EQ(book.refusal(kBob, task(1'000), 79),
            "the quota namespace:n has 3 of 4 CPU in use, 1 more are asked for, and 1 are kept for priorities from 80");
  EXPECT_FALSE(book.refusal(kBob, task(1'000), 80));
  EXPECT_TRUE(book.refusal(kBob, task(1'001), 100));
  EXPECT_EQ(book.steps(kBob, task(1'000), 50)[0].refusal.empty(), false);
  EXPECT_EQ(book.steps(kBob, task(1'000), 90)[0].refusal, "");
}

}  // namespace
}  // namespace uccp::tasks
