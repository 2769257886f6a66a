// The rows of transactions over topics, in the group that coordinates them and in all that take part.
// docs/formats/state.md has the same as tables, docs/design/transactions.md the reasons.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "machine/table.h"
#include "services/events/bus_rows.h"
#include "uccp/internal/v1/transactions_state.pb.h"
#include "uccp/v1/events.pb.h"

namespace uccp::events {

using internal::v1::TransactionGuardRow;
using internal::v1::TransactionHeldRow;
using internal::v1::TransactionRow;
using internal::v1::TransactionStagedRow;

// The group that coordinates all transactions.
inline constexpr GroupId kTransactionGroup = bus_group(0);
static_assert(kTransactionGroup == GroupId(16), "src/call/forward.cc sends its methods to who leads that group");

// Tables of the coordinator; the numbers are part of the on-disk format.
inline constexpr machine::TableId kTransactionTable = 208;          // u64 number: TransactionRow
inline constexpr machine::TableId kTransactionProducerTable = 209;  // raw producer: TransactionProducerRow
inline constexpr machine::TableId kUnsettledTable = 216;            // empty scope; u64 number: TransactionUnsettledRow
inline constexpr machine::TableId kTransactionCountTable = 211;     // tenant alone, "open", or empty, "last": u64
// Tables of all groups bus-*.
inline constexpr machine::TableId kGuardTable = 213;  // raw producer: TransactionGuardRow
// u64 transaction, u64 log index, u32 batch: TransactionStagedRow
inline constexpr machine::TableId kStagedTable = 214;
// u64 transaction, u64 subscription, u64 topic, u32 partition: TransactionHeldRow
inline constexpr machine::TableId kHeldTable = 215;

inline constexpr machine::Table<TransactionRow> kTransactions{kTransactionTable};
inline constexpr machine::Table<internal::v1::TransactionProducerRow> kTransactionProducers{kTransactionProducerTable};
inline constexpr machine::Table<internal::v1::TransactionUnsettledRow> kUnsettled{kUnsettledTable};
inline constexpr machine::BytesTable kTransactionCounts{kTransactionCountTable};
inline constexpr machine::Table<TransactionGuardRow> kGuards{kGuardTable};
inline constexpr machine::Table<TransactionStagedRow> kStaged{kStagedTable};
inline constexpr machine::Table<TransactionHeldRow> kHeld{kHeldTable};

std::string transaction_key(uint64_t number);
std::string staged_key(uint64_t number, uint64_t log_index, uint32_t batch);
std::string held_key(uint64_t number, uint64_t subscription, PartitionId id);

// Where a staged batch lies.
struct StagedPlace {
  uint64_t log_index = 0;
  uint32_t batch = 0;

  bool operator==(const StagedPlace&) const = default;
};
StagedPlace staged_place(std::string_view key, const TransactionStagedRow& row);

// What a transaction holds of one partition for a subscription.
struct Held {
  uint64_t number = 0;
  PartitionId id;
  TransactionHeldRow row;
};
// Visits everything that transactions hold of the subscription and that no seek has voided.
void scan_held(const machine::KeyReader& state, const machine::Scope& scope, uint64_t subscription,
               const std::function<void(const Held&)>& visit);

// "txn_0000000000A7Q": numbers in the order of their ids.
std::string transaction_id(uint64_t number);
// The number that the id has; nothing if it is none.
std::optional<uint64_t> transaction_number(std::string_view id);
// As it is answered.
v1::Transaction shown_transaction(const machine::Scope& scope, const TransactionRow& row);

inline bool is_unsettled(const TransactionRow& row) {
  return row.state() == TransactionRow::STATE_COMMITTING || row.state() == TransactionRow::STATE_ABORTING;
}

inline bool is_settled(const TransactionRow& row) {
  return row.state() == TransactionRow::STATE_COMMITTED || row.state() == TransactionRow::STATE_ABORTED;
}

Status transaction_not_found(std::string_view id);
// Why a transaction that is not open takes nothing and cannot be ended otherwise.
Status transaction_ended(const TransactionRow& row);

}  // namespace uccp::events
