// Transactions: comparisons, then one of two lists of operations, as one change. Pure.
#pragma once

#include <string>

#include "machine/domain.h"
#include "services/kv/kv_writer.h"
#include "uccp/internal/v1/kv_state.pb.h"
#include "uccp/v1/kv.pb.h"

namespace uccp::kv {

// What can be said about a transaction without the state. Two operations must not change one key, unless they are in
// lists of which only one is done; two deletions may meet. Operations of all lists together are at most
// kTxnNesting * `operations_max`.
// Errors: invalid TXN_TOO_LARGE, DUPLICATE_KEY, TXN_INVALID, RANGE_INVALID.
Status check_txn(const v1::TxnRequest& request, uint32_t operations_max);
inline constexpr size_t kTxnNesting = 8;

// Runs it; answers a serialized TxnResponse. All comparisons are made before the first change. Requires check_txn().
// Errors: as of the operations; exhausted TXN_RANGE_TOO_LARGE.
Result<std::string> run_txn(machine::ApplyContext& context, StoreWriter& writer, const v1::TxnRequest& request,
                            const internal::v1::KvLimits& limits);

}  // namespace uccp::kv
