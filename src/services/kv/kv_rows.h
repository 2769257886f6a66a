// The rows of the key-value store: their keys and their bytes. docs/formats/state.md has the same as tables.
//
// A key's newest version is one row (kv keys), so that reading it is one look-up and a range is one scan. When it
// changes, the row moves unchanged to the history under (key, revision), newest first. The log of revisions says which
// key each revision changed, for watches, and which version that replaced, for compaction.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "machine/domain.h"
#include "machine/key_reader.h"
#include "machine/table.h"

namespace uccp::kv {

// Tables of the core group; the numbers are part of the on-disk format.
inline constexpr machine::TableId kHeadTable = 80;      // "": Head
inline constexpr machine::TableId kKeyTable = 81;       // key: Version
inline constexpr machine::TableId kHistoryTable = 82;   // key part key, u64 ~revision: Version or tombstone
inline constexpr machine::TableId kRevisionTable = 83;  // u64 revision, u32 number within it: Revision
inline constexpr machine::TableId kLeaseTable = 84;     // u64 id: LeaseRow
inline constexpr machine::TableId kLeaseKeyTable = 85;  // u64 id, key: empty

// Of one namespace. Absent in one that was never written to.
struct Head {
  uint64_t revision = 1;
  uint64_t compacted = 0;  // least revision that can be read
  uint64_t swept = 0;      // everything that changes before it gave up is removed
  uint64_t keys = 0;
  uint64_t bytes = 0;          // newest versions
  uint64_t history_bytes = 0;  // older ones and the log of revisions
  uint64_t leases = 0;
  uint64_t bytes_max = 0;  // 0: as the node that proposes says
  uint64_t keys_max = 0;
  uint64_t leases_max = 0;
};

// One version of a key. `value` points into the row.
struct Version {
  uint64_t mod = 0;
  uint64_t create = 0;
  uint64_t version = 0;
  int64_t lease = 0;
  std::string_view value;
};

enum class ChangeKind : uint8_t { kPut = 1, kDelete = 2 };

// What one revision did to one key. `key` points into the row.
struct Revision {
  ChangeKind kind = ChangeKind::kPut;
  uint64_t previous = 0;  // revision of the version that it replaced; 0: none
  std::string_view key;
};

struct LeaseRow {
  machine::LeaseId lease = 0;  // of the machine
  int64_t ttl_ms = 0;
  uint64_t keys = 0;
  WallTime granted;
};

std::string encode_head(const Head& head);
std::string encode_version(const Version& version);
// Marks in the history that the key was deleted.
std::string encode_tombstone();
std::string encode_revision(const Revision& revision);
std::string encode_lease(const LeaseRow& row);
// Abort if a row is none: it was read from a state whose digest is checked.
Head decode_head(std::string_view row);
// nullopt: a tombstone.
std::optional<Version> decode_version(std::string_view row);
Revision decode_revision(std::string_view row);
LeaseRow decode_lease(std::string_view row);

// Keys of rows, relative to the group.
std::string head_key(const machine::Scope& scope);
std::string history_key(const machine::Scope& scope, std::string_view key, uint64_t revision);
std::string revision_key(const machine::Scope& scope, uint64_t revision, uint32_t number);
std::string lease_row_key(const machine::Scope& scope, int64_t id);
std::string lease_key_key(const machine::Scope& scope, int64_t id, std::string_view key);
inline std::string key_key(const machine::Scope& scope, std::string_view key) {
  return machine::table_key::make(kKeyTable, scope, key);
}

Head read_head(const machine::KeyReader& state, const machine::Scope& scope);
std::optional<LeaseRow> read_lease(const machine::KeyReader& state, const machine::Scope& scope, int64_t id);

// A set of keys: [from, to), or to the end if `to` is empty.
struct KeyRange {
  std::string from;
  std::string to;
  bool single = false;  // just `from`

  bool contains(std::string_view key) const { return single ? key == from : key >= from && (to.empty() || key < to); }
  // No key is in it.
  bool empty() const { return !single && !to.empty() && to <= from; }
};

// From the fields that all requests with ranges have. Neither key nor prefix: all keys.
// Errors: invalid RANGE_INVALID.
Result<KeyRange> key_range(std::string_view key, std::string_view range_end, std::string_view prefix);
template <typename Request>
Result<KeyRange> range_of(const Request& request) {
  return key_range(request.key(), request.range_end(), request.prefix());
}

}  // namespace uccp::kv
