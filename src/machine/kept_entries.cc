#include "machine/kept_entries.h"

#include "base/bytes.h"
#include "base/check.h"
#include "machine/table.h"

namespace uccp::machine {
namespace {

std::string row_key(LogIndex index) { return table_key::make(kEntryTable, {}, ByteWriter().u64(index.value).take()); }

}  // namespace

Status keep_entries(storage::Kv& kv, GroupId group, StateSlot slot, std::span<const Entry> entries) {
  storage::KvBatch batch;
  const std::string prefix = group_prefix(group, slot);
  for (const Entry& entry : entries) {
    if (entry.kind != EntryKind::kCommand) continue;
    batch.put(prefix + row_key(entry.index), ByteWriter().u64(entry.term.value).raw(entry.data).take());
  }
  return batch.empty() ? Status::ok() : kv.write(batch);
}

std::vector<Entry> read_kept(const KeyReader& state, LogIndex from, LogIndex to, uint64_t bytes_max) {
  std::vector<Entry> entries;
  uint64_t bytes = 0;
  state.scan(row_key(from), row_key(to), [&](std::string_view key, std::string_view row) {
    ByteReader in(row);
    Entry entry{Term(in.u64()), LogIndex(ByteReader(key.substr(key.size() - sizeof(uint64_t))).u64()),
                EntryKind::kCommand, std::string(in.rest())};
    UCCP_CHECK(in.ok(), "a kept entry is readable");
    bytes += entry.data.size();
    if (!entries.empty() && bytes > bytes_max) return false;
    entries.push_back(std::move(entry));
    return true;
  });
  return entries;
}

Status drop_kept(storage::Kv& kv, GroupId group, StateSlot slot, LogIndex index) {
  const std::string prefix = group_prefix(group, slot);
  return kv.erase_range(prefix + row_key(LogIndex(0)), prefix + row_key(index));
}

Status drop_kept_from(storage::Kv& kv, GroupId group, StateSlot slot, LogIndex index) {
  const std::string prefix = group_prefix(group, slot);
  return kv.erase_range(prefix + row_key(index), prefix + row_key(LogIndex(UINT64_MAX)));
}

}  // namespace uccp::machine
