#include "services/events/bus_append.h"

#include <algorithm>
#include <set>

#include "base/bytes.h"
#include "base/check.h"
#include "call/wire.h"
#include "machine/planted.h"
#include "services/events/bus_schedule.h"
#include "services/events/bus_state.h"
#include "services/events/bus_trim.h"
#include "services/events/transaction_part.h"
#include "services/feature_types.h"
#include "uccp/v1/events.pb.h"

namespace uccp::events {
namespace {

using internal::v1::BusBatch;
using internal::v1::BusBatchResult;
using internal::v1::BusProducerRow;
using internal::v1::BusSeenRow;
using machine::ApplyContext;

std::string_view bytes_of(std::string_view event, int number) {
  std::string_view bytes;
  call::WireReader reader(event);
  for (call::WireField field; reader.next(field);) {
    if (field.number == static_cast<uint32_t>(number)) bytes = field.bytes;
  }
  return bytes;
}
// The id that the publisher gave; empty if none. A stored event has no other one.
std::string_view id_of(std::string_view event) { return bytes_of(event, v1::Event::kIdFieldNumber); }
std::string_view key_of(std::string_view event) { return bytes_of(event, v1::Event::kKeyFieldNumber); }

std::string version_key(PartitionId id, std::string_view key) { return partition_key(id) + std::string(key); }

uint64_t version_of(const machine::KeyReader& state, const machine::Scope& scope, PartitionId id,
                    std::string_view key) {
  const auto stored = kVersions.get(state, scope, version_key(id, key));
  return stored ? ByteReader(*stored).u64() : 0;
}

void put_version(ApplyContext& context, const machine::Scope& scope, PartitionId id, std::string_view key,
                 uint64_t version) {
  kVersions.put(context.state(), scope, version_key(id, key), ByteWriter().u64(version).take());
}

// One batch on its way into a partition.
class Append {
 public:
  Append(ApplyContext& context, const BusBatch& batch, uint32_t number, BusPartitionRow row)
      : c_(context), batch_(batch), number_(number), id_{batch.topic(), batch.partition()}, row_(std::move(row)) {}
  // `heads` has the ids and keys of the staged events.
  Append(ApplyContext& context, const BusBatch& heads, const StagedBatch& staged, BusPartitionRow row)
      : Append(context, heads, staged.order, std::move(row)) {
    staged_ = &staged;
  }

  BusBatchResult run() {
    if (batch_.has_expected_offset() && batch_.expected_offset() != row_.next_offset()) {
      refuse(BusBatchResult::REFUSAL_UNEXPECTED_OFFSET, row_.next_offset());
      return std::move(result_);
    }
    if (batch_.has_expected_version()) {
      const uint64_t version = version_of(c_.state(), c_.scope(), id_, key_of(batch_.events(0)));
      if (batch_.expected_version() != version) {
        refuse(BusBatchResult::REFUSAL_UNEXPECTED_VERSION, version);
        return std::move(result_);
      }
      row_.set_versioned(true);
    }
    if (row_.scheduled() + later_events() > kScheduledMax) {
      refuse(BusBatchResult::REFUSAL_SCHEDULED_FULL, kScheduledMax);
      return std::move(result_);
    }
    if (!batch_.producer_id().empty() && !check_producer()) return std::move(result_);
    // Nothing is refused from here on.
    forget_old();
    find_repeats();
    schedule();
    result_.set_first_offset(row_.next_offset());
    const auto skipped = static_cast<uint64_t>(result_.duplicates_size() + result_.scheduled_size());
    const auto count = static_cast<uint64_t>(batch_.events_size()) - skipped;
    if (count > 0) store(count);
    if (count > 0 && row_.versioned()) count_versions();
    if (count > 0 || result_.scheduled_size() > 0) {
      // Rows that nobody had before: there is nothing to read.
      const uint64_t rows = static_cast<uint64_t>(result_.scheduled_size()) + (count > 0 ? 1 : 0);
      c_.state().replace(machine::table_key::make(kNeededTable, {}, needed_key(c_.index(), number_)), std::nullopt,
                         encode_needed({rows, log_bytes_ever(c_.state())}));
      kPartitions.put(c_.state(), c_.scope(), partition_key(id_), row_);
    }
    if (!batch_.producer_id().empty()) kProducers.put(c_.state(), c_.scope(), producer_key(), producer_);
    return std::move(result_);
  }

  // Everything was checked when it was staged, but for ids that came since.
  void settle() {
    forget_old();
    find_repeats();
    const auto count = static_cast<uint64_t>(batch_.events_size() - result_.duplicates_size());
    if (count > 0) store(count);
    else release_entry(c_, staged_->log_index, staged_->batch);
    if (count > 0 && row_.versioned()) count_versions();
    kPartitions.put(c_.state(), c_.scope(), partition_key(id_), row_);
  }

 private:
  void refuse(BusBatchResult::Refusal why, uint64_t expected) {
    result_.set_refusal(why);
    result_.set_expected(expected);
  }

  std::string producer_key() const { return partition_key(id_) + batch_.producer_id(); }

  // False if the batch is refused. Otherwise the first repeated_ events were stored before.
  bool check_producer() {
    const auto stored = kProducers.get(c_.state(), c_.scope(), producer_key());
    // What it sent last cannot be told from what it sends now.
    if (!stored && batch_.sequence() > 1 && c_.envelope().feature_level >= services::kRetirementLevel) {
      refuse(BusBatchResult::REFUSAL_UNKNOWN_PRODUCER, 1);
      return false;
    }
    producer_ = stored.value_or(BusProducerRow());
    if (batch_.producer_epoch() < producer_.epoch()) {
      refuse(BusBatchResult::REFUSAL_STALE_EPOCH, producer_.epoch());
      return false;
    }
    if (batch_.producer_epoch() > producer_.epoch()) {
      producer_.Clear();
      producer_.set_epoch(batch_.producer_epoch());
    }
    producer_.set_seen_ms(c_.now_ms());
    if (batch_.sequence() == 0) return true;
    const uint64_t next = std::max<uint64_t>(producer_.next_sequence(), 1);
    if (batch_.sequence() > next) {
      refuse(BusBatchResult::REFUSAL_SEQUENCE_GAP, next);
      return false;
    }
    repeated_ = std::min<uint64_t>(next - batch_.sequence(), static_cast<uint64_t>(batch_.events_size()));
    if (machine::planted_bug("forget_producer")) repeated_ = 0;
    for (uint64_t place = 0; place < repeated_; ++place) {
      const uint64_t sequence = batch_.sequence() + place;
      const bool known = sequence >= producer_.last_sequence() && producer_.last_sequence() > 0;
      repeat(static_cast<uint32_t>(place),
             known ? producer_.last_offset() + (sequence - producer_.last_sequence()) : 0);
    }
    if (repeated_ == static_cast<uint64_t>(batch_.events_size())) return true;
    producer_.set_next_sequence(batch_.sequence() + static_cast<uint64_t>(batch_.events_size()));
    producer_.set_last_sequence(next);
    producer_.set_last_offset(row_.next_offset());
    return true;
  }

  void repeat(uint32_t place, uint64_t offset) {
    result_.add_duplicates(place);
    result_.add_duplicate_offsets(offset);
  }

  void forget_old() {
    const int64_t before_ms = c_.now_ms() - row_.settings().dedup_window_ms();
    if (!row_.has_oldest_id_ms() || row_.oldest_id_ms() > before_ms) return;
    row_.clear_oldest_id_ms();
    std::vector<std::pair<std::string, std::string>> old;
    const std::string prefix = partition_key(id_);
    kSeenAge.scan(c_.state(), c_.scope(), prefix, "", [&](std::string_view key, std::string_view id) {
      const auto age_ms = static_cast<int64_t>(ByteReader(key.substr(prefix.size())).u64());
      if (age_ms > before_ms || old.size() == kForgottenPerBatch) {
        row_.set_oldest_id_ms(age_ms);
        return false;
      }
      old.emplace_back(key, id);
      return true;
    });
    for (const auto& [key, id] : old) {
      kSeenAge.erase(c_.state(), c_.scope(), key);
      const auto seen = kSeen.get(c_.state(), c_.scope(), prefix + id);
      // Its id may have come again since, and counts from then on.
      if (seen && seen->seen_ms() <= before_ms) kSeen.erase(c_.state(), c_.scope(), prefix + id);
    }
  }

  // Ids that were published within the window, and those that come twice in this batch.
  void find_repeats() {
    const int64_t window_ms = row_.settings().dedup_window_ms();
    if (window_ms == 0) return;
    uint64_t offset = row_.next_offset();
    std::map<std::string, uint64_t, std::less<>> here;
    for (auto place = static_cast<uint32_t>(repeated_); place < static_cast<uint32_t>(batch_.events_size()); ++place) {
      const std::string_view id = id_of(batch_.events(static_cast<int>(place)));
      if (id.empty()) {
        ++offset;
        continue;
      }
      const std::string key = partition_key(id_) + std::string(id);
      const auto seen = kSeen.get(c_.state(), c_.scope(), key);
      if (seen && c_.now_ms() - seen->seen_ms() < window_ms) {
        repeat(place, seen->offset());
        continue;
      }
      if (const auto [it, fresh] = here.emplace(id, offset); !fresh) {
        repeat(place, it->second);
        continue;
      }
      ++offset;
    }
    if (!here.empty() && !row_.has_oldest_id_ms()) row_.set_oldest_id_ms(c_.now_ms());
    for (const auto& [id, at] : here) {
      BusSeenRow row;
      row.set_offset(at);
      row.set_seen_ms(c_.now_ms());
      kSeen.put(c_.state(), c_.scope(), partition_key(id_) + id, row);
      kSeenAge.put(c_.state(), c_.scope(),
                   ByteWriter().raw(partition_key(id_)).u64(static_cast<uint64_t>(c_.now_ms())).u64(at).take(), id);
    }
  }

  bool is_later(std::string_view event) const { return deliver_us(event) > c_.envelope().wall.us; }

  uint64_t later_events() const {
    return static_cast<uint64_t>(std::ranges::count_if(batch_.events(), [this](const auto& e) { return is_later(e); }));
  }

  // Sets events aside whose time is still to come.
  void schedule() {
    const std::set<uint32_t> repeats(result_.duplicates().begin(), result_.duplicates().end());
    for (uint32_t place = 0; place < static_cast<uint32_t>(batch_.events_size()); ++place) {
      const std::string& event = batch_.events(static_cast<int>(place));
      if (!is_later(event) || repeats.contains(place)) continue;
      result_.add_scheduled(place);
      put_scheduled(c_, id_, deliver_us(event), number_, place, batch_, key_of(event));
      row_.set_scheduled(row_.scheduled() + 1);
    }
  }

  // Places of events that get no offset now.
  std::set<uint32_t> left_out() const {
    std::set<uint32_t> places(result_.duplicates().begin(), result_.duplicates().end());
    places.insert(result_.scheduled().begin(), result_.scheduled().end());
    return places;
  }

  // Keys that have a version have one more with each event, whoever published it.
  void count_versions() {
    const std::set<uint32_t> skipped = left_out();
    std::map<std::string_view, uint64_t> more;
    for (uint32_t place = 0; place < static_cast<uint32_t>(batch_.events_size()); ++place) {
      const std::string_view key = key_of(batch_.events(static_cast<int>(place)));
      if (!key.empty() && !skipped.contains(place)) ++more[key];
    }
    for (const auto& [key, count] : more) {
      if (!batch_.has_expected_version()) {
        count_version(c_, c_.scope(), id_, key, count);
        continue;
      }
      result_.set_version(version_of(c_.state(), c_.scope(), id_, key) + count);
      put_version(c_, c_.scope(), id_, key, result_.version());
    }
  }

  void store(uint64_t count) {
    const BusIndexRow index = make_row(count);
    if (row_.first_offset() == row_.next_offset()) row_.set_oldest_ms(index.stored_ms());
    row_.set_next_offset(row_.next_offset() + count);
    row_.set_bytes(row_.bytes() + index.bytes());
    row_.set_bytes_ever(index.bytes_ever());
    // Rows that nobody had before: there is nothing to read.
    c_.state().replace(machine::table_key::make(kIndexTable, c_.scope(), index_key(id_, row_.next_offset() - 1)),
                       std::nullopt, machine::Table<BusIndexRow>::serialize(index));
    uint32_t rows_max = kTrimmedPerBatch;
    if (trim_due(row_, c_.now_ms())) trim_partition(c_, id_, row_, rows_max);
    internal::v1::BusNotice notice;
    *notice.mutable_row() = index;
    // Content in an older entry of the log is read there by whoever is told.
    if (staged_ == nullptr) *notice.mutable_batch() = batch_;
    c_.notify(kBusTopic, partition_key(id_), kBatchChange, notice.SerializeAsString());
  }

  BusIndexRow make_row(uint64_t count) const {
    uint64_t bytes = 0;
    const std::set<uint32_t> skipped = left_out();
    for (int place = 0; place < batch_.events_size(); ++place) {
      if (skipped.contains(static_cast<uint32_t>(place))) continue;
      bytes += staged_ != nullptr ? staged_->row.sizes(place) : batch_.events(place).size();
    }
    BusIndexRow index;
    index.set_log_index(staged_ != nullptr ? staged_->log_index : c_.index().value);
    index.set_batch(staged_ != nullptr ? staged_->batch : number_);
    if (staged_ != nullptr) {
      index.set_order_index(c_.index().value);
      index.set_order_batch(number_);
    }
    index.set_first_offset(row_.next_offset());
    index.set_publish_us(c_.envelope().wall.us);
    index.set_events(static_cast<uint32_t>(batch_.events_size()));
    for (const uint32_t place : skipped) index.add_skipped(place);
    index.set_bytes(bytes);
    index.set_bytes_ever(row_.bytes_ever() + bytes);
    index.set_stored_ms(c_.now_ms());
    UCCP_CHECK(count + skipped.size() == static_cast<uint64_t>(batch_.events_size()), "each event counts or was there");
    return index;
  }

  ApplyContext& c_;
  const BusBatch& batch_;
  const uint32_t number_;
  const PartitionId id_;
  BusPartitionRow row_;
  BusProducerRow producer_;
  const StagedBatch* staged_ = nullptr;  // what the batch stands for; null: it is the one of this command
  uint64_t repeated_ = 0;                // first events of the batch that the producer has sent before
  BusBatchResult result_;
};

}  // namespace

BusBatchResult append_batch(ApplyContext& context, const BusBatch& batch, uint32_t number) {
  const PartitionId id{batch.topic(), batch.partition()};
  if (batch.ephemeral()) {
    internal::v1::BusNotice notice;
    notice.mutable_row()->set_log_index(context.index().value);
    notice.mutable_row()->set_batch(number);
    notice.mutable_row()->set_publish_us(context.envelope().wall.us);
    *notice.mutable_batch() = batch;
    context.notify(kBusTopic, partition_key(id), kBatchChange, notice.SerializeAsString());
    return {};
  }
  auto row = kPartitions.get(context.state(), context.scope(), partition_key(id));
  if (!row || row->dropped()) {
    BusBatchResult result;
    result.set_refusal(BusBatchResult::REFUSAL_UNKNOWN_PARTITION);
    return result;
  }
  if (batch.transaction() != 0) return stage_batch(context, batch, number);
  return Append(context, batch, number, std::move(*row)).run();
}

void count_version(ApplyContext& context, const machine::Scope& scope, PartitionId id, std::string_view key,
                   uint64_t events) {
  const uint64_t before = version_of(context.state(), scope, id, key);
  if (before > 0) put_version(context, scope, id, key, before + events);
}

void append_staged(ApplyContext& context, const StagedBatch& staged) {
  BusBatch heads;
  heads.set_topic(staged.row.topic());
  heads.set_partition(staged.row.partition());
  *heads.mutable_events() = staged.row.heads();
  auto row = kPartitions.get(context.state(), context.scope(), partition_key({heads.topic(), heads.partition()}));
  if (!row || row->dropped()) return release_entry(context, staged.log_index, staged.batch);
  Append(context, heads, staged, std::move(*row)).settle();
}

void release_entry(ApplyContext& context, uint64_t log_index, uint32_t batch) {
  const std::string key = needed_key(LogIndex(log_index), batch);
  const auto stored = kNeeded.get(context.state(), {}, key);
  Needed needed = stored ? decode_needed(*stored) : Needed();
  if (needed.rows <= 1) return kNeeded.erase(context.state(), {}, key);
  --needed.rows;
  kNeeded.put(context.state(), {}, key, encode_needed(needed));
}

}  // namespace uccp::events
