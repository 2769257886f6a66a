// WalLogStore: reading entries back, from the cache, the buffer or the disk.
#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "storage/log_checks.h"
#include "storage/wal/format.h"
#include "storage/wal/wal_log_store.h"

namespace uccp::storage {

using wal::EntryPlace;
using wal::GroupIndex;

Result<std::vector<Entry>> WalLogStore::read(GroupId id, LogIndex from, LogIndex to, uint64_t bytes_max) {
  UCCP_RETURN_IF_ERROR(usable());
  UCCP_TRY(const GroupLog log, load(id));
  UCCP_RETURN_IF_ERROR(check_read(id, log.start.index, log.last.index, from, to));
  std::vector<Entry> entries;
  if (from == to) return entries;
  GroupIndex& index = group(id);
  uint64_t bytes = 0;
  while (from < to) {
    const size_t before = entries.size();
    if (const Entry* cached = index.cached(from)) {
      entries.push_back(*cached);
    } else {
      UCCP_RETURN_IF_ERROR(read_run(id, index, from, to, bytes_max - std::min(bytes, bytes_max), entries));
    }
    for (size_t i = before; i < entries.size(); ++i) {
      bytes += entries[i].data.size();
      if (bytes > bytes_max && i > 0) {
        entries.resize(i);
        return entries;
      }
    }
    from = entries.back().index.next();
  }
  return entries;
}

WalLogStore::Segment& WalLogStore::segment(uint64_t sequence) {
  const uint64_t first = segments_.front().sequence;
  UCCP_CHECK(sequence >= first && sequence - first < segments_.size(), "an entry lies in a segment that is there");
  return segments_[sequence - first];
}

Result<Entry> WalLogStore::read_entry(GroupId id, GroupIndex& index, LogIndex at) {
  if (const Entry* cached = index.cached(at)) return *cached;
  std::vector<Entry> entries;
  UCCP_RETURN_IF_ERROR(read_run(id, index, at, at.next(), 0, entries));
  return std::move(entries.front());
}

// Appends at least the entry at `from`, and those after it that one read of the disk brings along.
Status WalLogStore::read_run(GroupId id, GroupIndex& index, LogIndex from, LogIndex to, uint64_t bytes_max,
                             std::vector<Entry>& out) {
  const EntryPlace first = index.place(from);
  if (first.segment == 0) {
    UCCP_TRY(Entry entry, parse_place(id, index, from, buffer_));
    out.push_back(std::move(entry));
    return {};
  }
  uint64_t end = uint64_t{first.offset} + first.bytes;
  uint64_t wanted = first.bytes;
  LogIndex next = from.next();
  for (; next < to && index.cached(next) == nullptr; next = next.next()) {
    const EntryPlace& place = index.place(next);
    wanted += place.bytes;
    // Other groups' records lie between; too many of them are not worth reading.
    if (place.segment != first.segment || place.offset < end || wanted > bytes_max) break;
    if (uint64_t{place.offset} + place.bytes - first.offset > options_.read_bytes) break;
    end = uint64_t{place.offset} + place.bytes;
  }
  std::string bytes;
  UCCP_RETURN_IF_ERROR(segment(first.segment).file->read_at(first.offset, end - first.offset, bytes));
  for (LogIndex at = from; at < next; at = at.next()) {
    const uint64_t offset = index.place(at).offset - first.offset;
    const std::string_view record = offset <= bytes.size() ? std::string_view(bytes).substr(offset) : "";
    UCCP_TRY(Entry entry, parse_place(id, index, at, record));
    out.push_back(std::move(entry));
  }
  return {};
}

// `bytes` begins with the record, or is the whole buffer if it is not written yet.
Result<Entry> WalLogStore::parse_place(GroupId id, GroupIndex& index, LogIndex at, std::string_view bytes) {
  const EntryPlace& place = index.place(at);
  if (place.segment == 0) bytes = bytes.substr(place.offset);
  const auto record = wal::parse_record(bytes);
  const auto entry = record ? wal::parse_entry(record->payload) : std::nullopt;
  auto unpacked = entry ? entry->to_entry() : std::nullopt;
  if (!unpacked || record->group != id || entry->index != at || entry->term != index.term(at)) {
    return fail(fail_for_good(Status(
        Code::kCorruption, "WAL_DAMAGED",
        fmt::format("entry {} of group {} at byte {} of {} is damaged. Remove the node from the cluster, clear its "
                    "data directory and add it again; on a single node restore a backup",
                    at.value, id.value, place.offset, path_of(place.segment)))));
  }
  return std::move(*unpacked);
}

}  // namespace uccp::storage
