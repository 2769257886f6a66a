// What compaction leaves of the index, and rows whose events were stored again.
#include "services/events/bus_compact.h"

#include "services/events/test_bus_lab.h"

namespace uccp::events {
namespace {

using Texts = std::vector<std::string>;
using Offsets = std::vector<uint64_t>;

internal::v1::BusSettings compacted() {
  internal::v1::BusSettings settings;
  settings.set_compacted(true);
  settings.set_tombstone_retention_ms(1000);
  return settings;
}

internal::v1::BusCompactCommand removing(uint64_t last_offset, const std::vector<uint32_t>& gone, uint64_t bytes = 0) {
  internal::v1::BusCompactCommand command;
  command.set_topic(7);
  auto& row = *command.add_rows();
  row.set_last_offset(last_offset);
  for (const uint32_t number : gone) row.add_gone(number);
  row.set_bytes(bytes);
  return command;
}

void apply(BusLab& lab, const internal::v1::BusCompactCommand& command) {
  EXPECT_TRUE(lab.apply("bus.compact", command.SerializeAsString()).has_value());
}

TEST(Compaction, WhatIsLeftKeepsItsOffsetAndItsOrder) {
  BusLab lab;
  lab.open(7, 1, compacted());
  lab.append(BusLab::batch(7, 0, {"a", "b", "c", "d"}));
  lab.append(BusLab::batch(7, 0, {"e"}));
  const uint64_t bytes = lab.partition(7, 0).bytes();
  apply(lab, removing(3, {0, 2}, 6));
  EXPECT_EQ(lab.read(7, 0), (Texts{"b", "d", "e"}));
  EXPECT_EQ(lab.offsets(7, 0), (Offsets{1, 3, 4}));
  EXPECT_EQ(lab.partition(7, 0).bytes(), bytes - 6);
  apply(lab, removing(3, {3}));
  EXPECT_EQ(lab.offsets(7, 0), (Offsets{1, 4}));
  EXPECT_EQ(lab.partition(7, 0).first_offset(), 0u) << "nobody who reads is told that something is lost";
}

TEST(Compaction, ARowWithoutEventsGoesAndFreesItsPartOfTheLog) {
  BusLab lab;
  lab.open(7, 1, compacted());
  lab.append(BusLab::batch(7, 0, {"a", "b"}));
  lab.append(BusLab::batch(7, 0, {"c"}));
  apply(lab, removing(1, {0, 1}));
  EXPECT_EQ(lab.read(7, 0), Texts{"c"});
  EXPECT_EQ(lab.rows_of(kIndexTable), 1u);
  EXPECT_EQ(lab.floor(), LogIndex(3));
}

TEST(Compaction, WhatIsRemovedTwiceIsRemovedOnceAndTheNewestBatchStays) {
  BusLab lab;
  lab.open(7, 1, compacted());
  lab.append(BusLab::batch(7, 0, {"a", "b"}));
  lab.append(BusLab::batch(7, 0, {"c"}));
  apply(lab, removing(1, {0}, 3));
  const uint64_t bytes = lab.partition(7, 0).bytes();
  apply(lab, removing(1, {0}, 3));
  apply(lab, removing(1, {0, 1}, 6));
  apply(lab, removing(2, {0}, 3));
  apply(lab, removing(9, {0}, 3));
  EXPECT_EQ(lab.partition(7, 0).bytes(), bytes);
  EXPECT_EQ(lab.offsets(7, 0), (Offsets{1, 2}));
}

TEST(Compaction, APlaceInARowIsTheSameBeforeAndAfterIt) {
  BusLab lab;
  lab.open(7, 1, compacted());
  lab.append(BusLab::batch(7, 0, {"a", "b", "c"}));
  lab.append(BusLab::batch(7, 0, {"d"}));
  apply(lab, removing(2, {1}));
  const auto partition = lab.partition(7, 0);
  for (uint32_t place = 0; place < 3; ++place) {
    EXPECT_EQ(offset_behind(lab.machine().view(), kLabScope, {7, 0}, partition, {2, 0, place}), place + 1);
  }
  apply(lab, removing(2, {0, 2}));
  const uint64_t behind = offset_behind(lab.machine().view(), kLabScope, {7, 0}, partition, {2, 0, 0});
  EXPECT_EQ(lab.read(7, 0, behind), Texts{"d"});
}

TEST(Compaction, IsDueWhenAsMuchWasPublishedAsItLeftOrAfterAWhile) {
  const CompactionLimits limits{.bytes_min = 100, .lag_ms = 5000};
  BusPartitionRow row;
  row.mutable_settings()->set_compacted(true);
  row.set_bytes_ever(99);
  row.set_bytes(99);
  row.set_compacted_ms(1000);
  EXPECT_FALSE(compaction_due(row, 1000, limits));
  EXPECT_TRUE(compaction_due(row, 6001, limits));
  row.set_bytes_ever(100);
  EXPECT_TRUE(compaction_due(row, 1000, limits));
  // 400 bytes of keys are left, and 300 came since.
  row.set_compacted_bytes_ever(1000);
  row.set_bytes_ever(1300);
  row.set_bytes(700);
  EXPECT_FALSE(compaction_due(row, 1000, limits));
  row.set_bytes_ever(1400);
  row.set_bytes(800);
  EXPECT_TRUE(compaction_due(row, 1000, limits));
  row.set_compacted_bytes_ever(1400);
  EXPECT_FALSE(compaction_due(row, 60'000, limits)) << "there is nothing new";
  row.mutable_settings()->set_tombstone_retention_ms(500);
  row.set_oldest_tombstone_ms(1000);
  EXPECT_FALSE(compaction_due(row, 1500, limits));
  EXPECT_TRUE(compaction_due(row, 1501, limits));
}

// Stores the events of a row again, as they are.
internal::v1::BusRewriteCommand rewriting(const BusLab& lab, uint64_t last_offset) {
  const auto entry = find_index(lab.machine().view(), kLabScope, {7, 0}, last_offset);
  const auto batches = decode_entry(lab.log.at(entry->row.log_index()));
  const auto batch = make_batch(bus_group(0), {7, 0}, entry->row, (*batches)[entry->row.batch()]);
  internal::v1::BusRewriteCommand command;
  auto& to = *command.add_batches();
  to.set_topic(7);
  to.add_events("another row's");
  auto& row = *command.add_rows();
  row.set_last_offset(last_offset);
  row.set_log_index(entry->row.log_index());
  row.set_log_batch(entry->row.batch());
  row.set_place(1);
  row.set_count(static_cast<uint32_t>(batch->places.size()));
  for (size_t i = 0; i < batch->places.size(); ++i) to.add_events(std::string(batch->event(i)));
  return command;
}

TEST(Rewriting, RowsAreReadFromTheNewEntryAndTheOldOneCanGo) {
  BusLab lab;
  lab.open(7, 1, compacted());
  lab.append(BusLab::batch(7, 0, {"a", "b", "c"}));
  lab.append(BusLab::batch(7, 0, {"d"}));
  apply(lab, removing(2, {1}));
  ASSERT_TRUE(lab.apply("bus.rewrite", rewriting(lab, 2).SerializeAsString()).has_value());
  lab.log.erase(2);
  EXPECT_EQ(lab.read(7, 0), (Texts{"a", "c", "d"}));
  EXPECT_EQ(lab.offsets(7, 0), (Offsets{0, 2, 3}));
  EXPECT_EQ(lab.floor(), LogIndex(3));
  // A cursor from before leads to the same place.
  EXPECT_EQ(offset_behind(lab.machine().view(), kLabScope, {7, 0}, lab.partition(7, 0), {2, 0, 0}), 1u);
  EXPECT_EQ(place_of(find_index(lab.machine().view(), kLabScope, {7, 0}, 0)->row), (LogPlace{2, 0, 0}));
}

TEST(Rewriting, ARowThatChangedMeanwhileStaysWhereItIs) {
  BusLab lab;
  lab.open(7, 1, compacted());
  lab.append(BusLab::batch(7, 0, {"a", "b", "c"}));
  lab.append(BusLab::batch(7, 0, {"d"}));
  const auto command = rewriting(lab, 2);
  apply(lab, removing(2, {1}));
  ASSERT_TRUE(lab.apply("bus.rewrite", command.SerializeAsString()).has_value());
  EXPECT_EQ(lab.read(7, 0), (Texts{"a", "c", "d"}));
  EXPECT_EQ(lab.floor(), LogIndex(2)) << "its entry is still needed, and the new one is not";
}

TEST(Rewriting, BytesThatTheLogHasToKeepAreCounted) {
  BusLab lab;
  lab.open(7, 1, compacted());
  EXPECT_EQ(log_bytes_held(lab.machine().view()), 0u);
  lab.append(BusLab::batch(7, 0, {std::string(1000, 'a')}));
  lab.append(BusLab::batch(7, 0, {std::string(500, 'b')}));
  const uint64_t behind_the_first = log_bytes_held(lab.machine().view());
  EXPECT_GE(behind_the_first, 500u);
  EXPECT_LT(behind_the_first, 600u);
  lab.append(BusLab::batch(7, 0, {std::string(100, 'c')}));
  apply(lab, removing(0, {0}));
  EXPECT_LT(log_bytes_held(lab.machine().view()), 200u);
}

TEST(Rewriting, NodesOfBeforeCountNothing) {
  BusLab lab;
  lab.feature_level = 1;
  lab.open(7, 1);
  lab.append(BusLab::batch(7, 0, {"a"}));
  EXPECT_EQ(lab.rows_of(kLogBytesTable), 0u);
}

}  // namespace
}  // namespace uccp::events
