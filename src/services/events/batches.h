// Batches of events as they are read from the log or told by apply, and what is sent of them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
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

// The events of a batch as they are stored. The bytes that they came in are kept, and nothing is copied out of them.
class BatchContent {
 public:
  // `bytes`, a view of what `kept` keeps, is a serialized BusBatch. Null if it is none.
  static std::shared_ptr<const BatchContent> read(std::shared_ptr<const std::string> kept, std::string_view bytes);

  size_t size() const { return events_.size(); }
  std::string_view event(size_t place) const { return events_[place]; }
  std::string_view principal() const { return principal_; }
  bool ephemeral() const { return ephemeral_; }
  size_t event_bytes() const { return event_bytes_; }

 private:
  std::shared_ptr<const std::string> kept_;
  std::vector<std::string_view> events_;
  std::string_view principal_;
  size_t event_bytes_ = 0;
  bool ephemeral_ = false;
};
using BatchContentPtr = std::shared_ptr<const BatchContent>;

// One row of the index with what it stands for. Immutable, shared by all who read it.
struct Batch {
  GroupId group;
  PartitionId id;
  BusIndexRow row;
  BatchContentPtr content;
  std::vector<uint32_t> places;  // in the content, of the events that the row means
  uint64_t count = 0;            // of the events that the row means
  bool ephemeral = false;

  // It is told that there is something; what it is has to be read from the log.
  bool bare() const { return content->size() == 0; }
  uint64_t next_offset() const { return row.first_offset() + (row.span() > 0 ? row.span() : count); }
  // Of the event at the place `number` among those that are there; compaction leaves gaps between them.
  uint64_t offset(size_t number) const {
    return row.first_offset() + (row.numbers_size() > 0 ? row.numbers(static_cast<int>(number)) : number);
  }
  std::string_view event(size_t number) const { return content->event(places[number]); }
};
using BatchPtr = std::shared_ptr<const Batch>;

BatchPtr make_batch(GroupId group, PartitionId id, BusIndexRow row, BatchContentPtr content);
// Errors: corruption if the notice is none.
Result<BatchPtr> decode_notice(GroupId group, PartitionId id, std::string_view notice);

// The batches of one log entry, by their number in the command. Errors: corruption if the entry is neither bus.append
// nor bus.rewrite.
Result<std::vector<BatchContentPtr>> decode_entry(Entry entry);

// When the event ends by its own ttl or that of the topic, microseconds since 1970; INT64_MAX: never.
int64_t end_of(std::string_view event, int64_t publish_us, int64_t topic_ttl_ms);
// Writes events of a batch as they are delivered: what is stored, and what its place says.
class DeliveredEvents {
 public:
  // The batch must outlive it.
  DeliveredEvents(const Batch& batch, std::string_view topic);
  // Appends a message field that holds a serialized Event.
  void append(std::string& out, uint32_t field, size_t number) const;

 private:
  const Batch& batch_;
  std::string common_;  // fields that all of them have
};

// "16.7.0.2_17.30.1.0": for each group the last event that was sent; of core and work, changes of the cluster's own
// resources (system_topics.h).
using Cursor = std::map<GroupId, LogPlace>;
std::string encode_cursor(const Cursor& cursor);
// The cursors of a run of events that differ in the place within one row.
class RowCursors {
 public:
  // The row is the one that the cursor names in `group`; no group: all of them have the same cursor.
  RowCursors(const Cursor& cursor, std::optional<GroupId> group);
  // Appends a string field.
  void append(std::string& out, uint32_t field, uint32_t place) const;

 private:
  std::string before_, after_;
  bool differ_;
};
// Errors: invalid CURSOR_INVALID.
Result<Cursor> decode_cursor(std::string_view text);

}  // namespace uccp::events
