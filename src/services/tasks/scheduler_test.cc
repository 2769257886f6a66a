#include "services/tasks/scheduler.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace uccp::tasks {
namespace {

QueuedTask task(const std::string& id, Shape shape, int32_t priority = 50, uint64_t order = 0) {
  static uint64_t next = 1;
  return {
      .ref = {"t", "n", id}, .priority = priority, .demand = {.shape = shape}, .order = order != 0 ? order : next++};
}

WorkerView worker(const std::string& id, Shape capacity) { return {.id = id, .capacity = capacity, .slots = 100}; }

std::vector<std::string> ids(const std::vector<Assignment>& assignments) {
  std::vector<std::string> out;
  for (const Assignment& a : assignments) out.push_back(a.task.id + "@" + a.worker);
  return out;
}

using Ids = std::vector<std::string>;

TEST(Scheduler, HigherPriorityGoesFirstThenTheOneQueuedFirst) {
  Scheduler s;
  s.add_task(task("late", {1000}, 50, 9));
  s.add_task(task("early", {1000}, 50, 3));
  s.add_task(task("urgent", {1000}, 90, 20));
  s.set_worker(worker("w", {2000}));
  EXPECT_EQ(ids(s.assign(0, 10)), (Ids{"urgent@w", "early@w"}));
  EXPECT_EQ(s.queued(), 1u);
}

TEST(Scheduler, AWorkerIsNeverGivenMoreThanItHas) {
  Scheduler s;
  s.set_worker(worker("w", {4000, 100}));
  for (int i = 0; i < 10; ++i) s.add_task(task("t" + std::to_string(i), {1000, 40}));
  EXPECT_EQ(s.assign(0, 10).size(), 2u);  // memory is the scarce one
  s.release({"t", "n", "t0"});
  EXPECT_EQ(s.assign(0, 10).size(), 1u);
}

TEST(Scheduler, ATaskGoesWhereItFitsTightest) {
  Scheduler s;
  s.set_worker(worker("large", {16000}));
  s.set_worker(worker("small", {2000}));
  s.add_task(task("a", {2000}));
  s.add_task(task("b", {16000}));
  EXPECT_EQ(ids(s.assign(0, 10)), (Ids{"a@small", "b@large"}));
}

TEST(Scheduler, ALargeTaskThatDoesNotFitDoesNotHoldUpOtherShapes) {
  Scheduler s;
  s.set_worker(worker("w", {1000}));
  s.add_task(task("huge", {9000}, 90));
  s.add_task(task("small", {1000}, 10));
  EXPECT_EQ(ids(s.assign(0, 10)), (Ids{"small@w"}));
  const auto why = s.explain({"t", "n", "huge"});
  EXPECT_EQ(why->summary, "none of 1 workers is large enough");
  EXPECT_EQ(why->reasons.at(0).message, "the task asks for 9 CPU, the largest worker, w, has 1 CPU");
  EXPECT_FALSE(s.explain({"t", "n", "small"}));
}

TEST(Scheduler, ADelayedTaskWaitsForItsTime) {
  Scheduler s;
  s.set_worker(worker("w", {1000}));
  QueuedTask later = task("later", {1000});
  later.not_before_ms = 500;
  s.add_task(later);
  EXPECT_TRUE(s.assign(499, 10).empty());
  EXPECT_EQ(s.next_due_ms(), 500);
  EXPECT_EQ(ids(s.assign(500, 10)), (Ids{"later@w"}));
  EXPECT_EQ(s.next_due_ms(), -1);
}

TEST(Scheduler, ASelectorAndAClosedWorkerKeepTasksAway) {
  Scheduler s;
  WorkerView gpu = worker("gpu", {1000});
  gpu.labels = {{"kind", "gpu"}};
  s.set_worker(gpu);
  WorkerView closed = worker("closed", {9000});
  closed.accepts = false;
  s.set_worker(closed);
  QueuedTask picky = task("picky", {1000});
  picky.demand.selector = {{"kind", "cpu"}};
  s.add_task(picky);
  s.add_task(task("any", {1000}));
  EXPECT_EQ(ids(s.assign(0, 10)), (Ids{"any@gpu"}));
  const auto why = s.explain({"t", "n", "picky"});
  EXPECT_EQ(why->summary, "none of 1 workers has the labels of its node selector");
  EXPECT_EQ(why->workers, 2u);
  ASSERT_EQ(why->reasons.size(), 2u);
  EXPECT_EQ(why->reasons[0].obstacle, Obstacle::kCordoned);
  EXPECT_EQ(why->reasons[1].obstacle, Obstacle::kLabels);
}

TEST(Scheduler, GpusAreHandedOutByCountTypeAndMemory) {
  Scheduler s;
  WorkerView view = worker("w", {8000});
  view.capacity.gpus = 4;
  view.gpus = {{"nvidia-a100", 4, 40}};
  s.set_worker(view);
  s.set_worker(worker("plain", {8000}));
  QueuedTask two = task("two", {100});
  two.demand.shape.gpus = 2;
  two.demand.gpu = {"nvidia", 40};
  QueuedTask three = task("three", {100});
  three.demand.shape.gpus = 3;
  QueuedTask other = task("other", {100});
  other.demand.shape.gpus = 1;
  other.demand.gpu = {"amd", 0};
  s.add_task(two);
  s.add_task(three);
  s.add_task(other);
  EXPECT_EQ(ids(s.assign(0, 10)), (Ids{"two@w"}));
  const auto busy = s.explain({"t", "n", "three"});
  EXPECT_EQ(busy->summary, "waits for free resources on 1 workers");
  EXPECT_EQ(s.explain({"t", "n", "other"})->summary, "none of 2 workers is large enough");
  s.release({"t", "n", "two"});
  EXPECT_EQ(ids(s.assign(0, 10)), (Ids{"three@w"}));
}

TEST(Scheduler, CountedResourcesAreNeverHandedOutTwice) {
  Scheduler s;
  WorkerView view = worker("w", {8000});
  view.capacity.counted = {{"licence/matlab", 2000}};
  s.set_worker(view);
  for (const char* id : {"a", "b", "c"}) {
    QueuedTask t = task(id, {100});
    t.demand.shape.counted = {{"licence/matlab", 1000}};
    s.add_task(t);
  }
  QueuedTask none = task("none", {100});
  none.demand.shape.counted = {{"licence/other", 1000}};
  s.add_task(none);
  EXPECT_EQ(ids(s.assign(0, 10)), (Ids{"a@w", "b@w"}));
  EXPECT_EQ(s.explain({"t", "n", "c"})->reasons.at(0).message,
            "the task asks for 1 licence/matlab, on w 0 licence/matlab is free now");
  EXPECT_EQ(s.explain({"t", "n", "none"})->ahead, 1u);
  s.release({"t", "n", "a"});
  EXPECT_EQ(ids(s.assign(0, 10)), (Ids{"c@w"}));
}

TEST(Scheduler, TaintsKeepAwayWhatDoesNotTolerateThem) {
  Scheduler s;
  WorkerView reserved = worker("reserved", {8000});
  reserved.taints = {{"team", "ml", TaintKind::kNoSchedule}};
  s.set_worker(reserved);
  QueuedTask plain = task("plain", {1000});
  s.add_task(plain);
  EXPECT_TRUE(s.assign(0, 10).empty());
  const auto why = s.explain({"t", "n", "plain"});
  EXPECT_EQ(why->summary, "each of 1 workers has a taint that it does not tolerate");
  EXPECT_EQ(why->reasons.at(0).obstacle, Obstacle::kTaints);
  for (const auto& [id, mark] : {std::pair<std::string, Mark>{"exact", {"team", "ml", TaintKind::kNoSchedule}},
                                 {"key", {"team", "", TaintKind::kAny}},
                                 {"all", {"", "", TaintKind::kAny}}}) {
    QueuedTask t = task(id, {1000});
    t.demand.tolerations = {mark};
    s.add_task(t);
    EXPECT_EQ(ids(s.assign(0, 10)), Ids{id + "@reserved"});
  }
  for (const auto& [id, mark] : {std::pair<std::string, Mark>{"value", {"team", "web", TaintKind::kAny}},
                                 {"effect", {"team", "ml", TaintKind::kNoExecute}}}) {
    QueuedTask t = task(id, {1000});
    t.demand.tolerations = {mark};
    s.add_task(t);
    EXPECT_TRUE(s.assign(0, 10).empty()) << id;
  }
}

TEST(Scheduler, AWorkerThatIsBetterKeptFreeIsTakenLast) {
  Scheduler s;
  WorkerView spare = worker("a", {1000});
  spare.taints = {{"old", "", TaintKind::kPreferNot}};
  s.set_worker(spare);
  s.set_worker(worker("b", {8000}));
  s.add_task(task("one", {1000}));
  EXPECT_EQ(ids(s.assign(0, 10)), Ids{"one@b"});
  s.add_task(task("two", {1000}));
  s.add_task(task("large", {7000}));
  EXPECT_EQ(ids(s.assign(0, 10)), (Ids{"two@b"}));
  s.add_task(task("three", {1000}, 90));
  EXPECT_EQ(ids(s.assign(0, 1)), (Ids{"three@b"}));
  for (int i = 0; i < 5; ++i) s.add_task(task("fill" + std::to_string(i), {1000}, 95));
  EXPECT_EQ(s.assign(0, 10).size(), 5u);
  s.add_task(task("last", {1000}, 99));
  EXPECT_EQ(ids(s.assign(0, 10)), (Ids{"last@a"}));
}

TEST(Scheduler, RemovingAndReplacingForgetsTheOldEntry) {
  Scheduler s;
  s.set_worker(worker("w", {4000}));
  s.add_task(task("a", {1000}, 10));
  s.add_task(task("a", {1000}, 90));
  EXPECT_EQ(s.queued(), 1u);
  EXPECT_TRUE(s.remove_task({"t", "n", "a"}));
  EXPECT_FALSE(s.remove_task({"t", "n", "a"}));
  EXPECT_TRUE(s.assign(0, 10).empty());
}

// The books stay right under any order of events: what is used on a worker is the sum of what runs there.
TEST(Scheduler, UsageIsAlwaysTheSumOfWhatRuns) {
  SeededRandom random(7);
  Scheduler s;
  std::map<TaskRef, std::pair<std::string, Shape>> running;
  std::map<TaskRef, Shape> shapes;
  for (const char* id : {"w1", "w2", "w3"}) s.set_worker(worker(id, {8000, 1000}));
  for (int step = 0; step < 20'000; ++step) {
    if (random.chance(0.5)) {
      QueuedTask t = task("t" + std::to_string(step),
                          {static_cast<int64_t>(random.below(4000)), static_cast<int64_t>(random.below(300))},
                          static_cast<int32_t>(random.below(3)));
      if (random.chance(0.2)) t.not_before_ms = step + static_cast<int64_t>(random.below(50));
      shapes[t.ref] = t.demand.shape;
      s.add_task(t);
    }
    for (const Assignment& a : s.assign(step, 5)) running[a.task] = {a.worker, shapes[a.task]};
    if (!running.empty() && random.chance(0.6)) {
      auto it = std::next(running.begin(), static_cast<ptrdiff_t>(random.below(running.size())));
      s.release(it->first);
      running.erase(it);
    }
    std::map<std::string, Shape> used;
    for (const auto& [ref, where] : running) used[where.first] += where.second;
    for (const char* id : {"w1", "w2", "w3"}) {
      ASSERT_EQ(s.usage(id).used, used[id]) << "step " << step;
      ASSERT_TRUE(used[id].fits_in({8000, 1000})) << "step " << step;
    }
  }
}

}  // namespace
}  // namespace uccp::tasks
