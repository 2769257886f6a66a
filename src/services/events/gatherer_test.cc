// Publishes that go together: what becomes one batch, who gets which answer, and what is refused when too much waits.
#include "services/events/gatherer.h"

#include <gtest/gtest.h>

#include <deque>
#include <optional>

#include "services/events/bus_rows.h"
#include "services/events/test_bus_lab.h"

namespace uccp::events {
namespace {

using internal::v1::BusBatch;
using internal::v1::BusBatchResult;

class Queue final : public Executor {
 public:
  void post(Task task) override { tasks_.push_back(std::move(task)); }
  TimerId post_after(int64_t, Task) override { return 0; }
  void cancel(TimerId) override {}
  bool is_current() const override { return true; }
  void run() {
    while (!tasks_.empty()) {
      Task task = std::move(tasks_.front());
      tasks_.pop_front();
      task();
    }
  }

 private:
  std::deque<Task> tasks_;
};

// Applies commands to a bus group when it is told to.
class Held final : public machine::Proposer {
 public:
  explicit Held(BusLab& lab) : lab_(lab) {}
  void propose(GroupId, machine::Envelope envelope, Done done) override {
    held.emplace_back(std::move(envelope), std::move(done));
  }
  void apply_next() {
    auto [envelope, done] = std::move(held.front());
    held.pop_front();
    auto result = lab_.apply(envelope.command, envelope.payload);
    ASSERT_TRUE(result.has_value());
    done(machine::Applied{lab_.machine().applied(), *result});
  }
  std::deque<std::pair<machine::Envelope, Done>> held;

 private:
  BusLab& lab_;
};

class FixedClock final : public Clock {
 public:
  BootTime boot() const override { return {now_us}; }
  WallTime wall() const override { return {now_us}; }
  int64_t now_us = 1'000'000;
};

class GathererTest : public testing::Test {
 protected:
  GathererTest() { lab_.open(7, 2, window()); }
  static internal::v1::BusSettings window() {
    internal::v1::BusSettings settings;
    settings.set_dedup_window_ms(60'000);
    return settings;
  }
  size_t publish(BusBatch batch, std::optional<BootTime> deadline = std::nullopt) {
    std::vector<BusBatch> batches;
    batches.push_back(std::move(batch));
    const size_t number = answers_.size();
    answers_.emplace_back();
    gatherer_.append(bus_group(0), kLabScope, std::move(batches), deadline,
                     [this, number](auto results) { answers_[number] = std::move(results); });
    executor_.run();
    return number;
  }
  void apply_next() {
    proposer_.apply_next();
    executor_.run();
  }
  const BusBatchResult& answer(size_t number) { return answers_[number]->value().front(); }
  int batches_of(size_t held) {
    internal::v1::BusAppendCommand command;
    EXPECT_TRUE(command.ParseFromString(proposer_.held[held].first.payload));
    return command.batches_size();
  }

  BusLab lab_;
  Held proposer_{lab_};
  Queue executor_;
  FixedClock clock_;
  MetricsRegistry metrics_;
  Gatherer gatherer_{
      {.command_bytes_max = 200, .queue_bytes_max = 500, .under_way_max = 1}, proposer_, executor_, clock_, metrics_};
  std::deque<std::optional<Result<std::vector<BusBatchResult>>>> answers_;
};

BusBatch with_id(const std::string& id, const std::string& text) {
  BusBatch batch;
  batch.set_topic(7);
  v1::Event event;
  event.set_id(id);
  event.set_text(text);
  *batch.add_events() = event.SerializeAsString();
  return batch;
}

TEST_F(GathererTest, WhatComesTogetherIsOneBatchAndEachIsToldItsOwnOffsets) {
  publish(BusLab::batch(7, 0, {"first"}));
  const size_t a = publish(BusLab::batch(7, 0, {"a", "b"}));
  const size_t b = publish(BusLab::batch(7, 1, {"x"}));
  const size_t c = publish(BusLab::batch(7, 0, {"c"}));
  apply_next();
  ASSERT_EQ(proposer_.held.size(), 1u);
  EXPECT_EQ(batches_of(0), 2);
  apply_next();
  EXPECT_EQ(answer(a).first_offset(), 1u);
  EXPECT_EQ(answer(b).first_offset(), 0u);
  EXPECT_EQ(answer(c).first_offset(), 3u);
  EXPECT_EQ(lab_.read(7, 0), (std::vector<std::string>{"first", "a", "b", "c"}));
  EXPECT_EQ(lab_.rows_of(kIndexTable), 3u) << "a row for each batch";
}

TEST_F(GathererTest, RepeatsAreToldToThoseWhoSentThem) {
  publish(with_id("1", "one"));
  const size_t a = publish(with_id("2", "two"));
  const size_t b = publish(with_id("1", "one"));
  const size_t c = publish(with_id("3", "three"));
  apply_next();
  apply_next();
  EXPECT_EQ(answer(a).first_offset(), 1u);
  ASSERT_EQ(answer(b).duplicates_size(), 1);
  EXPECT_EQ(answer(b).duplicates(0), 0u);
  EXPECT_EQ(answer(b).duplicate_offsets(0), 0u);
  EXPECT_EQ(answer(c).duplicates_size(), 0);
  EXPECT_EQ(answer(c).first_offset(), 2u);
}

TEST_F(GathererTest, AConditionHoldsForItsOwnBatchAlone) {
  publish(BusLab::batch(7, 0, {"first"}));
  const size_t a = publish(BusLab::batch(7, 0, {"a"}));
  BusBatch guarded = BusLab::batch(7, 0, {"g"});
  guarded.set_expected_offset(9);
  const size_t b = publish(guarded);
  const size_t c = publish(BusLab::batch(7, 0, {"c"}));
  apply_next();
  EXPECT_EQ(batches_of(0), 3);
  apply_next();
  EXPECT_EQ(answer(a).first_offset(), 1u);
  EXPECT_EQ(answer(b).refusal(), BusBatchResult::REFUSAL_UNEXPECTED_OFFSET);
  EXPECT_EQ(answer(c).refusal(), BusBatchResult::REFUSAL_UNSPECIFIED);
  EXPECT_EQ(answer(c).first_offset(), 2u);
}

TEST_F(GathererTest, MoreThanMayWaitIsRefusedAndWhatIsLateIsNotStored) {
  const std::string text(150, 'x');
  publish(BusLab::batch(7, 0, {text}));
  const size_t late = publish(BusLab::batch(7, 0, {text}), BootTime{clock_.now_us + 10});
  const size_t waits = publish(BusLab::batch(7, 0, {text}));
  publish(BusLab::batch(7, 0, {text}));
  const size_t refused = publish(BusLab::batch(7, 0, {text}));
  ASSERT_TRUE(answers_[refused].has_value());
  EXPECT_EQ(answers_[refused]->error().reason(), "EVENTS_QUEUE_FULL");
  clock_.now_us += 20;
  apply_next();
  EXPECT_EQ(answers_[late]->error().code(), Code::kDeadline);
  apply_next();
  EXPECT_EQ(answer(waits).first_offset(), 1u);
  const size_t again = publish(BusLab::batch(7, 0, {text}));
  apply_next();
  apply_next();
  EXPECT_EQ(answer(again).first_offset(), 3u) << "there is room again";
}

}  // namespace
}  // namespace uccp::events
