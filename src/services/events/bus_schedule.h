// Events that are delivered at a later time: set aside when they are published, and given their offsets when it has
// come. The time is the wall clock's, since publishers name a moment.
#pragma once

#include <string_view>

#include "machine/domain.h"
#include "services/events/bus_rows.h"

namespace uccp::events {

// Events of a partition that may wait at a time.
inline constexpr uint64_t kScheduledMax = 100'000;

// When a stored event wants to be delivered, microseconds since 1970; 0: at once.
int64_t deliver_us(std::string_view event);
// Sets the event at a place of the batch aside, which has that key.
void put_scheduled(machine::ApplyContext& context, PartitionId id, int64_t time_us, uint32_t batch_number,
                   uint32_t place, const internal::v1::BusBatch& batch, std::string_view key);
// Gives offsets to what is due, at most `events_max`. True if nothing that is due is left.
bool release_due(machine::ApplyContext& context, int64_t now_us, uint32_t events_max);
// Forgets scheduled events of a topic that was deleted, at most `rows_max`, which it lessens. True if that was all.
bool drop_scheduled(machine::ApplyContext& context, uint64_t topic, uint32_t& rows_max);
// The first moment at which something is due; 0: nothing waits.
int64_t first_due_us(const machine::KeyReader& state);

}  // namespace uccp::events
