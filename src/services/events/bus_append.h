// One batch of bus.append: what of it counts, and the rows that say so.
#pragma once

#include "machine/domain.h"
#include "services/events/bus_rows.h"

namespace uccp::events {

// Event ids and producers whose time is over that one batch forgets, so that they do not gather.
inline constexpr size_t kForgottenPerBatch = 64;
// Rows of the index that one batch removes for its retention: more than it adds, so that a partition does not outgrow
// it.
inline constexpr uint32_t kTrimmedPerBatch = 16;

// Stores the batch, which is the `number`th of the command, and tells those who watch. A refusal writes nothing.
internal::v1::BusBatchResult append_batch(machine::ApplyContext& context, const internal::v1::BusBatch& batch,
                                          uint32_t number);
// A row of the index or a scheduled event that names the batch is gone. A batch is needed while something names it.
void release_entry(machine::ApplyContext& context, uint64_t log_index, uint32_t batch);

}  // namespace uccp::events
