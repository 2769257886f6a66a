#include "services/events/compactor.h"

#include <algorithm>
#include <unordered_map>

#include "base/log.h"
#include "call/wire.h"
#include "machine/planted.h"
#include "services/events/bus_state.h"
#include "uccp/v1/events.pb.h"

namespace uccp::events {
namespace {

using machine::GroupView;
using machine::ReadLevel;

// What the map of keys takes for each beside its bytes.
constexpr uint64_t kKeyOverheadBytes = 64;

struct KeyAndContent {
  std::string_view key;
  bool content = false;
};

KeyAndContent look_at(std::string_view event) {
  KeyAndContent seen;
  call::WireReader reader(event);
  for (call::WireField field; reader.next(field);) {
    switch (field.number) {
      case v1::Event::kKeyFieldNumber: seen.key = field.bytes; break;
      case v1::Event::kDataFieldNumber:
      case v1::Event::kTextFieldNumber: seen.content = !field.bytes.empty(); break;
      case v1::Event::kJsonFieldNumber: seen.content = true; break;
      default: break;
    }
  }
  return seen;
}

}  // namespace

struct Compactor::Pass {
  PartitionAt at;
  std::function<bool()> leads;
  int64_t now_ms = 0;
  int64_t tombstone_retention_ms = 0;
  bool mapping = true;
  uint64_t first = 0;  // of the partition
  uint64_t next = 0;   // to be read
  uint64_t upto = 0;
  uint64_t memory_bytes = 0;
  std::unordered_map<std::string, uint64_t> latest;
  internal::v1::BusCompactedTo reached;
  internal::v1::BusCompactCommand command;
  bool swept = false;
};

Compactor::Compactor(CompactorOptions options, const LogWorkEnvironment& environment)
    : options_(options),
      env_(environment),
      passes_(env_.metrics.counter("uccp_bus_compactions_total", "Passes over partitions of compacted topics")),
      read_bytes_(env_.metrics.counter("uccp_bus_compaction_read_bytes_total", "Bytes of events that they looked at")),
      removed_(env_.metrics.counter("uccp_bus_compacted_events_total", "Events that newer ones replaced")) {}

void Compactor::begin(GroupId group, std::vector<PartitionAt> partitions, std::function<bool()> leads) {
  std::erase_if(waiting_, [group](const Waiting& waiting) { return waiting.at.group == group; });
  for (PartitionAt& at : partitions) waiting_.push_back({std::move(at), leads});
  if (!busy_) next();
}

void Compactor::next() {
  busy_ = !waiting_.empty();
  if (!busy_) return;
  auto pass = std::make_shared<Pass>();
  pass->at = std::move(waiting_.front().at);
  pass->leads = std::move(waiting_.front().leads);
  waiting_.pop_front();
  env_.reader.read(pass->at.group, {.kind = ReadLevel::Kind::kSession}, [this, pass](Result<GroupView> view) {
    env_.work.post([this, pass, view = std::move(view)] {
      if (view) start(pass, *view);
      else end(pass);
    });
  });
}

// The newest batch is never looked at: so a partition ends where it ended.
void Compactor::start(const PassPtr& pass, const GroupView& view) {
  const PartitionAt& at = pass->at;
  const auto row = kPartitions.get(view, at.scope, partition_key(at.id));
  if (!row || row->dropped() || row->next_offset() == 0) return end(pass);
  const auto newest = find_index(view, at.scope, at.id, row->next_offset() - 1);
  if (!newest) return end(pass);
  pass->now_ms = view.machine_time_ms();
  pass->tombstone_retention_ms = row->settings().tombstone_retention_ms();
  pass->first = row->first_offset();
  pass->upto = std::max<uint64_t>(newest->row.first_offset(), row->compacted_offset());
  pass->next = std::max<uint64_t>(row->compacted_offset(), row->first_offset());
  pass->reached.set_bytes_ever(row->compacted_bytes_ever());
  const bool tombstones =
      row->has_oldest_tombstone_ms() && pass->now_ms - row->oldest_tombstone_ms() > pass->tombstone_retention_ms;
  if (pass->upto == row->compacted_offset() && !tombstones) return end(pass);
  pass->command.set_topic(at.id.topic);
  pass->command.set_partition(at.id.partition);
  passes_.add();
  read_on(pass);
}

void Compactor::read_on(const PassPtr& pass) {
  if (pass->mapping && pass->next >= pass->upto) {
    pass->mapping = false;
    pass->next = pass->first;
  }
  pass->swept = !pass->mapping && pass->next >= pass->upto;
  if (pass->swept) {
    pass->reached.set_offset(pass->upto);
    *pass->command.mutable_reached() = pass->reached;
    return remove(pass, 0);
  }
  env_.fetcher.fetch(
      pass->at.group, {{pass->at.scope, pass->at.id, pass->next}}, options_.fetch_bytes,
      [this, pass](Result<Fetched> fetched) {
        env_.work.post([this, pass, fetched = std::move(fetched)]() mutable { take(pass, std::move(fetched)); });
      });
}

void Compactor::take(const PassPtr& pass, Result<Fetched> fetched) {
  // What cannot be read just now is looked at another time.
  if (!fetched) return end(pass);
  const auto next = fetched->next.find(pass->at.id);
  if (next == fetched->next.end() || (fetched->batches.empty() && !fetched->whole)) return end(pass);
  uint64_t bytes = 0;
  bool more = true;
  for (const BatchPtr& batch : fetched->batches) {
    bytes += batch->row.bytes();
    more = pass->mapping ? map_keys(*pass, *batch) : sweep(*pass, *batch);
    if (!more) break;
  }
  read_bytes_.add(bytes);
  pass->next = more && !fetched->batches.empty() ? next->second : pass->upto;
  remove(pass, bytes);
}

bool Compactor::map_keys(Pass& pass, const Batch& batch) const {
  if (batch.row.first_offset() >= pass.upto) return false;
  pass.reached.set_bytes_ever(batch.row.bytes_ever());
  for (size_t i = 0; i < batch.places.size(); ++i) {
    const auto [at, fresh] = pass.latest.insert_or_assign(std::string(look_at(batch.event(i)).key), batch.offset(i));
    if (fresh) pass.memory_bytes += at->first.size() + kKeyOverheadBytes;
  }
  if (pass.memory_bytes > options_.memory_bytes_max) pass.upto = batch.next_offset();
  return true;
}

bool Compactor::sweep(Pass& pass, const Batch& batch) const {
  if (batch.row.first_offset() >= pass.upto) return false;
  internal::v1::BusCompactedRow row;
  uint64_t bytes = 0;
  for (size_t i = 0; i < batch.places.size(); ++i) {
    const std::string_view event = batch.event(i);
    const KeyAndContent seen = look_at(event);
    if (seen.key.empty()) continue;
    const auto latest = pass.latest.find(std::string(seen.key));
    const bool known = latest != pass.latest.end();
    bool gone = known && latest->second > batch.offset(i);
    if (machine::planted_bug("compact_newest") && known && latest->second == batch.offset(i)) gone = true;
    if (!gone && !seen.content) {
      // What it stands for is gone by now, and who reads had time to hear of it.
      gone = pass.now_ms - batch.row.stored_ms() > pass.tombstone_retention_ms;
      const bool oldest =
          !pass.reached.has_oldest_tombstone_ms() || batch.row.stored_ms() < pass.reached.oldest_tombstone_ms();
      if (!gone && oldest) pass.reached.set_oldest_tombstone_ms(batch.row.stored_ms());
    }
    if (!gone) continue;
    row.add_gone(static_cast<uint32_t>(batch.offset(i) - batch.row.first_offset()));
    bytes += event.size();
  }
  if (row.gone_size() == 0) return true;
  row.set_last_offset(batch.next_offset() - 1);
  row.set_bytes(bytes);
  *pass.command.add_rows() = std::move(row);
  return true;
}

// Proposes what there is once it is enough for a command, and goes on after a pause.
void Compactor::remove(const PassPtr& pass, uint64_t read_bytes) {
  const auto go_on = [this, pass, read_bytes] {
    env_.loop.post_after(pause_ms(read_bytes, options_.bytes_per_second), [this, pass] {
      if (pass->swept || !pass->leads()) return end(pass);
      env_.work.post([this, pass] { read_on(pass); });
    });
  };
  if (!pass->swept && pass->command.rows_size() < options_.rows_per_command) return go_on();
  machine::Envelope envelope;
  envelope.scope = pass->at.scope;
  envelope.principal = "system";
  envelope.command = std::string(kBusDomain) + ".compact";
  envelope.payload = pass->command.SerializeAsString();
  uint64_t removed = 0;
  for (const auto& row : pass->command.rows()) removed += static_cast<uint64_t>(row.gone_size());
  pass->command.clear_rows();
  env_.local.propose(pass->at.group, std::move(envelope),
                     [this, pass, removed, go_on](const Result<machine::Applied>& applied) {
                       if (!applied) return end(pass);
                       removed_.add(removed);
                       go_on();
                     });
}

void Compactor::end(const PassPtr&) {
  env_.loop.post([this] { next(); });
}

}  // namespace uccp::events
