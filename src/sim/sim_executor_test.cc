#include "sim/sim_executor.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace uccp::sim {
namespace {

TEST(SimScheduler, EventsOfOneMomentRunInTheOrderOfScheduling) {
  SimScheduler scheduler;
  std::string order;
  scheduler.schedule_at(20, [&] { order += 'c'; });
  scheduler.schedule_at(10, [&] { order += 'a'; });
  scheduler.schedule_at(10, [&] { order += 'b'; });
  EXPECT_TRUE(scheduler.run_until_idle());
  EXPECT_EQ(order, "abc");
  EXPECT_EQ(scheduler.now_us(), 20);
}

TEST(SimScheduler, RunUntilLeavesLaterEventsAndAdvancesTime) {
  SimScheduler scheduler;
  int ran = 0;
  scheduler.schedule_at(5'000, [&] { ++ran; });
  scheduler.schedule_at(7'001, [&] { ++ran; });
  scheduler.run_until(7'000);
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(scheduler.now_us(), 7'000);
  EXPECT_EQ(scheduler.pending(), 1u);
}

TEST(SimScheduler, RunUntilAConditionStopsAtItOrAtTheLimit) {
  SimScheduler scheduler;
  int ran = 0;
  for (int i = 1; i <= 5; ++i) scheduler.schedule_at(i * 10, [&] { ++ran; });
  EXPECT_TRUE(scheduler.run_until([&] { return ran == 2; }, 1000));
  EXPECT_EQ(scheduler.now_us(), 20);
  EXPECT_FALSE(scheduler.run_until([&] { return ran == 9; }, 45));
  EXPECT_EQ(scheduler.now_us(), 45);
}

TEST(SimScheduler, TheSameRunHasTheSameTraceHash) {
  const auto run = [](int64_t delay) {
    SimScheduler scheduler;
    scheduler.schedule_after(delay, [&] { scheduler.schedule_after(3, [] {}); });
    scheduler.run_until_idle();
    return scheduler.trace_hash();
  };
  EXPECT_EQ(run(5), run(5));
  EXPECT_NE(run(5), run(6));
}

TEST(SimScheduler, ARunThatNeverEndsIsCutByItsLimit) {
  SimScheduler scheduler;
  std::function<void()> again = [&] { scheduler.schedule_after(1, again); };
  again();
  EXPECT_FALSE(scheduler.run_until_idle(100));
}

TEST(SimExecutor, PostNeverRunsATaskBeforeReturning) {
  SimScheduler scheduler;
  SimExecutor executor(scheduler);
  bool ran = false;
  executor.post([&] {
    ran = true;
    EXPECT_TRUE(executor.is_current());
  });
  EXPECT_FALSE(ran);
  scheduler.run_until_idle();
  EXPECT_TRUE(ran);
  EXPECT_FALSE(executor.is_current());
}

TEST(SimExecutor, ACancelledTimerNeverRuns) {
  SimScheduler scheduler;
  SimExecutor executor(scheduler);
  bool ran = false;
  const auto timer = executor.post_after(10, [&] { ran = true; });
  executor.cancel(timer);
  executor.cancel(timer);
  executor.cancel(0);
  scheduler.run_until_idle();
  EXPECT_FALSE(ran);
  EXPECT_EQ(executor.pending(), 0u);
}

TEST(SimExecutor, JitterKeepsTheOrderOfTasks) {
  SimScheduler scheduler;
  SeededRandom random(7);
  SimExecutor executor(scheduler, {.delay_us = 5, .jitter_us = 1000, .random = &random});
  std::vector<int> order;
  for (int i = 0; i < 100; ++i) executor.post([&order, i] { order.push_back(i); });
  scheduler.run_until_idle();
  EXPECT_EQ(order.size(), 100u);
  EXPECT_TRUE(std::ranges::is_sorted(order));
}

TEST(SimExecutor, APausedExecutorRunsEverythingInOrderAfterResume) {
  SimScheduler scheduler;
  SimExecutor executor(scheduler);
  std::string order;
  executor.post([&] { order += 'a'; });
  executor.post_after(2, [&] { order += 'b'; });
  executor.pause();
  scheduler.run_for_ms(10);
  EXPECT_EQ(order, "");
  executor.post([&] { order += 'c'; });
  executor.resume();
  executor.post([&] { order += 'd'; });
  scheduler.run_until_idle();
  EXPECT_EQ(order, "abcd");
}

TEST(SimExecutor, ACancelDuringAPauseHolds) {
  SimScheduler scheduler;
  SimExecutor executor(scheduler);
  bool ran = false;
  const auto timer = executor.post_after(1, [&] { ran = true; });
  executor.pause();
  scheduler.run_for_ms(5);
  executor.cancel(timer);
  executor.resume();
  scheduler.run_until_idle();
  EXPECT_FALSE(ran);
}

TEST(SimExecutor, AStoppedExecutorDropsWhatIsQueuedAndWhatComes) {
  SimScheduler scheduler;
  bool ran = false;
  {
    SimExecutor executor(scheduler);
    executor.post([&] { ran = true; });
    executor.stop();
    executor.post([&] { ran = true; });
    EXPECT_EQ(executor.post_after(1, [&] { ran = true; }), 0u);
  }
  scheduler.run_until_idle();
  EXPECT_FALSE(ran);
}

TEST(SimExecutor, DelaysAreMeasuredOnTheDriftingClock) {
  SimScheduler scheduler;
  SimClock clock(scheduler.time());
  clock.set_drift_ppm(-500'000);
  SimExecutor executor(scheduler, {.clock = &clock});
  const BootTime before = clock.boot();
  BootTime fired;
  executor.post_after(100, [&] { fired = clock.boot(); });
  scheduler.run_until_idle();
  EXPECT_EQ(scheduler.now_us(), 200'000);
  EXPECT_EQ(fired.ms_since(before), 100);
}

TEST(SimClock, StepsOfTheWallClockLeaveTheBootClockAlone) {
  VirtualTime time;
  SimClock clock(time, {1'000}, {50'000});
  time.us += 500;
  clock.set_wall({10});
  EXPECT_EQ(clock.wall().us, 10);
  EXPECT_EQ(clock.boot().us, 1'500);
  time.us += 500;
  EXPECT_EQ(clock.wall().us, 510);
  EXPECT_EQ(clock.boot().us, 2'000);
}

TEST(SimClock, SettingTheBootClockLeavesTheWallClockAlone) {
  VirtualTime time;
  SimClock clock(time, {1'000}, {50'000});
  clock.set_boot({9'000});
  EXPECT_EQ(clock.boot().us, 9'000);
  EXPECT_EQ(clock.wall().us, 50'000);
}

TEST(SimClock, DriftAppliesFromTheMomentItIsSet) {
  VirtualTime time;
  SimClock clock(time, {0}, {0});
  time.us = 1'000'000;
  clock.set_drift_ppm(100);
  EXPECT_EQ(clock.boot().us, 1'000'000);
  time.us = 2'000'000;
  EXPECT_EQ(clock.boot().us, 2'000'100);
  EXPECT_EQ(clock.wall().us, 2'000'100);
}

}  // namespace
}  // namespace uccp::sim
