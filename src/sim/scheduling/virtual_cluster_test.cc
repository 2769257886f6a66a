#include "sim/scheduling/virtual_cluster.h"

#include <gtest/gtest.h>

namespace uccp::sim {
namespace {

constexpr int64_t kDayMs = 86'400'000;

TEST(VirtualCluster, EverythingEndsOnceWhateverFails) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    VirtualCluster cluster(
        seed, {.workers = 50, .tasks = 5'000, .tasks_per_s = 20, .failures_per_s = 0.02, .straggler_share = 0.02});
    EXPECT_TRUE(cluster.run(kDayMs)) << "seed " << seed;
    EXPECT_EQ(cluster.violation(), "") << "seed " << seed;
    EXPECT_EQ(cluster.ended(), 5'000u) << "seed " << seed;
    EXPECT_GT(cluster.lost(), 10u) << "seed " << seed;
  }
}

TEST(VirtualCluster, GangsSharesAndQuotasHoldWhateverFails) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    VirtualCluster cluster(seed, {.workers = 50,
                                  .tasks = 5'000,
                                  .tasks_per_s = 20,
                                  .gang_share = 0.2,
                                  .shared_gpu_share = 0.1,
                                  .quota_tasks = 150,
                                  .failures_per_s = 0.02,
                                  .straggler_share = 0.02});
    EXPECT_TRUE(cluster.run(kDayMs)) << "seed " << seed;
    EXPECT_EQ(cluster.violation(), "") << "seed " << seed;
    EXPECT_EQ(cluster.ended(), 5'000u) << "seed " << seed;
    EXPECT_GT(cluster.lost(), 10u) << "seed " << seed;
  }
}

TEST(VirtualCluster, WhatMakesRoomIsWholeAndEndsAllTheSame) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    VirtualCluster cluster(seed, {.workers = 30,
                                  .tasks = 5'000,
                                  .tasks_per_s = 15,
                                  .gang_share = 0.3,
                                  .preemptible_share = 0.5,
                                  .failures_per_s = 0.01,
                                  .straggler_share = 0.02});
    EXPECT_TRUE(cluster.run(kDayMs)) << "seed " << seed;
    EXPECT_EQ(cluster.violation(), "") << "seed " << seed;
    EXPECT_EQ(cluster.ended(), 5'000u) << "seed " << seed;
    EXPECT_GT(cluster.stopped(), 50u) << "seed " << seed;
  }
}

TEST(VirtualCluster, TheSameEventsGiveTheSameDecisions) {
  const auto run = [](uint64_t seed) {
    VirtualCluster cluster(seed, {.workers = 30, .tasks = 3'000, .tasks_per_s = 30, .failures_per_s = 0.05});
    EXPECT_TRUE(cluster.run(kDayMs));
    return cluster.trace_hash();
  };
  EXPECT_EQ(run(7), run(7));
  EXPECT_NE(run(7), run(8));
}

// More arrives than can run: the cluster stays full, and the namespaces wait alike.
TEST(VirtualCluster, AnOverloadedClusterIsFullAndFair) {
  VirtualCluster cluster(
      3,
      {.workers = 50, .tasks = 10'000, .tasks_per_s = 40, .duration_ms = 60'000, .gpu_share = 0, .selector_share = 0});
  EXPECT_TRUE(cluster.run(kDayMs));
  EXPECT_EQ(cluster.violation(), "");
  EXPECT_GT(cluster.utilisation(), 0.9);
  EXPECT_GT(cluster.fairness(), 0.95);
}

// Ten thousand workers, a hundred thousand running tasks.
TEST(VirtualCluster, TenThousandWorkersRunAHundredThousandTasks) {
  VirtualCluster cluster(11, {.workers = 10'000,
                              .tasks = 150'000,
                              .tasks_per_s = 2'000,
                              .duration_ms = 300'000,
                              .namespaces = 50,
                              .failures_per_s = 0.2,
                              .straggler_share = 0.01});
  EXPECT_TRUE(cluster.run(kDayMs));
  EXPECT_EQ(cluster.violation(), "");
  EXPECT_EQ(cluster.ended(), 150'000u);
  EXPECT_GE(cluster.running_peak(), 100'000u);
  EXPECT_GT(cluster.lost(), 100u);
}

}  // namespace
}  // namespace uccp::sim
