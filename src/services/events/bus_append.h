// One batch of bus.append: what of it counts, and the rows that say so.
#pragma once

#include "machine/domain.h"
#include "services/events/bus_rows.h"
#include "uccp/internal/v1/transactions_state.pb.h"

namespace uccp::events {

// Event ids and producers whose time is over that one batch forgets, so that they do not gather.
inline constexpr size_t kForgottenPerBatch = 64;
// Rows of the index that one batch removes for its retention: more than it adds, so that a partition does not outgrow
// it.
inline constexpr uint32_t kTrimmedPerBatch = 16;

// Stores the batch, which is the `number`th of the command, and tells those who watch. A refusal writes nothing.
internal::v1::BusBatchResult append_batch(machine::ApplyContext& context, const internal::v1::BusBatch& batch,
                                          uint32_t number);
// A batch that a transaction has set aside, on its way into its partition.
struct StagedBatch {
  uint64_t log_index = 0;  // where it lies
  uint32_t batch = 0;
  uint32_t order = 0;  // among those that the command gives offsets to
  const internal::v1::TransactionStagedRow& row;
};
// One more event of a key; counts if the key has a version.
void count_version(machine::ApplyContext& context, const machine::Scope& scope, PartitionId id, std::string_view key,
                   uint64_t events = 1);
// Gives its events their offsets, as append_batch() does; not if the partition is gone.
void append_staged(machine::ApplyContext& context, const StagedBatch& staged);
// A row of the index, a scheduled event or a staged batch that names the batch is gone. A batch is needed while
// something names it.
void release_entry(machine::ApplyContext& context, uint64_t log_index, uint32_t batch);

}  // namespace uccp::events
