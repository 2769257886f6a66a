// What the retention of a partition gives up: the oldest batches that are too old, too many or too large together.
//
// Age is machine time, so no jump of a wall clock removes anything.
#pragma once

#include "machine/domain.h"
#include "services/events/bus_rows.h"

namespace uccp::events {

// Whether the partition has something to give up. Requires that `row` is the one stored.
bool trim_due(const BusPartitionRow& row, int64_t now_ms);
// Gives it up, at most `rows_max` rows of the index, which it lessens. Changes `row`, which the caller stores. True if
// nothing is left to do.
bool trim_partition(machine::ApplyContext& context, PartitionId id, BusPartitionRow& row, uint32_t& rows_max);

}  // namespace uccp::events
