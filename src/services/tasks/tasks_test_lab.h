// A machine with tasks and one worker, for tests of what commands do to the rows.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "machine/machine.h"
#include "services/tasks/tasks_state.h"
#include "services/workers/workers_state.h"
#include "storage/memory/memory_kv.h"

namespace uccp::tasks {

using internal::v1::AttemptOutcome;
using internal::v1::TaskRow;

class TasksStateLab : public ::testing::Test {
 protected:
  TasksStateLab() : machine_(kWorkGroup, kv_, {&tasks_, &workers_}) {
    EXPECT_TRUE(machine_.open().is_ok());
    hello("i1");
  }

  machine::ApplyResult apply(std::string command, std::string payload) {
    machine::Envelope e;
    e.scope = {"t", "n"};
    e.principal = "alice";
    e.command = std::move(command);
    e.payload = std::move(payload);
    e.feature_level = 2;
    e.boot = {boot_ms_ * 1000};
    e.wall = {boot_ms_ * 1000};
    const Entry entry{Term(1), machine_.applied().next(), EntryKind::kCommand, machine::encode_envelope(e)};
    auto batch = machine_.apply({&entry, 1});
    EXPECT_TRUE(batch.has_value());
    EXPECT_TRUE(machine_.verify_digest().is_ok());
    return std::move(batch->results[0].result);
  }
  uint64_t hello(const std::string& incarnation, const std::string& worker = "w") {
    internal::v1::HelloCommand command;
    command.mutable_worker()->set_id(worker);
    command.set_incarnation(incarnation);
    internal::v1::WorkerRow row;
    (void)row.ParseFromString(*apply("workers.hello", command.SerializeAsString()));
    return epoch_ = row.epoch();
  }
  machine::ApplyResult schedule(const std::string& id, const std::vector<std::string>& dependencies = {},
                                int attempts = 1,
                                v1::DependencyCondition condition = v1::DEPENDENCY_CONDITION_SUCCEEDED) {
    TaskRow row;
    row.mutable_task()->set_id(id);
    row.mutable_task()->set_namespace_("n");
    row.mutable_task()->mutable_retry()->set_max_attempts(attempts);
    row.set_cancel_grace_ms(-1);
    for (const auto& dependency : dependencies) {
      auto& d = *row.mutable_task()->add_dependencies();
      d.set_task_id(dependency);
      d.set_condition(condition);
    }
    return apply("tasks.schedule", row.SerializeAsString());
  }
  AttemptOutcome outcome(const std::string& id, int number, int exit_code) {
    AttemptOutcome o;
    o.mutable_attempt()->set_task_id(id);
    o.mutable_attempt()->set_tenant("t");
    o.mutable_attempt()->set_namespace_("n");
    o.mutable_attempt()->set_worker_id("w");
    o.mutable_attempt()->set_worker_epoch(epoch_);
    o.mutable_attempt()->set_attempt_number(number);
    o.set_kind(v1::ATTEMPT_OUTCOME_KIND_EXITED);
    o.set_exit_code(exit_code);
    o.set_message("exit code " + std::to_string(exit_code));
    return o;
  }
  bool report(const AttemptOutcome& o) {
    internal::v1::OutcomesCommand command;
    *command.add_items()->mutable_outcome() = o;
    command.mutable_items(0)->set_backoff_ms(100);
    command.set_quarantine_ms(60'000);
    internal::v1::OutcomesResult result;
    (void)result.ParseFromString(*apply("tasks.outcomes", command.SerializeAsString()));
    return result.accepted(0);
  }
  v1::Task task(const std::string& id) {
    const auto row = work::kTasks.get(machine_.view(), {"t", "n"}, id);
    return row ? row->task() : v1::Task();
  }

  TaskRow row(const std::string& id) { return work::kTasks.get(machine_.view(), {"t", "n"}, id).value_or(TaskRow()); }
  internal::v1::WorkerRow worker(const std::string& id) {
    return work::kWorkers.get(machine_.view(), work::kWorkerScope, id).value_or(internal::v1::WorkerRow());
  }
  void pass(int64_t ms) { boot_ms_ += ms; }

  storage::MemoryKv kv_;
  TasksState tasks_;
  workers::WorkersState workers_;
  machine::Machine machine_;
  uint64_t epoch_ = 0;
  int64_t boot_ms_ = 1;
};

}  // namespace uccp::tasks
