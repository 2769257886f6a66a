// A machine with the state of a bus group and no raft, for tests: applies commands and checks after each that digest,
// index and the rows of needed entries fit together.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "base/bytes.h"

#include "machine/machine.h"
#include "services/events/batches.h"
#include "services/events/bus_rows.h"
#include "services/events/bus_state.h"
#include "services/events/transaction_rows.h"
#include "services/events/transactions_state.h"
#include "storage/memory/memory_kv.h"
#include "uccp/v1/events.pb.h"

namespace uccp::events {

inline const machine::Scope kLabScope{"t", "n"};

class BusLab {
 public:
  BusLab() : machine_(bus_group(0), kv_, {&state_, &transactions_}) { EXPECT_TRUE(machine_.open().is_ok()); }

  machine::ApplyResult apply(std::string command, std::string payload) {
    machine::Envelope e;
    e.scope = kLabScope;
    e.principal = "p";
    e.command = std::move(command);
    e.boot = {now_ms * 1000};
    e.feature_level = feature_level;
    e.wall = {1'700'000'000'000'000 + (now_ms + wall_jump_ms) * 1000};
    e.payload = std::move(payload);
    const Entry entry{Term(1), machine_.applied().next(), EntryKind::kCommand, machine::encode_envelope(e)};
    log[entry.index.value] = entry;
    auto batch = machine_.apply({&entry, 1});
    EXPECT_TRUE(batch.has_value());
    for (machine::Change& change : batch->changes) changes.push_back(std::move(change));
    check();
    return batch->results[0].result;
  }
  void open(uint64_t topic, uint32_t partitions, internal::v1::BusSettings settings = {}) {
    internal::v1::BusOpenCommand command;
    command.set_topic(topic);
    for (uint32_t partition = 0; partition < partitions; ++partition) command.add_partitions(partition);
    *command.mutable_settings() = std::move(settings);
    EXPECT_TRUE(apply("bus.open", command.SerializeAsString()).has_value());
  }
  static internal::v1::BusBatch batch(uint64_t topic, uint32_t partition, const std::vector<std::string>& texts) {
    internal::v1::BusBatch batch;
    batch.set_topic(topic);
    batch.set_partition(partition);
    for (const std::string& text : texts) {
      v1::Event event;
      event.set_text(text);
      *batch.add_events() = event.SerializeAsString();
    }
    return batch;
  }
  std::vector<internal::v1::BusBatchResult> append(const std::vector<internal::v1::BusBatch>& batches) {
    internal::v1::BusAppendCommand command;
    for (const auto& batch : batches) *command.add_batches() = batch;
    const auto answer = apply("bus.append", command.SerializeAsString());
    internal::v1::BusAppendResult result;
    EXPECT_TRUE(answer && result.ParseFromString(*answer));
    return {result.batches().begin(), result.batches().end()};
  }
  internal::v1::BusBatchResult append(const internal::v1::BusBatch& batch) {
    return append(std::vector{batch}).front();
  }
  // Steps until nothing is left to do.
  template <typename Command>
  int run_to_end(const std::string& verb, const Command& command) {
    for (int steps = 1;; ++steps) {
      const auto answer = apply("bus." + verb, command.SerializeAsString());
      internal::v1::BusProgress progress;
      EXPECT_TRUE(answer && progress.ParseFromString(*answer));
      if (progress.done()) return steps;
    }
  }

  BusPartitionRow partition(uint64_t topic, uint32_t number) const {
    return kPartitions.get(machine_.view(), kLabScope, partition_key({topic, number})).value_or(BusPartitionRow());
  }
  // The texts of a partition from `offset` on, read as a subscriber would: from the index and the log.
  std::vector<std::string> read(uint64_t topic, uint32_t number, uint64_t offset = 0) const {
    std::vector<std::string> texts;
    scan_index(machine_.view(), kLabScope, {topic, number}, offset, [&](IndexEntry entry) {
      const auto batches = decode_entry(log.at(entry.row.log_index()));
      EXPECT_TRUE(batches.has_value());
      const auto batch = make_batch(bus_group(0), {topic, number}, entry.row, (*batches)[entry.row.batch()]);
      EXPECT_EQ(batch->next_offset(), entry.last_offset + 1);
      for (size_t i = 0; i < batch->places.size(); ++i) {
        if (batch->offset(i) < offset) continue;
        v1::Event event;
        EXPECT_TRUE(event.ParseFromString(std::string(batch->event(i))));
        texts.push_back(event.text());
      }
      return true;
    });
    return texts;
  }
  // The offsets that it still has.
  std::vector<uint64_t> offsets(uint64_t topic, uint32_t number) const {
    std::vector<uint64_t> offsets;
    scan_index(machine_.view(), kLabScope, {topic, number}, 0, [&](IndexEntry entry) {
      const auto batches = decode_entry(log.at(entry.row.log_index()));
      const auto batch = make_batch(bus_group(0), {topic, number}, entry.row, (*batches)[entry.row.batch()]);
      for (size_t i = 0; i < batch->places.size(); ++i) offsets.push_back(batch->offset(i));
      return true;
    });
    return offsets;
  }
  LogIndex floor() const { return log_floor(machine_.view()); }
  size_t rows_of(machine::TableId table) const {
    size_t rows = 0;
    const std::string prefix = machine::table_key::begin(table).take();
    machine_.view().scan(prefix, machine::prefix_end(prefix), [&](auto, auto) { return ++rows > 0; });
    return rows;
  }
  const machine::Machine& machine() const { return machine_; }

  int64_t now_ms = 1000;
  int64_t wall_jump_ms = 0;
  uint32_t feature_level = 2;
  std::map<uint64_t, Entry> log;
  std::vector<machine::Change> changes;

 private:
  // Each needed entry is named by as many rows as it says, and no other one is.
  void check() const {
    EXPECT_TRUE(machine_.verify_digest().is_ok());
    std::map<std::pair<uint64_t, uint32_t>, uint64_t> named, needed;
    kIndex.scan_all(machine_.view(), [&](const machine::Scope&, std::string_view, const BusIndexRow& row) {
      ++named[{row.log_index(), row.batch()}];
      return true;
    });
    kNeeded.scan(machine_.view(), {}, "", "", [&](std::string_view key, std::string_view count) {
      ByteReader in(key);
      const uint64_t index = in.u64();
      needed[{index, in.u32()}] = decode_needed(count).rows;
      return true;
    });
    kScheduled.scan_all(machine_.view(), [&](const machine::Scope&, std::string_view, const auto& row) {
      ++named[{row.log_index(), row.batch()}];
      return true;
    });
    kStaged.scan_all(machine_.view(), [&](const machine::Scope&, std::string_view key, const auto& row) {
      const StagedPlace place = staged_place(key, row);
      ++named[{place.log_index, place.batch}];
      return true;
    });
    EXPECT_EQ(named, needed);
  }

  storage::MemoryKv kv_;
  BusState state_;
  TransactionsState transactions_;
  machine::Machine machine_;
};

}  // namespace uccp::events
