#include "services/tasks/autoscaler.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/random.h"

namespace uccp::tasks {
namespace {

using Kind = ScalingDecision::Kind;

constexpr int64_t kMiB = 1 << 20;

Demand cpu(int64_t milli) {
  Demand demand;
  demand.shape.cpu_milli = milli;
  return demand;
}

ScalingGroup group(std::string name, int64_t milli, size_t min, size_t max, double price = 0) {
  ScalingGroup out{.name = name, .price_per_hour = price, .min = min, .max = max};
  out.worker.capacity.cpu_milli = milli;
  out.worker.capacity.memory = 1024 * kMiB;
  out.worker.slots = 100;
  out.worker.labels[kScalingGroupLabel] = std::move(name);
  return out;
}

ScalingWorker worker_of(const ScalingGroup& group, const std::string& instance) {
  ScalingWorker out{.view = group.worker, .group = group.name, .instance = instance};
  out.view.id = "worker-" + instance;
  return out;
}

ScalingDemand waits(uint64_t key, Demand demand, size_t count, int64_t waited_ms = 10'000) {
  return {.key = key, .demand = std::move(demand), .count = count, .waited_ms = waited_ms};
}

size_t count_of(const ScalingOutput& output, Kind kind, const std::string& group = "") {
  return static_cast<size_t>(std::ranges::count_if(output.decisions, [&](const ScalingDecision& one) {
    return one.kind == kind && (group.empty() || one.group == group);
  }));
}

TEST(Autoscaler, StartsAsManyAsWhatWaitsNeeds) {
  Autoscaler core({}, {group("small", 2000, 0, 10)});
  const ScalingOutput out = core.step({.demand = {waits(7, cpu(1000), 5)}});
  EXPECT_EQ(count_of(out, Kind::kStart), 3u);
  EXPECT_EQ(out.notes.at(7), "a worker of group small is being started for it");
  EXPECT_EQ(out.counts.at("small").wanted, 3u);
}

TEST(Autoscaler, TakesTheCheapestGroupThatFitsAndTheNextWhenItIsFull) {
  Autoscaler core({}, {group("dear", 4000, 0, 5, 2.0), group("cheap", 1000, 0, 2, 0.5)});
  const ScalingOutput out = core.step({.demand = {waits(1, cpu(1000), 3), waits(2, cpu(3000), 1)}});
  EXPECT_EQ(count_of(out, Kind::kStart, "dear"), 1u);  // for the large one, which leaves room for a small one
  EXPECT_EQ(count_of(out, Kind::kStart, "cheap"), 2u);
}

TEST(Autoscaler, WhatAllThatWaitsCostsDecidesAndNotTheWorker) {
  const auto groups = [](double large_price) {
    return std::vector{group("small", 1000, 0, 10, 0.5), group("large", 8000, 0, 10, large_price)};
  };
  const auto starts = [&](double large_price, size_t tasks) {
    const ScalingOutput out = Autoscaler({}, groups(large_price)).step({.demand = {waits(1, cpu(1000), tasks)}});
    return std::pair(count_of(out, Kind::kStart, "small"), count_of(out, Kind::kStart, "large"));
  };
  EXPECT_EQ(starts(2.0, 1), std::pair(1ul, 0ul)) << "0.5 and not 2";
  EXPECT_EQ(starts(2.0, 8), std::pair(0ul, 1ul)) << "2 and not 4";
  EXPECT_EQ(starts(2.0, 10), std::pair(2ul, 1ul)) << "the two that are left are not worth a large one";
  EXPECT_EQ(starts(5.0, 8), std::pair(8ul, 0ul)) << "4 and not 5";
  const ScalingOutput out = Autoscaler({}, groups(2.0)).step({.demand = {waits(1, cpu(1000), 8)}});
  EXPECT_NE(out.decisions.front().reason.find("group large at 2 an hour is the cheapest"), std::string::npos)
      << out.decisions.front().reason;
}

TEST(Autoscaler, CountsWhatIsOnItsWay) {
  Autoscaler core({}, {group("small", 1000, 0, 10)});
  const ScalingOutput out = core.step(
      {.instances = {{.id = "n1-small-1", .group = "small", .alive = true}}, .demand = {waits(7, cpu(1000), 1)}});
  EXPECT_TRUE(out.decisions.empty());
  EXPECT_EQ(out.notes.at(7), "a worker of group small is on its way for it");
}

TEST(Autoscaler, WaitsBeforeItStartsAnything) {
  Autoscaler core({.up_delay_ms = 2'000}, {group("small", 1000, 0, 10)});
  EXPECT_TRUE(core.step({.demand = {waits(7, cpu(1000), 1, 1'999)}}).decisions.empty());
  EXPECT_EQ(count_of(core.step({.demand = {waits(7, cpu(1000), 1, 2'000)}}), Kind::kStart), 1u);
}

TEST(Autoscaler, StartsNothingForWhatNoGroupCouldHoldAndSaysSo) {
  Autoscaler core({}, {group("small", 1000, 0, 10)});
  const ScalingOutput out = core.step({.demand = {waits(7, cpu(2000), 1)}});
  EXPECT_TRUE(out.decisions.empty());
  EXPECT_EQ(out.notes.at(7),
            "no scaling group could hold it: it asks for 2 CPU, a worker of group small has 1 CPU, 1024 MiB of memory");
}

TEST(Autoscaler, ObeysLabelsAndTaints) {
  ScalingGroup tainted = group("tainted", 1000, 0, 5);
  tainted.worker.taints = {{"team", "ml", TaintKind::kNoSchedule}};
  Autoscaler core({}, {tainted});
  EXPECT_TRUE(core.step({.demand = {waits(1, cpu(1000), 1)}}).decisions.empty());
  Demand tolerant = cpu(1000);
  tolerant.tolerations = {{"team", "ml", TaintKind::kAny}};
  tolerant.selector = {{kScalingGroupLabel, "tainted"}};
  EXPECT_EQ(count_of(core.step({.demand = {waits(1, tolerant, 1)}}), Kind::kStart), 1u);
}

TEST(Autoscaler, AGangIsMetAsAWholeOrNotAtAll) {
  const ScalingGroup small = group("small", 1000, 0, 3);
  Autoscaler core({}, {small});
  const std::vector<Demand> four(4, cpu(1000));
  const ScalingOutput none = core.step({.gangs = {{.key = 9, .members = four, .waited_ms = 10'000}}});
  EXPECT_TRUE(none.decisions.empty());
  EXPECT_EQ(none.notes.at(9), "for all of the gang at once: group small, which could hold it, has its most workers, 3");
  ScalingWorker other = worker_of(small, "");
  other.group.clear();
  const ScalingOutput all =
      core.step({.workers = {other}, .gangs = {{.key = 9, .members = four, .waited_ms = 10'000}}});
  EXPECT_EQ(count_of(all, Kind::kStart), 3u);
}

TEST(Autoscaler, KeepsTheLeast) {
  Autoscaler core({.min_workers = 3}, {group("a", 1000, 1, 5, 2.0), group("b", 1000, 0, 1, 1.0)});
  const ScalingOutput out = core.step({});
  EXPECT_EQ(count_of(out, Kind::kStart, "a"), 2u);
  EXPECT_EQ(count_of(out, Kind::kStart, "b"), 1u);
}

TEST(Autoscaler, DrainsWhatIsIdleAndNeverWhatWaitsCouldUse) {
  const ScalingGroup small = group("small", 1000, 0, 5);
  Autoscaler core({.down_idle_ms = 60'000}, {small});
  ScalingWorker idle = worker_of(small, "n1-small-1");
  idle.idle_ms = 59'999;
  EXPECT_TRUE(core.step({.now_ms = 1, .workers = {idle}}).decisions.empty());
  idle.idle_ms = 60'000;
  EXPECT_EQ(count_of(core.step({.now_ms = 2, .workers = {idle}}), Kind::kDrain), 1u);
  EXPECT_EQ(count_of(core.step({.now_ms = 3, .workers = {idle}, .demand = {waits(1, cpu(500), 1, 0)}}), Kind::kDrain),
            0u);
  idle.view.accepts = false;  // an operator has cordoned it
  EXPECT_TRUE(core.step({.now_ms = 4, .workers = {idle}}).decisions.empty());
}

TEST(Autoscaler, CoolsDownAfterAStart) {
  const ScalingGroup small = group("small", 1000, 0, 5);
  Autoscaler core({.down_idle_ms = 0, .cool_down_ms = 30'000}, {small});
  ScalingWorker idle = worker_of(small, "n1-small-1");
  EXPECT_EQ(count_of(core.step({.now_ms = 0, .demand = {waits(1, cpu(1000), 1)}}), Kind::kStart), 1u);
  EXPECT_TRUE(core.step({.now_ms = 29'999, .workers = {idle}}).decisions.empty());
  EXPECT_EQ(count_of(core.step({.now_ms = 30'000, .workers = {idle}}), Kind::kDrain), 1u);
}

TEST(Autoscaler, StartsOneMoreAboveTheThresholdAndKeepsIt) {
  const ScalingGroup small = group("small", 1000, 0, 5);
  Autoscaler core({.metric = ScalingMetric::kCpu, .threshold = 0.8, .down_idle_ms = 0, .cool_down_ms = 0}, {small});
  ScalingWorker full = worker_of(small, "n1-small-1");
  full.used.cpu_milli = 900;
  full.running = 1;
  const ScalingOutput up = core.step({.workers = {full}});
  ASSERT_EQ(count_of(up, Kind::kStart), 1u);
  EXPECT_STREQ(up.decisions[0].cause, "threshold");
  ScalingWorker idle = worker_of(small, "n1-small-2");
  idle.idle_ms = 1'000'000;
  EXPECT_TRUE(core.step({.now_ms = 1, .workers = {full, idle}}).decisions.empty());
}

TEST(Autoscaler, GivesUpWhatNeverRegistersAndPausesTheGroup) {
  Autoscaler core({.start_timeout_ms = 60'000, .backoff_ms = 10'000}, {group("small", 1000, 0, 5)});
  ScalingInput input{.now_ms = 0,
                     .instances = {{.id = "n1-small-1", .group = "small", .alive = true, .age_ms = 60'000}},
                     .demand = {waits(1, cpu(1000), 1)}};
  const ScalingOutput out = core.step(input);
  EXPECT_EQ(count_of(out, Kind::kGiveUp), 1u);
  EXPECT_EQ(count_of(out, Kind::kStart), 0u);
  EXPECT_EQ(out.notes.at(1), "group small, which could hold it, pauses for 10 s after 1 failed starts");
  input.instances.clear();
  input.now_ms = 9'999;
  EXPECT_EQ(count_of(core.step(input), Kind::kStart), 0u);
  input.now_ms = 10'000;
  EXPECT_EQ(count_of(core.step(input), Kind::kStart), 1u);
  core.start_failed("small", 20'000);  // twice as long now
  input.now_ms = 39'999;
  EXPECT_EQ(count_of(core.step(input), Kind::kStart), 0u);
  input.now_ms = 40'000;
  EXPECT_EQ(count_of(core.step(input), Kind::kStart), 1u);
}

TEST(Autoscaler, StartsTheAgentOfAWorkerAgainAndRemovesWhatIsDrained) {
  const ScalingGroup small = group("small", 1000, 0, 5);
  Autoscaler core({}, {small});
  ScalingWorker silent = worker_of(small, "n1-small-1");
  silent.silent = silent.busy = true;
  ScalingInstance dead{.id = "n1-small-1", .group = "small", .registered = true, .age_ms = 5'000};
  EXPECT_EQ(count_of(core.step({.workers = {silent}, .instances = {dead}}), Kind::kRestart), 1u);
  ScalingWorker drained = worker_of(small, "n1-small-1");
  drained.draining = true;
  EXPECT_EQ(count_of(core.step({.workers = {drained}}), Kind::kRemove), 1u);
  drained.busy = true;
  EXPECT_TRUE(core.step({.workers = {drained}}).decisions.empty());
  dead.alive = true;  // and the worker is not in the registry any more
  EXPECT_EQ(count_of(core.step({.instances = {dead}}), Kind::kStop), 1u);
}

// A world of one group: workers come a while after they were started, tasks run for a while and are placed where they
// fit. Whatever the demand: bounds hold, what a worker could hold is run, and what is drained would not have been used.
class World {
 public:
  World(uint64_t seed, const ScalingGroup& group, Autoscaler& core) : random_(seed), group_(group), core_(core) {}

  void step(bool demand) {
    now_ms_ += 1'000;
    for (Here& one : here_) {
      if (one.comes_ms > 0 && one.comes_ms <= now_ms_) one.comes_ms = 0;
      std::erase_if(one.ends, [&](int64_t end) { return end <= now_ms_; });
      if (!one.ends.empty()) one.idle_since_ms = now_ms_;
    }
    if (demand && random_.below(4) == 0) {
      for (uint64_t i = random_.below(6); i > 0; --i) waiting_.push_back(now_ms_);
    }
    place();
    decide();
    EXPECT_LE(here_.size(), group_.max);
  }
  size_t waiting() const { return waiting_.size(); }
  size_t workers() const { return here_.size(); }

 private:
  struct Here {
    std::string instance;
    int64_t comes_ms = 0;
    int64_t idle_since_ms = 0;
    bool draining = false;
    std::vector<int64_t> ends;
  };

  void place() {
    for (Here& one : here_) {
      while (one.comes_ms == 0 && !one.draining && one.ends.size() < 2 && !waiting_.empty()) {
        one.ends.push_back(now_ms_ + 1'000 + static_cast<int64_t>(random_.below(20'000)));
        one.idle_since_ms = now_ms_;
        waiting_.erase(waiting_.begin());
      }
    }
  }

  void decide() {
    ScalingInput input{.now_ms = now_ms_};
    for (const Here& one : here_) {
      if (one.comes_ms > 0) {
        input.instances.push_back({.id = one.instance, .group = group_.name, .alive = true});
        continue;
      }
      ScalingWorker worker = worker_of(group_, one.instance);
      worker.running = one.ends.size();
      worker.used.cpu_milli = static_cast<int64_t>(one.ends.size()) * 1000;
      worker.busy = worker.running > 0;
      worker.draining = one.draining;
      worker.idle_ms = now_ms_ - one.idle_since_ms;
      input.workers.push_back(worker);
    }
    if (!waiting_.empty()) input.demand = {waits(1, cpu(1000), waiting_.size(), now_ms_ - waiting_.front())};
    for (const ScalingDecision& decision : core_.step(input).decisions) carry_out(decision);
  }

  void carry_out(const ScalingDecision& decision) {
    const auto at = std::ranges::find(here_, decision.instance, &Here::instance);
    if (decision.kind == Kind::kStart) {
      here_.push_back({.instance = std::to_string(++made_),
                       .comes_ms = now_ms_ + 1'000 + static_cast<int64_t>(random_.below(8'000))});
    } else if (decision.kind == Kind::kDrain) {
      ASSERT_NE(at, here_.end());
      EXPECT_TRUE(at->ends.empty());
      EXPECT_TRUE(waiting_.empty()) << "drained while something waited that it could hold";
      at->draining = true;
    } else {
      ASSERT_EQ(decision.kind, Kind::kRemove);
      EXPECT_TRUE(at->draining);
      here_.erase(at);
    }
  }

  SeededRandom random_;
  const ScalingGroup& group_;
  Autoscaler& core_;
  int64_t now_ms_ = 0;
  uint64_t made_ = 0;
  std::vector<int64_t> waiting_;  // since when
  std::vector<Here> here_;
};

TEST(AutoscalerProperty, BoundsHoldDemandIsMetAndWorkersGo) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    const ScalingGroup small = group("small", 2000, seed % 3, 3 + seed % 5);
    Autoscaler core({.up_delay_ms = 1'000, .down_idle_ms = 15'000, .cool_down_ms = 5'000}, {small});
    World world(seed, small, core);
    for (int i = 0; i < 300; ++i) {
      world.step(true);
      if (i > 20) EXPECT_GE(world.workers(), small.min);
    }
    for (int i = 0; i < 2'000 && world.waiting() > 0; ++i) world.step(false);
    EXPECT_EQ(world.waiting(), 0u);
    for (int i = 0; i < 100; ++i) world.step(false);
    EXPECT_EQ(world.workers(), small.min);
  }
}

}  // namespace
}  // namespace uccp::tasks
