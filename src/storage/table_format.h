// The rows of a log that is kept in an ordered table, version 1. docs/formats/log_table.md is the same in prose.
//
//   'f'                 format: magic, version, identity of the node, checksum
//   'g' group           hard state and start of a group, checksum
//   'e' group index     entry: checksum, term, kind and encoding, data
//
// All integers are big endian. A checksum covers key and value.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/log_types.h"
#include "storage/compression.h"
#include "storage/log_store.h"

namespace uccp::storage::table {

inline constexpr uint32_t kFormatVersion = 1;

std::string format_key();
std::string group_key(GroupId group);
std::string entry_key(GroupId group, LogIndex index);
// Behind all groups, behind all entries.
std::string groups_end();
std::string entries_end();

struct EntryKey {
  GroupId group;
  LogIndex index;
};
std::optional<GroupId> parse_group_key(std::string_view key);
std::optional<EntryKey> parse_entry_key(std::string_view key);

std::string encode_format(const StoreIdentity& identity);
// Errors: corruption; failed_precondition LOG_VERSION_UNSUPPORTED.
Result<StoreIdentity> parse_format(std::string_view value);

struct GroupRow {
  HardState hard_state;
  LogPosition start;

  bool operator==(const GroupRow&) const = default;
};
std::string encode_group(GroupId group, const GroupRow& row);
std::optional<GroupRow> parse_group(GroupId group, std::string_view value);

std::string encode_entry(GroupId group, const Entry& entry, Packer& packer);
std::optional<Entry> parse_entry(GroupId group, LogIndex index, std::string_view value);

}  // namespace uccp::storage::table
