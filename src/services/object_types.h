// What object stores and the tasks that take objects as arguments have in common: tables and rules of reading them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "machine/table.h"
#include "uccp/internal/v1/compute_state.pb.h"
#include "uccp/v1/compute.pb.h"

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

inline Status no_such_object(const std::string& store, const std::string& key, const std::string& version) {
  const std::string what = version.empty() ? "object " + key : "version " + version + " of object " + key;
  return Status(Code::kNotFound, "OBJECT_NOT_FOUND", "there is no " + what + " in object store " + store)
      .with_resource("object", key);
}

// Whether a caller may read an object in its namespace: who has something else read it for them must be able to.
using MayRead = std::function<Status(const v1::GetObjectRequest&)>;

// What a reference means at this moment. Errors: not_found OBJECT_NOT_FOUND, and what `may_read` says.
inline Result<internal::v1::ObjectRow> referred_object(const machine::KeyReader& state, const machine::Scope& scope,
                                                       const v1::ObjectRef& object, int64_t now_ms,
                                                       const MayRead& may_read) {
  v1::GetObjectRequest read;
  read.set_store(object.store().empty() ? std::string(kDefaultStore) : object.store());
  read.set_key(object.key());
  read.set_version(object.version());
  read.set_namespace_(scope.name_space);
  UCCP_RETURN_IF_ERROR(may_read(read));
  auto row = find_object(state, scope, read.store(), read.key(), read.version(), now_ms);
  if (!row) return fail(no_such_object(read.store(), read.key(), read.version()));
  return *std::move(row);
}

}  // namespace uccp::objectstores
