#include "services/kv/kv_rows.h"

#include "base/bytes.h"
#include "base/check.h"

namespace uccp::kv {
namespace {

constexpr uint8_t kFormat = 1;
// First byte of a version: the format in the low half, what is there in the high half.
constexpr uint8_t kTombstone = 0x10;
constexpr uint8_t kHasLease = 0x20;

using machine::Scope;
using machine::table_key::begin;

ByteWriter scoped(machine::TableId table, const Scope& scope) {
  ByteWriter out = begin(table);
  out.key_part(scope.tenant).key_part(scope.name_space);
  return out;
}

}  // namespace

std::string encode_head(const Head& h) {
  ByteWriter out;
  out.u8(kFormat).varint(h.revision).varint(h.compacted).varint(h.swept).varint(h.keys).varint(h.bytes);
  out.varint(h.history_bytes).varint(h.leases).varint(h.bytes_max).varint(h.keys_max).varint(h.leases_max);
  return out.take();
}

Head decode_head(std::string_view row) {
  ByteReader in(row);
  const uint8_t format = in.u8();
  Head h;
  for (uint64_t* field : {&h.revision, &h.compacted, &h.swept, &h.keys, &h.bytes, &h.history_bytes, &h.leases,
                          &h.bytes_max, &h.keys_max, &h.leases_max}) {
    *field = in.varint();
  }
  UCCP_CHECK(format == kFormat && in.at_end(), "the head of a key-value store is readable");
  return h;
}

std::string encode_version(const Version& v) {
  ByteWriter out;
  out.u8(kFormat | (v.lease != 0 ? kHasLease : 0)).varint(v.mod).varint(v.mod - v.create).varint(v.version);
  if (v.lease != 0) out.varint(static_cast<uint64_t>(v.lease));
  return out.raw(v.value).take();
}

std::string encode_tombstone() { return ByteWriter().u8(kFormat | kTombstone).take(); }

std::optional<Version> decode_version(std::string_view row) {
  ByteReader in(row);
  const uint8_t first = in.u8();
  if (first == (kFormat | kTombstone)) return std::nullopt;
  Version v;
  v.mod = in.varint();
  v.create = v.mod - in.varint();
  v.version = in.varint();
  if ((first & kHasLease) != 0) v.lease = static_cast<int64_t>(in.varint());
  v.value = in.rest();
  UCCP_CHECK(in.ok() && (first & ~kHasLease) == kFormat, "a version of a key is readable");
  return v;
}

std::string encode_revision(const Revision& r) {
  return ByteWriter()
      .u8(static_cast<uint8_t>(kFormat | static_cast<uint8_t>(r.kind) << 4))
      .varint(r.previous)
      .raw(r.key)
      .take();
}

Revision decode_revision(std::string_view row) {
  ByteReader in(row);
  const uint8_t first = in.u8();
  Revision r;
  r.kind = static_cast<ChangeKind>(first >> 4);
  r.previous = in.varint();
  r.key = in.rest();
  const bool known = r.kind == ChangeKind::kPut || r.kind == ChangeKind::kDelete;
  UCCP_CHECK(in.ok() && known && (first & 0x0f) == kFormat, "a revision is readable");
  return r;
}

std::string encode_lease(const LeaseRow& r) {
  ByteWriter out;
  out.u8(kFormat).u64(r.lease).varint(static_cast<uint64_t>(r.ttl_ms)).varint(r.keys);
  return out.u64(static_cast<uint64_t>(r.granted.us)).take();
}

LeaseRow decode_lease(std::string_view row) {
  ByteReader in(row);
  const uint8_t format = in.u8();
  LeaseRow r;
  r.lease = in.u64();
  r.ttl_ms = static_cast<int64_t>(in.varint());
  r.keys = in.varint();
  r.granted.us = static_cast<int64_t>(in.u64());
  UCCP_CHECK(format == kFormat && in.at_end(), "a lease of a key-value store is readable");
  return r;
}

std::string head_key(const Scope& scope) { return scoped(kHeadTable, scope).take(); }

std::string history_key(const Scope& scope, std::string_view key, uint64_t revision) {
  return scoped(kHistoryTable, scope).key_part(key).u64(~revision).take();
}

std::string revision_key(const Scope& scope, uint64_t revision, uint32_t number) {
  return scoped(kRevisionTable, scope).u64(revision).u32(number).take();
}

std::string lease_row_key(const Scope& scope, int64_t id) {
  return scoped(kLeaseTable, scope).u64(static_cast<uint64_t>(id)).take();
}

std::string lease_key_key(const Scope& scope, int64_t id, std::string_view key) {
  return scoped(kLeaseKeyTable, scope).u64(static_cast<uint64_t>(id)).raw(key).take();
}

Head read_head(const machine::KeyReader& state, const Scope& scope) {
  const auto row = state.get(head_key(scope));
  return row ? decode_head(*row) : Head();
}

std::optional<LeaseRow> read_lease(const machine::KeyReader& state, const Scope& scope, int64_t id) {
  const auto row = state.get(lease_row_key(scope, id));
  if (!row) return std::nullopt;
  return decode_lease(*row);
}

Result<KeyRange> key_range(std::string_view key, std::string_view range_end, std::string_view prefix) {
  KeyRange range;
  range.from = key;
  if (!prefix.empty()) {
    if (!range_end.empty()) {
      return fail(Status(Code::kInvalid, "RANGE_INVALID", "a range has a prefix or an end, not both")
                      .with_field("rangeEnd", "cannot be given together with prefix"));
    }
    if (!key.empty() && !key.starts_with(prefix)) {
      return fail(Status(Code::kInvalid, "RANGE_INVALID", "the key to begin at does not begin with the prefix")
                      .with_field("key", "does not begin with the prefix"));
    }
    if (key.empty()) range.from = prefix;
    range.to = machine::prefix_end(prefix);
  } else if (!range_end.empty()) {
    if (range_end != std::string_view("\0", 1)) range.to = range_end;
  } else {
    range.single = !key.empty();
  }
  return range;
}

}  // namespace uccp::kv
