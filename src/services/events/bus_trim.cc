#include "services/events/bus_trim.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "machine/planted.h"
#include "services/events/bus_append.h"

namespace uccp::events {
namespace {

using internal::v1::BusSettings;

bool too_old(const BusSettings& settings, int64_t stored_ms, int64_t now_ms) {
  return settings.retention_ms() > 0 && now_ms - stored_ms > settings.retention_ms();
}

bool too_large(const BusPartitionRow& row) {
  return row.settings().retention_bytes() > 0 && row.bytes() > row.settings().retention_bytes();
}

// The first offset that the number of events leaves.
uint64_t first_by_count(const BusPartitionRow& row) {
  const uint64_t most = row.settings().retention_events();
  if (machine::planted_bug("trim_much")) return std::max(row.first_offset(), row.next_offset() / 2);
  if (most == 0 || row.next_offset() <= most) return row.first_offset();
  return std::max(row.first_offset(), row.next_offset() - most);
}

// Everything up to `offset`, which is in the batch, is gone.
void note_gone(BusPartitionRow& row, const BusIndexRow& batch, uint64_t offset) {
  const bool ordered = batch.order_index() != 0;
  row.set_trimmed_index(ordered ? batch.order_index() : batch.log_index());
  row.set_trimmed_batch(ordered ? batch.order_batch() : batch.batch());
  row.set_trimmed_place(static_cast<uint32_t>(offset - batch.first_offset()));
}

}  // namespace

bool trim_due(const BusPartitionRow& row, int64_t now_ms) {
  if (row.dropped() || row.first_offset() == row.next_offset()) return false;
  return too_old(row.settings(), row.oldest_ms(), now_ms) || too_large(row) || first_by_count(row) > row.first_offset();
}

bool trim_partition(machine::ApplyContext& context, PartitionId id, BusPartitionRow& row, uint32_t& rows_max) {
  const uint64_t first = first_by_count(row);
  std::vector<IndexEntry> gone;
  uint64_t bytes = row.bytes();
  bool done = true;
  std::optional<IndexEntry> cut;  // the oldest batch that stays
  // The newest batch is kept however large it is: whoever publishes may see that it arrived.
  scan_index(context.state(), context.scope(), id, row.first_offset(), [&](IndexEntry entry) {
    const bool newest = entry.last_offset + 1 == row.next_offset();
    const bool oversize = row.settings().retention_bytes() > 0 && bytes > row.settings().retention_bytes() && !newest;
    const bool goes =
        entry.last_offset < first || oversize || too_old(row.settings(), entry.row.stored_ms(), context.now_ms());
    if (goes && gone.size() < rows_max) {
      bytes -= std::min(bytes, entry.row.bytes());
      gone.push_back(std::move(entry));
      return true;
    }
    done = !goes;
    row.set_oldest_ms(entry.row.stored_ms());
    cut = std::move(entry);
    return false;
  });
  for (const IndexEntry& entry : gone) {
    kIndex.erase(context.state(), context.scope(), index_key(id, entry.last_offset));
    release_entry(context, entry.row.log_index(), entry.row.batch());
    note_gone(row, entry.row, entry.last_offset);
  }
  if (!cut) {
    row.set_first_offset(row.next_offset());
    row.set_oldest_ms(0);
  } else if (done && first > cut->row.first_offset()) {
    // The events before `first` are not served any more, and go with their batch.
    row.set_first_offset(std::max(row.first_offset(), first));
    note_gone(row, cut->row, row.first_offset() - 1);
  } else {
    row.set_first_offset(std::max(row.first_offset(), cut->row.first_offset()));
  }
  row.set_bytes(bytes);
  rows_max -= static_cast<uint32_t>(gone.size());
  return done;
}

}  // namespace uccp::events
