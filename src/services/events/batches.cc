#include "services/events/batches.h"

#include <algorithm>
#include <charconv>

#include "base/clock.h"
#include "call/wire.h"
#include "machine/envelope.h"
#include "machine/planted.h"
#include "services/events/publisher.h"
#include "uccp/v1/events.pb.h"

namespace uccp::events {
namespace {

using internal::v1::BusBatch;
using Item = v1::Event;

void append_timestamp(std::string& out, uint32_t number, int64_t us) {
  const size_t mark = call::begin_bytes(out, number);
  call::put_uint(out, 1, static_cast<uint64_t>(us / 1'000'000));
  if (us % 1'000'000 != 0) call::put_uint(out, 2, static_cast<uint64_t>(us % 1'000'000 * 1000));
  call::end_bytes(out, mark);
}

}  // namespace

LogPlace place_of(const BusIndexRow& row) {
  if (row.order_index() != 0) return {row.order_index(), row.order_batch(), 0};
  return {row.log_index(), row.batch(), 0};
}

uint64_t offset_behind(const machine::KeyReader& state, const machine::Scope& scope, PartitionId id,
                       const BusPartitionRow& partition, LogPlace place) {
  const LogPlace whole{place.index, place.batch, 0};
  const uint64_t next =
      first_offset_where(state, scope, id, partition, [&](const BusIndexRow& row) { return place_of(row) >= whole; });
  const auto entry = find_index(state, scope, id, next);
  if (!entry || place_of(entry->row) != whole) return next;
  if (machine::planted_bug("skip_batch")) return entry->last_offset + 1;
  return std::min(entry->row.first_offset() + place.place + uint64_t{1}, entry->last_offset + 1);
}

BatchPtr make_batch(GroupId group, PartitionId id, BusIndexRow row, std::shared_ptr<const BusBatch> content) {
  auto batch = std::make_shared<Batch>();
  batch->group = group;
  batch->id = id;
  batch->places = places_of(row, static_cast<uint32_t>(content->events_size()));
  batch->count = batch->places.size();
  // Of content that is still to be read the row says how much there is.
  if (content->events().empty() && row.only().empty()) {
    batch->count = row.events() - std::min(row.events(), static_cast<uint32_t>(row.skipped_size()));
  }
  batch->row = std::move(row);
  batch->ephemeral = content->ephemeral();
  batch->content = std::move(content);
  return batch;
}

Result<BatchPtr> decode_notice(GroupId group, PartitionId id, std::string_view bytes) {
  internal::v1::BusNotice notice;
  if (!notice.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return fail(Code::kCorruption, "BUS_NOTICE", "a change of a bus group is no BusNotice");
  }
  BatchPtr batch = make_batch(group, id, std::move(*notice.mutable_row()),
                              std::make_shared<const BusBatch>(std::move(*notice.mutable_batch())));
  const auto events = static_cast<uint32_t>(batch->content->events_size());
  const bool numbered = batch->row.numbers_size() > 0;
  if (numbered && static_cast<size_t>(batch->row.numbers_size()) != batch->places.size()) {
    return fail(Code::kCorruption, "BUS_NOTICE", "a change of a bus group numbers other events than it names");
  }
  // One without events says that they are to be read from the log.
  if (!batch->bare() && std::ranges::any_of(batch->places, [&](uint32_t place) { return place >= events; })) {
    return fail(Code::kCorruption, "BUS_NOTICE", "a change of a bus group names events that it does not have");
  }
  return batch;
}

Result<std::vector<std::shared_ptr<const BusBatch>>> decode_entry(const Entry& entry) {
  UCCP_TRY(const machine::Envelope envelope, machine::decode_envelope(entry.data));
  auto command = std::make_shared<internal::v1::BusAppendCommand>();
  // What was stored again is read as what was published: rewritten rows are in fields of their own.
  const bool known = envelope.command == "bus.append" || envelope.command == "bus.rewrite";
  if (!known || !command->ParseFromString(envelope.payload)) {
    return fail(Code::kCorruption, "BUS_ENTRY",
                "the log entry " + std::to_string(entry.index.value) + " should hold events and holds '" +
                    envelope.command + "'");
  }
  std::vector<std::shared_ptr<const BusBatch>> batches;
  for (const BusBatch& batch : command->batches()) batches.emplace_back(command, &batch);
  return batches;
}

int64_t end_of(std::string_view event, int64_t publish_us, int64_t topic_ttl_ms) {
  int64_t ttl_us = topic_ttl_ms * 1000;
  call::WireReader reader(event);
  for (call::WireField field; reader.next(field);) {
    if (field.number != Item::kTtlFieldNumber) continue;
    google::protobuf::Duration ttl;
    if (ttl.ParseFromArray(field.bytes.data(), static_cast<int>(field.bytes.size()))) {
      ttl_us = ttl.seconds() * 1'000'000 + ttl.nanos() / 1000;
    }
  }
  return ttl_us == 0 ? INT64_MAX : publish_us + ttl_us;
}

void append_event(std::string& out, const Batch& batch, size_t number, std::string_view topic) {
  const std::string_view stored = batch.event(number);
  const uint64_t offset = batch.offset(number);
  bool has_id = false;
  call::WireReader reader(stored);
  for (call::WireField field; reader.next(field);) has_id |= field.number == Item::kIdFieldNumber;
  if (!has_id && !batch.ephemeral) {
    call::put_bytes(out, Item::kIdFieldNumber, default_event_id(batch.id.topic, batch.id.partition, offset));
  }
  out += stored;
  call::put_bytes(out, Item::kTopicFieldNumber, topic);
  append_timestamp(out, Item::kPublishTimeFieldNumber, batch.row.publish_us());
  if (batch.id.partition != 0) call::put_uint(out, Item::kPartitionFieldNumber, batch.id.partition);
  if (offset != 0 && !batch.ephemeral) call::put_uint(out, Item::kOffsetFieldNumber, offset);
  if (!batch.content->principal().empty()) {
    call::put_bytes(out, Item::kPrincipalFieldNumber, batch.content->principal());
  }
}

std::string encode_cursor(const Cursor& cursor) {
  std::string text;
  for (const auto& [group, place] : cursor) {
    if (!text.empty()) text += '_';
    text += std::to_string(group.value) + "." + std::to_string(place.index) + "." + std::to_string(place.batch) + "." +
            std::to_string(place.place);
  }
  return text;
}

Result<Cursor> decode_cursor(std::string_view text) {
  Cursor cursor;
  const auto invalid = [] {
    return fail(Status(Code::kInvalid, "CURSOR_INVALID", "the cursor is not one of Subscribe")
                    .with_field("since", "is not a cursor of Subscribe", "the cursor of the last item"));
  };
  const char* at = text.data();
  const char* end = at + text.size();
  while (true) {
    uint64_t numbers[4] = {};
    for (size_t i = 0; i < 4; ++i) {
      const auto parsed = std::from_chars(at, end, numbers[i]);
      if (parsed.ec != std::errc()) return invalid();
      at = parsed.ptr;
      if (i < 3 && (at == end || *at++ != '.')) return invalid();
    }
    const GroupId group(numbers[0]);
    const bool known = is_bus_group(group) || group == kCoreGroup || group == kWorkGroup;
    if (!known || numbers[2] > UINT32_MAX || numbers[3] > UINT32_MAX) return invalid();
    cursor[group] = {numbers[1], static_cast<uint32_t>(numbers[2]), static_cast<uint32_t>(numbers[3])};
    if (at == end) return cursor;
    if (*at++ != '_') return invalid();
  }
}

}  // namespace uccp::events
