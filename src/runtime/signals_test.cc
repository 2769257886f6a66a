#include "runtime/signals.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "runtime/loop.h"
#include "runtime/real_clock.h"
#include "runtime/test_support.h"

namespace uccp::runtime {
namespace {

using testing::Watched;

TEST(SignalWatcher, HandsSignalsToItsCallback) {
  Watched<std::vector<int>> seen;
  SignalWatcher watcher({SIGUSR1, SIGUSR2}, nullptr,
                        [&](int number) { seen.change([&](std::vector<int>& all) { all.push_back(number); }); });
  ::kill(::getpid(), SIGUSR1);
  EXPECT_TRUE(seen.wait([](const auto& all) { return all == std::vector<int>{SIGUSR1}; }));
  ::kill(::getpid(), SIGUSR2);
  EXPECT_TRUE(seen.wait([](const auto& all) { return all == std::vector<int>{SIGUSR1, SIGUSR2}; }));
}

TEST(SignalWatcher, RunsTheCallbackOnItsExecutor) {
  const RealClock clock;
  Loop loop(clock);
  bool current = false;
  SignalWatcher watcher({SIGUSR1}, &loop, [&](int) {
    current = loop.is_current();
    loop.close();
  });
  ::kill(::getpid(), SIGUSR1);
  loop.run();
  EXPECT_TRUE(current);
}

TEST(SignalWatcher, DoesNotCallAfterItsEnd) {
  const RealClock clock;
  Loop loop(clock);
  bool called = false;
  {
    Watched<bool> posted;
    SignalWatcher watcher({SIGUSR1}, &loop, [&](int) { called = true; });
    ::kill(::getpid(), SIGUSR1);
    while (loop.queued() == 0) std::this_thread::yield();
  }
  loop.close();
  loop.run();
  EXPECT_FALSE(called);
}

}  // namespace
}  // namespace uccp::runtime
