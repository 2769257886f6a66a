#include "services/events/bus_rows.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"

namespace uccp::events {

using machine::KeyReader;
using machine::Scope;

std::string bus_group_name(uint32_t number) { return "bus-" + std::to_string(number); }

std::string partition_key(PartitionId id) { return ByteWriter().u64(id.topic).u32(id.partition).take(); }

PartitionId decode_partition_key(std::string_view key) {
  ByteReader in(key);
  PartitionId id;
  id.topic = in.u64();
  id.partition = in.u32();
  UCCP_CHECK(in.ok(), "the key of a partition is readable");
  return id;
}

std::string index_key(PartitionId id, uint64_t last_offset) {
  return ByteWriter().u64(id.topic).u32(id.partition).u64(last_offset).take();
}

std::string position_key(PartitionId id, uint64_t subscription) {
  return ByteWriter().u64(id.topic).u32(id.partition).u64(subscription).take();
}

std::string needed_key(LogIndex index, uint32_t batch) { return ByteWriter().u64(index.value).u32(batch).take(); }

void scan_index(const KeyReader& state, const Scope& scope, PartitionId id, uint64_t offset,
                const std::function<bool(IndexEntry)>& visit) {
  const std::string prefix = partition_key(id);
  kIndex.scan(state, scope, prefix, index_key(id, offset), [&](std::string_view key, BusIndexRow row) {
    return visit({ByteReader(key.substr(prefix.size())).u64(), std::move(row)});
  });
}

std::optional<IndexEntry> find_index(const KeyReader& state, const Scope& scope, PartitionId id, uint64_t offset) {
  std::optional<IndexEntry> found;
  scan_index(state, scope, id, offset, [&](IndexEntry entry) {
    found = std::move(entry);
    return false;
  });
  return found;
}

uint64_t first_offset_where(const KeyReader& state, const Scope& scope, PartitionId id,
                            const BusPartitionRow& partition, const std::function<bool(const BusIndexRow&)>& reached) {
  uint64_t low = partition.first_offset();
  uint64_t high = partition.next_offset();
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    const auto entry = find_index(state, scope, id, middle);
    // Compacted offsets at the end have no row.
    if (!entry || reached(entry->row)) high = middle;
    else low = entry->last_offset + 1;
  }
  return std::min(low, partition.next_offset());
}

std::string encode_needed(const Needed& needed) {
  ByteWriter out;
  out.varint(needed.rows);
  if (needed.bytes > 0) out.varint(needed.bytes);
  return out.take();
}

Needed decode_needed(std::string_view bytes) {
  ByteReader in(bytes);
  Needed needed;
  needed.rows = in.varint();
  if (!in.at_end()) needed.bytes = in.varint();
  UCCP_CHECK(in.at_end(), "a row of a needed entry is readable");
  return needed;
}

uint64_t log_bytes_ever(const KeyReader& state) {
  const auto stored = kLogBytes.get(state, {}, "");
  return stored ? ByteReader(*stored).u64() : 0;
}

uint64_t log_bytes_held(const KeyReader& state) {
  uint64_t before = log_bytes_ever(state);
  kNeeded.scan(state, {}, "", "", [&before](std::string_view, std::string_view row) {
    before = decode_needed(row).bytes;
    return false;
  });
  return log_bytes_ever(state) - std::min(log_bytes_ever(state), before);
}

LogIndex log_floor(const KeyReader& state, LogIndex from) {
  LogIndex floor;
  kNeeded.scan(state, {}, "", needed_key(from, 0), [&](std::string_view key, std::string_view) {
    floor = LogIndex(ByteReader(key).u64());
    return false;
  });
  return floor;
}

std::vector<uint32_t> places_of(const BusIndexRow& row, uint32_t size) {
  if (row.only_size() > 0) return {row.only().begin(), row.only().end()};
  std::vector<uint32_t> places;
  auto skipped = row.skipped().begin();
  for (uint32_t place = 0; place < size; ++place) {
    if (skipped != row.skipped().end() && *skipped == place) ++skipped;
    else places.push_back(place);
  }
  return places;
}

}  // namespace uccp::events
