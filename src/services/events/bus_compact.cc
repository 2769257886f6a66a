#include "services/events/bus_compact.h"

#include <algorithm>
#include <vector>

#include "services/events/bus_append.h"
#include "services/events/transaction_rows.h"
#include "services/feature_types.h"

namespace uccp::events {
namespace {

using internal::v1::BusCompactedRow;
using internal::v1::BusRewrittenRow;
using internal::v1::BusRewrittenWaiting;
using machine::ApplyContext;

// The events that the row still has, counted from its first offset.
std::vector<uint32_t> numbers_of(const BusIndexRow& row, size_t events) {
  if (row.numbers_size() > 0) return {row.numbers().begin(), row.numbers().end()};
  std::vector<uint32_t> numbers(events);
  for (size_t i = 0; i < events; ++i) numbers[i] = static_cast<uint32_t>(i);
  return numbers;
}

// Whoever led before may have been as far already: then nothing is to be done.
void compact_row(ApplyContext& context, PartitionId id, BusPartitionRow& partition, const BusCompactedRow& compacted) {
  const std::string key = index_key(id, compacted.last_offset());
  auto row = kIndex.get(context.state(), context.scope(), key);
  if (!row || compacted.last_offset() + 1 == partition.next_offset()) return;
  const std::vector<uint32_t> places = places_of(*row, row->events());
  const std::vector<uint32_t> numbers = numbers_of(*row, places.size());
  if (!std::ranges::includes(numbers, compacted.gone())) return;
  partition.set_bytes(partition.bytes() - std::min<uint64_t>(partition.bytes(), compacted.bytes()));
  if (static_cast<size_t>(compacted.gone_size()) == numbers.size()) {
    kIndex.erase(context.state(), context.scope(), key);
    return release_entry(context, row->log_index(), row->batch());
  }
  row->set_span(static_cast<uint32_t>(compacted.last_offset() + 1 - row->first_offset()));
  row->set_bytes(row->bytes() - std::min<uint64_t>(row->bytes(), compacted.bytes()));
  row->clear_numbers();
  row->clear_only();
  row->clear_skipped();
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (std::ranges::binary_search(compacted.gone(), numbers[i])) continue;
    row->add_numbers(numbers[i]);
    row->add_only(places[i]);
  }
  kIndex.put(context.state(), context.scope(), key, *row);
}

// True if the row is read from the new entry from now on.
bool rewrite_row(ApplyContext& context, const internal::v1::BusRewriteCommand& command,
                 const BusRewrittenRow& rewritten) {
  const auto& batch = command.batches(static_cast<int>(rewritten.batch()));
  const PartitionId id{batch.topic(), batch.partition()};
  const auto partition = kPartitions.get(context.state(), context.scope(), partition_key(id));
  const std::string key = index_key(id, rewritten.last_offset());
  auto row = kIndex.get(context.state(), context.scope(), key);
  if (!row || !partition || partition->dropped()) return false;
  const bool same = row->log_index() == rewritten.log_index() && row->batch() == rewritten.log_batch() &&
                    places_of(*row, row->events()).size() == rewritten.count();
  if (!same) return false;
  release_entry(context, row->log_index(), row->batch());
  // Its place in the order of the log stays.
  if (row->order_index() == 0) {
    row->set_order_index(row->log_index());
    row->set_order_batch(row->batch());
  }
  row->set_log_index(context.index().value);
  row->set_batch(rewritten.batch());
  row->set_events(static_cast<uint32_t>(batch.events_size()));
  row->clear_skipped();
  row->clear_only();
  for (uint32_t place = 0; place < rewritten.count(); ++place) row->add_only(rewritten.place() + place);
  kIndex.put(context.state(), context.scope(), key, *row);
  return true;
}

// The same of a staged batch, whose key, and so its order, stays.
bool rewrite_staged(ApplyContext& context, const BusRewrittenWaiting& moved, int events) {
  auto row = kStaged.get(context.state(), context.scope(), moved.staged());
  const StagedPlace before{moved.log_index(), moved.log_batch()};
  if (!row || row->heads_size() != events || staged_place(moved.staged(), *row) != before) return false;
  row->set_log_index(context.index().value);
  row->set_batch(moved.batch());
  kStaged.put(context.state(), context.scope(), moved.staged(), *row);
  return true;
}

// The same of a scheduled event.
bool rewrite_scheduled(ApplyContext& context, const BusRewrittenWaiting& moved, int events) {
  auto row = kScheduled.get(context.state(), context.scope(), moved.scheduled());
  const bool same = row && row->log_index() == moved.log_index() && row->batch() == moved.log_batch();
  if (!same || events != 1) return false;
  row->set_log_index(context.index().value);
  row->set_batch(moved.batch());
  row->set_place(0);
  row->set_events(1);
  kScheduled.put(context.state(), context.scope(), moved.scheduled(), *row);
  return true;
}

bool rewrite_waiting(ApplyContext& context, const internal::v1::BusRewriteCommand& command,
                     const BusRewrittenWaiting& moved) {
  const int events = command.batches(static_cast<int>(moved.batch())).events_size();
  const bool is_read =
      moved.has_staged() ? rewrite_staged(context, moved, events) : rewrite_scheduled(context, moved, events);
  if (is_read) release_entry(context, moved.log_index(), moved.log_batch());
  return is_read;
}

}  // namespace

uint64_t uncompacted_bytes(const BusPartitionRow& row) {
  return row.bytes_ever() - std::min<uint64_t>(row.bytes_ever(), row.compacted_bytes_ever());
}

bool compaction_due(const BusPartitionRow& row, int64_t now_ms, const CompactionLimits& limits) {
  if (!row.settings().compacted() || row.dropped()) return false;
  if (row.has_oldest_tombstone_ms() && now_ms - row.oldest_tombstone_ms() > row.settings().tombstone_retention_ms()) {
    return true;
  }
  const uint64_t behind = uncompacted_bytes(row);
  if (behind == 0) return false;
  const uint64_t compacted = row.bytes() - std::min<uint64_t>(row.bytes(), behind);
  return behind >= std::max(limits.bytes_min, compacted) || now_ms - row.compacted_ms() > limits.lag_ms;
}

void compact_partition(ApplyContext& context, const internal::v1::BusCompactCommand& command) {
  const PartitionId id{command.topic(), command.partition()};
  auto partition = kPartitions.get(context.state(), context.scope(), partition_key(id));
  if (!partition || partition->dropped()) return;
  for (const BusCompactedRow& row : command.rows()) compact_row(context, id, *partition, row);
  if (command.has_reached() && command.reached().offset() >= partition->compacted_offset()) {
    partition->set_compacted_offset(command.reached().offset());
    partition->set_compacted_bytes_ever(command.reached().bytes_ever());
    partition->set_compacted_ms(context.now_ms());
    if (command.reached().has_oldest_tombstone_ms()) {
      partition->set_oldest_tombstone_ms(command.reached().oldest_tombstone_ms());
    } else {
      partition->clear_oldest_tombstone_ms();
    }
  }
  kPartitions.put(context.state(), context.scope(), partition_key(id), *partition);
}

void rewrite_rows(ApplyContext& context, const internal::v1::BusRewriteCommand& command) {
  std::map<uint32_t, uint64_t> named;  // rows, by batch
  const auto batches = static_cast<uint32_t>(command.batches_size());
  for (const BusRewrittenRow& row : command.rows()) {
    if (row.batch() < batches && rewrite_row(context, command, row)) ++named[row.batch()];
  }
  for (const BusRewrittenWaiting& row : command.waiting()) {
    if (row.batch() < batches && rewrite_waiting(context, command, row)) ++named[row.batch()];
  }
  for (const auto& [batch, rows] : named) {
    kNeeded.put(context.state(), {}, needed_key(context.index(), batch),
                encode_needed({rows, log_bytes_ever(context.state())}));
  }
}

void count_log_bytes(ApplyContext& context, uint64_t bytes) {
  if (context.envelope().feature_level < services::kCompactionLevel) return;
  kLogBytes.put(context.state(), {}, "", ByteWriter().u64(log_bytes_ever(context.state()) + bytes).take());
}

}  // namespace uccp::events
