// The checker itself: each rule is broken once.
#include "sim/checkers/event_checker.h"

#include <gtest/gtest.h>

#include "sim/checkers/subscription_checker.h"

namespace uccp::sim {
namespace {

const EventChecker::Place kPlace{"t", 0};

class EventCheckerTest : public testing::Test {
 protected:
  bool clean() const { return violations_.empty(); }
  Violations violations_;
  EventChecker checker_{violations_};
};

TEST_F(EventCheckerTest, ACleanHistoryIsClean) {
  checker_.acknowledged(kPlace, 0, "a#1", false);
  checker_.acknowledged(kPlace, 0, "a#1", true);
  checker_.acknowledged(kPlace, 1, "a#2", false);
  const size_t stream = checker_.opened({{kPlace, 0}});
  checker_.told(stream, kPlace, 0, "a#1");
  checker_.told(stream, kPlace, 1, "a#2");
  checker_.check_complete(stream);
  checker_.check_order();
  EXPECT_TRUE(clean()) << violations_.found().front();
}

TEST_F(EventCheckerTest, APlaceHoldsOneEvent) {
  checker_.acknowledged(kPlace, 0, "a#1", false);
  checker_.told(checker_.opened({}), kPlace, 0, "b#1");
  EXPECT_FALSE(clean());
}

TEST_F(EventCheckerTest, WhatWasAcknowledgedIsNotLost) {
  checker_.acknowledged(kPlace, 0, "a#1", false);
  checker_.acknowledged(kPlace, 1, "a#2", false);
  const size_t stream = checker_.opened({});
  checker_.told(stream, kPlace, 0, "a#1");
  EXPECT_TRUE(clean());
  checker_.check_complete(stream);
  EXPECT_FALSE(clean());
}

TEST_F(EventCheckerTest, AStreamHasNoGap) {
  const size_t stream = checker_.opened({});
  checker_.told(stream, kPlace, 4, "a#1");
  EXPECT_TRUE(clean()) << "it may begin anywhere";
  checker_.told(stream, kPlace, 6, "a#3");
  EXPECT_FALSE(clean());
}

TEST_F(EventCheckerTest, AStreamThatGoesOnRepeatsNothing) {
  const size_t stream = checker_.opened({{kPlace, 5}});
  checker_.told(stream, kPlace, 4, "a#1");
  EXPECT_FALSE(clean());
}

TEST_F(EventCheckerTest, AnEventIsStoredOnce) {
  const size_t stream = checker_.opened({});
  checker_.told(stream, kPlace, 0, "a#1");
  checker_.told(stream, kPlace, 1, "a#1");
  checker_.check_order();
  EXPECT_FALSE(clean());
}

TEST_F(EventCheckerTest, EventsOfAKeyStayInOrder) {
  const size_t stream = checker_.opened({});
  checker_.told(stream, kPlace, 0, "a#2");
  checker_.told(stream, kPlace, 1, "b#1");
  checker_.told(stream, kPlace, 2, "a#1");
  checker_.check_order();
  EXPECT_FALSE(clean());
}

TEST(SubscriptionCheckerTest, WhatWasConfirmedDoesNotComeAgainToWhoAsksLater) {
  Violations violations;
  SubscriptionChecker checker(violations);
  checker.delivered(kPlace, 0, 10);
  checker.confirmed(kPlace, 0, 20);
  checker.delivered(kPlace, 0, 15);
  checker.delivered(kPlace, 1, 30);
  EXPECT_TRUE(violations.empty()) << "its answer was on the way";
  EXPECT_TRUE(checker.was_delivered(kPlace, 1));
  EXPECT_FALSE(checker.was_delivered(kPlace, 2));
  checker.delivered(kPlace, 0, 25);
  EXPECT_FALSE(violations.empty());
}

}  // namespace
}  // namespace uccp::sim
