// Gangs start together or not at all; preemption makes room at the least cost.
#include <gtest/gtest.h>

#include <algorithm>

#include "services/tasks/scheduler.h"

namespace uccp::tasks {
namespace {

class Gangs : public ::testing::Test {
 protected:
  void worker(const std::string& id, Shape capacity) {
    scheduler_.set_worker({.id = id, .capacity = std::move(capacity), .slots = 100});
  }
  TaskRef add(const std::string& id, Shape shape, int32_t priority = 50, bool preemptible = false) {
    return add_member(id, std::move(shape), "", 0, priority, preemptible);
  }
  TaskRef add_member(const std::string& id, Shape shape, const std::string& gang, size_t size, int32_t priority = 50,
                     bool preemptible = false) {
    QueuedTask task{.ref = {"t", "n", id}, .priority = priority};
    task.demand.shape = std::move(shape);
    task.order = ++next_;
    task.preemptible = preemptible;
    task.gang = gang;
    task.gang_size = size;
    scheduler_.add_task(task);
    return task.ref;
  }
  // A member that was stopped with its gang is queued again.
  void again(const std::string& id, size_t size = 2) {
    QueuedTask task{.ref = {"t", "n", id}, .priority = 20};
    task.demand.shape = {2'000};
    task.order = ++next_;
    task.preemptible = true;
    task.gang = "g";
    task.gang_size = size;
    task.gang_again = true;
    scheduler_.add_task(task);
  }
  std::vector<std::string> place(int64_t now_ms = 0) {
    std::vector<std::string> ids;
    for (const Assignment& one : scheduler_.assign(now_ms, 100)) ids.push_back(one.task.id);
    std::ranges::sort(ids);
    return ids;
  }
  std::vector<std::string> evicted() {
    std::vector<std::string> ids;
    for (const Eviction& one : scheduler_.take_evictions()) ids.push_back(one.task.id);
    std::ranges::sort(ids);
    return ids;
  }
  std::string summary(const TaskRef& ref) { return scheduler_.explain(ref)->summary; }

  Scheduler scheduler_;
  uint64_t next_ = 0;
};

using Ids = std::vector<std::string>;

TEST_F(Gangs, NoneStartsBeforeAllAreThere) {
  worker("w", {8'000});
  const TaskRef first = add_member("a", {1'000}, "g", 3);
  add_member("b", {1'000}, "g", 3);
  EXPECT_EQ(place(), Ids{});
  EXPECT_EQ(summary(first), "waits for its gang: 2 of 3 tasks are queued");
  add_member("c", {2'000}, "g", 3);
  EXPECT_EQ(place(), (Ids{"a", "b", "c"}));
}

TEST_F(Gangs, NoneStartsBeforeThereIsRoomForAllAndOthersGoOn) {
  worker("w1", {2'000});
  worker("w2", {2'000});
  add("busy", {1'000});
  EXPECT_EQ(place(), Ids{"busy"});
  TaskRef first;
  for (const char* id : {"a", "b"}) first = add_member(id, {2'000}, "g", 2);
  add("other", {1'000});
  EXPECT_EQ(place(), Ids{"other"}) << "half a gang holds nothing";
  EXPECT_EQ(summary(first), "waits until there is room for all 2 tasks of its gang at once");
  scheduler_.release({"t", "n", "busy"});
  EXPECT_EQ(place(10'000), Ids{});
  scheduler_.release({"t", "n", "other"});
  EXPECT_EQ(scheduler_.next_due_ms(), 11'000) << "it says when it tries again";
  EXPECT_EQ(place(20'000), (Ids{"a", "b"}));
  EXPECT_EQ(scheduler_.usage("w1").running + scheduler_.usage("w2").running, 2u);
}

// Small tasks that never stop coming would keep a gang waiting for ever.
TEST_F(Gangs, OneThatWaitsLongHasWorkersKeptFreeUntilAllHaveRoom) {
  const auto add_for = [&](const std::string& id, int64_t duration_ms) {
    QueuedTask task{.ref = {"t", "n", id}};
    task.demand.shape.cpu_milli = 1'000;
    task.demand.duration_ms = duration_ms;
    task.order = ++next_;
    scheduler_.add_task(task);
  };
  for (const char* id : {"w1", "w2", "w3"}) worker(id, {2'000});
  for (const char* id : {"a", "b", "c", "d"}) add_for(id, 100'000);
  EXPECT_EQ(place(1'000).size(), 4u) << "two workers are full";
  for (const char* id : {"g1", "g2"}) add_member(id, {2'000}, "g", 2);
  EXPECT_EQ(place(1'000), Ids{});
  EXPECT_EQ(place(31'000), Ids{});
  add_for("ends before", 60'000);
  EXPECT_EQ(place(32'000), Ids{"ends before"}) << "lent until the gang may begin";
  add_for("ends after", 70'000);
  EXPECT_EQ(place(33'000), Ids{});
  scheduler_.release({"t", "n", "ends before"});
  EXPECT_EQ(place(34'000), Ids{}) << "two of three workers are kept free for the gang, the third is full";
  for (const char* id : {"a", "b", "c", "d"}) scheduler_.release({"t", "n", id});
  EXPECT_EQ(place(101'000), (Ids{"ends after", "g1", "g2"}));
}

TEST_F(Gangs, OneThatIsLargerThanTheClusterSaysSo) {
  worker("w1", {2'000});
  worker("w2", {3'000});
  TaskRef last;
  for (int i = 0; i < 8; ++i) last = add_member("m" + std::to_string(i), {1'000}, "g", 8);
  EXPECT_EQ(place(), Ids{});
  EXPECT_EQ(summary(last),
            "its gang of 8 tasks does not fit into the cluster even if nothing else runs: there is room for 5");
}

TEST_F(Gangs, AMemberThatLeavesMakesItIncomplete) {
  worker("w", {1'000});
  add("busy", {1'000});
  place();
  const TaskRef a = add_member("a", {500}, "g", 2);
  const TaskRef b = add_member("b", {500}, "g", 2);
  EXPECT_EQ(place(), Ids{});
  EXPECT_TRUE(scheduler_.remove_task(a));
  scheduler_.release({"t", "n", "busy"});
  EXPECT_EQ(place(10'000), Ids{});
  EXPECT_EQ(summary(b), "waits for its gang: 1 of 2 tasks are queued");
  add_member("c", {500}, "g", 2);
  EXPECT_EQ(place(20'000), (Ids{"b", "c"}));
}

TEST_F(Gangs, AMemberThatComesBackGoesAlone) {
  worker("w", {8'000});
  add_member("a", {1'000}, "g", 2);
  add_member("b", {1'000}, "g", 2);
  EXPECT_EQ(place(), (Ids{"a", "b"}));
  scheduler_.release({"t", "n", "a"});
  add_member("a", {1'000}, "g", 2);
  EXPECT_EQ(place(), Ids{"a"});
}

TEST_F(Gangs, AGangOfAnotherLeaderIsKnownByWhatRuns) {
  worker("w", {8'000});
  QueuedTask runs{.ref = {"t", "n", "a"}, .gang = "g", .gang_size = 2};
  runs.demand.shape = {1'000};
  scheduler_.occupy("w", runs);
  add_member("b", {1'000}, "g", 2);
  EXPECT_EQ(place(), Ids{"b"});
}

TEST_F(Gangs, ALowerPreemptibleTaskMakesRoom) {
  worker("w", {2'000});
  add("low", {1'000}, 30, true);
  add("firm", {1'000}, 30, false);
  EXPECT_EQ(place(), (Ids{"firm", "low"}));
  const TaskRef high = add("high", {1'000}, 70);
  EXPECT_EQ(place(0), Ids{});
  EXPECT_EQ(evicted(), Ids{"low"});
  EXPECT_EQ(scheduler_.reserved_for(high), "w");
  EXPECT_EQ(place(5'000), Ids{});
  EXPECT_EQ(evicted(), Ids{}) << "said once";
  scheduler_.release({"t", "n", "low"});
  add("small", {100}, 90);
  EXPECT_EQ(place(5'000), Ids{"high"}) << "the room is for whom it was made";
}

TEST_F(Gangs, OnlyAHigherBandPreempts) {
  worker("w", {1'000});
  add("low", {1'000}, 50, true);
  place();
  add("near", {1'000}, 59);
  EXPECT_EQ(place(), Ids{});
  EXPECT_EQ(evicted(), Ids{});
}

TEST_F(Gangs, TheLeastIsStopped) {
  worker("w1", {4'000});
  worker("w2", {4'000});
  for (int i = 0; i < 4; ++i) add("one" + std::to_string(i), {1'000}, 20, true);
  EXPECT_EQ(place(0).size(), 4u);
  add("whole", {4'000}, 40, true);
  EXPECT_EQ(place(1'000), Ids{"whole"});
  add("high", {2'000}, 90);
  EXPECT_EQ(place(2'000), Ids{});
  EXPECT_EQ(evicted(), Ids{"whole"}) << "41 for one of priority 40, 42 for two of priority 20";
}

TEST_F(Gangs, WhatHasSavedACheckpointLosesLess) {
  worker("w1", {1'000});
  worker("w2", {1'000});
  add("old", {1'000}, 20, true);
  EXPECT_EQ(place(0), Ids{"old"});
  add("young", {1'000}, 20, true);
  EXPECT_EQ(place(60'000), Ids{"young"});
  scheduler_.pass_time(100'000);
  scheduler_.note_checkpoint({"t", "n", "old"}, 5'000);
  add("high", {1'000}, 90);
  EXPECT_EQ(place(100'000), Ids{});
  EXPECT_EQ(evicted(), Ids{"old"}) << "5 s of work are lost with it, with the other 40";
}

TEST_F(Gangs, ACheckpointFromBeforeTheStartSavesNothing) {
  worker("w1", {1'000});
  worker("w2", {1'000});
  QueuedTask adopted{.ref = {"t", "n", "adopted"}, .priority = 20, .preemptible = true};
  adopted.demand.shape = {1'000};
  scheduler_.pass_time(100'000);
  scheduler_.occupy("w1", adopted, 30'000);
  scheduler_.note_checkpoint({"t", "n", "adopted"}, 90'000);
  add("young", {1'000}, 20, true);
  EXPECT_EQ(place(110'000), Ids{"young"});
  add("high", {1'000}, 90);
  EXPECT_EQ(place(140'000), Ids{});
  EXPECT_EQ(evicted(), Ids{"young"}) << "30 s, and not the 70 of the one that a new leader found running";
}

TEST_F(Gangs, WhatIsNotNeededAfterAllRunsOn) {
  worker("w", {4'000});
  add("small", {1'000}, 10, true);
  add("large", {3'000}, 20, true);
  place(0);
  add("high", {3'000}, 90);
  EXPECT_EQ(place(1'000), Ids{});
  EXPECT_EQ(evicted(), Ids{"large"}) << "the small one of lower priority would not do, and is not needed";
}

TEST_F(Gangs, TheLeastThatItNeedsStartsAndTheOthersJoinWhenThereIsRoom) {
  worker("w", {3'000});
  for (const char* id : {"a", "b", "c", "d"}) add_member(id, {1'000}, "g", 2);
  EXPECT_EQ(place(), (Ids{"a", "b", "c"})) << "two together, and one more for which there is room";
  scheduler_.release({"t", "n", "b"});
  EXPECT_EQ(place(), Ids{"d"});
}

TEST_F(Gangs, AGangIsStoppedAsAWholeOrNotAtAll) {
  worker("w1", {2'000});
  worker("w2", {2'000});
  add_member("a", {2'000}, "g", 2, 20, true);
  add_member("b", {2'000}, "g", 2, 20, true);
  EXPECT_EQ(place(0), (Ids{"a", "b"}));
  add("high", {2'000}, 70);
  EXPECT_EQ(place(1'000), Ids{});
  EXPECT_EQ(evicted(), (Ids{"a", "b"})) << "the half that would be left is of no use";
}

TEST_F(Gangs, AGangOfWhichOneMayNotBeStoppedIsLeftAlone) {
  worker("w1", {2'000});
  worker("w2", {2'000});
  add_member("a", {2'000}, "g", 2, 20, true);
  add_member("b", {2'000}, "g", 2, 20, false);
  place(0);
  add("high", {2'000}, 70);
  EXPECT_EQ(place(1'000), Ids{});
  EXPECT_EQ(evicted(), Ids{});
}

TEST_F(Gangs, AGangCostsAllThatItLoses) {
  worker("w1", {2'000});
  worker("w2", {2'000});
  worker("w3", {2'000});
  add_member("a", {2'000}, "g", 2, 20, true);
  add_member("b", {2'000}, "g", 2, 20, true);
  add("single", {2'000}, 30, true);
  EXPECT_EQ(place(0).size(), 3u);
  add("high", {2'000}, 70);
  EXPECT_EQ(place(1'000), Ids{});
  EXPECT_EQ(evicted(), Ids{"single"}) << "31 for one of priority 30, 42 for the gang";
}

TEST_F(Gangs, AStoppedGangStartsAgainTogether) {
  worker("w1", {2'000});
  worker("w2", {2'000});
  add_member("a", {2'000}, "g", 2, 20, true);
  add_member("b", {2'000}, "g", 2, 20, true);
  place(0);
  add("high", {2'000}, 70);
  place(1'000);
  ASSERT_EQ(evicted(), (Ids{"a", "b"}));
  scheduler_.release({"t", "n", "a"});
  EXPECT_EQ(place(2'000), Ids{"high"});
  again("a");
  EXPECT_EQ(place(3'000), Ids{}) << "its other half is still being stopped";
  scheduler_.release({"t", "n", "b"});
  EXPECT_EQ(place(4'000), Ids{}) << "it does not go alone, though there is room for it";
  again("b");
  EXPECT_EQ(place(5'000), Ids{});
  scheduler_.release({"t", "n", "high"});
  EXPECT_EQ(place(6'000), (Ids{"a", "b"}));
}

TEST_F(Gangs, WhatIsLeftOfAStoppedGangDoesNotWaitForWhatHasEnded) {
  worker("w1", {2'000});
  worker("w2", {2'000});
  add_member("a", {2'000}, "g", 2, 20, true);
  add_member("b", {2'000}, "g", 2, 20, true);
  place(0);
  const TaskRef high = add("high", {2'000}, 70);
  place(1'000);
  scheduler_.remove_task(high);
  scheduler_.release({"t", "n", "a"});
  scheduler_.release({"t", "n", "b"});  // it ended just when it was to be stopped
  again("a");
  EXPECT_EQ(place(2'000), Ids{});
  EXPECT_EQ(place(40'000), Ids{"a"});
}

TEST_F(Gangs, WhatComesBackLaterDoesNotHoldUpThoseThatHaveTheirTurn) {
  for (const char* id : {"w1", "w2", "w3"}) worker(id, {2'000});
  for (const char* id : {"a", "b", "c"}) add_member(id, {2'000}, "g", 3, 20, true);
  EXPECT_EQ(place(0).size(), 3u);
  const TaskRef high = add("high", {2'000}, 70);
  place(1'000);
  ASSERT_EQ(evicted().size(), 3u);
  scheduler_.remove_task(high);
  for (const char* id : {"a", "b", "c"}) scheduler_.release({"t", "n", id});
  for (const char* id : {"x", "y", "z"}) add(id, {2'000}, 90);
  again("a", 3);
  again("b", 3);
  EXPECT_EQ(place(2'000), (Ids{"x", "y", "z"}));
  EXPECT_EQ(place(40'000), Ids{}) << "two of them have their turn now, and no room";
  again("c", 3);
  for (const char* id : {"x", "y"}) scheduler_.release({"t", "n", id});
  EXPECT_EQ(place(42'000), (Ids{"a", "b"}));
  scheduler_.release({"t", "n", "z"});
  EXPECT_EQ(place(44'000), Ids{"c"});
}

TEST_F(Gangs, AGangPreemptsWhatItNeedsForAllOfItOrNothing) {
  worker("w1", {2'000});
  worker("w2", {2'000});
  add("low1", {2'000}, 20, true);
  add("low2", {2'000}, 20, true);
  place(0);
  for (const char* id : {"x", "y", "z"}) add_member(id, {2'000}, "three", 3, 70);
  EXPECT_EQ(place(1'000), Ids{});
  EXPECT_EQ(evicted(), Ids{}) << "there would not be room for all three";
  add_member("a", {2'000}, "two", 2, 70);
  add_member("b", {2'000}, "two", 2, 70);
  EXPECT_EQ(place(2'000), Ids{});
  EXPECT_EQ(evicted(), (Ids{"low1", "low2"}));
  scheduler_.release({"t", "n", "low1"});
  add("small", {1'000}, 90);
  EXPECT_EQ(place(3'000), Ids{}) << "what is free is kept for the gang";
  scheduler_.release({"t", "n", "low2"});
  EXPECT_EQ(place(4'000), (Ids{"a", "b"}));
}

}  // namespace
}  // namespace uccp::tasks
