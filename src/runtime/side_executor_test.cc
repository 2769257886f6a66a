#include "runtime/side_executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <vector>

#include "runtime/real_clock.h"

namespace uccp::runtime {
namespace {

class SideExecutorTest : public ::testing::Test {
 protected:
  struct SteppedClock final : Clock {
    BootTime boot() const override { return {us.load()}; }
    WallTime wall() const override { return {0}; }
    std::atomic<int64_t> us{1'000'000};
  };

  void SetUp() override {
    loop.start("loop");
    thread.start("thread");
  }
  void TearDown() override {
    loop.stop();
    thread.stop();
  }
  // Runs `work` in a turn of the loop of its own, after all that was posted before.
  void on_loop(std::move_only_function<void()> work) {
    auto done = std::make_shared<std::promise<void>>();
    loop.post([&work, done] {
      work();
      done->set_value();
    });
    done->get_future().wait();
  }
  enum class Where { kLoop, kThread };
  // Posts a task from the loop and tells where it ran.
  Where run_one(int64_t takes_us = 0) {
    auto where = std::make_shared<std::promise<Where>>();
    on_loop([&] {
      side.post([=, this] {
        clock.us += takes_us;
        EXPECT_TRUE(side.is_current());
        where->set_value(loop.is_current() ? Where::kLoop : Where::kThread);
      });
    });
    const Where ran = where->get_future().get();
    settle();
    return ran;
  }
  // Both are through with what was posted.
  void settle() {
    auto done = std::make_shared<std::promise<void>>();
    thread.post([=] { done->set_value(); });
    done->get_future().wait();
    on_loop([] {});
  }
  void warm_up() {
    for (int i = 0; i < SideExecutor::kShortTasksMin; ++i) EXPECT_EQ(run_one(), Where::kThread) << i;
  }

  SteppedClock clock;
  RealClock real;
  Loop loop{real};
  Loop thread{real};
  SideExecutor side{loop, thread, clock};
};

TEST_F(SideExecutorTest, ShortWorkIsDoneByALoopThatHasNothingElse) {
  warm_up();
  EXPECT_EQ(run_one(), Where::kLoop);
  EXPECT_EQ(run_one(), Where::kLoop);
}

TEST_F(SideExecutorTest, AfterALongTaskTheThreadWorksUntilManyWereShort) {
  warm_up();
  EXPECT_EQ(run_one(SideExecutor::kShortUs + 1), Where::kLoop) << "nobody knew";
  warm_up();
  EXPECT_EQ(run_one(SideExecutor::kShortUs), Where::kLoop);
  EXPECT_EQ(run_one(), Where::kLoop);
}

TEST_F(SideExecutorTest, WhatTheTurnHadToSayGoesFirst) {
  warm_up();
  auto order = std::make_shared<std::vector<int>>();
  auto done = std::make_shared<std::promise<Where>>();
  on_loop([&] {
    loop.post([=] { order->push_back(1); });
    side.post([=, this] {
      order->push_back(2);
      done->set_value(loop.is_current() ? Where::kLoop : Where::kThread);
    });
  });
  EXPECT_EQ(done->get_future().get(), Where::kLoop);
  EXPECT_EQ(*order, (std::vector<int>{1, 2}));
}

TEST_F(SideExecutorTest, ALoopThatHasMoreToDoLeavesItToTheThread) {
  warm_up();
  auto on_thread = std::make_shared<std::promise<bool>>();
  auto ran = std::make_shared<std::future<bool>>(on_thread->get_future());
  on_loop([&] {
    side.post([=, this] { on_thread->set_value(!loop.is_current()); });
    // Occupies the loop until the work is done, which therefore has to be done elsewhere.
    loop.post([=] { ran->wait(); });
  });
  on_loop([] {});
  EXPECT_TRUE(ran->get());
}

TEST_F(SideExecutorTest, WorkOfOtherThreadsIsNotForTheLoop) {
  warm_up();
  auto on_loop_thread = std::make_shared<std::promise<bool>>();
  side.post([=, this] { on_loop_thread->set_value(loop.is_current()); });
  EXPECT_FALSE(on_loop_thread->get_future().get());
}

TEST_F(SideExecutorTest, OneAtATimeAndInOrderWhoeverDoesIt) {
  warm_up();
  constexpr int kTasks = 5'000;
  std::vector<int> order;  // without a lock: the sanitizer of threads would tell
  std::atomic<int> ran{0};
  std::atomic<int> running{0};
  for (int i = 0; i < kTasks; ++i) {
    loop.post([&, i] {
      side.post([&, i] {
        EXPECT_EQ(running.fetch_add(1), 0);
        order.push_back(i);
        if (i % 500 == 0) clock.us += 2 * SideExecutor::kShortUs;
        running.fetch_sub(1);
        ran.fetch_add(1);
      });
    });
    if (i % 7 == 0) on_loop([] {});
  }
  while (ran.load() < kTasks) settle();
  EXPECT_TRUE(std::ranges::is_sorted(order));
}

TEST_F(SideExecutorTest, ATimerPostsWhenItIsDue) {
  auto fired = std::make_shared<std::promise<bool>>();
  const auto cancelled = side.post_after(60'000, [=] { fired->set_value(false); });
  side.cancel(cancelled);
  side.post_after(1, [=, this] { fired->set_value(side.is_current()); });
  EXPECT_TRUE(fired->get_future().get());
}

}  // namespace
}  // namespace uccp::runtime
