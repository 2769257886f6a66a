#include "services/kv/kv_answers.h"

#include "call/wire.h"
#include "services/kv/kv_range.h"
#include "services/message_types.h"

namespace uccp::kv {

std::string put_answer(const v1::PutRequest& request, const std::optional<std::string>& before, uint64_t revision) {
  std::string out;
  call::put_uint(out, v1::PutResponse::kRevisionFieldNumber, revision);
  if (request.prev_kv() && before) {
    append_pair(out, v1::PutResponse::kPrevKvFieldNumber, request.key(), *decode_version(*before));
  }
  return out;
}

Result<std::string> delete_answer(const v1::DeleteRequest& request, const std::vector<StoreWriter::Deleted>& deleted,
                                  uint64_t revision) {
  std::string out;
  call::put_uint(out, v1::DeleteResponse::kRevisionFieldNumber, revision);
  if (!deleted.empty()) call::put_uint(out, v1::DeleteResponse::kDeletedFieldNumber, deleted.size());
  if (!request.prev_kv()) return out;
  for (const auto& one : deleted) {
    append_pair(out, v1::DeleteResponse::kPrevKvsFieldNumber, one.key, *decode_version(one.row));
    if (out.size() > kRangeBytesMax) {
      return fail(Code::kExhausted, "RANGE_TOO_LARGE",
                  "the versions before have more than " + std::to_string(kRangeBytesMax >> 20) +
                      " MiB; delete without asking for them, or in parts");
    }
  }
  return out;
}

v1::KeyLease shown_lease(const machine::Scope& scope, int64_t id, const LeaseRow& row) {
  v1::KeyLease lease;
  lease.set_id(id);
  lease.set_namespace_(scope.name_space);
  services::set_ms(lease.mutable_ttl(), row.ttl_ms);
  lease.set_key_count(static_cast<int64_t>(row.keys));
  services::set_wall(lease.mutable_create_time(), row.granted);
  return lease;
}

v1::KeyValueStore shown_store(const machine::Scope& scope, const Head& head, const internal::v1::KvLimits& limits) {
  v1::KeyValueStore store;
  store.set_namespace_(scope.name_space);
  store.set_revision(static_cast<int64_t>(head.revision));
  store.set_compact_revision(static_cast<int64_t>(head.compacted));
  store.set_keys(static_cast<int64_t>(head.keys));
  store.set_bytes(head.bytes);
  store.set_history_bytes(head.history_bytes);
  store.set_leases(static_cast<int64_t>(head.leases));
  store.set_bytes_max(head.bytes_max > 0 ? head.bytes_max : limits.bytes_max());
  store.set_keys_max(static_cast<int64_t>(head.keys_max > 0 ? head.keys_max : limits.keys_max()));
  store.set_leases_max(static_cast<int64_t>(head.leases_max > 0 ? head.leases_max : limits.leases_max()));
  return store;
}

}  // namespace uccp::kv
