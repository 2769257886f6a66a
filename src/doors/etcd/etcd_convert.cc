#include "doors/etcd/etcd_convert.h"

#include <algorithm>

namespace uccp::doors {
namespace {

// etcd names a range by its first key and its end; one zero byte as the end is the end of all keys, as in the contract.
template <typename From, typename To>
void copy_range(const From& from, To& to) {
  to.set_key(from.key());
  to.set_range_end(from.range_end());
}

v1::KeyOrder order_of(etcd::RangeRequest::SortTarget target) {
  switch (target) {
    case etcd::RangeRequest::VERSION: return v1::KEY_ORDER_VERSION;
    case etcd::RangeRequest::CREATE: return v1::KEY_ORDER_CREATE_REVISION;
    case etcd::RangeRequest::MOD: return v1::KEY_ORDER_MOD_REVISION;
    case etcd::RangeRequest::VALUE: return v1::KEY_ORDER_VALUE;
    default: return v1::KEY_ORDER_KEY;
  }
}

v1::CompareResult result_of(etcd::Compare::Result result) {
  switch (result) {
    case etcd::Compare::GREATER: return v1::COMPARE_RESULT_GREATER;
    case etcd::Compare::LESS: return v1::COMPARE_RESULT_LESS;
    case etcd::Compare::NOT_EQUAL: return v1::COMPARE_RESULT_NOT_EQUAL;
    default: return v1::COMPARE_RESULT_EQUAL;
  }
}

// Clients of etcd may ask for a number below 0 where they mean none.
int64_t none_below_zero(int64_t number) { return std::max<int64_t>(number, 0); }

Status key_missing() { return {Code::kInvalid, "KEY_MISSING", "a request has a key"}; }

// The target says which attribute is meant, also when its number is zero and therefore not on the wire.
Result<v1::KeyCompare> comparison_of(const etcd::Compare& compare) {
  if (compare.key().empty()) return fail(key_missing());
  v1::KeyCompare out;
  copy_range(compare, out);
  out.set_result(result_of(compare.result()));
  switch (compare.target()) {
    case etcd::Compare::VERSION: out.set_version(compare.version()); return out;
    case etcd::Compare::CREATE: out.set_create_revision(compare.create_revision()); return out;
    case etcd::Compare::MOD: out.set_mod_revision(compare.mod_revision()); return out;
    case etcd::Compare::VALUE: out.set_value(compare.value()); return out;
    case etcd::Compare::LEASE: out.set_lease(compare.lease()); return out;
    default: return fail(Code::kInvalid, "TXN_INVALID", "a comparison has an unknown target");
  }
}

Result<v1::TxnOperation> operation_of(const etcd::RequestOp& op) {
  v1::TxnOperation out;
  switch (op.request_case()) {
    case etcd::RequestOp::kRequestRange:
      if (op.request_range().key().empty()) return fail(key_missing());
      *out.mutable_range() = from_etcd(op.request_range());
      return out;
    case etcd::RequestOp::kRequestPut:
      if (op.request_put().key().empty()) return fail(key_missing());
      *out.mutable_put() = from_etcd(op.request_put());
      return out;
    case etcd::RequestOp::kRequestDeleteRange:
      if (op.request_delete_range().key().empty()) return fail(key_missing());
      *out.mutable_delete_() = from_etcd(op.request_delete_range());
      return out;
    case etcd::RequestOp::kRequestTxn: {
      UCCP_TRY(*out.mutable_txn(), from_etcd(op.request_txn()));
      return out;
    }
    default: return fail(Code::kInvalid, "KEY_NOT_FOUND", "an operation of the transaction is empty");
  }
}

}  // namespace

v1::RangeRequest from_etcd(const etcd::RangeRequest& request) {
  v1::RangeRequest out;
  copy_range(request, out);
  out.set_revision(none_below_zero(request.revision()));
  out.set_limit(none_below_zero(request.limit()));
  // Without an order etcd answers by key; with a target and no order it sorts ascending.
  const bool sorted =
      request.sort_order() != etcd::RangeRequest::NONE || request.sort_target() != etcd::RangeRequest::KEY;
  if (sorted) out.set_order_by(order_of(request.sort_target()));
  out.set_descending(request.sort_order() == etcd::RangeRequest::DESCEND);
  out.set_keys_only(request.keys_only());
  out.set_count_only(request.count_only());
  const bool filtered = request.min_mod_revision() != 0 || request.max_mod_revision() != 0 ||
                        request.min_create_revision() != 0 || request.max_create_revision() != 0;
  // The count is that of the range; where all of it is answered it is known without another scan.
  out.set_count_total(!request.count_only() && !request.range_end().empty() && (request.limit() > 0 || filtered));
  out.set_min_mod_revision(request.min_mod_revision());
  out.set_max_mod_revision(request.max_mod_revision());
  out.set_min_create_revision(request.min_create_revision());
  out.set_max_create_revision(request.max_create_revision());
  return out;
}

v1::PutRequest from_etcd(const etcd::PutRequest& request) {
  v1::PutRequest out;
  out.set_key(request.key());
  out.set_value(request.value());
  out.set_lease(request.lease());
  out.set_prev_kv(request.prev_kv());
  out.set_ignore_value(request.ignore_value());
  out.set_ignore_lease(request.ignore_lease());
  return out;
}

v1::DeleteRequest from_etcd(const etcd::DeleteRangeRequest& request) {
  v1::DeleteRequest out;
  copy_range(request, out);
  out.set_prev_kv(request.prev_kv());
  return out;
}

Result<v1::TxnRequest> from_etcd(const etcd::TxnRequest& request) {
  v1::TxnRequest out;
  for (const etcd::Compare& compare : request.compare()) {
    UCCP_TRY(*out.add_compare(), comparison_of(compare));
  }
  for (const etcd::RequestOp& op : request.success()) {
    UCCP_TRY(*out.add_success(), operation_of(op));
  }
  for (const etcd::RequestOp& op : request.failure()) {
    UCCP_TRY(*out.add_failure(), operation_of(op));
  }
  return out;
}

v1::WatchRequest from_etcd(const etcd::WatchCreateRequest& request) {
  v1::WatchRequest out;
  copy_range(request, out);
  // Before the first revision is before whatever was compacted.
  out.set_start_revision(request.start_revision() < 0 ? 1 : request.start_revision());
  out.set_prev_kv(request.prev_kv());
  for (const int filter : request.filters()) {
    if (filter == etcd::WatchCreateRequest::NOPUT) out.set_no_put(true);
    if (filter == etcd::WatchCreateRequest::NODELETE) out.set_no_delete(true);
  }
  return out;
}

etcd::KeyValue to_etcd(const v1::KeyValuePair& pair) {
  etcd::KeyValue out;
  out.set_key(pair.key());
  out.set_value(pair.value());
  out.set_create_revision(pair.create_revision());
  out.set_mod_revision(pair.mod_revision());
  out.set_version(pair.version());
  out.set_lease(pair.lease());
  return out;
}

etcd::RangeResponse to_etcd(const v1::RangeResponse& answer, bool count_only) {
  etcd::RangeResponse out;
  for (const v1::KeyValuePair& pair : answer.pairs()) *out.add_kvs() = to_etcd(pair);
  out.set_more(answer.more());
  out.set_count(answer.count() > 0 || count_only ? answer.count() : answer.pairs_size());
  return out;
}

etcd::PutResponse to_etcd(const v1::PutResponse& answer) {
  etcd::PutResponse out;
  if (answer.has_prev_kv()) *out.mutable_prev_kv() = to_etcd(answer.prev_kv());
  return out;
}

etcd::DeleteRangeResponse to_etcd(const v1::DeleteResponse& answer) {
  etcd::DeleteRangeResponse out;
  out.set_deleted(answer.deleted());
  for (const v1::KeyValuePair& pair : answer.prev_kvs()) *out.add_prev_kvs() = to_etcd(pair);
  return out;
}

etcd::TxnResponse to_etcd(const v1::TxnResponse& answer, const etcd::TxnRequest& request) {
  etcd::TxnResponse out;
  out.set_succeeded(answer.succeeded());
  const auto& asked = answer.succeeded() ? request.success() : request.failure();
  for (int i = 0; i < answer.responses_size() && i < asked.size(); ++i) {
    const v1::TxnResult& result = answer.responses(i);
    etcd::ResponseOp& op = *out.add_responses();
    // etcd answers each part with the revision of the whole.
    switch (result.result_case()) {
      case v1::TxnResult::kRange:
        *op.mutable_response_range() = to_etcd(result.range(), asked.Get(i).request_range().count_only());
        op.mutable_response_range()->mutable_header()->set_revision(answer.revision());
        break;
      case v1::TxnResult::kPut:
        *op.mutable_response_put() = to_etcd(result.put());
        op.mutable_response_put()->mutable_header()->set_revision(answer.revision());
        break;
      case v1::TxnResult::kDelete:
        *op.mutable_response_delete_range() = to_etcd(result.delete_());
        op.mutable_response_delete_range()->mutable_header()->set_revision(answer.revision());
        break;
      case v1::TxnResult::kTxn:
        *op.mutable_response_txn() = to_etcd(result.txn(), asked.Get(i).request_txn());
        op.mutable_response_txn()->mutable_header()->set_revision(answer.revision());
        break;
      default: break;
    }
  }
  return out;
}

etcd::Event to_etcd(const v1::KeyEvent& event) {
  etcd::Event out;
  out.set_type(event.kind() == v1::KEY_EVENT_KIND_DELETE ? etcd::Event::DELETE : etcd::Event::PUT);
  *out.mutable_kv() = to_etcd(event.pair());
  if (event.has_prev_kv()) *out.mutable_prev_kv() = to_etcd(event.prev_kv());
  return out;
}

}  // namespace uccp::doors
