#include "services/kv/kv_txn.h"

#include <algorithm>
#include <set>
#include <vector>

#include "call/wire.h"
#include "services/kv/kv_answers.h"
#include "services/kv/kv_range.h"

namespace uccp::kv {
namespace {

using internal::v1::KvLimits;
using v1::KeyCompare;
using v1::TxnOperation;
using v1::TxnRequest;
using Operations = google::protobuf::RepeatedPtrField<TxnOperation>;

// Keys that comparisons and ranges of one transaction look at, each.
constexpr size_t kKeysReadMax = 50'000;
// Of all answers together, so that the response is below the limit of a message.
constexpr size_t kAnswerBytesMax = kRangeBytesMax + (512u << 10);

Status invalid(std::string_view reason, std::string what) {
  return Status(Code::kInvalid, reason, "the transaction " + std::move(what));
}

// What a list of operations changes.
struct Touched {
  std::set<std::string, std::less<>> puts;
  std::vector<KeyRange> deletes;

  bool deletes_one(std::string_view key) const {
    return std::ranges::any_of(deletes, [&](const KeyRange& range) { return range.contains(key); });
  }
  bool deletes_one_of(const std::set<std::string, std::less<>>& keys) const {
    return std::ranges::any_of(keys, [&](const std::string& key) { return deletes_one(key); });
  }
};

Status duplicate(std::string_view key) {
  return std::move(invalid("DUPLICATE_KEY", "changes the key " + shown(key) + " twice"))
      .with_field("success", "changes a key twice");
}

Status merge(Touched& into, Touched more) {
  for (const std::string& key : more.puts) {
    if (into.puts.contains(key) || into.deletes_one(key)) return duplicate(key);
  }
  for (const std::string& key : into.puts) {
    if (more.deletes_one(key)) return duplicate(key);
  }
  into.puts.merge(more.puts);
  std::ranges::move(more.deletes, std::back_inserter(into.deletes));
  return Status::ok();
}

class Checker {
 public:
  explicit Checker(uint32_t operations_max) : operations_max_(operations_max) {}

  Status txn(const TxnRequest& request, Touched& touched) {
    for (const auto size : {request.compare_size(), request.success_size(), request.failure_size()}) {
      if (static_cast<uint32_t>(size) > operations_max_) return too_large();
    }
    operations_ += static_cast<size_t>(request.success_size() + request.failure_size());
    if (operations_ > kTxnNesting * operations_max_) return too_large();
    for (const KeyCompare& compare : request.compare()) {
      if (compare.key().empty() && compare.prefix().empty())
        return invalid("TXN_INVALID", "has a comparison without a key");
      if (compare.target_case() == KeyCompare::TARGET_NOT_SET)
        return invalid("TXN_INVALID", "has a comparison with nothing");
      UCCP_TRY(const KeyRange range, range_of(compare));
    }
    // Only one of the two lists is done, so they may change the same keys.
    Touched success, failure;
    UCCP_RETURN_IF_ERROR(list(request.success(), success));
    UCCP_RETURN_IF_ERROR(list(request.failure(), failure));
    touched = std::move(success);
    touched.puts.merge(failure.puts);
    std::ranges::move(failure.deletes, std::back_inserter(touched.deletes));
    return Status::ok();
  }

 private:
  Status too_large() const {
    return std::move(invalid("TXN_TOO_LARGE", "has more than " + std::to_string(operations_max_) +
                                                  " comparisons or operations in a list, or " +
                                                  std::to_string(kTxnNesting) + " times as many in all"))
        .with_help("kv.md#limits");
  }

  Status list(const Operations& operations, Touched& touched) {
    for (const TxnOperation& operation : operations) {
      Touched one;
      switch (operation.operation_case()) {
        case TxnOperation::kPut: UCCP_RETURN_IF_ERROR(put(operation.put(), one)); break;
        case TxnOperation::kDelete: UCCP_RETURN_IF_ERROR(erase(operation.delete_(), one)); break;
        case TxnOperation::kTxn: UCCP_RETURN_IF_ERROR(nested(operation.txn(), one)); break;
        case TxnOperation::kRange: {
          UCCP_TRY(const KeyRange range, range_of(operation.range()));
          if (!operation.range().namespace_().empty()) return foreign();
          break;
        }
        case TxnOperation::OPERATION_NOT_SET: return invalid("TXN_INVALID", "has an operation that does nothing");
      }
      UCCP_RETURN_IF_ERROR(merge(touched, std::move(one)));
    }
    return Status::ok();
  }

  static Status foreign() {
    return invalid("TXN_INVALID",
                   "has an operation with a namespace, a request id or ifMatch of its own; they are "
                   "those of the transaction, and a comparison does what ifMatch does");
  }
  static Status put(const v1::PutRequest& put, Touched& touched) {
    if (!put.namespace_().empty() || !put.request_id().empty() || !put.if_match().empty()) return foreign();
    touched.puts.insert(put.key());
    return Status::ok();
  }
  static Status erase(const v1::DeleteRequest& erase, Touched& touched) {
    if (!erase.namespace_().empty() || !erase.request_id().empty() || !erase.if_match().empty()) return foreign();
    UCCP_RETURN_IF_ERROR(check_delete(erase));
    UCCP_TRY(KeyRange range, range_of(erase));
    touched.deletes.push_back(std::move(range));
    return Status::ok();
  }
  Status nested(const TxnRequest& request, Touched& touched) {
    if (!request.namespace_().empty() || !request.request_id().empty()) return foreign();
    return txn(request, touched);
  }

  const uint32_t operations_max_;
  size_t operations_ = 0;
};

// Which list each transaction goes on with, its nested ones in their order.
struct Decision {
  bool success = false;
  std::vector<Decision> nested;
};

class Run {
 public:
  Run(machine::ApplyContext& context, StoreWriter& writer, const KvLimits& limits)
      : c_(context), writer_(writer), limits_(limits), start_(writer.head_now()) {}

  Result<Decision> decide(const TxnRequest& request) {
    Decision decision{.success = true, .nested = {}};
    for (const KeyCompare& compare : request.compare()) {
      UCCP_TRY(const bool holds, holds_for_all(compare));
      if (holds) continue;
      decision.success = false;
      break;
    }
    for (const TxnOperation& operation : chosen(request, decision)) {
      if (!operation.has_txn()) continue;
      UCCP_TRY(Decision nested, decide(operation.txn()));
      decision.nested.push_back(std::move(nested));
    }
    return decision;
  }

  Result<std::string> execute(const TxnRequest& request, const Decision& decision) {
    std::string out;
    if (decision.success) call::put_uint(out, v1::TxnResponse::kSucceededFieldNumber, 1);
    size_t nested = 0;
    for (const TxnOperation& operation : chosen(request, decision)) {
      const Decision* below = operation.has_txn() ? &decision.nested[nested++] : nullptr;
      UCCP_TRY(const std::string answer, execute(operation, below));
      const size_t mark = call::begin_bytes(out, v1::TxnResponse::kResponsesFieldNumber);
      // The kinds of results have the numbers of the kinds of operations.
      call::put_bytes(out, static_cast<uint32_t>(operation.operation_case()), answer);
      call::end_bytes(out, mark);
      if (out.size() > kAnswerBytesMax) return fail(too_large("answers more than 3.5 MiB"));
    }
    call::put_uint(out, v1::TxnResponse::kRevisionFieldNumber, writer_.revision());
    return out;
  }

 private:
  static const Operations& chosen(const TxnRequest& request, const Decision& decision) {
    return decision.success ? request.success() : request.failure();
  }
  static Status too_large(const std::string& what) {
    return std::move(Status(Code::kExhausted, "TXN_RANGE_TOO_LARGE",
                            "the transaction " + what + "; read outside of it, or name a limit"))
        .with_help("kv.md#limits");
  }

  Result<bool> holds_for_all(const KeyCompare& compare) {
    UCCP_TRY(const KeyRange range, range_of(compare));
    bool holds = true;
    size_t keys = 0;
    const auto check = [&](std::string_view, std::string_view row) {
      holds = meets(compare, decode_version(row));
      return holds && ++keys <= kKeysReadMax;
    };
    if (range.single) {
      if (const auto row = version_at(c_.state(), c_.scope(), range.from, start_.revision, start_.revision)) {
        check(range.from, *row);
      }
    } else {
      scan_versions(c_.state(), c_.scope(), range, start_.revision, start_.revision, check);
    }
    if (keys > kKeysReadMax) return fail(too_large("compares more than " + std::to_string(kKeysReadMax) + " keys"));
    if (keys == 0 && holds) holds = meets(compare, std::nullopt);
    return holds;
  }

  static bool meets(const KeyCompare& compare, const std::optional<Version>& version) {
    const auto ordered = [&](const auto& is, const auto& wanted) {
      switch (compare.result()) {
        case v1::COMPARE_RESULT_GREATER: return is > wanted;
        case v1::COMPARE_RESULT_LESS: return is < wanted;
        case v1::COMPARE_RESULT_NOT_EQUAL: return is != wanted;
        default: return is == wanted;
      }
    };
    const Version v = version.value_or(Version());
    switch (compare.target_case()) {
      case KeyCompare::kVersion: return ordered(static_cast<int64_t>(v.version), compare.version());
      case KeyCompare::kCreateRevision: return ordered(static_cast<int64_t>(v.create), compare.create_revision());
      case KeyCompare::kModRevision: return ordered(static_cast<int64_t>(v.mod), compare.mod_revision());
      case KeyCompare::kLease: return ordered(v.lease, compare.lease());
      case KeyCompare::kValue: return version && ordered(v.value, std::string_view(compare.value()));
      case KeyCompare::TARGET_NOT_SET: break;
    }
    return false;
  }

  Result<std::string> execute(const TxnOperation& operation, const Decision* below) {
    switch (operation.operation_case()) {
      case TxnOperation::kPut: {
        UCCP_TRY(const auto before, writer_.put(operation.put(), limits_));
        return put_answer(operation.put(), before, writer_.revision());
      }
      case TxnOperation::kDelete: {
        UCCP_TRY(const KeyRange range, range_of(operation.delete_()));
        UCCP_TRY(const auto deleted, writer_.erase(range));
        return delete_answer(operation.delete_(), deleted, writer_.revision());
      }
      case TxnOperation::kRange: return range(operation.range());
      case TxnOperation::kTxn: return execute(operation.txn(), *below);
      case TxnOperation::OPERATION_NOT_SET: break;
    }
    return std::string();
  }

  Result<std::string> range(const v1::RangeRequest& request) {
    // The revision of the transaction itself cannot be asked for.
    UCCP_TRY(const uint64_t at, revision_to_read(start_, request.revision()));
    (void)at;
    UCCP_TRY(RangeRun run, RangeRun::make(request, c_.scope(), writer_.head_now()));
    const std::string prefix(run.created_below());
    if (const auto* keys = prefix.empty() ? nullptr : writer_.order().find(c_.scope(), prefix)) {
      run.take_in_order(c_.state(), *keys);
      return run.answer();
    }
    std::optional<CreationOrder::Keys> learned;
    UCCP_TRY(const bool whole, prefix.empty() ? run.step(c_.state(), kKeysReadMax)
                                              : run.step_and_learn(c_.state(), kKeysReadMax, learned));
    if (learned) writer_.order().learn(c_.scope(), prefix, std::move(*learned));
    if (!whole) return fail(too_large("reads more than " + std::to_string(kKeysReadMax) + " keys"));
    return run.answer();
  }

  machine::ApplyContext& c_;
  StoreWriter& writer_;
  const KvLimits& limits_;
  const Head start_;
};

}  // namespace

Status check_txn(const TxnRequest& request, uint32_t operations_max) {
  Touched touched;
  return Checker(operations_max).txn(request, touched);
}

Result<std::string> run_txn(machine::ApplyContext& context, StoreWriter& writer, const TxnRequest& request,
                            const KvLimits& limits) {
  Run run(context, writer, limits);
  UCCP_TRY(const Decision decision, run.decide(request));
  return run.execute(request, decision);
}

}  // namespace uccp::kv
