#include "services/events/transaction_coordinator.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"
#include "machine/planted.h"
#include "services/events/transactions_state.h"

namespace uccp::events {
namespace {

using internal::v1::TransactionBeginResult;
using internal::v1::TransactionProducerRow;
using machine::ApplyContext;
using machine::Scope;

constexpr std::string_view kOpenCount = "open";
constexpr std::string_view kLastNumber = "last";

Scope tenant_of(const ApplyContext& context) { return {context.scope().tenant, ""}; }

uint64_t count_of(ApplyContext& context, const Scope& scope, std::string_view what) {
  const auto stored = kTransactionCounts.get(context.state(), scope, what);
  return stored ? ByteReader(*stored).u64() : 0;
}

void set_count(ApplyContext& context, const Scope& scope, std::string_view what, uint64_t count) {
  kTransactionCounts.put(context.state(), scope, what, ByteWriter().u64(count).take());
}

std::optional<TransactionRow> find(ApplyContext& context, uint64_t number) {
  if (number == 0) return std::nullopt;
  return kTransactions.get(context.state(), context.scope(), transaction_key(number));
}

void put(ApplyContext& context, const TransactionRow& row) {
  kTransactions.put(context.state(), context.scope(), transaction_key(row.number()), row);
}

// Usually the log index; a log may be shorter than the one that a restored backup came from.
uint64_t next_number(ApplyContext& context) {
  const uint64_t number = std::max(context.index().value, count_of(context, {}, kLastNumber) + 1);
  set_count(context, {}, kLastNumber, number);
  return number;
}

// All its groups know how it ended, or it has none.
void finish(ApplyContext& context, TransactionRow& row, bool committed) {
  row.set_state(committed ? TransactionRow::STATE_COMMITTED : TransactionRow::STATE_ABORTED);
  const uint64_t open = count_of(context, tenant_of(context), kOpenCount);
  set_count(context, tenant_of(context), kOpenCount, open - std::min<uint64_t>(open, 1));
  kUnsettled.erase(context.state(), {}, transaction_key(row.number()));
}

// Requires that it is open.
void decide(ApplyContext& context, TransactionRow& row, bool commit, TransactionRow::Reason reason) {
  UCCP_CHECK(row.state() == TransactionRow::STATE_OPEN, "a transaction is decided once");
  row.set_state(commit ? TransactionRow::STATE_COMMITTING : TransactionRow::STATE_ABORTING);
  row.set_reason(reason);
  row.set_end_us(context.envelope().wall.us);
  if (row.lease() != 0) context.delete_lease(row.lease());
  row.set_lease(0);
  if (row.groups().empty()) {
    finish(context, row, commit);
  } else {
    internal::v1::TransactionUnsettledRow unsettled;
    unsettled.set_tenant(context.scope().tenant);
    unsettled.set_name_space(context.scope().name_space);
    kUnsettled.put(context.state(), {}, transaction_key(row.number()), unsettled);
  }
  put(context, row);
}

Status fenced(const TransactionProducerRow& producer, const std::string& name) {
  return Status(Code::kFailedPrecondition, "PRODUCER_FENCED",
                "the producer '" + name + "' has epoch " + std::to_string(producer.epoch()) +
                    "; one with a lesser epoch was replaced and must stop")
      .with_field("producerEpoch", "is less than " + std::to_string(producer.epoch()),
                  std::to_string(producer.epoch()));
}

}  // namespace

Result<TransactionBeginResult> begin_transaction(ApplyContext& context,
                                                 const internal::v1::TransactionBeginCommand& command) {
  const std::string& name = command.producer_id();
  auto producer = kTransactionProducers.get(context.state(), context.scope(), name).value_or(TransactionProducerRow());
  if (command.epoch() != 0 && command.epoch() < producer.epoch()) return fail(fenced(producer, name));
  const uint64_t epoch = command.epoch() != 0 ? command.epoch() : producer.epoch() + 1;
  TransactionBeginResult result;
  result.set_epoch(epoch);
  if (auto before = find(context, producer.number())) {
    if (before->state() == TransactionRow::STATE_OPEN) {
      if (epoch == before->epoch()) {
        const std::string id = transaction_id(before->number());
        return fail(Status(Code::kConflict, "TRANSACTION_OPEN",
                           "the producer '" + name + "' has the open transaction '" + id +
                               "'; commit or abort it first, or begin with another epoch")
                        .with_resource("transaction", id));
      }
      decide(context, *before, false, TransactionRow::REASON_FENCED);
    }
    if (is_unsettled(*before)) {
      producer.set_epoch(epoch);
      kTransactionProducers.put(context.state(), context.scope(), name, producer);
      *result.mutable_row() = std::move(*before);
      return result;
    }
  }
  const uint64_t open = count_of(context, tenant_of(context), kOpenCount);
  if (open >= command.open_max()) {
    return fail(
        Status(Code::kExhausted, "TRANSACTIONS_EXHAUSTED",
               "the tenant has " + std::to_string(open) + " open transactions, as many as it may have; end some")
            .with_help("events.md#limits"));
  }
  set_count(context, tenant_of(context), kOpenCount, open + 1);
  if (producer.before() != 0) {
    kTransactions.erase(context.state(), context.scope(), transaction_key(producer.before()));
  }
  TransactionRow& row = *result.mutable_row();
  row.set_number(next_number(context));
  row.set_producer_id(name);
  row.set_epoch(epoch);
  row.set_state(TransactionRow::STATE_OPEN);
  row.set_begin_us(context.envelope().wall.us);
  row.set_timeout_ms(command.timeout_ms());
  row.set_lease(context.create_lease(kTransactionsDomain, transaction_key(row.number()), command.timeout_ms()));
  put(context, row);
  producer.set_epoch(epoch);
  producer.set_before(producer.number());
  producer.set_number(row.number());
  producer.set_seen_ms(context.now_ms());
  kTransactionProducers.put(context.state(), context.scope(), name, producer);
  result.set_begun(true);
  return result;
}

Result<TransactionRow> join_transaction(ApplyContext& context, const internal::v1::TransactionJoinCommand& command) {
  auto row = find(context, command.number());
  if (!row) return fail(transaction_not_found(transaction_id(command.number())));
  if (row->state() != TransactionRow::STATE_OPEN) return fail(transaction_ended(*row));
  row->set_events(row->events() + command.events());
  row->set_bytes(row->bytes() + command.bytes());
  row->set_acks(row->acks() + command.acks());
  if (row->events() + row->acks() > command.events_max() || row->bytes() > command.bytes_max()) {
    return fail(Status(Code::kFailedPrecondition, "TRANSACTION_TOO_LARGE",
                       "with this the transaction '" + transaction_id(row->number()) + "' would have " +
                           std::to_string(row->events() + row->acks()) + " events and confirmations of " +
                           std::to_string(row->bytes()) + " bytes; it may have " +
                           std::to_string(command.events_max()) + " of " + std::to_string(command.bytes_max()) +
                           ". Commit it, and go on in another one")
                    .with_help("events.md#limits"));
  }
  for (const uint32_t group : command.groups()) {
    if (machine::planted_bug("forget_part") && !row->groups().empty()) break;
    if (std::ranges::find(row->groups(), group) == row->groups().end()) row->add_groups(group);
  }
  put(context, *row);
  return std::move(*row);
}

Result<TransactionRow> end_transaction(ApplyContext& context, const internal::v1::TransactionEndCommand& command) {
  auto row = find(context, command.number());
  if (!row) return fail(transaction_not_found(transaction_id(command.number())));
  if (row->state() == TransactionRow::STATE_OPEN) {
    decide(context, *row, command.commit(),
           command.commit() ? TransactionRow::REASON_UNSPECIFIED : TransactionRow::REASON_ASKED);
    return std::move(*row);
  }
  const bool committed =
      row->state() == TransactionRow::STATE_COMMITTING || row->state() == TransactionRow::STATE_COMMITTED;
  if (committed != command.commit()) return fail(transaction_ended(*row));
  return std::move(*row);
}

Result<TransactionRow> note_settled(ApplyContext& context, const internal::v1::TransactionSettledCommand& command) {
  auto row = find(context, command.number());
  if (!row) return fail(transaction_not_found(transaction_id(command.number())));
  if (is_unsettled(*row)) {
    finish(context, *row, row->state() == TransactionRow::STATE_COMMITTING);
    put(context, *row);
  }
  return std::move(*row);
}

void retire_producer(ApplyContext& context, const std::string& producer, int64_t idle_ms) {
  const auto row = kTransactionProducers.get(context.state(), context.scope(), producer);
  if (!row || context.now_ms() - row->seen_ms() < idle_ms) return;
  const auto newest = find(context, row->number());
  if (newest && !is_settled(*newest)) return;
  for (const uint64_t number : {row->number(), row->before()}) {
    if (number != 0) kTransactions.erase(context.state(), context.scope(), transaction_key(number));
  }
  kTransactionProducers.erase(context.state(), context.scope(), producer);
}

void expire_transaction(ApplyContext& context, std::string_view key) {
  auto row = kTransactions.get(context.state(), context.scope(), key);
  if (!row || row->state() != TransactionRow::STATE_OPEN) return;
  row->set_lease(0);  // it is gone already
  decide(context, *row, false, TransactionRow::REASON_EXPIRED);
}

}  // namespace uccp::events
