// Retention: what a partition gives up, when, and that the log goes with it.
#include "services/events/bus_trim.h"

#include "services/events/test_bus_lab.h"

namespace uccp::events {
namespace {

using Texts = std::vector<std::string>;

internal::v1::BusSettings keeping(int64_t ms, uint64_t bytes, uint64_t events) {
  internal::v1::BusSettings settings;
  settings.set_retention_ms(ms);
  settings.set_retention_bytes(bytes);
  settings.set_retention_events(events);
  return settings;
}

internal::v1::BusTrimCommand trim_of(uint64_t topic, uint32_t rows_max = 100) {
  internal::v1::BusTrimCommand command;
  command.add_partitions()->set_topic(topic);
  command.set_rows_max(rows_max);
  return command;
}

TEST(Retention, WhatIsTooOldGoesWithItsPartOfTheLog) {
  BusLab lab;
  lab.open(7, 1, keeping(1000, 0, 0));
  lab.append(BusLab::batch(7, 0, {"a", "b"}));
  lab.now_ms += 600;
  lab.append(BusLab::batch(7, 0, {"c"}));
  const LogIndex newer = lab.machine().applied();
  lab.now_ms += 401;
  lab.run_to_end("trim", trim_of(7));
  EXPECT_EQ(lab.read(7, 0), Texts{"c"});
  EXPECT_EQ(lab.partition(7, 0).first_offset(), 2u);
  EXPECT_EQ(lab.floor(), newer);
  lab.now_ms += 600;
  lab.run_to_end("trim", trim_of(7));
  const auto row = lab.partition(7, 0);
  EXPECT_EQ(row.first_offset(), 3u);
  EXPECT_EQ(row.next_offset(), 3u) << "offsets are never used again";
  EXPECT_EQ(row.bytes(), 0u);
  EXPECT_EQ(lab.floor(), LogIndex(0));
  EXPECT_FALSE(trim_due(row, lab.now_ms + 1'000'000));
}

TEST(Retention, AJumpOfTheWallClockRemovesNothing) {
  BusLab lab;
  lab.open(7, 1, keeping(1000, 0, 0));
  lab.append(BusLab::batch(7, 0, {"a"}));
  lab.wall_jump_ms = 1'000'000'000;
  lab.run_to_end("trim", trim_of(7));
  EXPECT_EQ(lab.read(7, 0), Texts{"a"});
}

TEST(Retention, TheNumberOfEventsIsExactEvenWithinABatch) {
  BusLab lab;
  lab.open(7, 1, keeping(0, 0, 4));
  lab.append(BusLab::batch(7, 0, {"a", "b", "c"}));
  lab.append(BusLab::batch(7, 0, {"d", "e", "f"}));
  EXPECT_EQ(lab.partition(7, 0).first_offset(), 2u) << "publishing makes room by itself";
  EXPECT_EQ(lab.read(7, 0, lab.partition(7, 0).first_offset()), (Texts{"c", "d", "e", "f"}));
  // Readers with a cursor are told from here on that something is gone.
  EXPECT_EQ(lab.partition(7, 0).trimmed_index(), lab.machine().applied().value - 1);
  EXPECT_EQ(lab.partition(7, 0).trimmed_place(), 1u);
  for (int i = 0; i < 100; ++i) lab.append(BusLab::batch(7, 0, {std::to_string(i)}));
  EXPECT_EQ(lab.read(7, 0, lab.partition(7, 0).first_offset()), (Texts{"96", "97", "98", "99"}));
  EXPECT_EQ(lab.rows_of(kIndexTable), 4u);
}

TEST(Retention, BytesAreKeptToABatchAndTheNewestStays) {
  BusLab lab;
  const std::string text(100, 'x');
  lab.open(7, 1, keeping(0, 350, 0));
  for (int i = 0; i < 10; ++i) lab.append(BusLab::batch(7, 0, {text}));
  const auto row = lab.partition(7, 0);
  EXPECT_LE(row.bytes(), 350u);
  EXPECT_EQ(row.next_offset() - row.first_offset(), 3u);
  lab.append(BusLab::batch(7, 0, {std::string(5000, 'y')}));
  EXPECT_EQ(lab.read(7, 0), Texts{std::string(5000, 'y')});
}

TEST(Retention, LessKeptThanBeforeGoesInSteps) {
  BusLab lab;
  lab.open(7, 1);
  for (int i = 0; i < 50; ++i) lab.append(BusLab::batch(7, 0, {std::to_string(i)}));
  lab.open(7, 1, keeping(0, 0, 5));
  EXPECT_TRUE(trim_due(lab.partition(7, 0), lab.now_ms));
  EXPECT_GT(lab.run_to_end("trim", trim_of(7, 10)), 4);
  EXPECT_EQ(lab.read(7, 0), (Texts{"45", "46", "47", "48", "49"}));
}

TEST(Retention, TheRestOfATopicThatWasDeletedIsLeftToTheDrop) {
  BusLab lab;
  lab.open(7, 1, keeping(1000, 0, 0));
  for (int i = 0; i < 10; ++i) lab.append(BusLab::batch(7, 0, {"x"}));
  internal::v1::BusDropCommand drop;
  drop.set_topic(7);
  drop.set_rows_max(3);
  EXPECT_TRUE(lab.apply("bus.drop", drop.SerializeAsString()).has_value());
  lab.now_ms += 5000;
  EXPECT_EQ(lab.run_to_end("trim", trim_of(7)), 1);
  lab.run_to_end("drop", drop);
  EXPECT_EQ(lab.rows_of(kIndexTable), 0u);
}

}  // namespace
}  // namespace uccp::events
