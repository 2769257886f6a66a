// Which worker: affinity, neighbours, packing and spreading, devices.
#include <gtest/gtest.h>

#include <set>

#include "base/random.h"
#include "services/tasks/scheduler.h"

namespace uccp::tasks {
namespace {

class Placement : public ::testing::Test {
 protected:
  static WorkerView worker(const std::string& id, const LabelMap& labels = {}, Shape capacity = {8'000}) {
    return {.id = id, .capacity = std::move(capacity), .labels = labels, .slots = 100};
  }
  QueuedTask task(const std::string& id, const LabelMap& labels = {}) {
    QueuedTask task{.ref = {"t", "n", id}};
    task.demand.shape = {1'000};
    task.labels = labels;
    task.order = ++next_;
    return task;
  }
  // Adds a task with near terms, which are of its namespace.
  void add_near(Scheduler& s, QueuedTask task, std::vector<NearTerm> near) {
    task.demand.tenant = task.ref.tenant;
    task.demand.name_space = task.ref.name_space;
    task.demand.labels = task.labels;
    task.demand.near = std::move(near);
    s.add_task(std::move(task));
  }
  static std::vector<std::string> place(Scheduler& s, int64_t now_ms = 0) {
    std::vector<std::string> out;
    for (const Assignment& a : s.assign(now_ms, 100)) out.push_back(a.task.id + "@" + a.worker);
    return out;
  }
  uint64_t next_ = 0;
};

using Placed = std::vector<std::string>;

TEST_F(Placement, WorkersHaveToMatchAllRequiredSelectors) {
  Scheduler s;
  s.set_worker(worker("a", {{"zone", "a"}, {"disk", "ssd"}}));
  s.set_worker(worker("b", {{"zone", "b"}}));
  QueuedTask picky = task("picky");
  picky.demand.required = {"zone in (b|c)", "!disk"};
  s.add_task(picky);
  EXPECT_EQ(place(s), Placed{"picky@b"});
  QueuedTask nowhere = task("nowhere");
  nowhere.demand.required = {"zone=c"};
  s.add_task(nowhere);
  EXPECT_TRUE(place(s).empty());
  EXPECT_TRUE(
      s.explain({"t", "n", "nowhere"})->reasons.at(0).message.starts_with("has not the labels zone=c of its affinity"));
}

TEST_F(Placement, ALabelThatNoWorkerHasIsNamed) {
  Scheduler s;
  s.set_worker(worker("a", {{"zone", "a"}}));
  QueuedTask slip = task("slip");
  slip.demand.selector = {{"zone", "b"}, {"zoen", "a"}};
  s.add_task(slip);
  EXPECT_TRUE(place(s).empty());
  EXPECT_EQ(
      s.explain({"t", "n", "slip"})->reasons.at(0).message,
      "has not the labels zoen=a, zone=b of the task's node selector, such as a; no worker at all has a label named "
      "zoen");
}

TEST_F(Placement, TheCheaperCoreIsTakenUnlessAWishIsAgainstIt) {
  Scheduler s;
  for (const auto& [id, price] : std::map<std::string, int64_t>{{"a", 90'000}, {"b", 30'000}, {"c", 31'000}}) {
    WorkerView view = worker(id, {{"name", id}}, {2'000});
    view.price = price;
    s.set_worker(view);
  }
  QueuedTask wish = task("wish");
  wish.demand.preferred = {{"name=a", 1}};
  s.add_task(wish);
  for (const char* id : {"1", "2", "3", "4", "5"}) s.add_task(task(id));
  EXPECT_EQ(place(s), (Placed{"wish@a", "1@b", "2@b", "3@c", "4@c", "5@a"}))
      << "prices that are nearly equal are equal";
}

TEST_F(Placement, WhatMayBeStoppedGoesWhereThatIsLikelyAndNothingElseDoesIfItCan) {
  Scheduler s;
  WorkerView spot = worker("spot", {}, {2'000});
  spot.spot = true;
  s.set_worker(spot);
  s.set_worker(worker("firm", {}, {2'000}));
  for (const char* id : {"1", "2"}) s.add_task(task(id));
  QueuedTask preemptible = task("p");
  preemptible.demand.preemptible = true;
  s.add_task(preemptible);
  s.add_task(task("3"));
  EXPECT_EQ(place(s), (Placed{"1@firm", "2@firm", "p@spot", "3@spot"}));
}

TEST_F(Placement, WishesAreWeighedAndGiveWay) {
  Scheduler s;
  s.set_worker(worker("a", {{"zone", "a"}}, {1'000}));
  s.set_worker(worker("b", {{"zone", "b"}, {"disk", "ssd"}}, {1'000}));
  for (const char* id : {"first", "second"}) {
    QueuedTask one = task(id);
    one.demand.preferred = {{"zone=a", 3}, {"disk=ssd", 5}};
    s.add_task(one);
  }
  EXPECT_EQ(place(s), (Placed{"first@b", "second@a"}));
}

TEST_F(Placement, ATaskGoesNearOthersOnlyWhenTheyRun) {
  Scheduler s;
  s.set_worker(worker("a", {{"zone", "a"}}));
  s.set_worker(worker("b", {{"zone", "b"}}));
  add_near(s, task("web"), {{.selector = "app=db", .topology_key = "zone"}});
  EXPECT_TRUE(place(s).empty());
  EXPECT_EQ(s.explain({"t", "n", "web"})->summary, "no worker is where its near tasks let it run");
  EXPECT_EQ(s.explain({"t", "n", "web"})->reasons.at(0).obstacle, Obstacle::kNear);
  QueuedTask other = task("db", {{"app", "db"}});
  other.ref.name_space = "other";
  s.add_task(other);
  EXPECT_EQ(place(s).size(), 1u) << "tasks of other namespaces are nobody's neighbours";
  QueuedTask db = task("db", {{"app", "db"}});
  db.demand.selector = {{"zone", "b"}};
  s.add_task(db);
  EXPECT_EQ(place(s), (Placed{"db@b", "web@b"})) << "in the same round";
}

TEST_F(Placement, TheFirstOfThoseThatWantToBeTogetherBeginsAnywhere) {
  Scheduler s;
  for (const char* id : {"a", "b", "c"}) s.set_worker(worker(id, {}, {4'000}));
  for (int i = 0; i < 4; ++i) add_near(s, task("t" + std::to_string(i), {{"job", "x"}}), {{.selector = "job=x"}});
  const Placed placed = place(s);
  ASSERT_EQ(placed.size(), 4u);
  for (const std::string& one : placed) EXPECT_EQ(one.back(), placed[0].back());
  add_near(s, task("fifth", {{"job", "x"}}), {{.selector = "job=x"}});
  EXPECT_TRUE(place(s).empty()) << "the worker is full";
}

TEST_F(Placement, TasksStayAwayFromEachOther) {
  Scheduler s;
  for (const char* id : {"a", "b", "c"}) s.set_worker(worker(id, {{"zone", std::string(id) == "c" ? "2" : "1"}}));
  for (int i = 0; i < 3; ++i) {
    add_near(s, task("t" + std::to_string(i), {{"app", "db"}}),
             {{.selector = "app=db", .topology_key = "zone", .away = true}});
  }
  EXPECT_EQ(place(s).size(), 2u) << "one a zone";
  s.release({"t", "n", "t0"});
  EXPECT_EQ(place(s).size(), 1u) << "its zone is free again";
}

TEST_F(Placement, WishesToStayAwaySpreadAndThenGiveWay) {
  Scheduler s;
  for (const char* id : {"a", "b"}) s.set_worker(worker(id));
  std::multiset<char> workers;
  for (int i = 0; i < 3; ++i) {
    add_near(s, task("t" + std::to_string(i), {{"app", "web"}}),
             {{.selector = "app=web", .away = true, .preferred = true}});
  }
  for (const std::string& one : place(s)) workers.insert(one.back());
  EXPECT_EQ(workers.size(), 3u);
  EXPECT_GE(workers.count('a'), 1u);
  EXPECT_GE(workers.count('b'), 1u);
}

TEST_F(Placement, SpreadingTakesTheEmptiest) {
  Scheduler s({.packing = Packing::kSpread});
  for (const char* id : {"a", "b", "c"}) s.set_worker(worker(id));
  for (int i = 0; i < 6; ++i) s.add_task(task("t" + std::to_string(i)));
  place(s);
  for (const char* id : {"a", "b", "c"}) EXPECT_EQ(s.usage(id).running, 2u) << id;
}

TEST_F(Placement, DevicesAreKeptForThoseWhoAskForThem) {
  Scheduler s;
  WorkerView gpu = worker("gpu", {}, {2'000});
  gpu.capacity.gpus = 8;
  s.set_worker(gpu);
  s.set_worker(worker("plain"));
  s.add_task(task("cpu"));  // the worker with devices would be the tightest
  QueuedTask learns = task("learns");
  learns.demand.shape.gpus = 1;
  s.add_task(learns);
  EXPECT_EQ(place(s), (Placed{"cpu@plain", "learns@gpu"}));
}

// What is found without looking at all workers is as good as if one had.
TEST_F(Placement, ATaskWaitsOnlyIfItFitsNowhere) {
  SeededRandom random(5);
  Scheduler s;
  std::vector<Shape> free;
  for (int i = 0; i < 500; ++i) {
    const Shape capacity{static_cast<int64_t>(1 + random.below(64)) * 1'000,
                         static_cast<int64_t>(1 + random.below(256))};
    free.push_back(capacity);
    s.set_worker(worker(std::to_string(i), {}, capacity));
  }
  std::map<TaskRef, std::pair<size_t, Shape>> running;
  size_t waited = 0;
  for (int step = 0; step < 20'000; ++step) {
    QueuedTask one = task("t" + std::to_string(step));
    one.demand.shape = {static_cast<int64_t>(1 + random.below(32)) * 1'000,
                        static_cast<int64_t>(1 + random.below(128))};
    s.add_task(one);
    const auto placed = s.assign(0, 10);
    if (placed.empty()) {
      ++waited;
      for (const Shape& there : free) ASSERT_FALSE(one.demand.shape.fits_in(there)) << "step " << step;
      s.remove_task(one.ref);
    } else {
      const auto worker = static_cast<size_t>(std::stoul(placed[0].worker));
      free[worker] -= one.demand.shape;
      running[one.ref] = {worker, one.demand.shape};
    }
    if (running.size() > 1'100) {
      const auto it = std::next(running.begin(), static_cast<ptrdiff_t>(random.below(running.size())));
      free[it->second.first] += it->second.second;
      s.release(it->first);
      running.erase(it);
    }
  }
  EXPECT_GT(waited, 100u) << "the cluster was full at times";
}

TEST_F(Placement, HeadroomIsForWhatSomebodyWaitsFor) {
  Scheduler s(scheduler_options({.headroom_percent = 25}));
  s.set_worker(worker("w", {}, {4'000}));
  for (const char* id : {"a", "b", "c", "d"}) s.add_task(task(id));
  EXPECT_EQ(place(s), (Placed{"a@w", "b@w", "c@w"}));
  EXPECT_NE(s.explain({"t", "n", "d"})->reasons.at(0).message.find("headroom"), std::string::npos);
  QueuedTask query = task("query");
  query.interactive = true;
  s.add_task(query);
  EXPECT_EQ(place(s), Placed{"query@w"});
  s.release({"t", "n", "query"});
  EXPECT_EQ(place(s), Placed{}) << "what it leaves is kept again";
  s.release({"t", "n", "a"});
  EXPECT_EQ(place(s), Placed{"d@w"});
}

TEST_F(Placement, WhatSomebodyWaitsForGoesBeforeOthersOfItsPriority) {
  Scheduler s;
  s.set_worker(worker("w", {}, {1'000}));
  s.add_task(task("batch"));
  QueuedTask query = task("query");
  query.interactive = true;
  s.add_task(query);
  EXPECT_EQ(place(s), Placed{"query@w"});
}

}  // namespace
}  // namespace uccp::tasks
