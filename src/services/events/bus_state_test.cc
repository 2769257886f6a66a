// The state of a bus group: offsets, the index into the log, repeats, producers, and what of the log is still needed.
#include "services/events/bus_state.h"

#include "services/events/test_bus_lab.h"

namespace uccp::events {
namespace {

using internal::v1::BusBatch;
using internal::v1::BusBatchResult;
using Texts = std::vector<std::string>;

internal::v1::BusSettings with_window(int64_t ms) {
  internal::v1::BusSettings settings;
  settings.set_dedup_window_ms(ms);
  return settings;
}

BusBatch with_ids(uint64_t topic, const std::vector<std::pair<std::string, std::string>>& events) {
  BusBatch batch;
  batch.set_topic(topic);
  for (const auto& [id, text] : events) {
    v1::Event event;
    event.set_id(id);
    event.set_text(text);
    *batch.add_events() = event.SerializeAsString();
  }
  return batch;
}

TEST(BusState, OffsetsOfAPartitionAreConsecutiveAndEachIsReadFromItsEntry) {
  BusLab lab;
  lab.open(7, 2);
  EXPECT_EQ(lab.append(BusLab::batch(7, 0, {"a", "b"})).first_offset(), 0u);
  const auto results = lab.append({BusLab::batch(7, 1, {"x"}), BusLab::batch(7, 0, {"c"}), BusLab::batch(7, 0, {"d"})});
  EXPECT_EQ(results[0].first_offset(), 0u);
  EXPECT_EQ(results[1].first_offset(), 2u);
  EXPECT_EQ(results[2].first_offset(), 3u);
  EXPECT_EQ(lab.read(7, 0), (Texts{"a", "b", "c", "d"}));
  EXPECT_EQ(lab.read(7, 0, 1), (Texts{"b", "c", "d"}));
  EXPECT_EQ(lab.read(7, 1), Texts{"x"});
  EXPECT_EQ(lab.partition(7, 0).next_offset(), 4u);
}

TEST(BusState, APartitionThatIsNotOpenTakesNothing) {
  BusLab lab;
  EXPECT_EQ(lab.append(BusLab::batch(7, 0, {"a"})).refusal(), BusBatchResult::REFUSAL_UNKNOWN_PARTITION);
  EXPECT_EQ(lab.rows_of(kIndexTable), 0u);
  EXPECT_TRUE(lab.changes.empty());
  lab.open(7, 1);
  lab.append(BusLab::batch(7, 0, {"a"}));
  lab.open(7, 1);
  EXPECT_EQ(lab.partition(7, 0).next_offset(), 1u) << "opening again keeps what is there";
}

TEST(BusState, TheFloorOfTheLogIsTheOldestEntryThatARowNames) {
  BusLab lab;
  lab.open(7, 1);
  lab.open(8, 1);
  EXPECT_EQ(lab.floor(), LogIndex(0));
  lab.append(BusLab::batch(7, 0, {"a"}));
  const LogIndex first = lab.machine().applied();
  lab.append(BusLab::batch(8, 0, {"b"}));
  EXPECT_EQ(lab.floor(), first);
  internal::v1::BusDropCommand drop;
  drop.set_topic(7);
  drop.set_rows_max(100);
  lab.run_to_end("drop", drop);
  EXPECT_EQ(lab.floor(), first.next());
  EXPECT_EQ(lab.read(8, 0), Texts{"b"});
}

TEST(BusState, ATopicIsDroppedInStepsAndTakesNothingMeanwhile) {
  BusLab lab;
  lab.open(7, 2, with_window(1000));
  for (int i = 0; i < 10; ++i) lab.append(with_ids(7, {{"id" + std::to_string(i), "x"}}));
  internal::v1::BusDropCommand drop;
  drop.set_topic(7);
  drop.set_rows_max(4);
  const auto progress = lab.apply("bus.drop", drop.SerializeAsString());
  ASSERT_TRUE(progress.has_value());
  EXPECT_EQ(lab.append(BusLab::batch(7, 0, {"late"})).refusal(), BusBatchResult::REFUSAL_UNKNOWN_PARTITION);
  EXPECT_GT(lab.run_to_end("drop", drop), 5);
  for (const auto table : {kPartitionTable, kIndexTable, kNeededTable, kSeenTable, kSeenAgeTable}) {
    EXPECT_EQ(lab.rows_of(table), 0u) << table;
  }
}

TEST(BusState, AnIdCountsOnceWithinTheWindowOfItsTopic) {
  BusLab lab;
  lab.open(7, 1, with_window(1000));
  lab.append(with_ids(7, {{"a", "1"}}));
  const auto again = lab.append(with_ids(7, {{"b", "2"}, {"a", "1"}, {"b", "3"}, {"", "4"}}));
  EXPECT_EQ(std::vector<uint32_t>(again.duplicates().begin(), again.duplicates().end()), (std::vector<uint32_t>{1, 2}));
  EXPECT_EQ(again.duplicate_offsets(0), 0u);
  EXPECT_EQ(again.duplicate_offsets(1), 1u);
  EXPECT_EQ(lab.read(7, 0), (Texts{"1", "2", "4"}));
  lab.now_ms += 1001;
  lab.append(with_ids(7, {{"a", "5"}}));
  EXPECT_EQ(lab.read(7, 0), (Texts{"1", "2", "4", "5"}));
  EXPECT_EQ(lab.rows_of(kSeenTable), 1u) << "ids whose time is over are forgotten";
  EXPECT_EQ(lab.rows_of(kSeenAgeTable), 1u);
}

TEST(BusState, ABatchOfNothingButRepeatsWritesNoRow) {
  BusLab lab;
  lab.open(7, 1, with_window(1000));
  lab.append(with_ids(7, {{"a", "1"}}));
  lab.changes.clear();
  const auto again = lab.append(with_ids(7, {{"a", "1"}}));
  EXPECT_EQ(again.duplicates_size(), 1);
  EXPECT_TRUE(lab.changes.empty());
  EXPECT_EQ(lab.partition(7, 0).next_offset(), 1u);
}

TEST(BusState, AProducerIsHeardOnceForEachSequenceNumber) {
  BusLab lab;
  lab.open(7, 1);
  auto batch = BusLab::batch(7, 0, {"a", "b"});
  batch.set_producer_id("p");
  batch.set_producer_epoch(3);
  batch.set_sequence(1);
  EXPECT_EQ(lab.append(batch).refusal(), BusBatchResult::REFUSAL_UNSPECIFIED);
  EXPECT_EQ(lab.append(batch).duplicates_size(), 2) << "a repeat";
  auto longer = BusLab::batch(7, 0, {"b", "c"});
  longer.set_producer_id("p");
  longer.set_producer_epoch(3);
  longer.set_sequence(2);
  const auto overlap = lab.append(longer);
  EXPECT_EQ(overlap.duplicates_size(), 1);
  EXPECT_EQ(overlap.duplicate_offsets(0), 1u);
  auto unknown = longer;
  unknown.set_producer_id("q");
  EXPECT_EQ(lab.append(unknown).refusal(), BusBatchResult::REFUSAL_UNKNOWN_PRODUCER);
  EXPECT_EQ(lab.rows_of(kProducerTable), 1u);
  longer.set_sequence(9);
  const auto gap = lab.append(longer);
  EXPECT_EQ(gap.refusal(), BusBatchResult::REFUSAL_SEQUENCE_GAP);
  EXPECT_EQ(gap.expected(), 4u);
  auto older = BusLab::batch(7, 0, {"z"});
  older.set_producer_id("p");
  older.set_producer_epoch(2);
  const auto fenced = lab.append(older);
  EXPECT_EQ(fenced.refusal(), BusBatchResult::REFUSAL_STALE_EPOCH);
  EXPECT_EQ(fenced.expected(), 3u);
  auto newer = BusLab::batch(7, 0, {"d"});
  newer.set_producer_id("p");
  newer.set_producer_epoch(4);
  newer.set_sequence(1);
  EXPECT_EQ(lab.append(newer).refusal(), BusBatchResult::REFUSAL_UNSPECIFIED) << "a new epoch counts from 1";
  EXPECT_EQ(lab.read(7, 0), (Texts{"a", "b", "c", "d"}));
}

TEST(BusState, AnExpectedOffsetGuardsAStreamOfEvents) {
  BusLab lab;
  lab.open(7, 1);
  auto batch = BusLab::batch(7, 0, {"a"});
  batch.set_expected_offset(0);
  EXPECT_EQ(lab.append(batch).refusal(), BusBatchResult::REFUSAL_UNSPECIFIED);
  const auto late = lab.append(batch);
  EXPECT_EQ(late.refusal(), BusBatchResult::REFUSAL_UNEXPECTED_OFFSET);
  EXPECT_EQ(late.expected(), 1u);
}

BusBatch keyed(const std::string& key, const std::vector<std::string>& texts) {
  BusBatch batch;
  batch.set_topic(7);
  for (const std::string& text : texts) {
    v1::Event event;
    event.set_key(key);
    event.set_text(text);
    *batch.add_events() = event.SerializeAsString();
  }
  return batch;
}

TEST(BusState, AnExpectedVersionGuardsAKeyAndEveryEventOfItCounts) {
  BusLab lab;
  lab.open(7, 1);
  lab.append(keyed("a", {"before versions"}));
  auto first = keyed("a", {"1", "2"});
  first.set_expected_version(0);
  EXPECT_EQ(lab.append(first).version(), 2u) << "counted from its first version on";
  const auto late = lab.append(first);
  EXPECT_EQ(late.refusal(), BusBatchResult::REFUSAL_UNEXPECTED_VERSION);
  EXPECT_EQ(late.expected(), 2u);
  lab.append(keyed("a", {"3"}));
  lab.append(keyed("b", {"x"}));
  auto next = keyed("a", {"4"});
  next.set_expected_version(3);
  EXPECT_EQ(lab.append(next).version(), 4u);
  auto other = keyed("b", {"y"});
  other.set_expected_version(0);
  EXPECT_EQ(lab.append(other).version(), 1u);
  EXPECT_EQ(lab.read(7, 0), (Texts{"before versions", "1", "2", "3", "x", "4", "y"}));
  internal::v1::BusDropCommand drop;
  drop.set_topic(7);
  drop.set_rows_max(100);
  lab.run_to_end("drop", drop);
  EXPECT_EQ(lab.rows_of(kVersionTable), 0u);
}

TEST(BusState, AnEphemeralBatchIsToldAndNotKept) {
  BusLab lab;
  auto batch = BusLab::batch(7, 0, {"a"});
  batch.set_ephemeral(true);
  EXPECT_EQ(lab.append(batch).refusal(), BusBatchResult::REFUSAL_UNSPECIFIED);
  ASSERT_EQ(lab.changes.size(), 1u);
  EXPECT_FALSE(lab.changes[0].kept);
  const auto told = decode_notice(bus_group(0), {7, 0}, lab.changes[0].payload);
  ASSERT_TRUE(told.has_value());
  EXPECT_TRUE((*told)->ephemeral);
  EXPECT_EQ(lab.rows_of(kNeededTable), 0u);
}

TEST(BusState, ThePlaceOfASubscriptionGoesWithItsPartitionOrWhenItIsForgotten) {
  BusLab lab;
  lab.open(7, 1);
  lab.open(8, 1);
  const auto commit = [&](uint64_t topic, uint64_t offset) {
    internal::v1::BusCommitCommand command;
    auto& one = *command.add_commits();
    one.set_subscription(99);
    one.set_topic(topic);
    one.mutable_position()->set_offset(offset);
    one.mutable_position()->add_above(offset + 2);
    EXPECT_TRUE(lab.apply("bus.commit", command.SerializeAsString()).has_value());
  };
  const auto place = [&](uint64_t topic) {
    return kPositions.get(lab.machine().view(), kLabScope, position_key({topic, 0}, 99));
  };
  commit(7, 3);
  commit(8, 4);
  commit(9, 5);
  ASSERT_TRUE(place(7) && place(8));
  EXPECT_EQ(place(7)->offset(), 3u);
  EXPECT_EQ(place(7)->above(0), 5u);
  EXPECT_FALSE(place(9)) << "there is no such partition";
  internal::v1::BusDropCommand drop;
  drop.set_topic(7);
  drop.set_rows_max(100);
  lab.run_to_end("drop", drop);
  EXPECT_FALSE(place(7));
  internal::v1::BusForgetCommand forget;
  forget.set_subscription(99);
  forget.add_partitions()->set_topic(8);
  EXPECT_TRUE(lab.apply("bus.forget", forget.SerializeAsString()).has_value());
  EXPECT_FALSE(place(8));
}

TEST(BusState, WhoTookASubscriptionOverIsTheOneWhoMovesItsPlaces) {
  BusLab lab;
  lab.open(7, 1);
  const auto commit = [&](uint64_t epoch, std::optional<uint64_t> offset) {
    internal::v1::BusCommitCommand command;
    command.set_epoch(epoch);
    auto& one = *command.add_commits();
    one.set_subscription(99);
    one.set_topic(7);
    if (offset) one.mutable_position()->set_offset(*offset);
    internal::v1::BusCommitResult result;
    const auto answer = lab.apply("bus.commit", command.SerializeAsString());
    EXPECT_TRUE(answer && result.ParseFromString(*answer));
    return !result.stale();
  };
  const auto place = [&] { return *kPositions.get(lab.machine().view(), kLabScope, position_key({7, 0}, 99)); };
  EXPECT_TRUE(commit(5, std::nullopt));
  EXPECT_TRUE(place().unset()) << "it is taken over before it was ever set";
  EXPECT_TRUE(commit(5, 3));
  EXPECT_FALSE(place().unset());
  EXPECT_TRUE(commit(8, std::nullopt));
  EXPECT_EQ(place().offset(), 3u) << "taking over moves nothing";
  EXPECT_FALSE(commit(5, 9));
  EXPECT_EQ(place().offset(), 3u);
  EXPECT_TRUE(commit(8, 4));
}

TEST(BusRows, AnOffsetIsFoundByWhatItsBatchesSay) {
  BusLab lab;
  lab.open(7, 1);
  for (int i = 0; i < 20; ++i) {
    lab.now_ms += 10;
    lab.append(BusLab::batch(7, 0, Texts(static_cast<size_t>(i % 3 + 1), "x")));
  }
  const auto partition = lab.partition(7, 0);
  for (uint64_t offset = 0; offset < partition.next_offset(); ++offset) {
    const auto entry = find_index(lab.machine().view(), kLabScope, {7, 0}, offset);
    ASSERT_TRUE(entry.has_value());
    EXPECT_LE(entry->row.first_offset(), offset);
    EXPECT_GE(entry->last_offset, offset);
    const uint64_t found = first_offset_where(lab.machine().view(), kLabScope, {7, 0}, partition, [&](const auto& row) {
      return row.publish_us() >= entry->row.publish_us();
    });
    EXPECT_EQ(found, entry->row.first_offset());
  }
  EXPECT_EQ(first_offset_where(lab.machine().view(), kLabScope, {7, 0}, partition, [](const auto&) { return false; }),
            partition.next_offset());
}

TEST(Cursors, SayWhereAStreamIsInEachGroup) {
  const Cursor cursor{{bus_group(0), {7, 0, 2}}, {bus_group(3), {900, 4294967295, 0}}};
  EXPECT_EQ(encode_cursor(cursor), "16.7.0.2_19.900.4294967295.0");
  EXPECT_EQ(decode_cursor(encode_cursor(cursor)), cursor);
  for (const char* wrong : {"", "16", "16.1.2", "3.1.0.0", "16.1.0.0_", "16.1.0.4294967296", "16.1.0.0x", "99.1.0.0"}) {
    const auto refused = decode_cursor(wrong);
    ASSERT_FALSE(refused.has_value()) << wrong;
    EXPECT_EQ(refused.error().reason(), "CURSOR_INVALID");
  }
}

}  // namespace
}  // namespace uccp::events
