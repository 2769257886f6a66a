#include "services/kv/kv_hash.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "services/kv/kv_range.h"

namespace uccp::kv {

Result<StoreHash> StoreHash::make(const v1::HashStoreRequest& request, const machine::Scope& scope, const Head& head) {
  StoreHash hash;
  hash.scope_ = scope;
  hash.head_ = head;
  UCCP_TRY(hash.at_, revision_to_read(head, request.revision()));
  hash.log_from_ = revision_key(scope, head.compacted + 1, 0);
  return hash;
}

void StoreHash::add(std::string_view key, std::string_view row) {
  hash_ = hash64(ByteWriter().u64(hash_).bytes(key).bytes(row).data());
}

Result<bool> StoreHash::step(const machine::KeyReader& state, size_t rows_max) {
  size_t rows = 0;
  if (!log_from_.empty()) {
    std::string go_on;
    const size_t prefix = machine::table_key::scope_prefix(kRevisionTable, scope_).size();
    state.scan(log_from_, revision_key(scope_, at_ + 1, 0), [&](std::string_view key, std::string_view row) {
      if (rows++ == rows_max) {
        go_on = key;
        return false;
      }
      add(key.substr(prefix), row);
      return true;
    });
    log_from_ = std::move(go_on);
    return false;
  }
  bool whole = true;
  std::string position;
  scan_versions(state, scope_, pairs_, at_, head_.revision, [&](std::string_view key, std::string_view row) {
    if (rows++ == rows_max) {
      position = key;
      return whole = false;
    }
    add(key, row);
    return true;
  });
  if (!whole) pairs_.from = std::move(position);
  return whole;
}

std::string StoreHash::answer() const {
  v1::HashStoreResponse response;
  response.set_hash(hash_);
  response.set_revision(static_cast<int64_t>(head_.revision));
  response.set_compact_revision(static_cast<int64_t>(head_.compacted));
  response.set_hash_revision(static_cast<int64_t>(at_));
  return response.SerializeAsString();
}

}  // namespace uccp::kv
