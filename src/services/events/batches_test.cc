// Events as they are read from the log, and what is sent of them.
#include "services/events/batches.h"

#include "services/events/test_bus_lab.h"

namespace uccp::events {
namespace {

using internal::v1::BusBatch;

BatchPtr batch_of(const BusBatch& content, BusIndexRow row, PartitionId id) {
  const auto kept = std::make_shared<const std::string>(content.SerializeAsString());
  row.set_events(static_cast<uint32_t>(content.events_size()));
  return make_batch(bus_group(0), id, std::move(row), BatchContent::read(kept, *kept));
}

v1::Event delivered(const Batch& batch, size_t number) {
  std::string item;
  DeliveredEvents(batch, "orders").append(item, v1::EventDelivery::kEventFieldNumber, number);
  v1::EventDelivery delivery;
  EXPECT_TRUE(delivery.ParseFromString(item));
  return delivery.event();
}

TEST(Batches, AnEventIsDeliveredWithWhatItsPlaceSays) {
  BusBatch content = BusLab::batch(7, 3, {"a", std::string(70'000, 'b')});
  v1::Event named;
  named.set_id("mine");
  named.set_text("c");
  *content.add_events() = named.SerializeAsString();
  content.set_principal("ann");
  BusIndexRow row;
  row.set_first_offset(40);
  row.set_publish_us(1'700'000'000'250'000);
  const BatchPtr batch = batch_of(content, row, {7, 3});
  const v1::Event event = delivered(*batch, 1);
  EXPECT_EQ(event.text(), std::string(70'000, 'b'));
  EXPECT_EQ(event.topic(), "orders");
  EXPECT_EQ(event.partition(), 3);
  EXPECT_EQ(event.offset(), 41u);
  EXPECT_EQ(event.principal(), "ann");
  EXPECT_EQ(event.publish_time().seconds(), 1'700'000'000);
  EXPECT_EQ(event.publish_time().nanos(), 250'000'000);
  EXPECT_TRUE(event.id().starts_with("evt_"));
  EXPECT_LT(delivered(*batch, 0).id(), event.id());
  EXPECT_EQ(delivered(*batch, 2).id(), "mine");
}

TEST(Batches, AnEphemeralEventHasNoPlace) {
  BusBatch content = BusLab::batch(7, 0, {"a"});
  content.set_ephemeral(true);
  BusIndexRow row;
  row.set_first_offset(5);
  const BatchPtr batch = batch_of(content, row, {7, 0});
  EXPECT_TRUE(batch->ephemeral);
  const v1::Event event = delivered(*batch, 0);
  EXPECT_EQ(event.offset(), 0u);
  EXPECT_EQ(event.id(), "");
}

TEST(Batches, WhatCompactionLeftKeepsItsOffsets) {
  BusIndexRow row;
  row.set_first_offset(10);
  row.set_span(4);
  for (const uint32_t place : {1u, 3u}) {
    row.add_only(place);
    row.add_numbers(place);
  }
  const BatchPtr batch = batch_of(BusLab::batch(7, 0, {"a", "b", "c", "d"}), row, {7, 0});
  ASSERT_EQ(batch->places.size(), 2u);
  EXPECT_EQ(delivered(*batch, 1).text(), "d");
  EXPECT_EQ(delivered(*batch, 1).offset(), 13u);
  EXPECT_EQ(batch->next_offset(), 14u);
}

TEST(Batches, CursorsOfARowAreThoseThatAreWrittenOneByOne) {
  const auto text = [](const RowCursors& cursors, uint32_t place) {
    std::string item;
    cursors.append(item, v1::EventDelivery::kCursorFieldNumber, place);
    v1::EventDelivery delivery;
    EXPECT_TRUE(delivery.ParseFromString(item));
    return delivery.cursor();
  };
  Cursor cursor{{bus_group(0), {7, 1, 9}}, {bus_group(1), {1'000'000'007, 3, 12}}, {bus_group(5), {4, 0, 0}}};
  for (const GroupId group : {bus_group(0), bus_group(1), bus_group(5)}) {
    Cursor expected = cursor;
    for (const uint32_t place : {0u, 10u, UINT32_MAX}) {
      expected[group].place = place;
      EXPECT_EQ(text(RowCursors(cursor, group), place), encode_cursor(expected));
    }
  }
  EXPECT_EQ(text(RowCursors(cursor, std::nullopt), 3), encode_cursor(cursor));
  EXPECT_EQ(text(RowCursors({}, std::nullopt), 3), "");
}

TEST(Batches, WhatIsNoBatchIsRefused) {
  const auto kept = std::make_shared<const std::string>("\x1a\x7f cut off");
  EXPECT_EQ(BatchContent::read(kept, *kept), nullptr);
  BusLab lab;
  lab.open(7, 1);
  const auto other = decode_entry(lab.log.begin()->second);
  ASSERT_FALSE(other.has_value());
  EXPECT_EQ(other.error().reason(), "BUS_ENTRY");
}

}  // namespace
}  // namespace uccp::events
