#include "services/tasks/task_arrays.h"

#include "base/bytes.h"
#include "services/message_types.h"
#include "services/quota_use_types.h"
#include "services/tasks/tasks_test_lab.h"

namespace uccp::tasks {
namespace {

using v1::TASK_STATUS_CANCELLED;
using v1::TASK_STATUS_FAILED;
using v1::TASK_STATUS_QUEUED;
using v1::TASK_STATUS_STOPPING;
using v1::TASK_STATUS_SUCCEEDED;
using v1::TASK_STATUS_TIMED_OUT;

class TaskArrays : public TasksStateLab {
 protected:
  machine::ApplyResult submit(const std::string& id, int size, int attempts = 1, const std::string& dependency = "") {
    TaskRow row;
    v1::Task& task = *row.mutable_task();
    task.set_id(id);
    task.set_namespace_("n");
    task.set_principal("alice");
    task.add_command("true");
    task.mutable_array()->set_size(size);
    task.mutable_retry()->set_max_attempts(attempts);
    if (!dependency.empty()) task.add_dependencies()->set_task_id(dependency);
    row.set_cancel_grace_ms(-1);
    return apply("tasks.schedule", row.SerializeAsString());
  }
  AttemptOutcome ran(const std::string& id, int number, int exit_code) {
    AttemptOutcome o = outcome(id, number, exit_code);
    services::set_wall(o.mutable_start_time(), {5'000'000});
    services::set_wall(o.mutable_end_time(), {7'500'000});
    o.mutable_usage()->set_cpu_seconds(1.5);
    return o;
  }
  TaskRow find(const std::string& id) { return find_task(machine_.view(), {"t", "n"}, id).value_or(TaskRow()); }
  v1::TaskStatus status(const std::string& id) { return find(id).task().status(); }
  v1::ArrayElements counts(const std::string& id) { return task(id).elements(); }
  machine::ApplyResult cancel(const std::string& id, const std::vector<uint32_t>& may_run = {},
                              std::vector<internal::v1::ElementRange> only = {}) {
    internal::v1::CancelCommand command;
    command.set_id(id);
    command.set_grace_ms(-1);
    command.mutable_elements()->mutable_may_run()->Assign(may_run.begin(), may_run.end());
    command.mutable_elements()->mutable_only()->Assign(only.begin(), only.end());
    return apply("tasks.cancel", command.SerializeAsString());
  }
  machine::ApplyResult resume(const std::string& id) {
    v1::ResumeTaskRequest request;
    request.set_id(id);
    return apply("tasks.resume", request.SerializeAsString());
  }
  // Rows of a table in the scope of the tests.
  template <typename Table>
  size_t rows(const Table& table) {
    size_t count = 0;
    table.scan(machine_.view(), {"t", "n"}, "", "", [&](std::string_view, const auto&) {
      ++count;
      return true;
    });
    return count;
  }
};

TEST_F(TaskArrays, IdsOfElementsAreWrittenInOneWay) {
  EXPECT_EQ(element_of("render:17")->array, "render");
  EXPECT_EQ(element_of("render:17")->index, 17u);
  EXPECT_EQ(element_of("a:b:0")->array, "a:b");
  for (const char* no : {"render", "render:", ":1", "render:017", "render:-1", "render:1x", "render:99999999999"})
    EXPECT_FALSE(element_of(no)) << no;
  EXPECT_EQ(element_id("render", 17), "render:17");
}

TEST_F(TaskArrays, AHundredThousandElementsAreOneRow) {
  ASSERT_TRUE(submit("big", 100'000));
  EXPECT_EQ(rows(work::kTasks), 1u);
  EXPECT_EQ(rows(work::kElementStates), 0u);
  EXPECT_EQ(status("big:99999"), TASK_STATUS_QUEUED);
  EXPECT_EQ(find("big:7").task().parent_id(), "big");
  EXPECT_EQ(find("big:7").task().array_index(), 7);
  EXPECT_TRUE(find("big:100000").task().id().empty()) << "there is no element behind the last one";
}

TEST_F(TaskArrays, WhatSucceedsQuietlyTakesNoRowAndLosesNothing) {
  ASSERT_TRUE(submit("a", 300));
  for (int i = 0; i < 300; ++i) ASSERT_TRUE(report(ran(element_id("a", static_cast<uint32_t>(i)), 1, 0))) << i;
  EXPECT_EQ(rows(work::kElements), 0u);
  EXPECT_EQ(rows(work::kElementStates), 2u);
  const v1::Task element = find("a:299").task();
  EXPECT_EQ(element.status(), TASK_STATUS_SUCCEEDED);
  EXPECT_EQ(element.exit_code(), 0);
  EXPECT_EQ(element.worker_id(), "w");
  ASSERT_EQ(element.attempt_history_size(), 1);
  EXPECT_EQ(services::us_of(element.attempt_history(0).start_time()), 5'000'000);
  EXPECT_EQ(services::us_of(element.attempt_history(0).end_time()), 7'500'000);
  EXPECT_EQ(element.attempt_history(0).usage().cpu_seconds(), 1.5);
  EXPECT_EQ(task("a").status(), TASK_STATUS_SUCCEEDED);
  EXPECT_EQ(task("a").status_reason(), "all 300 elements succeeded");
}

TEST_F(TaskArrays, AnOutcomeOfAnElementCountsOnce) {
  ASSERT_TRUE(submit("a", 2));
  EXPECT_TRUE(report(ran("a:0", 1, 0)));
  EXPECT_FALSE(report(ran("a:0", 1, 0)));
  EXPECT_FALSE(report(ran("a:1", 2, 0))) << "the attempt before did not end";
  EXPECT_FALSE(report(ran("a:2", 1, 0))) << "there is no such element";
  EXPECT_EQ(counts("a").succeeded(), 1);
  EXPECT_EQ(task("a").status(), TASK_STATUS_QUEUED);
}

TEST_F(TaskArrays, EachElementHasItsOwnRetries) {
  ASSERT_TRUE(submit("a", 2, 2));
  ASSERT_TRUE(report(ran("a:0", 1, 1)));
  EXPECT_EQ(status("a:0"), TASK_STATUS_QUEUED);
  EXPECT_EQ(find("a:0").task().retry_count(), 1);
  EXPECT_EQ(find("a:1").task().retry_count(), 0);
  ASSERT_TRUE(report(ran("a:0", 2, 0)));
  ASSERT_TRUE(report(ran("a:1", 1, 1)));
  ASSERT_TRUE(report(ran("a:1", 2, 3)));
  EXPECT_EQ(find("a:1").task().exit_code(), 3);
  EXPECT_EQ(find("a:1").task().attempt_history_size(), 2);
  EXPECT_EQ(task("a").status(), TASK_STATUS_FAILED);
  EXPECT_EQ(task("a").status_reason(), "1 of 2 elements failed");
}

TEST_F(TaskArrays, ACancelledArrayEndsWithWhatStillRan) {
  ASSERT_TRUE(submit("a", 600));
  ASSERT_TRUE(report(ran("a:3", 1, 0)));
  ASSERT_TRUE(cancel("a", {5, 300}));
  EXPECT_EQ(task("a").status(), TASK_STATUS_STOPPING);
  EXPECT_EQ(status("a:5"), TASK_STATUS_STOPPING);
  EXPECT_EQ(status("a:4"), TASK_STATUS_CANCELLED);
  EXPECT_EQ(counts("a").cancelled(), 597);
  AttemptOutcome killed = ran("a:5", 1, 0);
  killed.set_kind(v1::ATTEMPT_OUTCOME_KIND_CANCELLED);
  killed.clear_exit_code();
  ASSERT_TRUE(report(killed));
  EXPECT_EQ(task("a").status(), TASK_STATUS_STOPPING);
  ASSERT_TRUE(report(ran("a:300", 1, 1))) << "what ends by itself while it is stopped is cancelled all the same";
  EXPECT_EQ(status("a:300"), TASK_STATUS_CANCELLED);
  EXPECT_EQ(task("a").status(), TASK_STATUS_CANCELLED);
  EXPECT_EQ(task("a").status_reason(), "cancelled by alice");
  EXPECT_EQ(counts("a").succeeded(), 1);
  EXPECT_EQ(counts("a").cancelled(), 599);
}

TEST_F(TaskArrays, SomeElementsAreCancelledAndTheOthersGoOn) {
  ASSERT_TRUE(submit("a", 10));
  internal::v1::ElementRange range;
  range.set_first(2);
  range.set_count(3);
  ASSERT_TRUE(cancel("a", {3}, {range}));
  EXPECT_EQ(status("a:1"), TASK_STATUS_QUEUED);
  EXPECT_EQ(status("a:2"), TASK_STATUS_CANCELLED);
  EXPECT_EQ(status("a:3"), TASK_STATUS_STOPPING);
  EXPECT_EQ(task("a").status(), TASK_STATUS_QUEUED);
  ASSERT_TRUE(cancel("a:9"));
  EXPECT_EQ(status("a:9"), TASK_STATUS_STOPPING) << "it may run, for all that the command says";
  EXPECT_EQ(counts("a").cancelled(), 2);
}

TEST_F(TaskArrays, ADeadlineEndsWhatHasNotEnded) {
  ASSERT_TRUE(submit("a", 3));
  ASSERT_TRUE(report(ran("a:0", 1, 0)));
  internal::v1::DeadlineCommand command;
  command.set_id("a");
  command.mutable_elements()->add_may_run(1);
  ASSERT_TRUE(apply("tasks.deadline", command.SerializeAsString()));
  EXPECT_EQ(status("a:2"), TASK_STATUS_TIMED_OUT);
  EXPECT_EQ(status("a:1"), TASK_STATUS_STOPPING);
  AttemptOutcome killed = ran("a:1", 1, 0);
  killed.set_kind(v1::ATTEMPT_OUTCOME_KIND_CANCELLED);
  ASSERT_TRUE(report(killed));
  EXPECT_EQ(status("a:1"), TASK_STATUS_TIMED_OUT);
  EXPECT_EQ(task("a").status(), TASK_STATUS_TIMED_OUT);
}

TEST_F(TaskArrays, ResumedIsWhatHasNotSucceeded) {
  ASSERT_TRUE(submit("a", 4));
  ASSERT_TRUE(report(ran("a:0", 1, 0)));
  ASSERT_TRUE(report(ran("a:1", 1, 1)));
  ASSERT_TRUE(cancel("a"));
  EXPECT_EQ(task("a").status(), TASK_STATUS_CANCELLED);
  ASSERT_TRUE(resume("a"));
  EXPECT_EQ(task("a").status(), TASK_STATUS_QUEUED);
  EXPECT_EQ(status("a:0"), TASK_STATUS_SUCCEEDED);
  EXPECT_FALSE(report(ran("a:1", 1, 0))) << "an attempt of before does not count twice";
  ASSERT_TRUE(report(ran("a:1", 2, 0)));
  ASSERT_TRUE(report(ran("a:2", 1, 0)));
  ASSERT_TRUE(report(ran("a:3", 1, 1)));
  EXPECT_EQ(task("a").status(), TASK_STATUS_FAILED);
  ASSERT_TRUE(resume("a:3"));
  EXPECT_EQ(task("a").status(), TASK_STATUS_QUEUED) << "the array of an element that begins anew has not ended";
  ASSERT_TRUE(report(ran("a:3", 2, 0)));
  EXPECT_EQ(task("a").status(), TASK_STATUS_SUCCEEDED);
  EXPECT_FALSE(resume("a"));
}

TEST_F(TaskArrays, OthersWaitForAnArrayOrForOneElement) {
  ASSERT_TRUE(submit("a", 2));
  ASSERT_TRUE(schedule("after-all", {"a"}));
  ASSERT_TRUE(schedule("after-one", {"a:1"}));
  ASSERT_TRUE(report(ran("a:1", 1, 0)));
  EXPECT_EQ(task("after-one").status(), TASK_STATUS_QUEUED);
  EXPECT_EQ(task("after-all").status(), v1::TASK_STATUS_PENDING);
  ASSERT_TRUE(report(ran("a:0", 1, 0)));
  EXPECT_EQ(task("after-all").status(), TASK_STATUS_QUEUED);
  ASSERT_TRUE(submit("waits", 5, 1, "after-all"));
  EXPECT_EQ(status("waits:3"), v1::TASK_STATUS_PENDING);
  ASSERT_TRUE(report(ran("after-all", 1, 1)));
  EXPECT_EQ(task("waits").status(), TASK_STATUS_FAILED);
  EXPECT_EQ(status("waits:3"), TASK_STATUS_FAILED) << "what never ran stands where its array does";
}

TEST_F(TaskArrays, AnIdIsOneTaskOrOneElement) {
  ASSERT_TRUE(submit("a", 3));
  EXPECT_FALSE(schedule("a:2"));
  EXPECT_TRUE(schedule("a:3"));
  ASSERT_TRUE(schedule("b:1"));
  const auto taken = submit("b", 2);
  ASSERT_FALSE(taken);
  EXPECT_NE(taken.error().message().find("b:1"), std::string::npos);
  EXPECT_TRUE(submit("b", 1));
}

TEST_F(TaskArrays, ElementsCountAgainstQuotasAndGoWithTheirArray) {
  ASSERT_TRUE(submit("a", 3));
  const auto use = [&] {
    return work::kTaskUse.get(machine_.view(), {"t", "n"}, "alice").value_or(internal::v1::TaskUse());
  };
  EXPECT_EQ(use().active(), 3);
  AttemptOutcome loud = ran("a:0", 1, 0);
  auto& artifact = *loud.add_artifacts();
  artifact.set_path("out");
  artifact.set_size(1000);
  ASSERT_TRUE(report(loud));
  EXPECT_EQ(use().bytes(), 1000);
  EXPECT_EQ(rows(work::kElements), 1u) << "what it left is its own";
  ASSERT_TRUE(report(ran("a:1", 1, 0)));
  ASSERT_TRUE(report(ran("a:2", 1, 0)));
  EXPECT_EQ(use().active(), 0);
  internal::v1::PruneCommand command;
  auto& key = *command.add_tasks();
  key.set_tenant("t");
  key.set_namespace_("n");
  key.set_id("a");
  ASSERT_TRUE(apply("tasks.prune", command.SerializeAsString()));
  EXPECT_EQ(rows(work::kTasks), 0u);
  EXPECT_EQ(rows(work::kElements), 0u);
  EXPECT_EQ(rows(work::kElementStates), 0u);
  EXPECT_EQ(use().bytes(), 0);
}

TEST_F(TaskArrays, RangesRiseAndStayWithinTheArray) {
  const auto good = parse_ranges("0-9,42", 100);
  ASSERT_TRUE(good);
  ASSERT_EQ(good->size(), 2u);
  EXPECT_EQ((*good)[0].count(), 10u);
  EXPECT_EQ((*good)[1].first(), 42u);
  for (const char* bad :
       {"9-0", "5,3", "0-5,5", "100", "0-100", "", "x", "1;2", "1-", "1,", "1-2-3", "99999999999999999999"}) {
    const auto refused = parse_ranges(bad, 100);
    ASSERT_FALSE(refused) << bad;
    EXPECT_EQ(refused.error().reason(), "FIELD_INVALID") << bad;
  }
}

}  // namespace
}  // namespace uccp::tasks
