#include "call/request_quotas.h"

#include <gtest/gtest.h>

namespace uccp::call {
namespace {

constexpr int64_t kNoonUs = int64_t{1'798'718'400} * 1'000'000;  // 2026-12-31 12:00 UTC

class Requests : public ::testing::Test {
 protected:
  // "" or the message of the refusal.
  std::string ask(const std::string& name_space = "n", const std::string& user = "alice",
                  const std::string& tenant = "t") {
    const Status status =
        quotas_.admit({.tenant = tenant, .name_space = name_space, .user = user, .now = now_, .wall = {kNoonUs}});
    last_ = status;
    return status.is_ok() ? "" : std::string(status.message());
  }
  // How many calls are taken at once.
  int burst(int most = 1'000) {
    int taken = 0;
    while (taken < most && ask().empty()) ++taken;
    return taken;
  }
  void pass(int64_t ms) { now_ = now_.plus_ms(ms); }

  RequestQuotas quotas_;
  BootTime now_{1'000'000};
  Status last_;
};

TEST_F(Requests, WithoutAQuotaNothingIsLimited) {
  EXPECT_FALSE(quotas_.any());
  EXPECT_EQ(burst(100), 100);
  quotas_.set_limits({{.key = {"t", "namespace:n"}}});
  EXPECT_FALSE(quotas_.any()) << "it limits other things";
}

TEST_F(Requests, SoManyASecondAndNoMoreAtOnce) {
  quotas_.set_limits({{.key = {"t", "namespace:n"}, .per_second = 10}});
  EXPECT_EQ(burst(), 10);
  EXPECT_EQ(last_.reason(), "QUOTA_REQUESTS_EXHAUSTED");
  EXPECT_EQ(last_.code(), Code::kExhausted);
  EXPECT_EQ(last_.detail().retry_after_ms, 100u);
  EXPECT_EQ(ask(), "the quota namespace:n allows 10 calls a second; slow down");
  EXPECT_EQ(ask("other"), "");
  EXPECT_EQ(ask("n", "alice", "another tenant"), "");
  pass(500);
  EXPECT_EQ(burst(), 5);
  pass(60'000);
  EXPECT_EQ(burst(), 10);
}

TEST_F(Requests, LessThanOneASecondAndNoneAtAll) {
  quotas_.set_limits({{.key = {"t", "namespace:n"}, .per_second = 0.5}});
  EXPECT_EQ(burst(), 1);
  pass(1'000);
  EXPECT_EQ(burst(), 0);
  pass(1'000);
  EXPECT_EQ(burst(), 1);
  quotas_.set_limits({{.key = {"t", "namespace:n"}, .per_second = 0}});
  pass(60'000);
  EXPECT_EQ(burst(), 0);
}

TEST_F(Requests, TheDayCountsWhatOtherNodesHaveWritten) {
  quotas_.set_limits({{.key = {"t", "namespace:n"}, .per_day = 10}});
  quotas_.set_known({{.key = {"t", "namespace:n"}, .calls_of_day = 6}}, {});
  EXPECT_EQ(burst(), 4);
  EXPECT_EQ(ask(),
            "the quota namespace:n has used 10 of 10 calls of this day; the next one begins in 43200 s, at "
            "midnight UTC");
  EXPECT_EQ(last_.detail().retry_after_ms, 60'000u);
  const auto counts = quotas_.take_counts();
  ASSERT_EQ(counts.size(), 1u);
  EXPECT_EQ(counts[0].calls, 4u);
  EXPECT_TRUE(quotas_.take_counts().empty()) << "taken once";
  // They are in the state now, and not counted twice.
  quotas_.set_known({{.key = {"t", "namespace:n"}, .calls_of_day = 10}}, counts);
  EXPECT_EQ(burst(), 0);
  quotas_.set_known({{.key = {"t", "namespace:n"}, .calls_of_day = 0}}, {});
  EXPECT_EQ(burst(), 10) << "a new day";
}

TEST_F(Requests, WhatWasNotWrittenIsTakenAgain) {
  quotas_.set_limits({{.key = {"t", "namespace:n"}, .per_day = 10}});
  EXPECT_EQ(burst(3), 3);
  quotas_.give_back(quotas_.take_counts());
  EXPECT_EQ(burst(2), 2);
  const auto counts = quotas_.take_counts();
  ASSERT_EQ(counts.size(), 1u);
  EXPECT_EQ(counts[0].calls, 5u);
}

TEST_F(Requests, EachOnTheWayHasToHaveRoomAndNoneIsChargedForARefusal) {
  quotas_.set_limits({{.key = {"t", "global:"}, .per_day = 5},
                      {.key = {"t", "team:search"}, .parent = "global:", .per_day = 4},
                      {.key = {"t", "namespace:n"}, .parent = "team:search"},
                      {.key = {"t", "user:n/alice"}, .parent = "namespace:n", .per_day = 3}});
  EXPECT_EQ(burst(), 3);
  EXPECT_NE(ask().find("the quota user:n/alice"), std::string::npos);
  EXPECT_EQ(ask("n", "bob"), "");
  EXPECT_NE(ask("n", "bob").find("the quota team:search"), std::string::npos) << "4 of the namespace's calls";
  EXPECT_EQ(ask("other", "bob"), "");
  EXPECT_NE(ask("other", "bob").find("the quota global:"), std::string::npos);
  EXPECT_EQ(quotas_.limited().size(), 3u);
}

TEST_F(Requests, OfARateEachNodeTakesWhatTheOthersLeave) {
  quotas_.set_limits({{.key = {"t", "namespace:n"}, .per_second = 30}});
  const auto known = [&](double others_per_second, size_t others) {
    quotas_.set_known({{.key = {"t", "namespace:n"}, .others_per_second = others_per_second, .others = others}}, {});
    pass(60'000);
    return burst();
  };
  EXPECT_EQ(known(0, 0), 30);
  EXPECT_EQ(known(5, 1), 25) << "one takes few";
  EXPECT_EQ(known(30, 1), 15) << "one takes all: half is due to this one";
  EXPECT_EQ(known(60, 2), 10);
}

TEST_F(Requests, WhatWasCountedStaysWhenALimitChanges) {
  quotas_.set_limits({{.key = {"t", "namespace:n"}, .per_day = 4}});
  EXPECT_EQ(burst(), 4);
  quotas_.set_limits({{.key = {"t", "namespace:n"}, .per_day = 6}});
  EXPECT_EQ(burst(), 2);
  quotas_.set_limits({});
  EXPECT_FALSE(quotas_.any());
}

}  // namespace
}  // namespace uccp::call
