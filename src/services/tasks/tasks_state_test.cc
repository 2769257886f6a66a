#include "services/tasks/tasks_state.h"

#include <gtest/gtest.h>

#include "services/tasks/tasks_test_lab.h"

namespace uccp::tasks {
namespace {

using TasksStateTest = TasksStateLab;

TEST_F(TasksStateTest, AnOutcomeEndsTheTaskOnce) {
  ASSERT_TRUE(schedule("a"));
  EXPECT_EQ(task("a").status(), v1::TASK_STATUS_QUEUED);
  EXPECT_TRUE(report(outcome("a", 1, 0)));
  EXPECT_EQ(task("a").status(), v1::TASK_STATUS_SUCCEEDED);
  EXPECT_FALSE(report(outcome("a", 1, 7)));
  EXPECT_FALSE(report(outcome("a", 2, 7)));
  EXPECT_EQ(task("a").exit_code(), 0);
  EXPECT_EQ(task("a").attempts(), 1);
}

TEST_F(TasksStateTest, OutcomesOfAnOldEpochDoNotCount) {
  ASSERT_TRUE(schedule("a"));
  const AttemptOutcome old = outcome("a", 1, 0);
  hello("i2");  // the agent was restarted
  EXPECT_FALSE(report(old));
  EXPECT_EQ(task("a").status(), v1::TASK_STATUS_QUEUED);
  EXPECT_TRUE(report(outcome("a", 1, 0)));
}

TEST_F(TasksStateTest, AFencedWorkerCannotReportAnyMore) {
  ASSERT_TRUE(schedule("a"));
  internal::v1::FenceCommand fence;
  fence.set_worker_id("w");
  fence.set_epoch(epoch_);
  ASSERT_TRUE(apply("workers.fence", fence.SerializeAsString()));
  EXPECT_FALSE(report(outcome("a", 1, 0)));
  AttemptOutcome lost = outcome("a", 1, 0);
  lost.set_kind(v1::ATTEMPT_OUTCOME_KIND_LOST);
  EXPECT_TRUE(report(lost));
  EXPECT_EQ(task("a").status(), v1::TASK_STATUS_QUEUED);
  EXPECT_EQ(task("a").retry_count(), 0);  // the worker's fault costs no retry
}

TEST_F(TasksStateTest, AFailureIsRetriedUntilItsAttemptsAreUsedUp) {
  ASSERT_TRUE(schedule("a", {}, 3));
  EXPECT_TRUE(report(outcome("a", 1, 1)));
  EXPECT_EQ(task("a").status(), v1::TASK_STATUS_QUEUED);
  EXPECT_TRUE(report(outcome("a", 2, 1)));
  EXPECT_TRUE(report(outcome("a", 3, 5)));
  EXPECT_EQ(task("a").status(), v1::TASK_STATUS_FAILED);
  EXPECT_EQ(task("a").exit_code(), 5);
  EXPECT_EQ(task("a").attempt_history_size(), 3);
}

TEST_F(TasksStateTest, ADependentWaitsAndIsQueuedWhenAllItsDependenciesSucceeded) {
  ASSERT_TRUE(schedule("a"));
  ASSERT_TRUE(schedule("b"));
  ASSERT_TRUE(schedule("c", {"a", "b"}));
  EXPECT_EQ(task("c").status(), v1::TASK_STATUS_PENDING);
  report(outcome("a", 1, 0));
  EXPECT_EQ(task("c").status(), v1::TASK_STATUS_PENDING);
  report(outcome("b", 1, 0));
  EXPECT_EQ(task("c").status(), v1::TASK_STATUS_QUEUED);
}

// Whatever lies between the first and the last of them, and however much of it there is.
TEST_F(TasksStateTest, OneCommandSettlesWhatWaitsForEachTaskThatItEnds) {
  const auto end = [&](const std::vector<std::string>& ids) {
    internal::v1::OutcomesCommand command;
    for (const std::string& id : ids) *command.add_items()->mutable_outcome() = outcome(id, 1, 0);
    ASSERT_TRUE(apply("tasks.outcomes", command.SerializeAsString()));
    for (const std::string& id : ids) ASSERT_EQ(task(id).status(), v1::TASK_STATUS_SUCCEEDED) << id;
  };
  for (const char* id : {"a", "a1", "b", "c", "m", "z"}) ASSERT_TRUE(schedule(id));
  for (const char* id : {"a", "a1", "c", "z"}) ASSERT_TRUE(schedule("after-" + std::string(id), {id}));
  end({"c", "a", "b"});
  EXPECT_EQ(task("after-a").status(), v1::TASK_STATUS_QUEUED);
  EXPECT_EQ(task("after-c").status(), v1::TASK_STATUS_QUEUED);
  EXPECT_EQ(task("after-a1").status(), v1::TASK_STATUS_PENDING);
  for (int i = 0; i < 1'100; ++i) ASSERT_TRUE(schedule("many" + std::to_string(i), {"m"}));
  end({"a1", "z"});
  EXPECT_EQ(task("after-a1").status(), v1::TASK_STATUS_QUEUED);
  EXPECT_EQ(task("after-z").status(), v1::TASK_STATUS_QUEUED);
  EXPECT_EQ(task("many0").status(), v1::TASK_STATUS_PENDING);
}

TEST_F(TasksStateTest, AFailureRunsDownAnyChainOfDependents) {
  ASSERT_TRUE(schedule("t0"));
  for (int i = 1; i < 2000; ++i) ASSERT_TRUE(schedule("t" + std::to_string(i), {"t" + std::to_string(i - 1)}));
  report(outcome("t0", 1, 1));
  EXPECT_EQ(task("t1999").status(), v1::TASK_STATUS_FAILED);
  EXPECT_NE(task("t1999").status_reason().find("t1998"), std::string::npos);
}

TEST_F(TasksStateTest, ConditionsDecideWhatAFailureMeansForADependent) {
  ASSERT_TRUE(schedule("a"));
  ASSERT_TRUE(schedule("cleanup", {"a"}, 1, v1::DEPENDENCY_CONDITION_COMPLETED));
  ASSERT_TRUE(schedule("alarm", {"a"}, 1, v1::DEPENDENCY_CONDITION_FAILED));
  report(outcome("a", 1, 1));
  EXPECT_EQ(task("cleanup").status(), v1::TASK_STATUS_QUEUED);
  EXPECT_EQ(task("alarm").status(), v1::TASK_STATUS_QUEUED);
}

TEST_F(TasksStateTest, AnUnknownDependencyIsRefusedAndNothingIsLeft) {
  const auto result = schedule("a", {"ghost"});
  EXPECT_EQ(result.error().reason(), "DEPENDENCY_NOT_FOUND");
  EXPECT_EQ(task("a").id(), "");
}

TEST_F(TasksStateTest, OnlyTasksThatHaveEndedAreForgotten) {
  ASSERT_TRUE(schedule("a"));
  ASSERT_TRUE(schedule("b"));
  report(outcome("a", 1, 0));
  internal::v1::PruneCommand prune;
  for (const char* id : {"a", "b"}) {
    auto& key = *prune.add_tasks();
    key.set_tenant("t");
    key.set_namespace_("n");
    key.set_id(id);
  }
  size_t expiring = 0;
  const auto count = [&] {
    expiring = 0;
    work::kTaskExpiry.scan(machine_.view(), {}, "", "",
                           [&](std::string_view, std::string_view) { return ++expiring > 0; });
    return expiring;
  };
  EXPECT_EQ(count(), 1u);
  ASSERT_TRUE(apply("tasks.prune", prune.SerializeAsString()));
  EXPECT_EQ(task("a").id(), "");
  EXPECT_EQ(task("b").id(), "b");
  EXPECT_EQ(count(), 0u);
}

TEST_F(TasksStateTest, CancellingWhatWaitsEndsItAndWhatRunsIsAskedToStop) {
  ASSERT_TRUE(schedule("a"));
  ASSERT_TRUE(schedule("b"));
  internal::v1::CancelCommand command;
  command.set_id("a");
  command.set_final(true);
  ASSERT_TRUE(apply("tasks.cancel", command.SerializeAsString()));
  EXPECT_EQ(task("a").status(), v1::TASK_STATUS_CANCELLED);
  command.set_id("b");
  command.set_final(false);
  ASSERT_TRUE(apply("tasks.cancel", command.SerializeAsString()));
  EXPECT_EQ(task("b").status(), v1::TASK_STATUS_STOPPING);
  AttemptOutcome killed = outcome("b", 1, 0);
  killed.set_kind(v1::ATTEMPT_OUTCOME_KIND_SIGNALLED);
  EXPECT_TRUE(report(killed));
  EXPECT_EQ(task("b").status(), v1::TASK_STATUS_CANCELLED);
  EXPECT_TRUE(apply("tasks.cancel", command.SerializeAsString()));  // again: no error, nothing changes
}

}  // namespace
}  // namespace uccp::tasks
