#include "services/events/transaction_part.h"

#include <algorithm>
#include <set>

#include "base/bytes.h"
#include "call/wire.h"
#include "machine/planted.h"
#include "services/events/bus_append.h"
#include "services/events/bus_state.h"

namespace uccp::events {
namespace {

using internal::v1::BusBatch;
using internal::v1::BusBatchResult;
using internal::v1::BusPosition;
using internal::v1::BusProgress;
using machine::ApplyContext;
using machine::Scope;

void put_guard(ApplyContext& context, const std::string& producer, uint64_t number, bool ended) {
  TransactionGuardRow guard;
  guard.set_number(number);
  guard.set_ended(ended);
  guard.set_seen_ms(context.now_ms());
  kGuards.put(context.state(), context.scope(), producer, guard);
}

// Whether the transaction may still bring something. It may not when it has ended, or when a later one of its producer
// was here, which begins only behind the end of those before.
bool enter(ApplyContext& context, uint64_t number, const std::string& producer) {
  const auto stored = kGuards.get(context.state(), context.scope(), producer);
  if (stored && stored->number() == number) return !stored->ended();
  if (stored && stored->number() > number) return false;
  put_guard(context, producer, number, false);
  return true;
}

// From here on nothing of it comes. False if a later one was here: then nothing of it is left.
bool note_ended(ApplyContext& context, uint64_t number, const std::string& producer) {
  const auto stored = kGuards.get(context.state(), context.scope(), producer);
  if (stored && stored->number() > number) return false;
  if (stored && stored->number() == number && stored->ended()) return true;
  put_guard(context, producer, number, true);
  return true;
}

std::string head_of(std::string_view event) {
  std::string head;
  call::WireReader reader(event);
  for (call::WireField field; reader.next(field);) {
    if (field.number == v1::Event::kIdFieldNumber || field.number == v1::Event::kKeyFieldNumber) {
      call::put_bytes(head, field.number, field.bytes);
    }
  }
  return head;
}

// Ends staged batches, about `events_max` events. True if none is left.
bool settle_batches(ApplyContext& context, const internal::v1::TransactionSettleCommand& command) {
  std::vector<std::pair<std::string, TransactionStagedRow>> rows;
  uint64_t events = 0;
  bool whole = true;
  kStaged.scan(context.state(), context.scope(), transaction_key(command.number()), "",
               [&](std::string_view key, TransactionStagedRow row) {
                 whole = rows.empty() || events < command.events_max();
                 if (!whole) return false;
                 events += static_cast<uint64_t>(row.heads_size());
                 rows.emplace_back(key, std::move(row));
                 return true;
               });
  uint32_t order = 0;
  for (const auto& [key, row] : rows) {
    kStaged.erase(context.state(), context.scope(), key);
    const StagedPlace place = staged_place(key, row);
    const StagedBatch staged{.log_index = place.log_index, .batch = place.batch, .order = order++, .row = row};
    if (command.commit()) append_staged(context, staged);
    else release_entry(context, staged.log_index, staged.batch);
  }
  return whole;
}

// Ends what is held, at most `rows_max` rows. True if none is left.
bool settle_held(ApplyContext& context, const internal::v1::TransactionSettleCommand& command, uint32_t rows_max) {
  std::vector<std::pair<std::string, TransactionHeldRow>> rows;
  bool whole = true;
  kHeld.scan(context.state(), context.scope(), transaction_key(command.number()), "",
             [&](std::string_view key, TransactionHeldRow row) {
               whole = rows.size() < rows_max;
               if (whole) rows.emplace_back(key, std::move(row));
               return whole;
             });
  for (const auto& [key, row] : rows) {
    kHeld.erase(context.state(), context.scope(), key);
    // Who serves the subscription looks at the guard.
    if (command.stray()) note_ended(context, command.number(), row.producer_id());
    ByteReader in(key);
    in.u64();
    const uint64_t subscription = in.u64();
    PartitionId id;
    id.topic = in.u64();
    id.partition = in.u32();
    const std::string at = position_key(id, subscription);
    auto position = kPositions.get(context.state(), context.scope(), at);
    context.notify(kBusTopic, partition_key(id), kHeldChange, "");
    if (!command.commit() || !position || position->moves() != row.moves()) continue;
    std::set<uint64_t> settled(position->settled().begin(), position->settled().end());
    settled.insert(row.offsets().begin(), row.offsets().end());
    position->mutable_settled()->Assign(settled.begin(), settled.end());
    kPositions.put(context.state(), context.scope(), at, *position);
  }
  return whole;
}

}  // namespace

BusBatchResult stage_batch(ApplyContext& context, const BusBatch& batch, uint32_t number) {
  BusBatchResult result;
  if (!enter(context, batch.transaction(), batch.transaction_producer())) {
    result.set_refusal(BusBatchResult::REFUSAL_TRANSACTION_ENDED);
    return result;
  }
  TransactionStagedRow row;
  row.set_topic(batch.topic());
  row.set_partition(batch.partition());
  for (const std::string& event : batch.events()) {
    row.add_heads(head_of(event));
    row.add_sizes(static_cast<uint32_t>(event.size()));
  }
  kStaged.put(context.state(), context.scope(), staged_key(batch.transaction(), context.index().value, number), row);
  kNeeded.put_new(context.state(), {}, needed_key(context.index(), number),
                  encode_needed({1, log_bytes_ever(context.state())}));
  result.set_staged(true);
  return result;
}

Result<internal::v1::TransactionHoldResult> hold_deliveries(ApplyContext& context,
                                                            const internal::v1::TransactionHoldCommand& command) {
  internal::v1::TransactionHoldResult result;
  std::vector<std::pair<std::string, TransactionHeldRow>> rows;
  for (const auto& hold : command.holds()) {
    const PartitionId id{hold.topic(), hold.partition()};
    const auto position = kPositions.get(context.state(), context.scope(), position_key(id, command.subscription()));
    // Who serves a subscription has taken its position over before it delivers.
    if (!position || position->epoch() != command.epoch()) {
      result.set_stale(true);
      return result;
    }
    const std::string key = held_key(command.number(), command.subscription(), id);
    auto row = kHeld.get(context.state(), context.scope(), key).value_or(TransactionHeldRow());
    // What was held before a seek means nothing any more.
    std::set<uint64_t> offsets;
    if (row.moves() == position->moves()) offsets.insert(row.offsets().begin(), row.offsets().end());
    offsets.insert(hold.offsets().begin(), hold.offsets().end());
    row.mutable_offsets()->Assign(offsets.begin(), offsets.end());
    row.set_moves(position->moves());
    row.set_producer_id(command.producer_id());
    rows.emplace_back(key, std::move(row));
  }
  if (!enter(context, command.number(), command.producer_id())) {
    result.set_ended(true);
    return result;
  }
  for (const auto& [key, row] : rows) kHeld.put(context.state(), context.scope(), key, row);
  return result;
}

Result<BusProgress> settle_part(ApplyContext& context, const internal::v1::TransactionSettleCommand& command) {
  BusProgress progress;
  progress.set_done(true);
  if (!command.stray() && !note_ended(context, command.number(), command.producer_id())) return progress;
  const uint32_t most = std::max<uint32_t>(command.events_max(), 1);
  progress.set_done(settle_batches(context, command) && settle_held(context, command, most));
  return progress;
}

void retire_guard(ApplyContext& context, const std::string& producer, int64_t idle_ms) {
  const auto row = kGuards.get(context.state(), context.scope(), producer);
  if (row && context.now_ms() - row->seen_ms() >= idle_ms) kGuards.erase(context.state(), context.scope(), producer);
}

void keep_settled(const BusPosition& stored, BusPosition& moved) {
  moved.clear_settled();
  moved.set_moves(stored.moves());
  if (machine::planted_bug("lose_settled")) return;
  const std::set<uint64_t> above(moved.above().begin(), moved.above().end());
  for (const uint64_t offset : stored.settled()) {
    if (offset >= moved.offset() && !above.contains(offset)) moved.add_settled(offset);
  }
}

}  // namespace uccp::events
