// Graphs, resumption, deadlines, retries by class and budget, checkpoints, and what makes tasks.
#include <gtest/gtest.h>

#include <algorithm>

#include "services/tasks/live_tasks.h"
#include "services/tasks/tasks_test_lab.h"

namespace uccp::tasks {
namespace {

class TasksLife : public TasksStateLab {
 protected:
  TaskRow new_row(const std::string& id) {
    TaskRow row;
    row.mutable_task()->set_id(id);
    row.mutable_task()->set_namespace_("n");
    row.set_cancel_grace_ms(-1);
    return row;
  }
  v1::Task accept_row(const TaskRow& row) {
    EXPECT_TRUE(apply("tasks.schedule", row.SerializeAsString()));
    return task(row.task().id());
  }
  machine::ApplyResult resume(const std::string& id, const std::string& checkpoint = "") {
    v1::ResumeTaskRequest request;
    request.set_id(id);
    request.set_checkpoint(checkpoint);
    return apply("tasks.resume", request.SerializeAsString());
  }
  void fire(const std::string& id, int64_t time, int64_t next, const std::string& worker = "") {
    internal::v1::FireCommand command;
    command.set_id(id);
    command.set_fire(time);
    command.set_next_fire(next);
    command.set_worker_id(worker);
    ASSERT_TRUE(apply("tasks.fire", command.SerializeAsString()));
  }
  void deadline(const std::string& id, bool final) {
    internal::v1::DeadlineCommand command;
    command.set_id(id);
    command.set_final(final);
    ASSERT_TRUE(apply("tasks.deadline", command.SerializeAsString()));
  }
  size_t expiring() {
    size_t count = 0;
    work::kTaskExpiry.scan(machine_.view(), {}, "", "",
                           [&](std::string_view, std::string_view) { return ++count > 0; });
    return count;
  }
  TaskRow cron(v1::OverlapPolicy overlap) {
    TaskRow row = new_row("cron");
    row.mutable_task()->set_type(v1::TASK_TYPE_CRON);
    row.mutable_task()->add_command("true");
    row.mutable_task()->mutable_schedule()->set_cron("* * * * *");
    row.mutable_task()->mutable_schedule()->set_overlap(overlap);
    return row;
  }
};

TEST_F(TasksLife, AGraphIsAcceptedAsAWholeOrNotAtAll) {
  internal::v1::ScheduleGraphCommand command;
  *command.add_rows() = new_row("a");
  *command.add_rows() = new_row("b");
  command.mutable_rows(1)->mutable_task()->add_dependencies()->set_task_id("a");
  ASSERT_TRUE(apply("tasks.schedule_graph", command.SerializeAsString()));
  EXPECT_EQ(task("a").status(), v1::TASK_STATUS_QUEUED);
  EXPECT_EQ(task("b").status(), v1::TASK_STATUS_PENDING);
  command.mutable_rows(0)->mutable_task()->set_id("c");
  command.mutable_rows(1)->mutable_task()->set_id("b");
  EXPECT_FALSE(apply("tasks.schedule_graph", command.SerializeAsString()));
  EXPECT_EQ(task("c").id(), "");
}

TEST_F(TasksLife, AResumedTaskBeginsAnewAndCountsOn) {
  ASSERT_TRUE(schedule("a", {}, 2));
  EXPECT_TRUE(report(outcome("a", 1, 3)));
  EXPECT_TRUE(report(outcome("a", 2, 3)));
  ASSERT_EQ(task("a").status(), v1::TASK_STATUS_FAILED);
  EXPECT_TRUE(task("a").dead_letter());
  EXPECT_EQ(expiring(), 1u);
  ASSERT_TRUE(resume("a"));
  EXPECT_EQ(task("a").status(), v1::TASK_STATUS_QUEUED);
  EXPECT_FALSE(task("a").dead_letter());
  EXPECT_FALSE(task("a").has_end_time());
  EXPECT_FALSE(task("a").has_exit_code());
  EXPECT_EQ(expiring(), 0u) << "it would be forgotten although it runs";
  EXPECT_FALSE(report(outcome("a", 2, 0))) << "an outcome of before counts";
  EXPECT_TRUE(report(outcome("a", 3, 3)));
  EXPECT_EQ(task("a").status(), v1::TASK_STATUS_QUEUED) << "its retries begin anew";
  EXPECT_TRUE(report(outcome("a", 4, 0)));
  EXPECT_EQ(task("a").status(), v1::TASK_STATUS_SUCCEEDED);
  EXPECT_EQ(expiring(), 1u);
}

TEST_F(TasksLife, OnlyWhatHasEndedBadlyIsResumed) {
  EXPECT_FALSE(resume("none"));
  ASSERT_TRUE(schedule("a"));
  EXPECT_EQ(resume("a").error().reason(), "TASK_NOT_ENDED");
  EXPECT_TRUE(report(outcome("a", 1, 0)));
  EXPECT_EQ(resume("a").error().reason(), "TASK_SUCCEEDED");
  ASSERT_TRUE(schedule("b"));
  EXPECT_TRUE(report(outcome("b", 1, 1)));
  EXPECT_FALSE(task("b").dead_letter()) << "it had one attempt: nothing was tried again";
  EXPECT_EQ(resume("b", "step-1").error().reason(), "CHECKPOINT_NOT_FOUND");
}

TEST_F(TasksLife, ClassesOfFailuresAndABudgetRuleOutRetries) {
  TaskRow row = new_row("class");
  row.mutable_task()->mutable_retry()->set_max_attempts(5);
  row.mutable_task()->mutable_retry()->add_non_retryable(v1::FAILURE_CLASS_SIGNAL);
  accept_row(row);
  EXPECT_TRUE(report(outcome("class", 1, 3)));
  EXPECT_EQ(task("class").status(), v1::TASK_STATUS_QUEUED);
  AttemptOutcome killed = outcome("class", 2, 0);
  killed.set_kind(v1::ATTEMPT_OUTCOME_KIND_SIGNALLED);
  killed.clear_exit_code();
  EXPECT_TRUE(report(killed));
  EXPECT_EQ(task("class").status(), v1::TASK_STATUS_FAILED);
  EXPECT_NE(task("class").status_reason().find("nonRetryable has SIGNAL"), std::string::npos);
  EXPECT_TRUE(task("class").dead_letter());

  row = new_row("budget");
  row.mutable_task()->mutable_retry()->set_max_attempts(100);
  row.mutable_task()->mutable_retry()->mutable_budget()->set_seconds(10);
  accept_row(row);
  EXPECT_TRUE(report(outcome("budget", 1, 3)));
  pass(9'000);
  EXPECT_TRUE(report(outcome("budget", 2, 3)));
  EXPECT_EQ(task("budget").status(), v1::TASK_STATUS_QUEUED);
  pass(1'000);
  EXPECT_TRUE(report(outcome("budget", 3, 3)));
  EXPECT_EQ(task("budget").status(), v1::TASK_STATUS_FAILED);
  EXPECT_NE(task("budget").status_reason().find("budget"), std::string::npos);
}

TEST_F(TasksLife, DeadLettersAreKeptLonger) {
  ASSERT_TRUE(schedule("plain"));
  EXPECT_TRUE(report(outcome("plain", 1, 1)));
  ASSERT_TRUE(schedule("dead", {}, 2));
  EXPECT_TRUE(report(outcome("dead", 1, 1)));
  EXPECT_TRUE(report(outcome("dead", 2, 1)));
  EXPECT_EQ(work::expiry_ms(row("plain")) - row("plain").ended_ms(), work::kRetentionDefaultMs);
  EXPECT_EQ(work::expiry_ms(row("dead")) - row("dead").ended_ms(), 4 * work::kRetentionDefaultMs);
}

TEST_F(TasksLife, ADeadlineEndsWhatWaitsAndStopsWhatRuns) {
  TaskRow waits = new_row("waits"), runs = new_row("runs"), done = new_row("done");
  for (TaskRow* row : {&waits, &runs, &done}) {
    row->mutable_task()->mutable_deadline()->set_seconds(7);
    row->mutable_task()->mutable_retry()->set_max_attempts(3);
    accept_row(*row);
  }
  deadline("waits", true);
  EXPECT_EQ(task("waits").status(), v1::TASK_STATUS_TIMED_OUT);
  EXPECT_NE(task("waits").status_reason().find("deadline of 7 s"), std::string::npos);
  for (const char* id : {"runs", "done"}) deadline(id, false);
  EXPECT_EQ(task("runs").status(), v1::TASK_STATUS_STOPPING);
  AttemptOutcome stopped = outcome("runs", 1, 143);
  stopped.set_kind(v1::ATTEMPT_OUTCOME_KIND_CANCELLED);
  EXPECT_TRUE(report(stopped));
  EXPECT_EQ(task("runs").status(), v1::TASK_STATUS_TIMED_OUT) << "no attempt follows";
  EXPECT_NE(task("runs").status_reason().find("deadline of 7 s"), std::string::npos);
  EXPECT_FALSE(task("runs").dead_letter());
  // What had ended by itself when it was to be stopped has made it.
  EXPECT_TRUE(report(outcome("done", 1, 0)));
  EXPECT_EQ(task("done").status(), v1::TASK_STATUS_SUCCEEDED);
}

TEST_F(TasksLife, CheckpointsAreOfTheAttemptThatRunsAndTheNewestAreKept) {
  ASSERT_TRUE(schedule("a", {}, 3));
  v1::SaveCheckpointRequest request;
  request.set_id("a");
  request.mutable_checkpoint()->set_attempt(1);
  const auto save = [&](const std::string& name) {
    request.mutable_checkpoint()->set_name(name);
    return apply("tasks.checkpoint", request.SerializeAsString());
  };
  for (int i = 0; i < 18; ++i) ASSERT_TRUE(save("step-" + std::to_string(i)));
  EXPECT_EQ(task("a").checkpoints_size(), 16);
  EXPECT_EQ(task("a").checkpoints(0).name(), "step-2");
  ASSERT_TRUE(save("step-5"));
  EXPECT_EQ(task("a").checkpoints_size(), 16) << "the same name replaces";
  EXPECT_EQ(task("a").checkpoints(15).name(), "step-5");
  EXPECT_TRUE(report(outcome("a", 1, 3)));
  EXPECT_FALSE(save("late"));
}

TEST_F(TasksLife, AServiceRunsAgainHoweverItEndsUntilItIsStopped) {
  TaskRow service = new_row("s");
  service.mutable_task()->set_type(v1::TASK_TYPE_SERVICE);
  accept_row(service);
  EXPECT_TRUE(report(outcome("s", 1, 0)));
  EXPECT_TRUE(report(outcome("s", 2, 9)));
  EXPECT_EQ(task("s").status(), v1::TASK_STATUS_QUEUED);
  EXPECT_EQ(task("s").retry_count(), 2);
  AttemptOutcome steady = outcome("s", 3, 1);
  steady.mutable_start_time()->set_seconds(100);
  steady.mutable_end_time()->set_seconds(160);
  EXPECT_TRUE(report(steady));
  EXPECT_EQ(task("s").retry_count(), 0) << "it had come up: its pauses begin anew";
  internal::v1::CancelCommand command;
  command.set_id("s");
  ASSERT_TRUE(apply("tasks.cancel", command.SerializeAsString()));
  AttemptOutcome stopped = outcome("s", 4, 0);
  stopped.set_kind(v1::ATTEMPT_OUTCOME_KIND_CANCELLED);
  EXPECT_TRUE(report(stopped));
  EXPECT_EQ(task("s").status(), v1::TASK_STATUS_CANCELLED);
}

TEST_F(TasksLife, ATimeFiresOnceWhoeverSaysIt) {
  accept_row(cron(v1::OVERLAP_POLICY_ALLOW));
  EXPECT_EQ(task("cron").status(), v1::TASK_STATUS_PENDING);
  fire("cron", 1'000, 2'000);
  fire("cron", 1'000, 2'000);
  fire("cron", 500, 1'000);
  EXPECT_EQ(task("cron").runs(), 1);
  EXPECT_EQ(task("cron.1").status(), v1::TASK_STATUS_QUEUED);
  EXPECT_EQ(task("cron.1").parent_id(), "cron");
  EXPECT_EQ(task("cron.1").type(), v1::TASK_TYPE_BATCH);
  EXPECT_FALSE(task("cron.1").has_schedule());
  fire("cron", 2'000, 0);
  EXPECT_EQ(task("cron.2").status(), v1::TASK_STATUS_QUEUED);
  EXPECT_EQ(task("cron").status(), v1::TASK_STATUS_SUCCEEDED) << "no time is left";
}

TEST_F(TasksLife, RunsThatOverlapAreLeftOutQueuedOrReplaced) {
  accept_row(cron(v1::OVERLAP_POLICY_UNSPECIFIED));
  fire("cron", 1, 2);
  fire("cron", 2, 3);
  EXPECT_EQ(task("cron.2").id(), "");
  EXPECT_EQ(task("cron").skipped_runs(), 1);
  EXPECT_TRUE(report(outcome("cron.1", 1, 0)));
  fire("cron", 3, 4);
  EXPECT_EQ(task("cron.2").status(), v1::TASK_STATUS_QUEUED);

  TaskRow queues = cron(v1::OVERLAP_POLICY_QUEUE);
  queues.mutable_task()->set_id("queues");
  accept_row(queues);
  for (int i = 1; i < 4; ++i) fire("queues", i, i + 1);
  EXPECT_EQ(task("queues.3").status(), v1::TASK_STATUS_PENDING);
  EXPECT_TRUE(report(outcome("queues.1", 1, 1)));
  EXPECT_EQ(task("queues.2").status(), v1::TASK_STATUS_QUEUED) << "however the run before ended";
  EXPECT_EQ(task("queues.3").status(), v1::TASK_STATUS_PENDING);

  TaskRow replaces = cron(v1::OVERLAP_POLICY_REPLACE);
  replaces.mutable_task()->set_id("replaces");
  accept_row(replaces);
  fire("replaces", 1, 2);
  fire("replaces", 2, 3);
  EXPECT_EQ(task("replaces.1").status(), v1::TASK_STATUS_STOPPING);
  EXPECT_EQ(task("replaces.2").status(), v1::TASK_STATUS_QUEUED);
}

TEST_F(TasksLife, AMakerHasSoManyUnendedRunsAndNoMore) {
  accept_row(cron(v1::OVERLAP_POLICY_ALLOW));
  for (int i = 1; i <= work::kMadeByTimeMax + 2; ++i) fire("cron", i, i + 1);
  EXPECT_EQ(task("cron").runs(), work::kMadeByTimeMax);
  EXPECT_EQ(task("cron").skipped_runs(), 2);
}

TEST_F(TasksLife, ASystemTaskMakesServicesBoundToWorkersThatEndWithIt) {
  TaskRow system = new_row("sys");
  system.mutable_task()->set_type(v1::TASK_TYPE_SYSTEM);
  accept_row(system);
  fire("sys", 0, 0, "w1");
  fire("sys", 0, 0, "w2");
  EXPECT_EQ(task("sys.1").type(), v1::TASK_TYPE_SERVICE);
  EXPECT_EQ(task("sys.1").node_selector().at("uccp/worker"), "w1");
  EXPECT_EQ(task("sys.2").node_selector().at("uccp/worker"), "w2");
  internal::v1::CancelCommand command;
  command.set_id("sys");
  command.set_final(true);
  ASSERT_TRUE(apply("tasks.cancel", command.SerializeAsString()));
  EXPECT_EQ(task("sys").status(), v1::TASK_STATUS_CANCELLED);
  EXPECT_EQ(task("sys.1").status(), v1::TASK_STATUS_STOPPING);
  EXPECT_EQ(task("sys.2").status(), v1::TASK_STATUS_STOPPING);
}

TEST_F(TasksLife, APausedScheduleIsResumedWithoutMakingUpForWhatItMissed) {
  TaskRow paused = cron(v1::OVERLAP_POLICY_SKIP);
  paused.mutable_task()->mutable_schedule()->set_paused(true);
  accept_row(paused);
  pass(60'000);
  ASSERT_TRUE(resume("cron"));
  EXPECT_FALSE(task("cron").schedule().paused());
  EXPECT_EQ(row("cron").last_fire(), boot_ms_ * 1000);
  EXPECT_EQ(resume("cron").error().reason(), "TASK_NOT_ENDED");
}

class WorkerTrust : public TasksStateLab {
 protected:
  // An attempt of a new task that the worker itself broke, or not.
  void attempt(bool fault, const std::string& on = "w") {
    const std::string id = "t" + std::to_string(next_++);
    ASSERT_TRUE(schedule(id));
    AttemptOutcome end = outcome(id, 1, 0);
    end.mutable_attempt()->set_worker_id(on);
    if (fault) {
      end.set_kind(v1::ATTEMPT_OUTCOME_KIND_LAUNCH_FAILED);
      end.clear_exit_code();
      end.set_worker_fault(true);
    }
    end.mutable_attempt()->set_worker_epoch(worker(on).epoch());
    EXPECT_TRUE(report(end));
  }
  bool in_quarantine(const std::string& id = "w") {
    return worker(id).trust().until_ms() > machine_.view().machine_time_ms();
  }
  int next_ = 1;
};

class GangRows : public TasksStateLab {
 protected:
  void schedule_member(const std::string& id) {
    TaskRow row;
    row.mutable_task()->set_id(id);
    row.mutable_task()->set_namespace_("n");
    row.mutable_task()->mutable_retry()->set_max_attempts(3);
    row.mutable_task()->mutable_gang()->set_id("g");
    row.mutable_task()->mutable_gang()->set_size(2);
    EXPECT_TRUE(apply("tasks.schedule", row.SerializeAsString()).has_value());
  }
  void stop(const std::string& id, int number) {
    internal::v1::StopGangsCommand command;
    internal::v1::StopItem& item = *command.add_items();
    item.mutable_task()->set_tenant("t");
    item.mutable_task()->set_namespace_("n");
    item.mutable_task()->set_id(id);
    item.mutable_attempt()->set_term(1);
    item.mutable_attempt()->set_sequence(7);
    item.mutable_attempt()->set_number(number);
    EXPECT_TRUE(apply("tasks.stop_gangs", command.SerializeAsString()).has_value());
  }
  std::optional<internal::v1::GangRow> gang() { return work::kGangs.get(machine_.view(), {"t", "n"}, "g"); }
};

TEST_F(GangRows, OnlyTheAttemptThatRunsIsStopped) {
  schedule_member("a");
  stop("a", 2);
  EXPECT_FALSE(row("a").has_stopped()) << "there is no second attempt yet";
  stop("a", 1);
  EXPECT_EQ(row("a").stopped().sequence(), 7u);
  EXPECT_TRUE(report(outcome("a", 1, 0)));
  EXPECT_EQ(task("a").status(), v1::TASK_STATUS_SUCCEEDED) << "it ended just then";
  stop("a", 2);
  EXPECT_EQ(row("a").stopped().number(), 1);
  stop("nobody", 1);
}

TEST_F(GangRows, WhatADrainHasStoppedGoesAloneAndWhatWasStoppedTogetherWaits) {
  schedule_member("a");
  schedule_member("b");
  const auto queued = [&](const std::string& id) {
    QueuedTask one = queued_of({"t", "n", id}, task(id));
    set_gang_start(row(id), true, one);
    return one;
  };
  EXPECT_FALSE(queued("a").gang_alone) << "it has not run yet";
  AttemptOutcome preempted = outcome("a", 1, 0);
  preempted.set_kind(v1::ATTEMPT_OUTCOME_KIND_PREEMPTED);
  EXPECT_TRUE(report(preempted));
  EXPECT_TRUE(queued("a").gang_alone);
  EXPECT_FALSE(queued("a").gang_again);
  stop("b", 1);
  preempted = outcome("b", 1, 0);
  preempted.set_kind(v1::ATTEMPT_OUTCOME_KIND_PREEMPTED);
  EXPECT_TRUE(report(preempted));
  EXPECT_TRUE(queued("b").gang_again);
  EXPECT_FALSE(queued("b").gang_alone);
}

TEST_F(GangRows, HowLongATaskRanFollowsFromItsRow) {
  schedule_member("a");
  EXPECT_FALSE(ended_run({"t", "n"}, task("a")));
  AttemptOutcome done = outcome("a", 1, 0);
  done.mutable_start_time()->set_seconds(100);
  done.mutable_end_time()->set_seconds(107);
  EXPECT_TRUE(report(done));
  v1::Task ended = task("a");
  EXPECT_FALSE(ended_run({"t", "n"}, ended)) << "it has no name";
  ended.set_name("nightly");
  const auto run = ended_run({"t", "n"}, ended);
  ASSERT_TRUE(run);
  EXPECT_EQ(run->run_ms, 7'000);
  EXPECT_EQ(run->end_us, 107'000'000);
  EXPECT_EQ(run->name.name, "nightly");
  ended.set_status(v1::TASK_STATUS_FAILED);
  EXPECT_FALSE(ended_run({"t", "n"}, ended));
}

TEST_F(GangRows, AGangHasBegunOnceOneOfItRanUnlessAllOfItWasStopped) {
  schedule_member("a");
  schedule_member("b");
  EXPECT_EQ(gang()->active(), 2);
  EXPECT_FALSE(gang()->begun());
  stop("a", 1);
  AttemptOutcome preempted = outcome("a", 1, 0);
  preempted.set_kind(v1::ATTEMPT_OUTCOME_KIND_PREEMPTED);
  EXPECT_TRUE(report(preempted));
  EXPECT_FALSE(gang()->begun()) << "it starts anew, with all";
  EXPECT_TRUE(report(outcome("a", 2, 0)));
  EXPECT_TRUE(gang()->begun());
  EXPECT_EQ(gang()->active(), 1);
  EXPECT_TRUE(report(outcome("b", 1, 0)));
  EXPECT_FALSE(gang().has_value()) << "another one may have its name";
}

TEST_F(WorkerTrust, FaultsLeadToQuarantineProbationAndTrust) {
  hello("j1", "other");
  attempt(true);
  attempt(false);
  attempt(true);
  EXPECT_FALSE(in_quarantine());
  EXPECT_EQ(worker("w").trust().faults_ms_size(), 2) << "a success between them says little";
  attempt(true);
  EXPECT_TRUE(in_quarantine());
  pass(60'000);
  for (int left = 3; left > 1; --left) {
    EXPECT_EQ(worker("w").trust().probation_left(), left);
    attempt(false);
  }
  EXPECT_FALSE(in_quarantine());
  attempt(false);
  EXPECT_FALSE(worker("w").has_trust()) << "nothing is held against it any more";
}

TEST_F(WorkerTrust, AFaultOnProbationDoublesTheQuarantine) {
  hello("j1", "other");
  for (int i = 0; i < 3; ++i) attempt(true);
  pass(60'000);
  attempt(true);
  EXPECT_TRUE(in_quarantine());
  pass(60'000);
  attempt(true);  // what was under way changes nothing
  EXPECT_TRUE(in_quarantine()) << "the second one is twice as long";
  pass(60'000);
  attempt(false);
  EXPECT_FALSE(in_quarantine());
  EXPECT_EQ(worker("w").trust().quarantines(), 2);
}

TEST_F(WorkerTrust, OldFaultsAreForgotten) {
  hello("j1", "other");
  attempt(true);
  attempt(true);
  pass(work::kWorkerFaultWindowMs);
  attempt(true);
  EXPECT_FALSE(in_quarantine());
  EXPECT_EQ(worker("w").trust().faults_ms_size(), 1);
  pass(work::kWorkerFaultWindowMs);
  attempt(false);
  EXPECT_FALSE(worker("w").has_trust());
}

TEST_F(WorkerTrust, AtMostHalfOfTheWorkersAreKeptOut) {
  for (int i = 0; i < 5; ++i) attempt(true);
  EXPECT_FALSE(in_quarantine()) << "it is the only one";
  EXPECT_LE(worker("w").trust().faults_ms_size(), work::kWorkerFaultsMax);
  hello("j1", "other");
  attempt(true);
  EXPECT_TRUE(in_quarantine());
  for (int i = 0; i < 5; ++i) attempt(true, "other");
  EXPECT_FALSE(in_quarantine("other"));
}

TEST_F(WorkerTrust, UncordonTrustsAtOnce) {
  hello("j1", "other");
  for (int i = 0; i < 3; ++i) attempt(true);
  internal::v1::WorkerUpdateCommand command;
  command.mutable_worker()->set_id("w");
  command.add_fields("cordoned");
  ASSERT_TRUE(apply("workers.update", command.SerializeAsString()));
  EXPECT_FALSE(worker("w").has_trust());
}

}  // namespace
}  // namespace uccp::tasks
