#include "machine/snapshot.h"

#include "base/bytes.h"
#include "base/check.h"
#include "machine/planted.h"
#include "machine/table.h"

namespace uccp::machine {
namespace {

// Version 1 had no encoding; its chunks are as those of version 2 that are not packed.
constexpr uint8_t kVersion = 2;
constexpr uint8_t kOldestVersion = 1;
constexpr uint8_t kFirst = 1;
constexpr uint8_t kLast = 2;
// The encoding of what follows the flags is in the high half of their byte.
constexpr int kEncodingShift = 4;
constexpr size_t kChecksumBytes = 4;

void write_header(ByteWriter& out, const SnapshotHeader& header) {
  out.u64(header.group.value).u64(header.position.term.value).u64(header.position.index.value);
  out.u32(header.feature_level).u64(header.digest.high).u64(header.digest.low).bytes(header.membership);
}

SnapshotHeader read_header(ByteReader& in) {
  SnapshotHeader header;
  header.group = GroupId(in.u64());
  header.position.term = Term(in.u64());
  header.position.index = LogIndex(in.u64());
  header.feature_level = in.u32();
  header.digest.high = in.u64();
  header.digest.low = in.u64();
  header.membership = in.bytes();
  return header;
}

Status damaged(GroupId group, uint64_t number, std::string_view why) {
  return Status(Code::kCorruption, "SNAPSHOT_DAMAGED",
                "installing a snapshot of group " + std::to_string(group.value) + ", chunk " + std::to_string(number) +
                    ": " + std::string(why) + "; it has to be sent again");
}

}  // namespace

std::string SnapshotReader::next() {
  UCCP_CHECK(!done_, "a snapshot is read once");
  ByteWriter rows;
  uint64_t count = 0;
  bool more = false;
  view_.scan(from_, "", [&](std::string_view key, std::string_view value) {
    if (count > 0 && rows.data().size() + key.size() + value.size() > chunk_bytes_) {
      from_ = key;
      more = true;
      return false;
    }
    rows.bytes(key).bytes(value);
    if (in_digest(key)) digest_.add(key, value);
    ++count;
    return true;
  });
  rows_ += count;
  done_ = !more;
  ByteWriter body;
  if (number_ == 0) write_header(body, header_);
  body.varint(count).raw(rows.data());
  if (done_) body.u64(rows_).u64(digest_.high).u64(digest_.low);
  std::string packed;
  const auto encoding = static_cast<uint8_t>(packer_.pack(body.data(), packed));
  ByteWriter chunk;
  chunk.u64(number_);
  chunk.u8(static_cast<uint8_t>((number_ == 0 ? kFirst : 0) | (done_ ? kLast : 0) | encoding << kEncodingShift));
  chunk.raw(packed);
  ++number_;
  return ByteWriter().u8(kVersion).u32(crc32c(chunk.data())).raw(chunk.data()).take();
}

std::optional<uint64_t> snapshot_chunk_number(std::string_view chunk) {
  ByteReader in(chunk);
  in.raw(1 + kChecksumBytes);
  const uint64_t number = in.u64();
  return in.ok() ? std::optional(number) : std::nullopt;
}

Status SnapshotCheck::add(std::string_view chunk, const Row& row) {
  ByteReader in(chunk);
  const uint8_t version = in.u8();
  if (version < kOldestVersion || version > kVersion) return damaged(group_, number_, "its version is not known here");
  const uint32_t checksum = in.u32();
  if (!in.ok() || checksum != crc32c(chunk.substr(1 + kChecksumBytes)))
    return damaged(group_, number_, "its checksum is wrong");
  const uint64_t number = in.u64();
  const uint8_t flags = in.u8();
  const bool first = (flags & kFirst) != 0;
  if (!in.ok() || number != number_ || complete_ || first != (number == 0)) {
    return damaged(group_, number_, "another chunk is next");
  }
  const auto body = storage::unpack(static_cast<storage::Encoding>(flags >> kEncodingShift), in.rest());
  if (!body) return damaged(group_, number_, "it cannot be unpacked");
  return add_body(*body, first, (flags & kLast) != 0, row);
}

Status SnapshotCheck::add_body(std::string_view body, bool first, bool last, const Row& row) {
  ByteReader in(body);
  if (first) {
    header_ = read_header(in);
    if (!in.ok() || header_->group != group_) return damaged(group_, number_, "its header is of another group");
    if (header_->feature_level > kFeatureLevelMax) {
      return Status(Code::kUnimplemented, "FEATURE_LEVEL",
                    "the snapshot is at feature level " + std::to_string(header_->feature_level) +
                        " and this program knows " + std::to_string(kFeatureLevelMax) + "; start a newer version");
    }
  }
  const uint64_t count = in.varint();
  for (uint64_t i = 0; i < count && in.ok(); ++i) {
    const std::string_view key = in.bytes();
    const std::string_view value = in.bytes();
    if (!in.ok()) break;
    if (in_digest(key)) digest_.add(key, value);
    const bool lost = planted_bug("snapshot_without_replies") && key.starts_with(table_key::begin(kReplyTable).data());
    if (row && !lost) row(key, value);
  }
  rows_ += count;
  bool whole = true;
  if (last) {
    const uint64_t rows = in.u64();
    const uint64_t high = in.u64();
    const uint64_t low = in.u64();
    whole = rows == rows_ && Digest{high, low} == digest_ && digest_ == header_->digest;
  }
  if (!in.at_end()) return damaged(group_, number_, "it is cut off or too long");
  if (!whole) return damaged(group_, number_, "its rows do not have the digest of the state");
  ++number_;
  complete_ = last;
  return Status::ok();
}

Status SnapshotWriter::add(std::string_view chunk) {
  const std::string prefix = group_prefix(group_, slot_);
  const bool first = check_.next() == 0;
  storage::KvBatch batch;
  UCCP_RETURN_IF_ERROR(check_.add(chunk, [&](std::string_view key, std::string_view value) {
    batch.put(prefix + std::string(key), std::string(value));
  }));
  if (first) UCCP_RETURN_IF_ERROR(kv_.erase_range(prefix, prefix_end(prefix)));
  return kv_.write(batch);
}

}  // namespace uccp::machine
