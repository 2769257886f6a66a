#include "services/events/bus_schedule.h"

#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "call/wire.h"
#include "services/events/bus_append.h"
#include "services/events/bus_state.h"
#include "services/events/bus_trim.h"
#include "services/feature_types.h"
#include "uccp/v1/events.pb.h"

namespace uccp::events {
namespace {

using internal::v1::BusDueRow;
using internal::v1::BusScheduledRow;
using machine::ApplyContext;
using machine::Scope;

struct Due {
  std::string key;
  int64_t us = 0;
  PartitionId id;
  Scope scope;
};

std::string scheduled_key(PartitionId id, int64_t us, uint64_t log_index, uint32_t batch, uint32_t place) {
  ByteWriter out;
  out.raw(partition_key(id)).u64(static_cast<uint64_t>(us)).u64(log_index).u32(batch).u32(place);
  return out.take();
}

std::string due_key(int64_t us, PartitionId id) {
  return ByteWriter().u64(static_cast<uint64_t>(us)).u64(id.topic).u32(id.partition).take();
}

std::vector<Due> due_until(const machine::KeyReader& state, int64_t now_us, size_t most) {
  std::vector<Due> due;
  kDue.scan(state, {}, "", "", [&](std::string_view key, const BusDueRow& row) {
    ByteReader in(key);
    Due one{std::string(key), static_cast<int64_t>(in.u64()), {}, {row.tenant(), row.name_space()}};
    one.id.topic = in.u64();
    one.id.partition = in.u32();
    UCCP_CHECK(in.at_end(), "the key of a due moment is readable");
    if (one.us > now_us) return false;
    due.push_back(std::move(one));
    return due.size() < most;
  });
  return due;
}

// One event takes the next offset of its partition.
void release_event(ApplyContext& context, const Due& due, BusPartitionRow& partition, const BusScheduledRow& event,
                   uint32_t number) {
  BusIndexRow row;
  row.set_log_index(event.log_index());
  row.set_batch(event.batch());
  row.set_first_offset(partition.next_offset());
  row.set_publish_us(context.envelope().wall.us);
  row.add_only(event.place());
  row.set_events(event.events());
  row.set_order_index(context.index().value);
  row.set_order_batch(number);
  row.set_stored_ms(context.now_ms());
  row.set_bytes(event.bytes());
  row.set_bytes_ever(partition.bytes_ever() + event.bytes());
  if (partition.first_offset() == partition.next_offset()) partition.set_oldest_ms(row.stored_ms());
  partition.set_bytes(partition.bytes() + event.bytes());
  partition.set_bytes_ever(row.bytes_ever());
  kIndex.put(context.state(), due.scope, index_key(due.id, partition.next_offset()), row);
  partition.set_next_offset(partition.next_offset() + 1);
  if (partition.versioned() && !event.key().empty()) count_version(context, due.scope, due.id, event.key());
  // Its content is in an older entry of the log: whoever is told reads it there.
  internal::v1::BusNotice notice;
  *notice.mutable_row() = std::move(row);
  context.notify(kBusTopic, partition_key(due.id), kBatchChange, notice.SerializeAsString());
}

}  // namespace

int64_t deliver_us(std::string_view event) {
  int64_t us = 0;
  call::WireReader reader(event);
  for (call::WireField field; reader.next(field);) {
    if (field.number != v1::Event::kDeliverTimeFieldNumber) continue;
    google::protobuf::Timestamp time;
    if (time.ParseFromArray(field.bytes.data(), static_cast<int>(field.bytes.size()))) {
      us = time.seconds() * 1'000'000 + time.nanos() / 1000;
    }
  }
  return us;
}

void put_scheduled(ApplyContext& context, PartitionId id, int64_t time_us, uint32_t batch_number, uint32_t place,
                   const internal::v1::BusBatch& batch, std::string_view key) {
  BusScheduledRow row;
  row.set_log_index(context.index().value);
  row.set_batch(batch_number);
  row.set_place(place);
  row.set_bytes(batch.events(static_cast<int>(place)).size());
  row.set_events(static_cast<uint32_t>(batch.events_size()));
  if (context.envelope().feature_level >= services::kRetirementLevel) row.set_key(std::string(key));
  kScheduled.put(context.state(), context.scope(),
                 scheduled_key(id, time_us, context.index().value, batch_number, place), row);
  BusDueRow due;
  due.set_tenant(context.scope().tenant);
  due.set_name_space(context.scope().name_space);
  kDue.put(context.state(), {}, due_key(time_us, id), due);
}

bool release_due(ApplyContext& context, int64_t now_us, uint32_t events_max) {
  uint32_t number = 0;
  for (const Due& due : due_until(context.state(), now_us, events_max + size_t{1})) {
    if (number >= events_max) return false;
    const std::string prefix = ByteWriter().raw(partition_key(due.id)).u64(static_cast<uint64_t>(due.us)).take();
    std::vector<std::pair<std::string, BusScheduledRow>> events;
    bool whole = true;
    kScheduled.scan(context.state(), due.scope, prefix, "", [&](std::string_view key, BusScheduledRow row) {
      whole = number + events.size() < events_max;
      if (whole) events.emplace_back(key, std::move(row));
      return whole;
    });
    auto partition = kPartitions.get(context.state(), due.scope, partition_key(due.id));
    const bool gone = !partition || partition->dropped();
    for (const auto& [key, event] : events) {
      kScheduled.erase(context.state(), due.scope, key);
      if (gone) release_entry(context, event.log_index(), event.batch());
      else release_event(context, due, *partition, event, number);
      ++number;
    }
    if (!gone) {
      partition->set_scheduled(partition->scheduled() - std::min<uint64_t>(partition->scheduled(), events.size()));
      kPartitions.put(context.state(), due.scope, partition_key(due.id), *partition);
    }
    if (!whole) return false;
    kDue.erase(context.state(), {}, due.key);
  }
  return true;
}

bool drop_scheduled(ApplyContext& context, uint64_t topic, uint32_t& rows_max) {
  std::vector<std::pair<std::string, BusScheduledRow>> rows;
  kScheduled.scan(context.state(), context.scope(), ByteWriter().u64(topic).take(), "",
                  [&](std::string_view key, BusScheduledRow row) {
                    rows.emplace_back(key, std::move(row));
                    return rows.size() <= rows_max;
                  });
  const bool whole = rows.size() <= rows_max;
  if (!whole) rows.pop_back();
  for (const auto& [key, row] : rows) {
    kScheduled.erase(context.state(), context.scope(), key);
    release_entry(context, row.log_index(), row.batch());
  }
  rows_max -= static_cast<uint32_t>(rows.size());
  return whole;
}

int64_t first_due_us(const machine::KeyReader& state) {
  int64_t us = 0;
  kDue.scan(state, {}, "", "", [&](std::string_view key, const BusDueRow&) {
    us = static_cast<int64_t>(ByteReader(key).u64());
    return false;
  });
  return us;
}

}  // namespace uccp::events
