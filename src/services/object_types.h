// What object stores and the tasks that take objects as arguments have in common: tables and rules of reading them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "machine/table.h"
#include "uccp/internal/v1/compute_state.pb.h"

namespace uccp::objectstores {

// Tables of the work group; the numbers are part of the on-disk format.
inline constexpr machine::Table<internal::v1::ObjectStoreRow> kStores(60);
// (store, key): the present version.
inline constexpr machine::Table<internal::v1::ObjectRow> kObjects(61);
// (store, key, version): the versions before it.
inline constexpr machine::Table<internal::v1::ObjectRow> kOldVersions(62);
// (machine time at which it is over, tenant, namespace, store, key); kept in the empty scope. Of present versions.
inline constexpr machine::BytesTable kExpiry(63);

// The store that each namespace has from the beginning.
inline constexpr std::string_view kDefaultStore = "default";

inline std::string object_key(std::string_view store, std::string_view key) {
  return ByteWriter().key_part(store).raw(key).take();
}
inline std::string versions_prefix(std::string_view store, std::string_view key) {
  return ByteWriter().key_part(store).key_part(key).take();
}

// Over, though it may not have been removed yet.
inline bool is_over(const internal::v1::ObjectRow& row, int64_t now_ms) {
  return row.expire_ms() > 0 && row.expire_ms() <= now_ms;
}

// The version, or the present one if it is empty; nothing if there is none that is not over.
inline std::optional<internal::v1::ObjectRow> find_object(const machine::KeyReader& state, const machine::Scope& scope,
                                                          std::string_view store, std::string_view key,
                                                          std::string_view version, int64_t now_ms) {
  auto row = kObjects.get(state, scope, object_key(store, key));
  if (!version.empty() && (!row || row->object().version() != version)) {
    row = kOldVersions.get(state, scope, versions_prefix(store, key) + std::string(version));
  }
  if (row && is_over(*row, now_ms)) row.reset();
  return row;
}

}  // namespace uccp::objectstores
