// What a group bus-* has of transactions: batches that wait for their offsets, deliveries that are confirmed when the
// transaction is committed, and a guard against what comes when it has ended.
#pragma once

#include "machine/domain.h"
#include "services/events/transaction_rows.h"

namespace uccp::events {

// Sets the batch aside, which is the `number`th of the command. A refusal writes nothing. Requires that its partition
// is there.
internal::v1::BusBatchResult stage_batch(machine::ApplyContext& context, const internal::v1::BusBatch& batch,
                                         uint32_t number);
// Confirms deliveries in the transaction, all or none.
Result<internal::v1::TransactionHoldResult> hold_deliveries(machine::ApplyContext& context,
                                                            const internal::v1::TransactionHoldCommand& command);
// Ends the part that this group has, step by step.
Result<internal::v1::BusProgress> settle_part(machine::ApplyContext& context,
                                              const internal::v1::TransactionSettleCommand& command);

// Forgets the guard of a producer of which the group has not heard for so long.
void retire_guard(machine::ApplyContext& context, const std::string& producer, int64_t idle_ms);

// Keeps in `moved` what transactions have confirmed and who serves the subscription does not know yet. Requires that
// both are of the same partition; `stored` is the one that `moved` takes the place of.
void keep_settled(const internal::v1::BusPosition& stored, internal::v1::BusPosition& moved);

}  // namespace uccp::events
