#include "runtime/loop.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>

#include "runtime/os_random.h"
#include "runtime/test_support.h"
#include "runtime/thread_pool.h"

namespace uccp::runtime {
namespace {

using testing::Watched;

const RealClock real_clock;

struct SteppedClock final : Clock {
  BootTime boot() const override { return {us.load()}; }
  WallTime wall() const override { return {0}; }
  std::atomic<int64_t> us{1'000'000};
};

TEST(RealClock, BootTimeNeverGoesBack) {
  BootTime before = real_clock.boot();
  for (int i = 0; i < 1000; ++i) {
    const BootTime now = real_clock.boot();
    ASSERT_LE(before, now);
    before = now;
  }
  EXPECT_GT(real_clock.wall().us, int64_t{1'600'000'000} * 1'000'000);
}

TEST(SystemRandom, GivesDifferentBytesEachTime) {
  EXPECT_NE(random_bytes(32), random_bytes(32));
  EXPECT_EQ(random_bytes(300).size(), 300u);
  SystemRandom random;
  EXPECT_NE(random.next(), random.next());
}

// With and without sockets.
class LoopTest : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Kinds, LoopTest, ::testing::Bool(),
                         [](const auto& kind) { return kind.param ? "Sockets" : "Plain"; });

TEST_P(LoopTest, RunsTasksOfOnePosterInOrderOnItsOwnThread) {
  Loop loop(real_clock, {.sockets = GetParam()});
  loop.start("test");
  std::vector<int> order;
  bool always_current = true;
  for (int i = 0; i < 1000; ++i) {
    loop.post([&, i] {
      always_current = always_current && loop.is_current();
      order.push_back(i);
    });
  }
  EXPECT_FALSE(loop.is_current());
  loop.stop();
  ASSERT_EQ(order.size(), 1000u);
  EXPECT_TRUE(std::ranges::is_sorted(order));
  EXPECT_TRUE(always_current);
}

TEST_P(LoopTest, NeverRunsATaskInsidePost) {
  Loop loop(real_clock, {.sockets = GetParam()});
  std::vector<int> order;
  loop.post([&] {
    loop.post([&] { order.push_back(2); });
    order.push_back(1);
    loop.post([&] { loop.close(); });
  });
  loop.run();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST_P(LoopTest, RunsWhatWasAcceptedBeforeCloseAndRefusesTheRest) {
  Loop loop(real_clock, {.sockets = GetParam()});
  int ran = 0;
  auto captured = std::make_shared<int>(0);
  for (int i = 0; i < 10; ++i) loop.post([&] { ++ran; });
  loop.close();
  loop.post([&ran, captured] { ++ran; });
  EXPECT_EQ(captured.use_count(), 1) << "a refused task is destroyed at once";
  EXPECT_EQ(loop.post_after(0, [&] { ++ran; }), 0u);
  loop.run();
  EXPECT_EQ(ran, 10);
}

TEST_P(LoopTest, FiresTimersInOrderOfTheirTimes) {
  Loop loop(real_clock, {.sockets = GetParam()});
  std::vector<int> order;
  loop.post_after(20, [&] {
    order.push_back(3);
    loop.close();
  });
  loop.post_after(10, [&] { order.push_back(2); });
  loop.post_after(0, [&] { order.push_back(1); });
  loop.run();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST_P(LoopTest, ATimerDoesNotFireBeforeItsTime) {
  Loop loop(real_clock, {.sockets = GetParam()});
  const BootTime begin = real_clock.boot();
  BootTime fired;
  loop.post_after(15, [&] {
    fired = real_clock.boot();
    loop.close();
  });
  loop.run();
  EXPECT_GE(fired.us - begin.us, 15'000);
}

TEST_P(LoopTest, ACancelledTimerDoesNotRunEvenIfItIsDueInTheSameTurn) {
  SteppedClock clock;
  Loop loop(clock, {.sockets = GetParam()});
  bool ran = false;
  Executor::TimerId second = 0;
  loop.post_after(1, [&] { loop.cancel(second); });
  second = loop.post_after(2, [&] { ran = true; });
  loop.post([&] { clock.us += 10'000; });
  loop.post_after(3, [&] { loop.close(); });
  loop.run();
  EXPECT_FALSE(ran);
  loop.cancel(second);
  loop.cancel(12345);
}

TEST_P(LoopTest, DropsTimersThatAreNotDueAtClose) {
  Loop loop(real_clock, {.sockets = GetParam()});
  auto captured = std::make_shared<int>(0);
  loop.post_after(3600'000, [captured] {});
  loop.start("test");
  loop.stop();
  EXPECT_EQ(captured.use_count(), 1);
}

TEST_P(LoopTest, ATimerWakesASleepingLoopThatWaitsForALaterOne) {
  Loop loop(real_clock, {.sockets = GetParam()});
  loop.start("test");
  loop.post_after(3600'000, [] {});
  Watched<bool> fired;
  loop.post_after(1, [&] { fired.change([](bool& value) { value = true; }); });
  EXPECT_TRUE(fired.wait([](bool value) { return value; }));
  loop.stop();
}

TEST_P(LoopTest, ReportsATaskThatTookTooLong) {
  SteppedClock clock;
  std::vector<int64_t> stalls;
  Loop loop(clock,
            {.stall_ms = 500, .on_stall = [&](int64_t task_ms) { stalls.push_back(task_ms); }, .sockets = GetParam()});
  loop.post([&] { clock.us += 500'000; });
  loop.post([&] { clock.us += 700'000; });
  loop.close();
  loop.run();
  EXPECT_EQ(stalls, (std::vector<int64_t>{700}));
  EXPECT_EQ(loop.stalls(), 1u);
}

TEST_P(LoopTest, TakesTasksFromManyThreads) {
  Loop loop(real_clock, {.sockets = GetParam()});
  loop.start("test");
  int ran = 0;
  std::vector<std::thread> posters;
  for (int i = 0; i < 4; ++i) {
    posters.emplace_back([&] {
      for (int k = 0; k < 10'000; ++k) loop.post([&] { ++ran; });
    });
  }
  for (std::thread& poster : posters) poster.join();
  loop.stop();
  EXPECT_EQ(ran, 40'000);
  EXPECT_EQ(loop.queued(), 0u);
}

TEST(ThreadPool, RunsAcceptedTasksBeforeItStops) {
  std::atomic<int> ran{0};
  ThreadPool pool({.name = "test", .threads = 3});
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(pool.post([&] { ++ran; }).is_ok());
  pool.stop();
  EXPECT_EQ(ran, 1000);
  EXPECT_EQ(pool.post([] {}).reason(), "POOL_STOPPED");
}

TEST(ThreadPool, RefusesMoreThanItsQueueHolds) {
  Watched<int> state;  // 1: the thread is busy, 2: it may go on
  ThreadPool pool({.name = "test", .threads = 1, .queue_tasks_max = 2});
  ASSERT_TRUE(pool.post([&] {
                    state.change([](int& value) { value = 1; });
                    state.wait([](int value) { return value == 2; });
                  })
                  .is_ok());
  ASSERT_TRUE(state.wait([](int value) { return value == 1; }));
  EXPECT_TRUE(pool.post([] {}).is_ok());
  EXPECT_TRUE(pool.post([] {}).is_ok());
  const Status full = pool.post([] {});
  EXPECT_EQ(full.code(), Code::kExhausted);
  EXPECT_EQ(full.reason(), "POOL_QUEUE_FULL");
  state.change([](int& value) { value = 2; });
}

}  // namespace
}  // namespace uccp::runtime
