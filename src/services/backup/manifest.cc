#include "services/backup/manifest.h"

#include <algorithm>

#include "base/bytes.h"

namespace uccp::backup {
namespace {

constexpr uint32_t kVersion = 1;
constexpr size_t kIdBytesMax = 128;

std::unexpected<Status> malformed() {
  return fail(Code::kCorruption, "BACKUP_DAMAGED", "the manifest of the backup is malformed; use another backup");
}

bool is_hex_sum(std::string_view text) {
  return text.size() == 64 &&
         std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// No more items than the bytes that are left could hold.
template <typename Item>
void reserve_for(std::vector<Item>& items, uint64_t count, const ByteReader& in) {
  items.reserve(std::min<uint64_t>(count, in.remaining()));
}

void write_sum(ByteWriter& out, const FileSum& sum) { out.u64(sum.size).bytes(sum.sha256); }
FileSum read_sum(ByteReader& in) {
  FileSum sum;
  sum.size = in.u64();
  sum.sha256 = in.bytes();
  return sum;
}

GroupPart read_group(ByteReader& in) {
  GroupPart part;
  part.group = GroupId(in.u64());
  part.name = in.bytes();
  part.position.term = Term(in.u64());
  part.position.index = LogIndex(in.u64());
  part.digest.high = in.u64();
  part.digest.low = in.u64();
  part.file = in.bytes();
  part.sum = read_sum(in);
  return part;
}

}  // namespace

bool is_backup_id(std::string_view text) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); };
  return !text.empty() && text.size() <= kIdBytesMax && plain(text.front()) &&
         std::ranges::all_of(text, [&](char c) { return plain(c) || c == '_' || c == '-'; });
}

uint64_t Manifest::bytes() const {
  uint64_t total = 0;
  for (const GroupPart& part : groups) total += part.sum.size;
  for (const BlobPart& part : blobs) total += part.file_size;
  return total;
}

std::string Manifest::sha256() const {
  ByteWriter sums;
  for (const GroupPart& part : groups) sums.bytes(part.file).bytes(part.sum.sha256);
  for (const BlobPart& part : blobs) sums.bytes(part.sha256);
  return to_hex(uccp::sha256(sums.data()));
}

std::string encode(const Manifest& m) {
  ByteWriter out;
  out.u32(kVersion).bytes(m.id).bytes(m.cluster_id).u64(m.node.value).bytes(m.program_version).u32(m.feature_level);
  out.u64(static_cast<uint64_t>(m.created_us)).u64(static_cast<uint64_t>(m.finished_us));
  out.u64(static_cast<uint64_t>(m.expires_us)).varint(m.labels.size());
  for (const auto& [key, value] : m.labels) out.bytes(key).bytes(value);
  out.varint(m.groups.size());
  for (const GroupPart& part : m.groups) {
    out.u64(part.group.value).bytes(part.name).u64(part.position.term.value).u64(part.position.index.value);
    out.u64(part.digest.high).u64(part.digest.low).bytes(part.file);
    write_sum(out, part.sum);
  }
  out.varint(m.blobs.size());
  for (const BlobPart& part : m.blobs) out.bytes(part.sha256).u64(part.size).u64(part.file_size);
  return out.take();
}

Result<Manifest> decode_manifest(std::string_view bytes) {
  ByteReader in(bytes);
  if (const uint32_t version = in.u32(); in.ok() && version != kVersion) {
    return fail(Code::kFailedPrecondition, "BACKUP_VERSION_UNSUPPORTED",
                "the manifest has format version " + std::to_string(version) + "; this program reads " +
                    std::to_string(kVersion) + ". Use a newer program");
  }
  Manifest m;
  m.id = in.bytes();
  m.cluster_id = in.bytes();
  m.node = NodeId(in.u64());
  m.program_version = in.bytes();
  m.feature_level = in.u32();
  m.created_us = static_cast<int64_t>(in.u64());
  m.finished_us = static_cast<int64_t>(in.u64());
  m.expires_us = static_cast<int64_t>(in.u64());
  for (uint64_t count = in.varint(); count > 0 && in.ok(); --count) {
    const std::string key(in.bytes());
    m.labels[key] = in.bytes();
  }
  uint64_t count = in.varint();
  reserve_for(m.groups, count, in);
  for (; count > 0 && in.ok(); --count) m.groups.push_back(read_group(in));
  count = in.varint();
  reserve_for(m.blobs, count, in);
  for (; count > 0 && in.ok(); --count) {
    BlobPart part;
    part.sha256 = in.bytes();
    part.size = in.u64();
    part.file_size = in.u64();
    m.blobs.push_back(std::move(part));
  }
  // Names become paths.
  const bool safe = is_backup_id(m.id) &&
                    std::ranges::all_of(m.groups, [](const GroupPart& part) { return is_backup_id(part.file); }) &&
                    std::ranges::all_of(m.blobs, [](const BlobPart& part) { return is_hex_sum(part.sha256); });
  if (!in.at_end() || !safe) return malformed();
  return m;
}

}  // namespace uccp::backup
