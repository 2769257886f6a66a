// Typed tables over the keys of a group: (table, tenant, namespace, key) -> protobuf message.
//
// Table numbers are part of the on-disk format and are listed in docs/formats/state.md; each belongs to one domain.
#pragma once

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "machine/envelope.h"
#include "machine/key_reader.h"
#include "machine/transaction.h"

namespace uccp::machine {

using TableId = uint16_t;

namespace table_key {
// Key parts are escaped so that no key is the prefix of another's and order is that of the parts.
inline ByteWriter begin(TableId table) {
  ByteWriter out;
  out.u8(static_cast<uint8_t>(table >> 8)).u8(static_cast<uint8_t>(table));
  return out;
}
inline std::string scope_prefix(TableId table, const Scope& scope) {
  return begin(table).key_part(scope.tenant).key_part(scope.name_space).take();
}
inline std::string make(TableId table, const Scope& scope, std::string_view key) {
  return begin(table).key_part(scope.tenant).key_part(scope.name_space).raw(key).take();
}
}  // namespace table_key

// A protobuf message type as value; `Key` is raw bytes made by the domain (ids, or ByteWriter for composed keys).
template <typename Message>
class Table {
 public:
  constexpr explicit Table(TableId id) : id_(id) {}

  std::optional<Message> get(const KeyReader& state, const Scope& scope, std::string_view key) const {
    auto bytes = state.get(table_key::make(id_, scope, key));
    if (!bytes) return std::nullopt;
    return parse(*bytes);
  }
  bool contains(const KeyReader& state, const Scope& scope, std::string_view key) const {
    return state.get(table_key::make(id_, scope, key)).has_value();
  }
  void put(Transaction& state, const Scope& scope, std::string_view key, const Message& value) const {
    state.put(table_key::make(id_, scope, key), serialize(value));
  }
  void erase(Transaction& state, const Scope& scope, std::string_view key) const {
    state.erase(table_key::make(id_, scope, key));
  }
  // The same bytes on every replica: map entries sorted by key.
  static std::string serialize(const Message& value) {
    std::string bytes;
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    UCCP_CHECK(value.SerializeToCodedStream(&coded), "a row can be serialized");
    coded.Trim();
    return bytes;
  }
  // Visits rows of the scope whose key begins with `key_prefix`, from `from` on (inclusive, empty: the first), in key
  // order, until `visit` returns false.
  using Visit = std::function<bool(std::string_view key, Message value)>;
  void scan(const KeyReader& state, const Scope& scope, std::string_view key_prefix, std::string_view from,
            const Visit& visit) const {
    const std::string prefix = table_key::scope_prefix(id_, scope);
    const std::string begin = prefix + std::string(from.empty() ? key_prefix : from);
    state.scan(begin, prefix_end(prefix + std::string(key_prefix)), [&](std::string_view key, std::string_view value) {
      return visit(key.substr(prefix.size()), parse(value));
    });
  }
  // Visits the rows of all tenants and namespaces.
  using VisitAll = std::function<bool(const Scope& scope, std::string_view key, Message value)>;
  void scan_all(const KeyReader& state, const VisitAll& visit) const {
    const std::string prefix = table_key::begin(id_).take();
    state.scan(prefix, prefix_end(prefix), [&](std::string_view key, std::string_view value) {
      ByteReader in(key.substr(prefix.size()));
      Scope scope;
      scope.tenant = in.key_part();
      scope.name_space = in.key_part();
      return visit(scope, in.rest(), parse(value));
    });
  }

 private:
  static Message parse(std::string_view bytes) {
    Message message;
    UCCP_CHECK(message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())), "a stored row is readable");
    return message;
  }
  TableId id_;
};

// The same with plain bytes as value: indexes and counters.
class BytesTable {
 public:
  constexpr explicit BytesTable(TableId id) : id_(id) {}
  std::optional<std::string> get(const KeyReader& state, const Scope& scope, std::string_view key) const {
    return state.get(table_key::make(id_, scope, key));
  }
  void put(Transaction& state, const Scope& scope, std::string_view key, std::string value) const {
    state.put(table_key::make(id_, scope, key), std::move(value));
  }
  // Of a key that has no row, which saves looking for one.
  void put_new(Transaction& state, const Scope& scope, std::string_view key, std::string value) const {
    state.replace(table_key::make(id_, scope, key), std::nullopt, std::move(value));
  }
  void erase(Transaction& state, const Scope& scope, std::string_view key) const {
    state.erase(table_key::make(id_, scope, key));
  }
  using Visit = std::function<bool(std::string_view key, std::string_view value)>;
  void scan(const KeyReader& state, const Scope& scope, std::string_view key_prefix, std::string_view from,
            const Visit& visit) const {
    const std::string prefix = table_key::scope_prefix(id_, scope);
    const std::string begin = prefix + std::string(from.empty() ? key_prefix : from);
    state.scan(begin, prefix_end(prefix + std::string(key_prefix)),
               [&](std::string_view key, std::string_view value) { return visit(key.substr(prefix.size()), value); });
  }

 private:
  TableId id_;
};

// Tables of the machine itself. Domains begin at 16.
inline constexpr TableId kMetaTable = 1;
inline constexpr TableId kSessionTable = 2;
inline constexpr TableId kReplyTable = 3;
inline constexpr TableId kReplyAgeTable = 4;
inline constexpr TableId kLeaseTable = 5;
inline constexpr TableId kChangeTable = 6;
inline constexpr TableId kAuditTable = 7;
inline constexpr TableId kRestoreTable = 8;

}  // namespace uccp::machine
