// Batches of events as they are read from the log or told by apply, and what is sent of them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/log_types.h"
#include "services/events/bus_rows.h"

namespace uccp::events {

// A place in the log of a bus group: everything up to it, and with it, is meant. Ordered as streams go through the log.
struct LogPlace {
  uint64_t index = 0;
  uint32_t batch = 0;
  uint32_t place = 0;  // of the event among those that the row had at first

  auto operator<=>(const LogPlace&) const = default;
};
// Where the row is in that order, before its first event.
LogPlace place_of(const BusIndexRow& row);
// The offset in the partition of the first event behind the place.
uint64_t offset_behind(const machine::KeyReader& state, const machine::Scope& scope, PartitionId id,
                       const BusPartitionRow& partition, LogPlace place);

// One row of the index with what it stands for. Immutable, shared by all who read it.
struct Batch {
  GroupId group;
  PartitionId id;
  BusIndexRow row;
  std::shared_ptr<const internal::v1::BusBatch> content;
  std::vector<uint32_t> places;  // in the content, of the events that the row means
  uint64_t count = 0;            // of the events that the row means
  bool ephemeral = false;

  // It is told that there is something; what it is has to be read from the log.
  bool bare() const { return content->events().empty(); }
  uint64_t next_offset() const { return row.first_offset() + (row.span() > 0 ? row.span() : count); }
  // Of the event at the place `number` among those that are there; compaction leaves gaps between them.
  uint64_t offset(size_t number) const {
    return row.first_offset() + (row.numbers_size() > 0 ? row.numbers(static_cast<int>(number)) : number);
  }
  std::string_view event(size_t number) const { return content->events(static_cast<int>(places[number])); }
};
using BatchPtr = std::shared_ptr<const Batch>;

BatchPtr make_batch(GroupId group, PartitionId id, BusIndexRow row,
                    std::shared_ptr<const internal::v1::BusBatch> content);
// Errors: corruption if the notice is none.
Result<BatchPtr> decode_notice(GroupId group, PartitionId id, std::string_view notice);

// The batches of one log entry, by their number in the command. Errors: corruption if the entry is neither bus.append
// nor bus.rewrite.
Result<std::vector<std::shared_ptr<const internal::v1::BusBatch>>> decode_entry(const Entry& entry);

// When the event ends by its own ttl or that of the topic, microseconds since 1970; INT64_MAX: never.
int64_t end_of(std::string_view event, int64_t publish_us, int64_t topic_ttl_ms);
// The event as it is delivered: what is stored, and what its place says. Appends a serialized Event to `out`.
void append_event(std::string& out, const Batch& batch, size_t number, std::string_view topic);

// "16.7.0.2_17.30.1.0": for each group the last event that was sent; of core and work, changes of the cluster's own
// resources (system_topics.h).
using Cursor = std::map<GroupId, LogPlace>;
std::string encode_cursor(const Cursor& cursor);
// Errors: invalid CURSOR_INVALID.
Result<Cursor> decode_cursor(std::string_view text);

}  // namespace uccp::events
