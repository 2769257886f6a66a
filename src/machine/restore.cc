#include "machine/restore.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/log.h"
#include "machine/table.h"

namespace uccp::machine {
namespace {

constexpr BytesTable kMeta(kMetaTable);
constexpr BytesTable kStaged(kRestoreTable);
constexpr std::string_view kMetaKey = "meta";
constexpr std::string_view kMembershipKey = "membership";
constexpr std::string_view kMarkKey = "restored";
constexpr std::string_view kHeadKey = "head";
constexpr std::string_view kPieceKey = "piece";
constexpr uint8_t kMarkVersion = 1;
// Far more than a chunk with one row of the largest size.
constexpr uint32_t kChunkBytesMax = 256u << 20;

std::string piece_key(uint64_t number) { return ByteWriter().raw(kPieceKey).u64(number).take(); }

struct StagedHead {
  std::string id;
  uint64_t next = 0;
};

StagedHead read_head(const KeyReader& state) {
  StagedHead head;
  const auto stored = kStaged.get(state, {}, kHeadKey);
  if (!stored) return head;
  ByteReader in(*stored);
  head.id = in.bytes();
  head.next = in.u64();
  UCCP_CHECK(in.at_end(), "the head of a restore is readable");
  return head;
}

void write_head(Transaction& state, const StagedHead& head) {
  kStaged.put(state, {}, kHeadKey, ByteWriter().bytes(head.id).u64(head.next).take());
}

void drop_staged(Transaction& state) {
  const uint64_t pieces = read_head(state).next;
  for (uint64_t number = 0; number < pieces; ++number) kStaged.erase(state, {}, piece_key(number));
  kStaged.erase(state, {}, kHeadKey);
}

std::string encode_mark(const RestoredMark& mark) {
  return ByteWriter().u8(kMarkVersion).u64(mark.epoch).u64(mark.index.value).bytes(mark.id).take();
}

Status incomplete(const std::string& why) {
  return Status(Code::kFailedPrecondition, "RESTORE_INCOMPLETE", "the state was not replaced: " + why);
}

std::string table_prefix(TableNumber table) { return table_key::begin(table).take(); }

}  // namespace

std::string encode_restore_piece(std::string_view id, uint64_t number, std::string_view bytes) {
  return ByteWriter().bytes(id).u64(number).raw(bytes).take();
}

std::string encode_restore_commit(std::string_view id, uint64_t pieces) {
  return ByteWriter().bytes(id).u64(pieces).take();
}

std::string frame_chunk(std::string_view chunk) {
  return ByteWriter().u32(static_cast<uint32_t>(chunk.size())).raw(chunk).take();
}

Result<std::optional<std::string>> ChunkReader::next() {
  ByteReader in(buffer_);
  const uint32_t size = in.u32();
  if (!in.ok()) return std::nullopt;
  if (size > kChunkBytesMax) {
    return fail(Code::kCorruption, "RESTORE_DAMAGED",
                "a chunk of " + std::to_string(size) + " bytes is none that was written");
  }
  if (in.remaining() < size) return std::nullopt;
  std::string chunk(in.raw(size));
  buffer_.erase(0, sizeof size + size);
  return chunk;
}

RestoredMark restored_mark(const KeyReader& state) {
  RestoredMark mark;
  const auto stored = kMeta.get(state, {}, kMarkKey);
  if (!stored) return mark;
  ByteReader in(*stored);
  const uint8_t version = in.u8();
  mark.epoch = in.u64();
  mark.index = LogIndex(in.u64());
  mark.id = in.bytes();
  UCCP_CHECK(version == kMarkVersion && in.at_end(), "the mark of the last restore is readable");
  return mark;
}

Result<SnapshotHeader> read_snapshot_header(GroupId group, const GroupView& view) {
  const auto stored = kMeta.get(view, {}, kMetaKey);
  if (!stored) return fail(Code::kCorruption, "STATE_META_INVALID", "the state has no head record; restore a backup");
  UCCP_TRY(const Machine::Meta meta, Machine::decode_meta(*stored));
  return SnapshotHeader{group,
                        {meta.applied_term, meta.applied},
                        kMeta.get(view, {}, kMembershipKey).value_or(""),
                        meta.feature_level,
                        meta.digest};
}

// Takes the cluster's tables and what a restore left in table 8 out of the new state, and puts those of `old` in.
Status StateReplacement::replace_tables(const GroupView* old, Digest& digest) {
  const GroupView fresh(group_, kv_.view(), LogIndex(), 0, slot_);
  const std::string prefix = group_prefix(group_, slot_);
  storage::KvBatch batch;
  std::set<TableNumber> dropped = cluster_tables_;
  dropped.insert(kRestoreTable);
  for (const TableNumber table : dropped) {
    const std::string from = table_prefix(table);
    fresh.scan(from, prefix_end(from), [&](std::string_view key, std::string_view value) {
      digest.remove(key, value);
      batch.erase(prefix + std::string(key));
      return true;
    });
    if (old == nullptr || table == kRestoreTable) continue;
    old->scan(from, prefix_end(from), [&](std::string_view key, std::string_view value) {
      digest.add(key, value);
      batch.put(prefix + std::string(key), std::string(value));
      return true;
    });
  }
  return kv_.write(batch);
}

Status StateReplacement::finish(const Place& place) {
  UCCP_CHECK(complete(), "a state is used once it is whole");
  const GroupView fresh(group_, kv_.view(), LogIndex(), 0, slot_);
  const auto stored = kMeta.get(fresh, {}, kMetaKey);
  if (!stored) return incomplete("it has no head record");
  UCCP_TRY(Machine::Meta meta, Machine::decode_meta(*stored));
  RestoredMark mark = restored_mark(fresh);
  if (place.old != nullptr) mark.epoch = std::max(mark.epoch, restored_mark(*place.old).epoch);
  mark = {mark.epoch + 1, place.position.index, place.id};
  meta.digest = header().digest;
  UCCP_RETURN_IF_ERROR(replace_tables(place.old, meta.digest));
  meta.applied = place.position.index;
  meta.applied_term = place.position.term;
  meta.time_us = std::max(meta.time_us, place.time_us_min);
  meta.clock_term = place.clock_term;
  meta.clock_boot_us = place.clock_boot_us;
  const std::string prefix = group_prefix(group_, slot_);
  const auto key = [&](std::string_view name) { return prefix + table_key::make(kMetaTable, {}, name); };
  storage::KvBatch batch;
  batch.put(key(kMetaKey), Machine::encode_meta(meta));
  batch.put(key(kMarkKey), encode_mark(mark));
  if (place.membership.empty()) batch.erase(key(kMembershipKey));
  else batch.put(key(kMembershipKey), place.membership);
  batch.put(Machine::slot_key(group_), Machine::encode_slot(slot_, place.position));
  return kv_.write(batch);
}

ApplyResult Machine::stage_piece(EntryContext& context, std::string_view payload) {
  ByteReader in(payload);
  const std::string id(in.bytes());
  const uint64_t number = in.u64();
  const std::string_view bytes = in.rest();
  if (!in.ok()) return fail(incomplete("a piece is malformed"));
  Transaction& state = transaction_of(context);
  StagedHead head = read_head(state);
  if (number == 0) {
    drop_staged(state);
    head = {id, 0};
  }
  if (id != head.id || number != head.next) {
    return fail(incomplete("piece " + std::to_string(number) + " came when " + std::to_string(head.next) +
                           " was next, or of another restore"));
  }
  kStaged.put(state, {}, piece_key(number), std::string(bytes));
  write_head(state, {id, number + 1});
  return std::string();
}

ApplyResult Machine::drop_pieces(EntryContext& context) {
  drop_staged(transaction_of(context));
  return std::string();
}

// Feeds the staged pieces to the replacement. Errors of the stream are `refused`; others are returned.
Status Machine::rebuild(StateReplacement& replacement, uint64_t pieces, Status& refused) const {
  ChunkReader chunks;
  for (uint64_t number = 0; number < pieces; ++number) {
    chunks.add(kStaged.get(view_, {}, piece_key(number)).value_or(""));
    while (true) {
      auto chunk = chunks.next();
      if (!chunk) refused = chunk.error();
      if (!chunk || !*chunk) break;
      refused = replacement.add(**chunk);
      if (!refused.is_ok()) break;
    }
    if (!refused.is_ok()) break;
  }
  const bool of_the_stream = refused.code() == Code::kCorruption || refused.code() == Code::kUnimplemented;
  if (!refused.is_ok() && !of_the_stream) return refused;
  if (refused.is_ok() && (!replacement.complete() || !chunks.empty())) {
    refused = incomplete("the stream is cut off or too long");
  }
  return {};
}

// Nothing of the state in use is touched, so that a crash before the last write leaves the entry to be applied again.
Status Machine::replace_state(const Entry& entry, const Envelope& envelope, Status& refused) {
  ByteReader in(envelope.payload);
  const std::string id(in.bytes());
  const uint64_t pieces = in.u64();
  const StagedHead head = read_head(view_);
  if (!in.at_end() || id != head.id || pieces != head.next) {
    refused = incomplete("its pieces are not all here");
    return {};
  }
  std::set<TableNumber> kept;
  for (const auto& [name, domain] : domains_) {
    for (const TableNumber table : domain->tables_of_the_cluster()) kept.insert(table);
  }
  if (on_spare_slot_) on_spare_slot_();
  StateReplacement replacement(group_, kv_, spare_slot(), std::move(kept));
  UCCP_RETURN_IF_ERROR(rebuild(replacement, pieces, refused));
  if (!refused.is_ok()) return erase_spare_slot();
  UCCP_RETURN_IF_ERROR(replacement.finish({.position = {entry.term, entry.index},
                                           .membership = membership_,
                                           .old = &view_,
                                           .time_us_min = meta_.time_us,
                                           .clock_term = meta_.clock_term,
                                           .clock_boot_us = meta_.clock_boot_us,
                                           .id = id}));
  UCCP_RETURN_IF_ERROR(open());
  log::info("the state was replaced", {{"group", group_.value}, {"index", entry.index.value}, {"restore", id}});
  return {};
}

}  // namespace uccp::machine
