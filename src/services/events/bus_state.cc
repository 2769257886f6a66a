#include "services/events/bus_state.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"
#include "call/wire.h"
#include "machine/planted.h"
#include "services/events/bus_append.h"
#include "services/events/bus_compact.h"
#include "services/events/bus_rows.h"
#include "services/events/bus_schedule.h"
#include "services/events/bus_trim.h"
#include "services/events/transaction_part.h"
#include "services/feature_types.h"

namespace uccp::events {
namespace {

using machine::ApplyContext;
using machine::ApplyResult;

template <typename Command>
Command parse(std::string_view payload) {
  Command command;
  UCCP_CHECK(command.ParseFromArray(payload.data(), static_cast<int>(payload.size())), "a command is readable");
  return command;
}

ApplyResult open(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::BusOpenCommand>(payload);
  for (const uint32_t partition : command.partitions()) {
    const std::string key = partition_key({command.topic(), partition});
    BusPartitionRow row = kPartitions.get(context.state(), context.scope(), key).value_or(BusPartitionRow());
    *row.mutable_settings() = command.settings();
    kPartitions.put(context.state(), context.scope(), key, row);
  }
  return std::string();
}

ApplyResult append(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::BusAppendCommand>(payload);
  count_log_bytes(context, payload.size());
  internal::v1::BusAppendResult result;
  for (int i = 0; i < command.batches_size(); ++i) {
    *result.add_batches() = append_batch(context, command.batches(i), static_cast<uint32_t>(i));
  }
  return result.SerializeAsString();
}

// Positions in partitions that are gone are of no use. Whoever was replaced without knowing it moves nothing.
ApplyResult commit(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::BusCommitCommand>(payload);
  internal::v1::BusCommitResult result;
  std::vector<std::pair<std::string, internal::v1::BusPosition>> rows;
  for (const auto& commit : command.commits()) {
    const PartitionId id{commit.topic(), commit.partition()};
    const auto partition = kPartitions.get(context.state(), context.scope(), partition_key(id));
    if (!partition || partition->dropped()) continue;
    const std::string key = position_key(id, commit.subscription());
    const auto stored = kPositions.get(context.state(), context.scope(), key);
    const bool fenced = stored && stored->epoch() > command.epoch() && !machine::planted_bug("old_server");
    result.set_stale(result.stale() || fenced);
    internal::v1::BusPosition position = commit.position();
    if (!commit.has_position()) {
      position = stored.value_or(internal::v1::BusPosition());
      if (!stored) position.set_unset(true);
    } else if (stored && position.moves() <= stored->moves() &&
               context.envelope().feature_level >= services::kTransactionsLevel) {
      keep_settled(*stored, position);
    }
    position.set_epoch(command.epoch());
    rows.emplace_back(key, std::move(position));
  }
  if (!result.stale()) {
    for (const auto& [key, position] : rows) kPositions.put(context.state(), context.scope(), key, position);
  }
  return result.SerializeAsString();
}

ApplyResult forget(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::BusForgetCommand>(payload);
  for (const auto& partition : command.partitions()) {
    kPositions.erase(context.state(), context.scope(),
                     position_key({partition.topic(), partition.partition()}, command.subscription()));
  }
  return std::string();
}

// Rows of one table below a key, at most `rows_max`. True if that was all.
bool erase_below(ApplyContext& context, machine::TableId table, const std::string& key, uint32_t& rows_max) {
  const std::string prefix = machine::table_key::make(table, context.scope(), key);
  std::vector<std::string> keys;
  context.state().scan(prefix, machine::prefix_end(prefix), [&](std::string_view found, std::string_view) {
    keys.emplace_back(found);
    return keys.size() <= rows_max;
  });
  const bool whole = keys.size() <= rows_max;
  if (!whole) keys.pop_back();
  for (const std::string& found : keys) context.state().erase(found);
  rows_max -= static_cast<uint32_t>(keys.size());
  return whole;
}

// Index rows of the topic, at most `rows_max`. True if that was all.
bool erase_index(ApplyContext& context, const std::string& topic, uint32_t& rows_max) {
  std::vector<std::pair<std::string, BusIndexRow>> rows;
  kIndex.scan(context.state(), context.scope(), topic, "", [&](std::string_view key, BusIndexRow row) {
    rows.emplace_back(key, std::move(row));
    return rows.size() <= rows_max;
  });
  const bool whole = rows.size() <= rows_max;
  if (!whole) rows.pop_back();
  for (const auto& [key, row] : rows) {
    kIndex.erase(context.state(), context.scope(), key);
    release_entry(context, row.log_index(), row.batch());
  }
  rows_max -= static_cast<uint32_t>(rows.size());
  return whole;
}

ApplyResult release(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::BusReleaseCommand>(payload);
  internal::v1::BusProgress progress;
  progress.set_done(release_due(context, command.now_us(), std::max<uint32_t>(command.events_max(), 1)));
  return progress.SerializeAsString();
}

ApplyResult compact(ApplyContext& context, std::string_view payload) {
  compact_partition(context, parse<internal::v1::BusCompactCommand>(payload));
  return std::string();
}

ApplyResult retire(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::BusRetireCommand>(payload);
  for (const std::string& key : command.producers()) {
    const auto row = kProducers.get(context.state(), context.scope(), key);
    const bool silent = row && context.now_ms() - row->seen_ms() >= command.idle_ms();
    if (silent) kProducers.erase(context.state(), context.scope(), key);
  }
  return std::string();
}

ApplyResult rewrite(ApplyContext& context, std::string_view payload) {
  count_log_bytes(context, payload.size());
  rewrite_rows(context, parse<internal::v1::BusRewriteCommand>(payload));
  return std::string();
}

ApplyResult trim(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::BusTrimCommand>(payload);
  uint32_t left = std::max<uint32_t>(command.rows_max(), 1);
  internal::v1::BusProgress progress;
  progress.set_done(true);
  for (const auto& named : command.partitions()) {
    const PartitionId id{named.topic(), named.partition()};
    auto row = kPartitions.get(context.state(), context.scope(), partition_key(id));
    if (!row || !trim_due(*row, context.now_ms())) continue;
    const bool done = left > 0 && trim_partition(context, id, *row, left);
    if (!done) progress.set_done(false);
    kPartitions.put(context.state(), context.scope(), partition_key(id), *row);
  }
  return progress.SerializeAsString();
}

// Until the last step the partitions stay, closed to publishers and readers, so that whoever goes on finds them.
ApplyResult drop(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::BusDropCommand>(payload);
  uint32_t left = std::max<uint32_t>(command.rows_max(), 1);
  const std::string topic = ByteWriter().u64(command.topic()).take();
  std::vector<std::pair<std::string, BusPartitionRow>> open;
  kPartitions.scan(context.state(), context.scope(), topic, "", [&](std::string_view key, BusPartitionRow row) {
    if (!row.dropped()) open.emplace_back(key, std::move(row));
    return true;
  });
  for (auto& [key, row] : open) {
    row.set_dropped(true);
    kPartitions.put(context.state(), context.scope(), key, row);
  }
  bool done = erase_index(context, topic, left) && drop_scheduled(context, command.topic(), left);
  for (const machine::TableId table :
       {kProducerTable, kSeenTable, kSeenAgeTable, kPositionTable, kVersionTable, kPartitionTable}) {
    done = done && erase_below(context, table, topic, left);
  }
  internal::v1::BusProgress progress;
  progress.set_done(done);
  return progress.SerializeAsString();
}

}  // namespace

std::map<std::string, machine::ApplyFunction, std::less<>> BusState::commands() {
  return {{"open", open},     {"append", append}, {"drop", drop},       {"trim", trim},       {"release", release},
          {"commit", commit}, {"forget", forget}, {"compact", compact}, {"rewrite", rewrite}, {"retire", retire}};
}

}  // namespace uccp::events
