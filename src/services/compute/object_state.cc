#include "services/compute/object_state.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "machine/stable_bytes.h"
#include "services/message_types.h"

namespace uccp::compute {
namespace {

using internal::v1::ObjectRow;
using internal::v1::ObjectStoreRow;
using machine::ApplyContext;
using machine::ApplyResult;
using machine::Scope;
using objectstores::kDefaultStore;
using objectstores::kExpiry;
using objectstores::kObjects;
using objectstores::kOldVersions;
using objectstores::kStores;
using objectstores::object_key;
using objectstores::versions_prefix;
using services::parse;
using services::set_wall;

// What is over and goes with one command.
constexpr size_t kRemovedPerCommand = 200;

std::string expiry_key(const Scope& scope, const ObjectRow& row) {
  return ByteWriter()
      .u64(static_cast<uint64_t>(row.expire_ms()))
      .key_part(scope.tenant)
      .key_part(scope.name_space)
      .key_part(row.object().store())
      .raw(row.object().key())
      .take();
}

Status wrong_etag(const std::string& what, const std::string& wanted, const std::string& stored) {
  return Status(
      Code::kConflict, "ETAG_MISMATCH",
      what + (stored.empty() ? " does not exist" : " has the etag " + stored) + ", not " + wanted + "; read it again");
}

void count(ApplyContext& c, const Scope& scope, v1::ObjectStore& store, double objects, int64_t bytes) {
  store.set_objects(store.objects() + objects);
  store.set_size(store.size() + static_cast<uint64_t>(bytes));
  ObjectStoreRow row;
  *row.mutable_store() = store;
  kStores.put(c.state(), scope, store.name(), row);
}

// Removes the present version.
void drop(ApplyContext& c, const Scope& scope, const ObjectRow& row) {
  kObjects.erase(c.state(), scope, object_key(row.object().store(), row.object().key()));
  if (row.expire_ms() > 0) kExpiry.erase(c.state(), {}, expiry_key(scope, row));
}

std::vector<ObjectRow> old_versions(const machine::KeyReader& state, const Scope& scope, const std::string& store,
                                    const std::string& key) {
  std::vector<ObjectRow> rows;
  kOldVersions.scan(state, scope, versions_prefix(store, key), "", [&](std::string_view, ObjectRow row) {
    rows.push_back(std::move(row));
    return true;
  });
  return rows;
}

// All versions of an object. Answers their bytes.
uint64_t drop_all(ApplyContext& c, const Scope& scope, const ObjectRow& present) {
  const std::string& store = present.object().store();
  uint64_t bytes = present.blob().size();
  for (const ObjectRow& row : old_versions(c.state(), scope, store, present.object().key())) {
    bytes += row.blob().size();
    kOldVersions.erase(c.state(), scope, versions_prefix(store, present.object().key()) + row.object().version());
  }
  drop(c, scope, present);
  return bytes;
}

// Proposed by the leader when something is over.
ApplyResult remove_over(ApplyContext& c, std::string_view) {
  std::vector<std::pair<Scope, std::string>> over;
  kExpiry.scan(c.state(), {}, "", "", [&](std::string_view key, std::string_view) {
    ByteReader in(key);
    if (static_cast<int64_t>(in.u64()) > c.now_ms()) return false;
    Scope scope{in.key_part(), in.key_part()};
    const std::string store = in.key_part();
    over.emplace_back(std::move(scope), object_key(store, in.rest()));
    return over.size() < kRemovedPerCommand;
  });
  for (const auto& [scope, key] : over) {
    const auto row = kObjects.get(c.state(), scope, key);
    if (!row) continue;
    auto store = find_store(c.state(), scope, row->object().store());
    const uint64_t bytes = drop_all(c, scope, *row);
    if (store) count(c, scope, *store, -1, -static_cast<int64_t>(bytes));
  }
  return std::string();
}

ApplyResult put_store(ApplyContext& c, std::string_view payload) {
  auto command = parse<internal::v1::PutObjectStoreCommand>(payload);
  v1::ObjectStore& store = *command.mutable_store();
  if (store.name() == kDefaultStore || kStores.contains(c.state(), c.scope(), store.name())) {
    return fail(
        Status(Code::kAlreadyExists, "OBJECT_STORE_EXISTS", "there is an object store " + store.name() + " already")
            .with_resource("objectstore", store.name()));
  }
  uint64_t stores = 0;
  kStores.scan(c.state(), c.scope(), "", "",
               [&](std::string_view, const ObjectStoreRow&) { return ++stores < command.stores_max(); });
  if (stores >= command.stores_max()) {
    return fail(Status(Code::kExhausted, "OBJECT_STORES_EXHAUSTED",
                       "the namespace has " + std::to_string(stores) +
                           " object stores, as many as it may have; delete one, or use prefixes of keys"));
  }
  set_wall(store.mutable_create_time(), c.envelope().wall);
  set_wall(store.mutable_update_time(), c.envelope().wall);
  store.set_etag(std::to_string(c.index().value));
  count(c, c.scope(), store, 0, 0);
  return machine::stable_bytes(store);
}

ApplyResult remove_store(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::RemoveObjectStoreCommand>(payload);
  if (command.name() == kDefaultStore) {
    return fail(Code::kFailedPrecondition, "OBJECT_STORE_DEFAULT", "the default object store of a namespace stays");
  }
  const auto row = kStores.get(c.state(), c.scope(), command.name());
  if (!row) return fail(find_store(c.state(), c.scope(), command.name()).error());
  if (!command.if_match().empty() && command.if_match() != row->store().etag()) {
    return fail(wrong_etag("object store " + command.name(), command.if_match(), row->store().etag()));
  }
  std::vector<ObjectRow> rows;
  kObjects.scan(c.state(), c.scope(), ByteWriter().key_part(command.name()).take(), "",
                [&](std::string_view, ObjectRow object) {
                  rows.push_back(std::move(object));
                  return command.force();
                });
  if (!rows.empty() && !command.force()) {
    return fail(Code::kFailedPrecondition, "OBJECT_STORE_NOT_EMPTY",
                "object store " + command.name() + " holds objects; remove them first, or use force");
  }
  for (const ObjectRow& object : rows) (void)drop_all(c, c.scope(), object);
  kStores.erase(c.state(), c.scope(), command.name());
  return std::string();
}

Status check_room(const v1::ObjectStore& store, const internal::v1::PutObjectCommand& command, uint64_t freed,
                  bool is_new) {
  if (is_new && store.objects() >= static_cast<double>(command.objects_max())) {
    return Status(Code::kExhausted, "OBJECTS_EXHAUSTED",
                  "object store " + store.name() + " has " + std::to_string(command.objects_max()) +
                      " objects, as many as it may have; delete some, or use another store");
  }
  if (store.bytes_max() > 0 && store.size() - freed + command.blob().size() > store.bytes_max()) {
    return Status(Code::kExhausted, "OBJECT_STORE_FULL",
                  "object store " + store.name() + " holds " + std::to_string(store.size()) + " of " +
                      std::to_string(store.bytes_max()) + " bytes, and the object has " +
                      std::to_string(command.blob().size()) + "; delete some");
  }
  return Status::ok();
}

ApplyResult put_object(ApplyContext& c, std::string_view payload) {
  auto command = parse<internal::v1::PutObjectCommand>(payload);
  v1::Object& object = *command.mutable_object();
  auto store = find_store(c.state(), c.scope(), object.store());
  if (!store) return fail(store.error());
  const std::string key = object_key(object.store(), object.key());
  const auto before = kObjects.get(c.state(), c.scope(), key);
  if (!command.if_match().empty() && (!before || before->object().etag() != command.if_match())) {
    return fail(wrong_etag("object " + object.key(), command.if_match(), before ? before->object().etag() : ""));
  }
  const uint64_t freed = before && !store->versioning() ? before->blob().size() : 0;
  UCCP_RETURN_IF_ERROR(check_room(*store, command, freed, !before));
  set_wall(object.mutable_create_time(), c.envelope().wall);
  if (before) {
    *object.mutable_create_time() = before->object().create_time();
    if (store->versioning()) {
      kOldVersions.put(c.state(), c.scope(), versions_prefix(object.store(), object.key()) + before->object().version(),
                       *before);
    }
    drop(c, c.scope(), *before);
  }
  set_wall(object.mutable_update_time(), c.envelope().wall);
  object.set_version(std::to_string(c.index().value));
  object.set_etag(object.version());
  object.set_principal(c.envelope().principal);
  ObjectRow row;
  const auto& ttl = object.has_ttl() ? object.ttl() : store->object_ttl();
  if (object.has_ttl() || store->has_object_ttl()) {
    row.set_expire_ms(c.now_ms() + services::ms_of(ttl));
    set_wall(object.mutable_expire_time(), WallTime{c.envelope().wall.us + services::ms_of(ttl) * 1000});
  }
  *row.mutable_object() = object;
  *row.mutable_blob() = command.blob();
  kObjects.put(c.state(), c.scope(), key, row);
  if (row.expire_ms() > 0) kExpiry.put(c.state(), {}, expiry_key(c.scope(), row), "");
  count(c, c.scope(), *store, before ? 0 : 1,
        static_cast<int64_t>(command.blob().size()) - static_cast<int64_t>(freed));
  return machine::stable_bytes(object);
}

// The version before becomes the present one when only that is removed.
void promote(ApplyContext& c, const ObjectRow& removed, v1::ObjectStore& store) {
  drop(c, c.scope(), removed);
  auto rows = old_versions(c.state(), c.scope(), removed.object().store(), removed.object().key());
  const auto newest = std::ranges::max_element(
      rows, {}, [](const ObjectRow& row) { return std::strtoull(row.object().version().c_str(), nullptr, 10); });
  if (newest != rows.end()) {
    kOldVersions.erase(c.state(), c.scope(),
                       versions_prefix(removed.object().store(), removed.object().key()) + newest->object().version());
    kObjects.put(c.state(), c.scope(), object_key(removed.object().store(), removed.object().key()), *newest);
    if (newest->expire_ms() > 0) kExpiry.put(c.state(), {}, expiry_key(c.scope(), *newest), "");
  }
  count(c, c.scope(), store, newest == rows.end() ? -1 : 0, -static_cast<int64_t>(removed.blob().size()));
}

ApplyResult remove_object(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::RemoveObjectCommand>(payload);
  auto store = find_store(c.state(), c.scope(), command.store());
  if (!store) return fail(store.error());
  const auto present = kObjects.get(c.state(), c.scope(), object_key(command.store(), command.key()));
  if (!present) return fail(objectstores::no_such_object(command.store(), command.key(), command.version()));
  if (!command.if_match().empty() && present->object().etag() != command.if_match()) {
    return fail(wrong_etag("object " + command.key(), command.if_match(), present->object().etag()));
  }
  if (command.version().empty()) {
    const uint64_t bytes = drop_all(c, c.scope(), *present);
    count(c, c.scope(), *store, -1, -static_cast<int64_t>(bytes));
    return std::string();
  }
  if (command.version() == present->object().version()) {
    promote(c, *present, *store);
    return std::string();
  }
  const std::string key = versions_prefix(command.store(), command.key()) + command.version();
  const auto old = kOldVersions.get(c.state(), c.scope(), key);
  if (!old) return fail(objectstores::no_such_object(command.store(), command.key(), command.version()));
  kOldVersions.erase(c.state(), c.scope(), key);
  count(c, c.scope(), *store, 0, -static_cast<int64_t>(old->blob().size()));
  return std::string();
}

}  // namespace

std::map<std::string, machine::ApplyFunction, std::less<>> object_commands() {
  return {{"put_store", put_store},
          {"remove_store", remove_store},
          {"put_object", put_object},
          {"remove_object", remove_object},
          {"remove_over", remove_over}};
}

Result<v1::ObjectStore> find_store(const machine::KeyReader& state, const Scope& scope, const std::string& name) {
  if (auto row = kStores.get(state, scope, name)) return std::move(*row->mutable_store());
  if (name == kDefaultStore) {
    v1::ObjectStore store;
    store.set_name(name);
    store.set_namespace_(scope.name_space);
    store.set_backend("embedded");
    return store;
  }
  return fail(Status(Code::kNotFound, "OBJECT_STORE_NOT_FOUND",
                     "there is no object store " + name + " in this namespace; create it first")
                  .with_resource("objectstore", name));
}

}  // namespace uccp::compute
