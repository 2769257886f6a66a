// Turns of a loop that other threads take.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <functional>
#include <thread>
#include <vector>

#include "runtime/loop.h"
#include "runtime/test_support.h"

namespace uccp::runtime {
namespace {

using testing::Watched;

class LentTurnsTest : public ::testing::TestWithParam<bool> {
 protected:
  ~LentTurnsTest() override { loop.stop(); }
  const RealClock clock;
  Loop loop{clock, {.sockets = GetParam()}};
};
INSTANTIATE_TEST_SUITE_P(Kinds, LentTurnsTest, ::testing::Bool(),
                         [](const auto& kind) { return kind.param ? "Sockets" : "Plain"; });

TEST_P(LentTurnsTest, WhatAThreadHoldsRunsThereWithAllThatFollows) {
  std::vector<int> order;
  std::vector<std::thread::id> where;
  bool current = true;
  const auto note = [&](int number) {
    order.push_back(number);
    where.push_back(std::this_thread::get_id());
    current = current && loop.is_current() && !loop.in_own_thread();
  };
  loop.hold();
  loop.post([&] {
    note(1);
    loop.post([&] { note(3); });
  });
  loop.post([&] { note(2); });
  EXPECT_TRUE(order.empty()) << "nothing runs inside post()";
  EXPECT_FALSE(loop.is_current());
  loop.take();
  EXPECT_FALSE(loop.is_current());
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(where, std::vector<std::thread::id>(3, std::this_thread::get_id()));
  EXPECT_TRUE(current);
}

TEST_P(LentTurnsTest, WithMuchToDoItsOwnThreadWorksAtOnce) {
  loop.start("lends");
  Watched<int> ran;
  loop.hold();
  for (size_t i = 0; i <= Loop::kTasksHeld; ++i) loop.post([&] { ran.change([](int& count) { ++count; }); });
  EXPECT_TRUE(ran.wait([](int count) { return count == static_cast<int>(Loop::kTasksHeld) + 1; }));
  loop.take();
  loop.stop();
}

TEST_P(LentTurnsTest, AnotherThreadsPostDoesNotWaitForTheOneThatHolds) {
  loop.start("lends");
  Watched<int> ran;
  loop.hold();
  loop.post([&] { ran.change([](int& count) { ++count; }); });
  std::thread([&] { loop.post([&] { ran.change([](int& count) { ++count; }); }); }).join();
  EXPECT_TRUE(ran.wait([](int count) { return count == 2; }));
  loop.take();
  loop.stop();
}

TEST_P(LentTurnsTest, ALoopThatIsAtWorkKeepsItsTurns) {
  loop.start("lends");
  Watched<int> stage;
  loop.post([&] {
    stage.change([](int& value) { value = 1; });
    EXPECT_TRUE(stage.wait([](int value) { return value == 2; }));
  });
  ASSERT_TRUE(stage.wait([](int value) { return value == 1; }));
  Watched<std::thread::id> where;
  loop.hold();
  loop.post([&] { where.change([](std::thread::id& id) { id = std::this_thread::get_id(); }); });
  loop.take();
  EXPECT_EQ(where.get(), std::thread::id()) << "it would have run beside the other one";
  stage.change([](int& value) { value = 2; });
  ASSERT_TRUE(where.wait([](std::thread::id id) { return id != std::thread::id(); }));
  EXPECT_NE(where.get(), std::this_thread::get_id());
  loop.stop();
}

TEST_P(LentTurnsTest, ATimerThatIsSetInALentTurnFires) {
  loop.start("lends");
  Watched<bool> fired;
  loop.hold();
  loop.post([&] { loop.post_after(1, [&] { fired.change([](bool& value) { value = true; }); }); });
  loop.take();
  EXPECT_TRUE(fired.wait([](bool value) { return value; }));
  loop.stop();
}

TEST_P(LentTurnsTest, WhatIsLeftBehindTheBoundIsForTheLoop) {
  loop.start("lends");
  Watched<int> turns;
  std::function<void()> again = [&] {
    turns.change([](int& count) { ++count; });
    if (turns.get() < 10 * Loop::kTurnsLent) loop.post(again);
  };
  loop.hold();
  loop.post(again);
  loop.take();
  EXPECT_TRUE(turns.wait([](int count) { return count == 10 * Loop::kTurnsLent; }));
  loop.stop();
}

TEST_P(LentTurnsTest, WhatWasAcceptedRunsThoughTheLoopIsClosedMeanwhile) {
  loop.start("lends");
  Watched<int> stage;
  std::atomic<int> ran{0};
  std::thread other([&] {
    loop.hold();
    loop.post([&] {
      loop.post([&] { ++ran; });
      stage.change([](int& value) { value = 1; });
      EXPECT_TRUE(stage.wait([](int value) { return value == 2; }));
      ++ran;
    });
    loop.take();
  });
  ASSERT_TRUE(stage.wait([](int value) { return value == 1; }));
  loop.close();
  stage.change([](int& value) { value = 2; });
  loop.stop();
  EXPECT_EQ(ran, 2) << "stop() waits for a turn that is lent";
  other.join();
}

TEST_P(LentTurnsTest, TasksRunOneAtATimeAndInOrderWhoeverRunsThem) {
  loop.start("lends");
  constexpr int kThreads = 3, kTasks = 3'000;
  std::vector<std::vector<int>> seen(kThreads);  // without a lock: the sanitizer of threads would tell
  int64_t sum = 0;
  std::vector<std::thread> posters;
  for (int thread = 0; thread < kThreads; ++thread) {
    posters.emplace_back([&, thread] {
      for (int i = 0; i < kTasks; ++i) {
        const bool lends = thread > 0;
        if (lends) loop.hold();
        loop.post([&, thread, i] {
          sum += i;
          seen[static_cast<size_t>(thread)].push_back(i);
        });
        if (lends) loop.take();
      }
    });
  }
  for (std::thread& poster : posters) poster.join();
  loop.stop();
  EXPECT_EQ(sum, int64_t{kThreads} * kTasks * (kTasks - 1) / 2);
  for (const std::vector<int>& order : seen) {
    EXPECT_EQ(order.size(), static_cast<size_t>(kTasks));
    EXPECT_TRUE(std::ranges::is_sorted(order));
  }
}

TEST(LentTurns, HandlersOfSocketsTakeTheirTurnBesideLentOnes) {
  const RealClock clock;
  Loop loop(clock, {.sockets = true});
  loop.start("lends");
  constexpr int kTasks = 3'000;
  int64_t count = 0;  // without a lock
  Watched<int> handled;
  std::thread poster([&] {
    for (int i = 0; i < kTasks; ++i) {
      loop.hold();
      loop.post([&] { ++count; });
      loop.take();
    }
  });
  for (int i = 0; i < kTasks; ++i) {
    boost::asio::post(loop.io(), [&] {
      EXPECT_TRUE(loop.in_own_thread());
      {
        const Loop::Turn turn(loop);
        const Loop::Turn nested(loop);
        ++count;
      }
      handled.change([](int& value) { ++value; });
    });
  }
  poster.join();
  EXPECT_TRUE(handled.wait([](int value) { return value == kTasks; }));
  loop.stop();
  EXPECT_EQ(count, 2 * kTasks);
}

}  // namespace
}  // namespace uccp::runtime
