#include "services/workers/workers_state.h"

#include <gtest/gtest.h>

#include "machine/machine.h"
#include "storage/memory/memory_kv.h"

namespace uccp::workers {
namespace {

using internal::v1::WorkerRow;

class WorkersStateTest : public ::testing::Test {
 protected:
  WorkersStateTest() : machine_(kWorkGroup, kv_, {&workers_}) { EXPECT_TRUE(machine_.open().is_ok()); }

  template <typename Command>
  Result<WorkerRow> apply(std::string name, const Command& command) {
    machine::Envelope e;
    e.principal = "system";
    e.command = std::move(name);
    e.payload = command.SerializeAsString();
    e.boot = {boot_ms_ * 1000};
    e.wall = {1'000'000 + boot_ms_ * 1000};
    const Entry entry{Term(1), machine_.applied().next(), EntryKind::kCommand, machine::encode_envelope(e)};
    auto batch = machine_.apply({&entry, 1});
    EXPECT_TRUE(batch && machine_.verify_digest().is_ok());
    if (!batch->results[0].result) return fail(batch->results[0].result.error());
    WorkerRow row;
    EXPECT_TRUE(row.ParseFromString(*batch->results[0].result));
    return row;
  }
  Result<WorkerRow> hello(const std::string& incarnation, uint64_t session, const std::string& name = "w1") {
    internal::v1::HelloCommand command;
    command.mutable_worker()->set_id("w");
    command.mutable_worker()->set_name(name);
    command.mutable_worker()->mutable_resources()->mutable_total()->set_cpu(4);
    (*command.mutable_worker()->mutable_labels())["zone"] = "a";
    command.set_incarnation(incarnation);
    command.set_session(session);
    return apply("workers.hello", command);
  }
  Result<WorkerRow> update(const std::vector<std::string>& fields, const v1::Worker& worker, bool cordoned = false) {
    internal::v1::WorkerUpdateCommand command;
    *command.mutable_worker() = worker;
    command.mutable_worker()->set_id("w");
    for (const std::string& field : fields) command.add_fields(field);
    command.set_cordoned(cordoned);
    return apply("workers.update", command);
  }

  storage::MemoryKv kv_;
  WorkersState workers_;
  machine::Machine machine_;
  int64_t boot_ms_ = 1;
};

TEST_F(WorkersStateTest, AnOlderSessionIsRefusedAndChangesNothing) {
  EXPECT_EQ(hello("one", (1ull << 32) | 1)->epoch(), 1u);
  EXPECT_EQ(hello("one", (1ull << 32) | 3)->session(), (1ull << 32) | 3);
  // Sent before, arrived after: what it says of running attempts is old.
  const auto overtaken = hello("one", (1ull << 32) | 2);
  ASSERT_FALSE(overtaken);
  EXPECT_EQ(overtaken.error().reason(), "STREAM_STALE");
  // So is a dead agent's last word after its successor's first.
  EXPECT_EQ(hello("two", (2ull << 32) | 1)->epoch(), 2u);
  EXPECT_EQ(hello("one", (1ull << 32) | 4).error().reason(), "STREAM_STALE");
  const auto row = work::kWorkers.get(machine_.view(), work::kWorkerScope, "w");
  EXPECT_EQ(row->epoch(), 2u);
  EXPECT_EQ(row->incarnation(), "two");
  // The same session again is a repetition, and an agent that does not number is taken at its word.
  EXPECT_EQ(hello("two", (2ull << 32) | 1)->epoch(), 2u);
  EXPECT_EQ(hello("two", 0)->session(), (2ull << 32) | 1);
}

TEST_F(WorkersStateTest, WhatAnOperatorSetsOutlivesTheNextHello) {
  (void)hello("one", 1);
  v1::Worker worker;
  worker.set_name("left");
  worker.set_price_per_hour(0.5);
  (*worker.mutable_labels())["tier"] = "x";
  EXPECT_EQ(update({"name", "labels", "price_per_hour"}, worker)->worker().name(), "left");
  const auto row = hello("one", 2, "renamed");
  EXPECT_EQ(row->worker().name(), "left");
  EXPECT_EQ(row->worker().price_per_hour(), 0.5);
  EXPECT_EQ(row->worker().labels().size(), 1u);
  EXPECT_EQ(update({"epoch"}, worker).error().reason(), "FIELD_INVALID");
}

TEST_F(WorkersStateTest, FlagsOfTheAgentCountUntilAnOperatorSaysOtherwise) {
  const auto hello_in = [&](const std::string& pool, uint64_t session) {
    internal::v1::HelloCommand command;
    command.mutable_worker()->set_id("w");
    command.mutable_worker()->set_pool(pool);
    command.mutable_worker()->add_taints()->set_key("of-" + pool);
    command.set_incarnation("one");
    command.set_session(session);
    return apply("workers.hello", command)->worker();
  };
  EXPECT_EQ(hello_in("a", 1).pool(), "a");
  const v1::Worker second = hello_in("b", 2);
  EXPECT_EQ(second.pool(), "b");
  EXPECT_EQ(second.taints(0).key(), "of-b");
  v1::Worker declared;
  declared.set_id("w");
  declared.set_pool("declared");
  (void)apply("workers.declare", declared);
  EXPECT_TRUE(update({"taints"}, {}));
  const v1::Worker third = hello_in("c", 3);
  EXPECT_EQ(third.pool(), "declared");
  EXPECT_EQ(third.taints_size(), 0);
}

TEST_F(WorkersStateTest, ADrainHasADeadlineAndEndsWithUncordon) {
  (void)hello("one", 1);
  internal::v1::DrainCommand command;
  command.set_worker_id("w");
  command.set_within_ms(5000);
  command.set_reason("new kernel");
  boot_ms_ = 1000;
  const auto drained = apply("workers.drain", command);
  ASSERT_TRUE(drained);
  EXPECT_EQ(drained->drain().deadline_wall_us(), 1'000'000 + 6'000'000);
  EXPECT_EQ(drained->drain().reason(), "new kernel");
  // It goes on over a restart of the agent; a cordon does not end it, an uncordon does.
  EXPECT_TRUE(hello("two", 2)->has_drain());
  EXPECT_TRUE(update({"cordoned"}, {}, true)->has_drain());
  const auto open = update({"cordoned"}, {}, false);
  EXPECT_FALSE(open->has_drain());
  EXPECT_FALSE(open->cordoned());
  command.set_worker_id("nobody");
  EXPECT_EQ(apply("workers.drain", command).error().reason(), "WORKER_NOT_FOUND");
}

}  // namespace
}  // namespace uccp::workers
