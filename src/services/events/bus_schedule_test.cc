// Events that are delivered later: no offset before their time, the next one then, and the log keeps them meanwhile.
#include "services/events/bus_schedule.h"

#include "services/events/test_bus_lab.h"
#include "services/feature_types.h"

namespace uccp::events {
namespace {

using internal::v1::BusBatch;
using internal::v1::BusBatchResult;
using Texts = std::vector<std::string>;

class Schedule : public testing::Test {
 protected:
  Schedule() { lab_.open(7, 1); }
  int64_t wall_us() const { return 1'700'000'000'000'000 + lab_.now_ms * 1000; }
  // The text and after how many milliseconds it is to be delivered; 0: at once.
  BusBatch batch(const std::vector<std::pair<std::string, int64_t>>& events) const {
    BusBatch batch;
    batch.set_topic(7);
    for (const auto& [text, ms] : events) {
      v1::Event event;
      event.set_text(text);
      if (ms > 0) {
        event.mutable_deliver_time()->set_seconds((wall_us() + ms * 1000) / 1'000'000);
        event.mutable_deliver_time()->set_nanos(static_cast<int32_t>((wall_us() + ms * 1000) % 1'000'000) * 1000);
      }
      *batch.add_events() = event.SerializeAsString();
    }
    return batch;
  }
  int release(uint32_t events_max = 100) {
    internal::v1::BusReleaseCommand command;
    command.set_now_us(wall_us());
    command.set_events_max(events_max);
    return lab_.run_to_end("release", command);
  }
  BusLab lab_;
};

TEST_F(Schedule, AnEventGetsTheNextOffsetWhenItsTimeHasCome) {
  const auto result = lab_.append(batch({{"now", 0}, {"later", 500}, {"also now", 0}}));
  ASSERT_EQ(result.scheduled_size(), 1);
  EXPECT_EQ(result.scheduled(0), 1u);
  EXPECT_EQ(lab_.read(7, 0), (Texts{"now", "also now"}));
  EXPECT_EQ(first_due_us(lab_.machine().view()), wall_us() + 500'000);
  release();
  EXPECT_EQ(lab_.partition(7, 0).next_offset(), 2u) << "it is not due";
  lab_.append(batch({{"meanwhile", 0}}));
  lab_.now_ms += 500;
  lab_.changes.clear();
  release();
  EXPECT_EQ(lab_.read(7, 0), (Texts{"now", "also now", "meanwhile", "later"}));
  ASSERT_EQ(lab_.changes.size(), 1u);
  EXPECT_TRUE((*decode_notice(bus_group(0), {7, 0}, lab_.changes[0].payload))->bare());
  EXPECT_EQ(lab_.partition(7, 0).scheduled(), 0u);
  EXPECT_EQ(lab_.rows_of(kScheduledTable) + lab_.rows_of(kDueTable), 0u);
}

TEST_F(Schedule, ThoseThatAreDueComeInTheOrderOfTheirTimesAndInSteps) {
  lab_.append(batch({{"c", 300}, {"a", 100}, {"b", 200}}));
  lab_.append(batch({{"a2", 100}}));
  lab_.now_ms += 1000;
  EXPECT_GE(release(1), 4);
  EXPECT_EQ(lab_.read(7, 0), (Texts{"a", "a2", "b", "c"}));
}

TEST_F(Schedule, TheLogIsKeptForWhatWaits) {
  lab_.append(batch({{"later", 500}}));
  const LogIndex entry = lab_.machine().applied();
  lab_.append(batch({{"x", 0}}));
  EXPECT_EQ(lab_.floor(), entry);
  lab_.now_ms += 600;
  release();
  EXPECT_EQ(lab_.floor(), entry) << "it is still read from there";
}

TEST_F(Schedule, WhatWaitsGoesWithItsTopic) {
  lab_.append(batch({{"a", 500}, {"b", 600}, {"x", 0}}));
  internal::v1::BusDropCommand drop;
  drop.set_topic(7);
  drop.set_rows_max(2);
  lab_.run_to_end("drop", drop);
  EXPECT_EQ(lab_.rows_of(kScheduledTable), 0u);
  EXPECT_EQ(lab_.floor(), LogIndex(0));
  lab_.now_ms += 1000;
  release();
  EXPECT_EQ(lab_.rows_of(kDueTable), 0u);
}

TEST_F(Schedule, ARepeatIsNotScheduledTwice) {
  internal::v1::BusSettings settings;
  settings.set_dedup_window_ms(60'000);
  lab_.open(7, 1, settings);
  BusBatch one = batch({{"a", 500}});
  v1::Event event;
  ASSERT_TRUE(event.ParseFromString(one.events(0)));
  event.set_id("id");
  *one.mutable_events(0) = event.SerializeAsString();
  EXPECT_EQ(lab_.append(one).scheduled_size(), 1);
  const auto again = lab_.append(one);
  EXPECT_EQ(again.scheduled_size(), 0);
  EXPECT_EQ(again.duplicates_size(), 1);
  lab_.now_ms += 500;
  release();
  EXPECT_EQ(lab_.read(7, 0), Texts{"a"});
}

TEST_F(Schedule, AKeyWithAVersionHasOneMoreWhenItsEventGetsItsOffset) {
  const auto keyed = [](BusBatch batch, const std::string& key) {
    v1::Event event;
    EXPECT_TRUE(event.ParseFromString(batch.events(0)));
    event.set_key(key);
    *batch.mutable_events(0) = event.SerializeAsString();
    return batch;
  };
  const auto expecting = [&](uint64_t version) {
    BusBatch one = keyed(batch({{"x", 0}}), "k");
    one.set_expected_version(version);
    return lab_.append(one);
  };
  lab_.append(keyed(batch({{"other", 500}}), "without"));
  EXPECT_EQ(expecting(0).version(), 1u);
  lab_.append(keyed(batch({{"later", 500}}), "k"));
  EXPECT_EQ(expecting(1).version(), 2u) << "it does not count before its time";
  lab_.now_ms += 500;
  release();
  EXPECT_EQ(expecting(2).refusal(), BusBatchResult::REFUSAL_UNEXPECTED_VERSION);
  EXPECT_EQ(expecting(3).version(), 4u);
  EXPECT_EQ(lab_.rows_of(kVersionTable), 1u);
}

TEST_F(Schedule, NodesOfBeforeKnowNoKeysOfScheduledEvents) {
  lab_.feature_level = services::kRetirementLevel - 1;
  lab_.append(batch({{"later", 500}}));
  kScheduled.scan_all(lab_.machine().view(), [](const auto&, std::string_view, const auto& row) {
    EXPECT_EQ(row.key(), "");
    return true;
  });
}

}  // namespace
}  // namespace uccp::events
