// What compaction does to the index, and where events lie that were stored again.
//
// Compaction removes events from rows of the index, and rows that have none left; offsets of the others stay, so a
// reader sees gaps. Where the events of a row lie is another matter: as long as one of them is needed, the log entry
// is. A rewrite moves the rows of the oldest entries to a new one, which has the events of one partition alone, and the
// log before them can go.
#pragma once

#include "machine/domain.h"
#include "services/events/bus_rows.h"

namespace uccp::events {

struct CompactionLimits {
  // Bytes behind what is compacted before they are looked at.
  uint64_t bytes_min = 1u << 20;
  // For so long at most, machine time.
  int64_t lag_ms = 3'600'000;
};

// Bytes that were published behind what is compacted.
uint64_t uncompacted_bytes(const BusPartitionRow& row);
// Whether a pass is worth its while: as much was published as it left the last time, or it was long ago, or an event
// that says that its key is gone has served its time.
bool compaction_due(const BusPartitionRow& row, int64_t now_ms, const CompactionLimits& limits);

// bus.compact
void compact_partition(machine::ApplyContext& context, const internal::v1::BusCompactCommand& command);
// bus.rewrite
void rewrite_rows(machine::ApplyContext& context, const internal::v1::BusRewriteCommand& command);
// Adds the bytes of a command that holds events to those that the log has.
void count_log_bytes(machine::ApplyContext& context, uint64_t bytes);

}  // namespace uccp::events
