// Whose turn it is: shares, weights, past use, age.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "services/tasks/scheduler.h"

namespace uccp::tasks {
namespace {

// A scheduler with one worker, and tasks that are ended by hand.
class Fairness : public ::testing::Test {
 protected:
  void start(Shape capacity, SchedulerOptions options = {}) {
    scheduler_.emplace(options);
    scheduler_->set_worker({.id = "w", .capacity = std::move(capacity), .slots = 1000});
  }
  struct Spec {
    std::string name_space = "n";
    std::string tenant = "t";
    std::string user = "u";
    int32_t priority = 50;
    Shape shape = {1000};
    int64_t duration_ms = 0;
    std::string name = {};
  };
  TaskRef add(const Spec& spec) {
    QueuedTask task{.ref = {spec.tenant, spec.name_space, "task" + std::to_string(++next_)}, .priority = spec.priority};
    task.demand.shape = spec.shape;
    task.demand.duration_ms = spec.duration_ms;
    task.user = spec.user;
    task.name = spec.name;
    task.order = next_;
    scheduler_->add_task(task);
    return task.ref;
  }
  // How many tasks of each namespace are placed now.
  std::map<std::string, int> place(int64_t now_ms = 0, size_t count_max = 1000) {
    std::map<std::string, int> placed;
    for (const Assignment& one : scheduler_->assign(now_ms, count_max)) {
      ++placed[one.task.name_space];
      running_.push_back(one.task);
    }
    return placed;
  }
  void end_all() {
    for (const TaskRef& ref : running_) scheduler_->release(ref);
    running_.clear();
  }
  void end_one(const std::string& name_space) {
    const auto it = std::ranges::find(running_, name_space, &TaskRef::name_space);
    ASSERT_NE(it, running_.end());
    scheduler_->release(*it);
    running_.erase(it);
  }

  std::optional<Scheduler> scheduler_;
  std::vector<TaskRef> running_;
  uint64_t next_ = 0;
};

using Placed = std::map<std::string, int>;

TEST_F(Fairness, NamespacesShareAlikeHoweverMuchOneQueues) {
  start({10'000});
  for (int i = 0; i < 100; ++i) add({.name_space = "greedy"});
  for (int i = 0; i < 5; ++i) add({.name_space = "modest"});
  EXPECT_EQ(place(), (Placed{{"greedy", 5}, {"modest", 5}}));
}

TEST_F(Fairness, AWeightIsAShare) {
  start({8'000});
  scheduler_->set_weight({"t", "heavy"}, 3);
  for (int i = 0; i < 20; ++i) {
    add({.name_space = "heavy"});
    add({.name_space = "light"});
  }
  EXPECT_EQ(place(), (Placed{{"heavy", 6}, {"light", 2}}));
}

TEST_F(Fairness, TheTreeIsSharedLevelByLevel) {
  start({12'000});
  for (int i = 0; i < 20; ++i) {
    add({.name_space = "a1", .tenant = "a"});
    add({.name_space = "a2", .tenant = "a"});
    add({.name_space = "b1", .tenant = "b"});
  }
  EXPECT_EQ(place(), (Placed{{"a1", 3}, {"a2", 3}, {"b1", 6}}));
}

TEST_F(Fairness, UsersOfANamespaceShareIt) {
  start({6'000});
  for (int i = 0; i < 20; ++i) add({.user = "many"});
  for (int i = 0; i < 3; ++i) add({.user = "few"});
  place();
  for (int i = 21; i <= 23; ++i) {
    EXPECT_FALSE(scheduler_->is_queued({"t", "n", "task" + std::to_string(i)})) << i;
  }
}

// The example of the paper on dominant resource fairness: 9 cores and 18 GB; one asks for 1 core and 4 GB, the other
// for 3 cores and 1 GB. Equal dominant shares are two thirds each: three tasks and two.
TEST_F(Fairness, TheDominantResourceCounts) {
  start({9'000, 18});
  for (int i = 0; i < 10; ++i) {
    add({.name_space = "memory", .shape = {1'000, 4}});
    add({.name_space = "cpu", .shape = {3'000, 1}});
  }
  EXPECT_EQ(place(), (Placed{{"cpu", 2}, {"memory", 3}}));
}

TEST_F(Fairness, WhoUsedMuchOfLateWaitsAndIsForgivenInTime) {
  start({4'000}, {.fairness = {.half_life_ms = 100'000}});
  for (int i = 0; i < 4; ++i) add({.name_space = "early"});
  EXPECT_EQ(place(0), (Placed{{"early", 4}}));
  place(300'000);  // it held all for three half-lives
  end_all();
  const auto both = [&] {
    for (int i = 0; i < 4; ++i) {
      add({.name_space = "early"});
      add({.name_space = "fresh"});
    }
  };
  both();
  EXPECT_EQ(place(301'000), (Placed{{"fresh", 4}})) << "what the other held counts for seven eighths of the cluster";
  end_all();
  place(301'000, 1000);
  end_all();
  both();
  const Placed later = place(30'000'000);
  EXPECT_EQ(later, (Placed{{"early", 2}, {"fresh", 2}}));
}

TEST_F(Fairness, AHigherBandGoesBeforeAnySmallerShare) {
  start({4'000});
  for (int i = 0; i < 3; ++i) add({.name_space = "a", .priority = 80});
  for (int i = 0; i < 3; ++i) add({.name_space = "b", .priority = 50});
  EXPECT_EQ(place(), (Placed{{"a", 3}, {"b", 1}}));
}

// Without age, the stream of the highest priority would keep the other out for ever.
TEST_F(Fairness, NothingWaitsForEverBehindHigherPriorities) {
  start({1'000}, {.fairness = {.age_step_ms = 1'000}});
  const TaskRef low = add({.priority = 0});
  int64_t now = 0;
  for (; now < 1'000'000 && scheduler_->is_queued(low); now += 500) {
    add({.priority = 100});
    place(now);
    end_all();
  }
  EXPECT_FALSE(scheduler_->is_queued(low));
  EXPECT_GE(now, 99'000);
  EXPECT_LE(now, 102'000) << "a hundred priorities, a second each";
}

TEST_F(Fairness, NoNamespaceWaitsForEverBehindAnother) {
  start({1'000}, {.fairness = {.age_step_ms = 1'000}});
  for (int i = 0; i < 10; ++i) add({.name_space = "low", .priority = 30});
  int low = 0;
  for (int64_t now = 0; now < 200'000; now += 500) {
    add({.name_space = "high", .priority = 70});
    low += place(now)["low"];
    end_all();
  }
  // One each time that it has risen from its band over that of the other, 40 to 50 steps.
  EXPECT_GE(low, 4);
  EXPECT_LE(low, 5) << "its age begins anew when it was served";
}

// A large task among an endless stream of small ones, two of which always run.
TEST_F(Fairness, ALargeTaskGetsAWorkerKeptFree) {
  const auto waits = [&](size_t reservations_max) {
    start({2'000}, {.reserve_after_ms = 10'000, .reservations_max = reservations_max});
    running_.clear();
    add({.name_space = "small"});
    add({.name_space = "small"});
    place(0);
    const TaskRef large = add({.name_space = "large", .shape = {2'000}});
    int64_t now = 0;
    for (; now < 100'000 && scheduler_->is_queued(large); now += 500) {
      add({.name_space = "small"});
      place(now);
      if (!running_.empty()) end_one(running_.front().name_space);  // one ends, the other goes on
    }
    return now;
  };
  EXPECT_EQ(waits(0), 100'000) << "with nothing kept free it never runs";
  EXPECT_LE(waits(1), 13'000);
}

TEST_F(Fairness, AWorkerThatIsKeptFreeIsLentToWhatEndsBeforehand) {
  start({4'000}, {.reserve_after_ms = 1'000});
  add({.name_space = "long", .shape = {2'000}, .duration_ms = 60'000});
  EXPECT_EQ(place(0), (Placed{{"long", 1}}));
  const TaskRef large = add({.name_space = "large", .shape = {4'000}});
  EXPECT_TRUE(place(0).empty());
  EXPECT_TRUE(place(1'000).empty());
  EXPECT_EQ(scheduler_->reserved_for(large), "w");
  add({.name_space = "unknown"});
  add({.name_space = "too long", .duration_ms = 59'001});
  add({.name_space = "short", .duration_ms = 59'000});
  EXPECT_EQ(place(1'000), (Placed{{"short", 1}}));
  EXPECT_EQ(scheduler_->explain({"t", "unknown", "task3"})->reasons.at(0).obstacle, Obstacle::kReserved);
  end_one("short");
  end_one("long");
  EXPECT_EQ(place(60'000), (Placed{{"large", 1}}));
  end_one("large");
  EXPECT_EQ(place(60'001), (Placed{{"too long", 1}, {"unknown", 1}}));
}

// What asks for much time and always needed little is lent to as well.
TEST_F(Fairness, WhatTasksOfAKindNeededBeforeCountsIfItIsLessThanTheirLimit) {
  start({4'000}, {.reserve_after_ms = 1'000});
  for (int i = 0; i < 5; ++i) scheduler_->note_run_time({"t", "known", "nightly"}, 20'000);
  add({.name_space = "long", .shape = {2'000}, .duration_ms = 60'000});
  EXPECT_EQ(place(0), (Placed{{"long", 1}}));
  add({.name_space = "large", .shape = {4'000}});
  EXPECT_TRUE(place(0).empty());
  EXPECT_TRUE(place(1'000).empty());
  add({.name_space = "known", .duration_ms = 3'600'000, .name = "other"});
  EXPECT_TRUE(place(2'000).empty());
  add({.name_space = "known", .duration_ms = 3'600'000, .name = "nightly"});
  EXPECT_EQ(place(2'000), (Placed{{"known", 1}}));
}

// A large task among small ones without an end: in a queue that backfills conservatively it has room kept at once.
TEST_F(Fairness, EachQueueHasItsOwnWayOfBackfilling) {
  const SchedulerOptions options = scheduler_options(
      {.backfill_rules = {{"*", "urgent", Backfill::kConservative}, {"n", "*", Backfill::kConservative}}});
  const auto kept_at_once = [&](const std::string& name_space, const std::string& queue) {
    start({2'000}, options);
    running_.clear();
    add({.name_space = "small"});
    place(1'000);
    QueuedTask large{.ref = {"t", name_space, "large"}, .queue = queue};
    large.demand.shape = {2'000};
    scheduler_->add_task(large);
    place(1'000);
    place(1'000);
    return scheduler_->reserved_for(large.ref) == "w";
  };
  EXPECT_TRUE(kept_at_once("m", "urgent"));
  EXPECT_TRUE(kept_at_once("n", ""));
  EXPECT_FALSE(kept_at_once("m", ""));
  EXPECT_FALSE(kept_at_once("m", "other"));
}

TEST_F(Fairness, AnExceptionMayBeToBackfillEasily) {
  start({2'000}, scheduler_options(
                     {.backfill = Backfill::kConservative, .backfill_rules = {{"m", "default", Backfill::kEasy}}}));
  add({.name_space = "small", .duration_ms = 60'000});
  place(1'000);
  const TaskRef easy = add({.name_space = "m", .shape = {2'000}});
  place(1'000);
  place(1'000);
  EXPECT_EQ(scheduler_->reserved_for(easy), "");
  const TaskRef conservative = add({.name_space = "n", .shape = {2'000}, .duration_ms = 10'000});
  place(1'000);
  place(1'000);
  EXPECT_EQ(scheduler_->reserved_for(conservative), "w") << "at once";
  place(31'001);
  EXPECT_EQ(scheduler_->reserved_for(easy), "w") << "after its wait";
}

}  // namespace
}  // namespace uccp::tasks
