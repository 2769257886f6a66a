// The rows of the event bus: which group holds what, and where a stored event lies. docs/formats/state.md has the same
// as tables, docs/design/bus.md the reasons.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/log_types.h"
#include "machine/table.h"
#include "uccp/internal/v1/events_state.pb.h"

namespace uccp::events {

using internal::v1::BusIndexRow;
using internal::v1::BusPartitionRow;

// Groups bus-0, bus-1, ... have the numbers from here on.
inline constexpr uint64_t kFirstBusGroup = 16;
inline constexpr uint32_t kBusGroupsMax = 32;
inline constexpr GroupId bus_group(uint32_t number) { return GroupId(kFirstBusGroup + number); }
inline bool is_bus_group(GroupId group) {
  return group.value >= kFirstBusGroup && group.value < kFirstBusGroup + kBusGroupsMax;
}
std::string bus_group_name(uint32_t number);

// Tables of the bus groups; the numbers are part of the on-disk format.
inline constexpr machine::TableId kPartitionTable = 192;  // u64 topic, u32 partition: BusPartitionRow
inline constexpr machine::TableId kIndexTable = 193;      // u64 topic, u32 partition, u64 last offset: BusIndexRow
inline constexpr machine::TableId kNeededTable = 194;     // empty scope; u64 log index, u32 batch: varint
inline constexpr machine::TableId kProducerTable = 195;   // u64 topic, u32 partition, producer: BusProducerRow
inline constexpr machine::TableId kSeenTable = 196;       // u64 topic, u32 partition, event id: BusSeenRow
inline constexpr machine::TableId kSeenAgeTable = 197;    // u64 topic, u32 partition, u64 ms, u64 offset: event id
inline constexpr machine::TableId kPositionTable = 198;   // u64 topic, u32 partition, u64 subscription: BusPosition
// u64 topic, u32 partition, u64 us, u64 log index, u32 batch, u32 place: BusScheduledRow
inline constexpr machine::TableId kScheduledTable = 199;
inline constexpr machine::TableId kVersionTable = 201;  // u64 topic, u32 partition, raw key of events: u64
inline constexpr machine::TableId kDueTable = 200;      // empty scope; u64 us, u64 topic, u32 partition: BusDueRow

inline constexpr machine::TableId kLogBytesTable = 210;  // empty scope; empty key: u64

inline constexpr machine::Table<BusPartitionRow> kPartitions{kPartitionTable};
inline constexpr machine::Table<BusIndexRow> kIndex{kIndexTable};
inline constexpr machine::Table<internal::v1::BusProducerRow> kProducers{kProducerTable};
inline constexpr machine::Table<internal::v1::BusSeenRow> kSeen{kSeenTable};
inline constexpr machine::Table<internal::v1::BusPosition> kPositions{kPositionTable};
inline constexpr machine::Table<internal::v1::BusScheduledRow> kScheduled{kScheduledTable};
inline constexpr machine::Table<internal::v1::BusDueRow> kDue{kDueTable};
inline constexpr machine::BytesTable kVersions{kVersionTable};
inline constexpr machine::BytesTable kNeeded{kNeededTable};
inline constexpr machine::BytesTable kSeenAge{kSeenAgeTable};
inline constexpr machine::BytesTable kLogBytes{kLogBytesTable};

// A partition of a topic, named as in its group.
struct PartitionId {
  uint64_t topic = 0;
  uint32_t partition = 0;

  auto operator<=>(const PartitionId&) const = default;
};

std::string partition_key(PartitionId id);
PartitionId decode_partition_key(std::string_view key);
std::string index_key(PartitionId id, uint64_t last_offset);
std::string position_key(PartitionId id, uint64_t subscription);
std::string needed_key(LogIndex index, uint32_t batch);

// A row of the index with the offset that its key ends with.
struct IndexEntry {
  uint64_t last_offset = 0;
  BusIndexRow row;
};
// Visits the rows that hold offsets from `offset` on, in order, until `visit` returns false.
void scan_index(const machine::KeyReader& state, const machine::Scope& scope, PartitionId id, uint64_t offset,
                const std::function<bool(IndexEntry)>& visit);
std::optional<IndexEntry> find_index(const machine::KeyReader& state, const machine::Scope& scope, PartitionId id,
                                     uint64_t offset);
// The offset of the first batch for which `reached` holds, or the next offset of the partition. `reached` must not
// become false again along the partition: it is searched by bisection.
uint64_t first_offset_where(const machine::KeyReader& state, const machine::Scope& scope, PartitionId id,
                            const BusPartitionRow& partition, const std::function<bool(const BusIndexRow&)>& reached);

// A row of kNeeded.
struct Needed {
  uint64_t rows = 0;   // of the index and of scheduled events that name the batch
  uint64_t bytes = 0;  // of all commands with events up to this one; 0: not known
};
std::string encode_needed(const Needed& needed);
Needed decode_needed(std::string_view bytes);
// The first log entry from `from` on that the state needs; 0: none.
LogIndex log_floor(const machine::KeyReader& state, LogIndex from = LogIndex(0));
// Bytes of all commands with events that there ever were; 0: not counted yet.
uint64_t log_bytes_ever(const machine::KeyReader& state);
// Of them, those that the log has to keep, because the state needs the first one.
uint64_t log_bytes_held(const machine::KeyReader& state);

// Events of a batch of `size` that the row means.
std::vector<uint32_t> places_of(const BusIndexRow& row, uint32_t size);

}  // namespace uccp::events
