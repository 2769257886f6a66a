#include "services/events/batches.h"

#include <algorithm>
#include <array>
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

// "16.7.0.", what a cursor says of a row.
void append_row(std::string& text, GroupId group, LogPlace place) {
  text += std::to_string(group.value) + "." + std::to_string(place.index) + "." + std::to_string(place.batch) + ".";
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

BatchContentPtr BatchContent::read(std::shared_ptr<const std::string> kept, std::string_view bytes) {
  auto content = std::make_shared<BatchContent>();
  call::WireReader reader(bytes);
  for (call::WireField field; reader.next(field);) {
    if (field.number == BusBatch::kEventsFieldNumber && field.type == call::WireType::kBytes) {
      content->events_.push_back(field.bytes);
      content->event_bytes_ += field.bytes.size();
    } else if (field.number == BusBatch::kPrincipalFieldNumber && field.type == call::WireType::kBytes) {
      content->principal_ = field.bytes;
    } else if (field.number == BusBatch::kEphemeralFieldNumber && field.type == call::WireType::kVarint) {
      content->ephemeral_ = field.value != 0;
    }
  }
  if (!reader.ok()) return nullptr;
  content->kept_ = std::move(kept);
  return content;
}

BatchPtr make_batch(GroupId group, PartitionId id, BusIndexRow row, BatchContentPtr content) {
  auto batch = std::make_shared<Batch>();
  batch->group = group;
  batch->id = id;
  batch->places = places_of(row, static_cast<uint32_t>(content->size()));
  batch->count = batch->places.size();
  // Of content that is still to be read the row says how much there is.
  if (content->size() == 0 && row.only().empty()) {
    batch->count = row.events() - std::min(row.events(), static_cast<uint32_t>(row.skipped_size()));
  }
  batch->row = std::move(row);
  batch->ephemeral = content->ephemeral();
  batch->content = std::move(content);
  return batch;
}

Result<BatchPtr> decode_notice(GroupId group, PartitionId id, std::string_view bytes) {
  using internal::v1::BusNotice;
  const auto kept = std::make_shared<const std::string>(bytes);
  BusIndexRow row;
  std::string_view stored;
  call::WireReader reader(*kept);
  bool readable = true;
  for (call::WireField field; reader.next(field);) {
    if (field.type != call::WireType::kBytes) continue;
    if (field.number == BusNotice::kBatchFieldNumber) stored = field.bytes;
    if (field.number != BusNotice::kRowFieldNumber) continue;
    readable &= row.ParseFromArray(field.bytes.data(), static_cast<int>(field.bytes.size()));
  }
  auto content = BatchContent::read(kept, stored);
  if (!readable || !reader.ok() || content == nullptr) {
    return fail(Code::kCorruption, "BUS_NOTICE", "a change of a bus group is no BusNotice");
  }
  BatchPtr batch = make_batch(group, id, std::move(row), std::move(content));
  const auto events = static_cast<uint32_t>(batch->content->size());
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

Result<std::vector<BatchContentPtr>> decode_entry(Entry entry) {
  const auto kept = std::make_shared<const std::string>(std::move(entry.data));
  std::string_view payload;
  UCCP_TRY(const machine::Envelope envelope, machine::decode_envelope(*kept, payload));
  // What was stored again is read as what was published: rewritten rows are in fields of their own.
  const bool known = envelope.command == "bus.append" || envelope.command == "bus.rewrite";
  std::vector<BatchContentPtr> batches;
  call::WireReader reader(payload);
  bool readable = known;
  for (call::WireField field; readable && reader.next(field);) {
    if (field.number != internal::v1::BusAppendCommand::kBatchesFieldNumber) continue;
    batches.push_back(BatchContent::read(kept, field.bytes));
    readable = batches.back() != nullptr;
  }
  if (readable && reader.ok()) return batches;
  return fail(Code::kCorruption, "BUS_ENTRY",
              "the log entry " + std::to_string(entry.index.value) + " should hold events and holds '" +
                  envelope.command + "'");
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

DeliveredEvents::DeliveredEvents(const Batch& batch, std::string_view topic) : batch_(batch) {
  call::put_bytes(common_, Item::kTopicFieldNumber, topic);
  append_timestamp(common_, Item::kPublishTimeFieldNumber, batch.row.publish_us());
  if (batch.id.partition != 0) call::put_uint(common_, Item::kPartitionFieldNumber, batch.id.partition);
  if (!batch.content->principal().empty()) {
    call::put_bytes(common_, Item::kPrincipalFieldNumber, batch.content->principal());
  }
}

void DeliveredEvents::append(std::string& out, uint32_t field, size_t number) const {
  const std::string_view stored = batch_.event(number);
  const uint64_t offset = batch_.offset(number);
  bool has_id = batch_.ephemeral;
  call::WireReader reader(stored);
  for (call::WireField each; reader.next(each);) has_id |= each.number == Item::kIdFieldNumber;
  const bool has_offset = offset != 0 && !batch_.ephemeral;
  const std::string id = has_id ? "" : default_event_id(batch_.id.topic, batch_.id.partition, offset);
  const size_t size = (has_id ? 0 : call::bytes_size(Item::kIdFieldNumber, id.size())) + stored.size() +
                      common_.size() + (has_offset ? call::uint_size(Item::kOffsetFieldNumber, offset) : 0);
  call::put_tag(out, field, call::WireType::kBytes);
  call::put_varint(out, size);
  if (!has_id) call::put_bytes(out, Item::kIdFieldNumber, id);
  out += stored;
  out += common_;
  if (has_offset) call::put_uint(out, Item::kOffsetFieldNumber, offset);
}

std::string encode_cursor(const Cursor& cursor) {
  std::string text;
  for (const auto& [group, place] : cursor) {
    if (!text.empty()) text += '_';
    append_row(text, group, place);
    text += std::to_string(place.place);
  }
  return text;
}

RowCursors::RowCursors(const Cursor& cursor, std::optional<GroupId> group) : differ_(group.has_value()) {
  std::string* text = &before_;
  for (const auto& [each, place] : cursor) {
    if (each != cursor.begin()->first) *text += '_';
    append_row(*text, each, place);
    if (each == group) text = &after_;
    else *text += std::to_string(place.place);
  }
}

void RowCursors::append(std::string& out, uint32_t field, uint32_t place) const {
  std::array<char, 10> digits;
  const char* end = differ_ ? std::to_chars(digits.data(), digits.data() + digits.size(), place).ptr : digits.data();
  const auto count = static_cast<size_t>(end - digits.data());
  call::put_tag(out, field, call::WireType::kBytes);
  call::put_varint(out, before_.size() + count + after_.size());
  out.append(before_).append(digits.data(), count).append(after_);
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
