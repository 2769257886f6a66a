// What the group bus-0 decides of transactions: begins them, knows who takes part, and how they end.
//
// A producer has at most one transaction that is not settled; that of a greater epoch aborts the one before.
#pragma once

#include "machine/domain.h"
#include "services/events/transaction_rows.h"

namespace uccp::events {

// Errors: failed_precondition PRODUCER_FENCED; conflict TRANSACTION_OPEN; exhausted TRANSACTIONS_EXHAUSTED.
Result<internal::v1::TransactionBeginResult> begin_transaction(machine::ApplyContext& context,
                                                               const internal::v1::TransactionBeginCommand& command);
// Errors: not_found TRANSACTION_NOT_FOUND; failed_precondition TRANSACTION_TOO_LARGE, or why it has ended.
Result<TransactionRow> join_transaction(machine::ApplyContext& context,
                                        const internal::v1::TransactionJoinCommand& command);
// Errors: not_found TRANSACTION_NOT_FOUND; failed_precondition if it has ended otherwise.
Result<TransactionRow> end_transaction(machine::ApplyContext& context,
                                       const internal::v1::TransactionEndCommand& command);
// Errors: not_found TRANSACTION_NOT_FOUND.
Result<TransactionRow> note_settled(machine::ApplyContext& context,
                                    const internal::v1::TransactionSettledCommand& command);
// Forgets the producer and its transactions if it has begun none for so long.
void retire_producer(machine::ApplyContext& context, const std::string& producer, int64_t idle_ms);
// Its time is over.
void expire_transaction(machine::ApplyContext& context, std::string_view key);

}  // namespace uccp::events
