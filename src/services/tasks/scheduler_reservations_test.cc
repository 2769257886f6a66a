// Room that is kept for gangs: for several at a time, used by others until then, and there when it was said to be.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/random.h"
#include "services/tasks/scheduler.h"

namespace uccp::tasks {
namespace {

constexpr int64_t kStarvedMs = 30'000;

class Reservations : public ::testing::Test {
 protected:
  void start(const SchedulerOptions& options, size_t workers, int64_t cores) {
    scheduler_ = std::make_unique<Scheduler>(options);
    for (size_t i = 0; i < workers; ++i)
      scheduler_->set_worker({.id = "w" + std::to_string(i), .capacity = {cores * 1'000}, .slots = 100});
  }
  TaskRef add(const std::string& id, int64_t cores, int64_t duration_ms, const std::string& gang = "",
              size_t size = 0) {
    QueuedTask task{.ref = {"t", "n", id}, .gang = gang, .gang_size = size};
    task.demand.shape.cpu_milli = cores * 1'000;
    task.demand.duration_ms = duration_ms;
    task.order = ++next_;
    scheduler_->add_task(task);
    return task.ref;
  }
  void add_gang(const std::string& gang, size_t size, int64_t cores, int64_t duration_ms) {
    for (size_t i = 0; i < size; ++i) add(gang + std::to_string(i), cores, duration_ms, gang, size);
  }
  std::vector<std::string> place(int64_t now_ms) {
    std::vector<std::string> ids;
    for (const Assignment& one : scheduler_->assign(now_ms, 1'000)) ids.push_back(one.task.id);
    std::ranges::sort(ids);
    return ids;
  }
  void end(const std::string& id) { scheduler_->release({"t", "n", id}); }
  std::string why(const std::string& id) { return scheduler_->explain({"t", "n", id})->summary; }

  std::unique_ptr<Scheduler> scheduler_;
  uint64_t next_ = 0;
};

using Ids = std::vector<std::string>;

TEST_F(Reservations, SeveralGangsHaveRoomKeptButNoMoreThanAllowed) {
  start({.gang_reservations_max = 2}, 4, 2);
  for (const char* id : {"a", "b", "c", "d"}) add(id, 2, 100'000);
  EXPECT_EQ(place(1'000).size(), 4u);
  for (const char* gang : {"x", "y", "z"}) add_gang(gang, 2, 2, 50'000);
  place(1'000);
  EXPECT_EQ(scheduler_->gangs_reserved(), 0u);
  place(1'000 + kStarvedMs);
  EXPECT_EQ(scheduler_->gangs_reserved(), 2u);
  EXPECT_EQ(
      why("x0"),
      "waits until there is room for all 2 tasks of its gang at once; room for all of it is kept on 2 workers, in "
      "70 s at the latest");
  EXPECT_EQ(why("z0"), "waits until there is room for all 2 tasks of its gang at once");
  // One worker of each pair is free: what would still run then goes there only if nobody waits for it.
  end("a");
  add("long", 2, 80'000);
  EXPECT_EQ(place(32'000), Ids{});
  add("short", 2, 60'000);
  EXPECT_EQ(place(33'000), Ids{"short"});
  for (const char* id : {"b", "c", "d", "short"}) end(id);
  EXPECT_EQ(place(40'000), (Ids{"x0", "x1", "y0", "y1"})) << "all ended before their time";
}

TEST_F(Reservations, WhatAGangLeavesOfAWorkerMayBeUsedForAnyTime) {
  start({}, 1, 4);
  add("busy", 3, 100'000);
  place(1'000);
  add_gang("g", 2, 1, 50'000);
  place(1'000);
  place(1'000 + kStarvedMs);
  ASSERT_EQ(scheduler_->gangs_reserved(), 1u);
  add("long", 1, 0);
  EXPECT_EQ(place(32'000), Ids{"long"}) << "with it, both of the gang still fit when the other one ends";
  end("busy");
  EXPECT_EQ(place(33'000), (Ids{"g0", "g1"}));
}

TEST_F(Reservations, WhatEndsEarlyBringsThePlanForward) {
  start({}, 2, 2);
  add("a", 2, 100'000);
  add("b", 2, 200'000);
  place(1'000);
  add_gang("g", 2, 2, 50'000);
  place(1'000);
  place(1'000 + kStarvedMs);
  EXPECT_NE(why("g0").find("in 170 s at the latest"), std::string::npos) << why("g0");
  end("b");
  place(41'000);
  EXPECT_NE(why("g0").find("in 60 s at the latest"), std::string::npos) << why("g0");
  add("short", 2, 61'000);
  EXPECT_EQ(place(41'000), Ids{}) << "it would end after the gang can begin";
}

TEST_F(Reservations, AWorkerThatGoesTakesThePlanWithIt) {
  start({}, 3, 2);
  for (const char* id : {"a", "b", "c"}) add(id, 2, 100'000);
  place(1'000);
  add_gang("g", 2, 2, 50'000);
  place(1'000);
  place(1'000 + kStarvedMs);
  ASSERT_EQ(scheduler_->gangs_reserved(), 1u);
  scheduler_->remove_worker("w0");
  EXPECT_EQ(scheduler_->gangs_reserved(), 0u);
  place(33'000);
  EXPECT_EQ(scheduler_->gangs_reserved(), 1u) << "planned anew on those that are left";
}

// The promise: who waits longest begins when it was told to at the latest, whatever comes after it.
TEST_F(Reservations, TheGangThatWaitsLongestBeginsInTime) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SeededRandom random(seed);
    start({}, 8, 4);
    std::map<std::string, int64_t> ends;
    std::map<std::string, int64_t> runs;
    const auto arrive = [&](const std::string& id) {
      const auto limit_ms = static_cast<int64_t>(10'000 + random.below(200'000));
      runs[id] = limit_ms - static_cast<int64_t>(random.below(static_cast<uint64_t>(limit_ms)));
      add(id, static_cast<int64_t>(1 + random.below(4)), limit_ms);
    };
    const auto step = [&](int64_t now_ms) {
      for (auto it = ends.begin(); it != ends.end();) {
        if (it->second > now_ms) {
          ++it;
          continue;
        }
        end(it->first);
        it = ends.erase(it);
      }
      for (const std::string& id : place(now_ms)) ends[id] = now_ms + runs[id];
    };
    for (int i = 0; i < 30; ++i) arrive("first" + std::to_string(i));
    step(1'000);
    add_gang("g", 6, 4, 50'000);
    int64_t promised_ms = -1, now_ms = 2'000;
    for (; scheduler_->is_queued({"t", "n", "g0"}) && now_ms < 2'000'000; now_ms += 1'000) {
      if (random.chance(0.7)) arrive("later" + std::to_string(now_ms));
      step(now_ms);
      if (promised_ms >= 0 || scheduler_->gangs_reserved() == 0) continue;
      const std::string told = why("g0");
      const size_t at = told.find(", in ");
      promised_ms = now_ms + (at == std::string::npos ? 0 : std::stoll(told.substr(at + 5)) * 1'000);
    }
    ASSERT_GE(promised_ms, 0) << "seed " << seed;
    // Rounds are a second apart, and so are plans.
    EXPECT_LE(now_ms, promised_ms + 3'000) << "seed " << seed;
  }
}

// --- gangs that are being stopped

class StoppedGangs : public Reservations {
 protected:
  void occupy(const std::string& worker, const std::string& id) {
    QueuedTask task{.ref = {"t", "n", id}, .priority = 20, .preemptible = true, .gang = "g", .gang_size = 2};
    task.demand.shape.cpu_milli = 2'000;
    scheduler_->occupy(worker, task);
  }
  void add_again(const std::string& id) {
    QueuedTask task{.ref = {"t", "n", id}, .priority = 20, .gang = "g", .gang_size = 2, .gang_again = true};
    task.demand.shape.cpu_milli = 2'000;
    task.order = ++next_;
    scheduler_->add_task(task);
  }
};

TEST_F(StoppedGangs, OneThatTheLeaderBeforeStoppedDoesNotGoOnInPart) {
  start({}, 3, 2);
  occupy("w0", "a");
  scheduler_->set_leaving({"t", "n", "a"});
  add_again("b");
  EXPECT_EQ(place(1'000), Ids{}) << "the other half is still to stop";
  end("a");
  add_again("a");
  EXPECT_EQ(place(2'000), (Ids{"a", "b"}));
}

TEST_F(StoppedGangs, WhatWaitedToJoinItStartsWithItInstead) {
  start({}, 1, 2);
  occupy("w0", "a");
  QueuedTask joiner{.ref = {"t", "n", "c"}, .priority = 20, .gang = "g", .gang_size = 2};
  joiner.demand.shape.cpu_milli = 2'000;
  joiner.order = ++next_;
  scheduler_->add_task(joiner);
  EXPECT_EQ(place(1'000), Ids{});
  scheduler_->set_leaving({"t", "n", "a"});
  scheduler_->set_worker({.id = "w1", .capacity = {4'000}, .slots = 10});
  EXPECT_EQ(place(2'000), Ids{}) << "it does not begin while the gang stops";
  end("a");
  add_again("a");
  EXPECT_EQ(place(3'000), (Ids{"a", "c"}));
}

TEST_F(StoppedGangs, WhatTheOthersEndedWithoutGoesAlone) {
  start({}, 1, 4);
  add_gang("g", 2, 1, 50'000);
  ASSERT_EQ(place(1'000), (Ids{"g0", "g1"}));
  end("g0");  // denied, and to be tried again later
  QueuedTask later{.ref = {"t", "n", "g0"}, .not_before_ms = 5'000, .gang = "g", .gang_size = 2};
  later.demand.shape.cpu_milli = 1'000;
  scheduler_->add_task(later);
  end("g1");
  scheduler_->gang_has_begun({"t", "n", "g1"}, "g");
  EXPECT_EQ(place(2'000), Ids{});
  EXPECT_EQ(place(5'000), Ids{"g0"});
  end("g0");
  later.not_before_ms = 0;
  scheduler_->add_task(later);
  EXPECT_EQ(place(6'000), Ids{}) << "of another gang of that name nothing has begun";
  scheduler_->gang_has_begun({"t", "n", "g1"}, "g");
  EXPECT_EQ(place(7'000), Ids{"g0"});
}

TEST_F(StoppedGangs, NothingIsStoppedBeforeAllIsKnownOfWhatRuns) {
  start({}, 1, 2);
  occupy("w0", "a");
  scheduler_->set_preempting(false);
  QueuedTask urgent{.ref = {"t", "n", "urgent"}, .priority = 90};
  urgent.demand.shape.cpu_milli = 2'000;
  scheduler_->add_task(urgent);
  place(1'000);
  EXPECT_TRUE(scheduler_->take_evictions().empty());
  scheduler_->set_preempting(true);
  place(5'000);
  EXPECT_EQ(scheduler_->take_evictions().size(), 1u);
}

}  // namespace
}  // namespace uccp::tasks
