#include "storage/table_format.h"

#include <fmt/format.h>

#include "base/bytes.h"

namespace uccp::storage::table {
namespace {

constexpr std::string_view kMagic = "UCCPLOG\n";
constexpr char kFormat = 'f';
constexpr char kGroup = 'g';
constexpr char kEntry = 'e';
// Kind in the low half of its byte, encoding in the high one.
constexpr int kEncodingShift = 4;
constexpr uint8_t kKindMask = 0x0f;

std::string tag(char c) { return std::string(1, c); }

// The checksum of key and value, then the value.
std::string sealed(std::string_view key, std::string_view value) {
  return ByteWriter().u32(crc32c(value, crc32c(key))).raw(value).take();
}

std::optional<std::string_view> unsealed(std::string_view key, std::string_view sealed) {
  ByteReader in(sealed);
  const uint32_t checksum = in.u32();
  const std::string_view value = in.rest();
  if (!in.ok() || checksum != crc32c(value, crc32c(key))) return std::nullopt;
  return value;
}

}  // namespace

std::string format_key() { return tag(kFormat); }
std::string group_key(GroupId group) { return ByteWriter().raw(tag(kGroup)).u64(group.value).take(); }
std::string entry_key(GroupId group, LogIndex index) {
  return ByteWriter().raw(tag(kEntry)).u64(group.value).u64(index.value).take();
}
std::string groups_end() { return tag(kGroup + 1); }
std::string entries_end() { return tag(kEntry + 1); }

std::optional<GroupId> parse_group_key(std::string_view key) {
  ByteReader in(key);
  const bool known = in.raw(1) == tag(kGroup);
  const GroupId group(in.u64());
  return known && in.at_end() ? std::optional(group) : std::nullopt;
}

std::optional<EntryKey> parse_entry_key(std::string_view key) {
  ByteReader in(key);
  const bool known = in.raw(1) == tag(kEntry);
  EntryKey parsed;
  parsed.group = GroupId(in.u64());
  parsed.index = LogIndex(in.u64());
  return known && in.at_end() ? std::optional(parsed) : std::nullopt;
}

std::string encode_format(const StoreIdentity& identity) {
  ByteWriter out;
  out.raw(kMagic).u32(kFormatVersion).u64(identity.node.value).u64(identity.incarnation.value);
  return sealed(format_key(), out.bytes(identity.cluster_id).data());
}

Result<StoreIdentity> parse_format(std::string_view value) {
  const auto body = unsealed(format_key(), value);
  ByteReader in(body.value_or(""));
  const bool known = in.raw(kMagic.size()) == kMagic;
  const uint32_t version = in.u32();
  if (!known || !in.ok())
    return fail(Code::kCorruption, "LOG_DAMAGED", "the row that tells whose log it is, is damaged");
  if (version != kFormatVersion) {
    return fail(Code::kFailedPrecondition, "LOG_VERSION_UNSUPPORTED",
                fmt::format("the log has format version {}; this program reads {}. Start a newer program", version,
                            kFormatVersion));
  }
  StoreIdentity identity;
  identity.node = NodeId(in.u64());
  identity.incarnation = Incarnation(in.u64());
  identity.cluster_id = std::string(in.bytes());
  if (!in.at_end()) return fail(Code::kCorruption, "LOG_DAMAGED", "the row that tells whose log it is, is damaged");
  return identity;
}

std::string encode_group(GroupId group, const GroupRow& row) {
  ByteWriter out;
  out.u64(row.hard_state.term.value).u64(row.hard_state.vote.value).u64(row.hard_state.commit.value);
  out.u64(row.start.term.value).u64(row.start.index.value);
  return sealed(group_key(group), out.data());
}

std::optional<GroupRow> parse_group(GroupId group, std::string_view value) {
  const auto body = unsealed(group_key(group), value);
  ByteReader in(body.value_or(""));
  GroupRow row;
  row.hard_state.term = Term(in.u64());
  row.hard_state.vote = NodeId(in.u64());
  row.hard_state.commit = LogIndex(in.u64());
  row.start.term = Term(in.u64());
  row.start.index = LogIndex(in.u64());
  if (!in.at_end() || row.start.index.value == UINT64_MAX) return std::nullopt;
  return row;
}

std::string encode_entry(GroupId group, const Entry& entry, Packer& packer) {
  std::string packed;
  const auto encoding = static_cast<uint8_t>(packer.pack(entry, packed));
  ByteWriter out;
  out.u64(entry.term.value).u8(static_cast<uint8_t>(static_cast<uint8_t>(entry.kind) | encoding << kEncodingShift));
  return sealed(entry_key(group, entry.index), out.raw(packed).data());
}

std::optional<Entry> parse_entry(GroupId group, LogIndex index, std::string_view value) {
  const auto body = unsealed(entry_key(group, index), value);
  ByteReader in(body.value_or(""));
  Entry entry;
  entry.index = index;
  entry.term = Term(in.u64());
  const uint8_t kind = in.u8();
  entry.kind = static_cast<EntryKind>(kind & kKindMask);
  if (!in.ok() || entry.kind < EntryKind::kCommand || entry.kind > EntryKind::kConfiguration) return std::nullopt;
  const uint8_t encoding = kind >> kEncodingShift;
  const std::string_view packed = in.rest();
  auto data = unpack(static_cast<Encoding>(encoding), packed);
  if (!data) return std::nullopt;
  entry.data = std::move(*data);
  if (encoding != 0) entry.packed = std::make_shared<const PackedData>(encoding, std::string(packed));
  return entry;
}

}  // namespace uccp::storage::table
