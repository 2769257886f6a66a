#include "services/tasks/quota_budgets.h"

#include <gtest/gtest.h>

#include <optional>

#include "services/tasks/task_use.h"
#include "services/tasks/tasks_test_lab.h"

namespace uccp::tasks {
namespace {

constexpr int64_t kHourMs = 3'600'000;

TEST(Months, AreOfTheCalendarInUtc) {
  EXPECT_EQ(month_of({1'798'761'599'000'000}), "2026-12");
  EXPECT_EQ(month_of({1'798'761'600'000'000}), "2027-01");
}

class Budgets : public TasksStateLab {
 protected:
  void set(v1::ResourceQuota quota) {
    quota.set_scope(v1::QUOTA_SCOPE_NAMESPACE);
    quota.set_namespace_("n");
    QuotaView view{.key = "namespace:n"};
    if (quota.hard().has_cpu()) view.hard[0] = static_cast<int64_t>(quota.hard().cpu() * 1000);
    base_ = view;
    budgets_.set("t", view.key, quota);
    book_.set("t", budgets_.view_of("t", view));
  }
  // Time passes; what has changed is taken up as the leader does.
  void pass(int64_t ms) {
    now_ms_ += ms;
    budgets_.refresh(machine_.view(), book_, {now_ms_ * 1000}, {now_ms_ * 1000});
    for (const auto& [tenant, key] : budgets_.take_changed()) book_.set(tenant, budgets_.view_of(tenant, base_));
  }
  void charge(const QuotaBudgets::Charge& charge) { budgets_.charge(kOwner, charge, {now_ms_ * 1000}); }
  std::string refusal(const Shape& shape) { return book_.refusal(kOwner, quota_amounts(shape)).value_or(""); }

  const QuotaBook::Owner kOwner{"t", "n", "alice"};
  QuotaBudgets budgets_;
  QuotaBook book_;
  QuotaView base_;
  int64_t now_ms_ = 1'798'700'000'000;  // 2026-12-31, 7 in the morning
};

TEST_F(Budgets, GpuHoursThatAreUsedUpKeepTasksWithGpusAndNoOthers) {
  v1::ResourceQuota quota;
  quota.mutable_hard()->set_gpu_hours(2);
  set(quota);
  pass(1000);
  EXPECT_EQ(refusal({.gpus = 1}), "");
  charge({.gpu_ms = 2 * kHourMs});
  pass(1000);
  EXPECT_EQ(refusal({.gpus = 1}), "the quota namespace:n has used 2 of 2 GPU hours of this month");
  EXPECT_EQ(refusal({.cpu_milli = 1000}), "");
  EXPECT_EQ(budgets_.used({"t", "namespace:n"}).gpu_hours(), 2);
  (void)budgets_.take_pending();  // charged to the month that ends
  pass(24 * kHourMs);
  EXPECT_EQ(refusal({.gpus = 1}), "") << "a new month has begun";
}

TEST_F(Budgets, CallsAndTopicsAreCountedAndTold) {
  v1::ResourceQuota quota;
  quota.mutable_hard()->set_requests_per_day(100);
  quota.mutable_hard()->set_requests_per_second(10);
  quota.mutable_hard()->set_topics(4);
  set(quota);
  budgets_.set_count_topics([](const std::string& tenant, const v1::ResourceQuota& one) {
    return tenant == "t" && one.namespace_() == "n" ? 3u : 0u;
  });
  pass(1000);
  EXPECT_EQ(budgets_.used({"t", "namespace:n"}).topics(), 3);
  EXPECT_EQ(budgets_.used({"t", "namespace:n"}).requests_per_day(), 0);
  EXPECT_TRUE(budgets_.take_alerts().empty());
  EXPECT_EQ(refusal({.cpu_milli = 1}), "") << "tasks do not wait for calls";
  EXPECT_FALSE(budgets_.has_budgets()) << "nothing is charged for what runs";
}

TEST_F(Budgets, CostThatIsUsedUpKeepsAll) {
  v1::ResourceQuota quota;
  quota.mutable_hard()->set_cost(1.5);
  set(quota);
  charge({.cost_millionths = 1'500'000});
  pass(1000);
  EXPECT_EQ(refusal({.cpu_milli = 1}), "the quota namespace:n has used 1.5 of 1.5 of the cost of this month");
}

TEST_F(Budgets, WhatIsChargedIsTakenOnceAndComesBackWhenItDidNotCount) {
  v1::ResourceQuota quota;
  quota.mutable_hard()->set_gpu_hours(2);
  set(quota);
  charge({.gpu_ms = kHourMs});
  const auto first = budgets_.take_pending();
  ASSERT_EQ(first.size(), 1u);
  EXPECT_EQ(first.at("t").uses(0).gpu_ms(), kHourMs);
  EXPECT_EQ(first.at("t").uses(0).month(), "2026-12");
  EXPECT_TRUE(budgets_.take_pending().empty());
  budgets_.give_back("t", first.at("t"));
  EXPECT_EQ(budgets_.take_pending().at("t").uses(0).gpu_ms(), kHourMs);
  pass(1000);
  EXPECT_EQ(budgets_.used({"t", "namespace:n"}).gpu_hours(), 1) << "however often it was under way";
}

TEST_F(Budgets, ABurstIsSpentAndHasToBeWholeAgain) {
  v1::ResourceQuota quota;
  quota.mutable_hard()->set_cpu(2);
  quota.set_burst_factor(1.5);
  quota.mutable_burst_duration()->set_seconds(60);
  set(quota);
  pass(1000);
  book_.charge(kOwner, quota_amounts({.cpu_milli = 3000}), 1);
  EXPECT_NE(refusal({.cpu_milli = 1}), "") << "half as much again, and no more";
  for (int i = 0; i < 61; ++i) pass(1000);
  book_.charge(kOwner, quota_amounts({.cpu_milli = 2000}), -1);
  EXPECT_EQ(refusal({.cpu_milli = 1000}), "");
  EXPECT_NE(refusal({.cpu_milli = 1001}), "") << "its burst is spent";
  for (int i = 0; i < 59; ++i) pass(1000);
  EXPECT_NE(refusal({.cpu_milli = 1001}), "") << "and is not whole yet";
  pass(2000);
  EXPECT_EQ(refusal({.cpu_milli = 2000}), "");
}

TEST_F(Budgets, EachThresholdIsToldOnceUntilTheUseHasFallen) {
  v1::ResourceQuota quota;
  quota.mutable_hard()->set_cpu(10);
  set(quota);
  const auto told = [&](int64_t cpu_milli) {
    book_.charge(kOwner, quota_amounts({.cpu_milli = cpu_milli}), 1);
    pass(1000);
    const auto alerts = budgets_.take_alerts();
    return alerts.empty() ? std::optional<double>() : alerts.at(0).threshold;
  };
  EXPECT_EQ(told(7000), std::nullopt);
  EXPECT_EQ(told(1000), 0.8);
  EXPECT_EQ(told(0), std::nullopt);
  EXPECT_EQ(told(2000), 1);
  EXPECT_EQ(told(-3000), std::nullopt);
  EXPECT_EQ(told(1000), 0.8) << "it had fallen below";
}

TEST_F(Budgets, TasksThatHaveNotEndedAndWhatTheyStoreAreCounted) {
  v1::ResourceQuota stored;
  stored.set_scope(v1::QUOTA_SCOPE_NAMESPACE);
  stored.set_namespace_("n");
  const auto use = [&] { return task_use(machine_.view(), "t", stored); };
  for (const char* id : {"a", "b"}) ASSERT_TRUE(schedule(id));
  EXPECT_EQ(use().active(), 2);
  AttemptOutcome end = outcome("a", 1, 0);
  end.add_artifacts()->set_size(1000);
  end.add_logs()->mutable_blob()->set_size(24);
  EXPECT_TRUE(report(end));
  EXPECT_EQ(use().active(), 1);
  EXPECT_EQ(use().bytes(), 1024);
  internal::v1::PruneCommand prune;
  auto& key = *prune.add_tasks();
  key.set_tenant("t");
  key.set_namespace_("n");
  key.set_id("a");
  ASSERT_TRUE(apply("tasks.prune", prune.SerializeAsString()));
  EXPECT_EQ(use().bytes(), 0) << "it is forgotten with its task";
}

}  // namespace
}  // namespace uccp::tasks
