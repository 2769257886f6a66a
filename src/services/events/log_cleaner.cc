#include "services/events/log_cleaner.h"

#include <algorithm>
#include <queue>
#include <tuple>

#include "services/events/bus_state.h"

namespace uccp::events {
namespace {

using internal::v1::BusBatch;
using machine::GroupView;
using machine::Scope;

// What a row, and each event of it, takes in an entry beside the bytes of the events.
constexpr uint64_t kRowBytes = 32;
constexpr uint64_t kEventBytes = 4;
// The log grows by this part before one that was found to be needed is looked at again.
constexpr uint64_t kGrowthOfDense = 8;

uint64_t events_of(const BusIndexRow& row) {
  if (row.only_size() > 0) return static_cast<uint64_t>(row.only_size());
  return row.events() - std::min<uint64_t>(row.events(), static_cast<uint64_t>(row.skipped_size()));
}

// A row of the index whose entry is among the oldest.
struct Old {
  LogIndex log_index;
  uint32_t batch = 0;
  Scope scope;
  PartitionId id;
  uint64_t first_offset = 0;
  uint64_t last_offset = 0;
  uint64_t bytes = 0;

  bool operator<(const Old& other) const { return std::tie(log_index, batch) < std::tie(other.log_index, other.batch); }
};

}  // namespace

struct LogCleaner::Pass {
  GroupId group;
  std::function<bool()> leads;
  std::vector<Old> rows;  // by partition and offset
  size_t at = 0;
  Scope scope;         // of the command
  uint64_t bytes = 0;  // of it
  uint64_t rewritten = 0;
  internal::v1::BusRewriteCommand command;
};

LogCleaner::LogCleaner(LogCleanerOptions options, const LogWorkEnvironment& environment)
    : options_(options),
      env_(environment),
      rewritten_(env_.metrics.counter("uccp_bus_rewritten_bytes_total",
                                      "Bytes of events that were stored again so that the log before them can go")) {}

void LogCleaner::look(GroupId group, const GroupView& view, uint64_t live_bytes, std::function<bool()> leads) {
  const uint64_t held = log_bytes_held(view);
  const Labels labels{{"group", bus_group_name(static_cast<uint32_t>(group.value - kFirstBusGroup))}};
  env_.metrics.gauge("uccp_bus_log_bytes", "Bytes of commands with events that the log has to keep", labels)
      .set(static_cast<double>(held));
  env_.metrics.gauge("uccp_bus_live_bytes", "Bytes of events that are kept", labels)
      .set(static_cast<double>(live_bytes));
  const auto dense = dense_until_.find(group);
  const bool known = dense != dense_until_.end() && log_bytes_ever(view) < dense->second;
  const bool due = held > options_.log_bytes_min && live_bytes * 100 < held * options_.live_percent_min;
  if (!due || busy_ || known) return;
  busy_ = true;
  auto pass = std::make_shared<Pass>();
  pass->group = group;
  pass->leads = std::move(leads);
  env_.work.post([this, pass, view] { collect(pass, view); });
}

// The oldest rows of all partitions, as many bytes as one pass stores again.
void LogCleaner::collect(const PassPtr& pass, const GroupView& view) {
  std::priority_queue<Old> oldest;
  uint64_t bytes = 0;
  uint64_t live_bytes = 0;
  kIndex.scan_all(view, [&](const Scope& scope, std::string_view key, const BusIndexRow& row) {
    live_bytes += row.bytes() + kRowBytes + kEventBytes * events_of(row);
    const PartitionId id = decode_partition_key(key);
    Old old{LogIndex(row.log_index()), row.batch(), scope, id, row.first_offset(), 0, row.bytes()};
    const bool full = bytes + old.bytes > options_.pass_bytes || oldest.size() >= options_.pass_rows;
    if (full && !oldest.empty() && !(old < oldest.top())) return true;
    old.last_offset = ByteReader(key.substr(partition_key(id).size())).u64();
    bytes += old.bytes;
    oldest.push(std::move(old));
    const auto too_much = [&] {
      return bytes - oldest.top().bytes >= options_.pass_bytes || oldest.size() > options_.pass_rows;
    };
    while (oldest.size() > 1 && too_much()) {
      bytes -= oldest.top().bytes;
      oldest.pop();
    }
    return true;
  });
  const uint64_t held = log_bytes_held(view);
  if (live_bytes * 100 >= held * options_.live_percent_min) {
    // Many small events: what holds the log is what goes with them. Looked at again when the log has grown.
    const uint64_t until =
        log_bytes_ever(view) + std::max(held / kGrowthOfDense, options_.log_bytes_min / kGrowthOfDense);
    return env_.loop.post([this, group = pass->group, until] {
      busy_ = false;
      dense_until_[group] = until;
    });
  }
  for (; !oldest.empty(); oldest.pop()) pass->rows.push_back(oldest.top());
  // What holds the log may be something else: an event that waits for its time.
  if (pass->rows.empty() || pass->rows.back().log_index != log_floor(view)) return end(pass);
  std::ranges::sort(pass->rows, {}, [](const Old& old) { return std::tie(old.scope, old.id, old.first_offset); });
  read_on(pass);
}

void LogCleaner::read_on(const PassPtr& pass) {
  const bool through = pass->at == pass->rows.size();
  const bool full = pass->bytes >= options_.command_bytes;
  const bool other = !through && pass->command.rows_size() > 0 && pass->rows[pass->at].scope != pass->scope;
  if (pass->command.rows_size() > 0 && (through || full || other)) return propose(pass);
  if (through) return end(pass);
  const Old& old = pass->rows[pass->at];
  pass->scope = old.scope;
  env_.fetcher.fetch(
      pass->group, {{old.scope, old.id, old.first_offset}}, options_.command_bytes,
      [this, pass](Result<Fetched> fetched) {
        env_.work.post([this, pass, fetched = std::move(fetched)]() mutable { take(pass, std::move(fetched)); });
      });
}

void LogCleaner::take(const PassPtr& pass, Result<Fetched> fetched) {
  if (!fetched) return end(pass);
  const PartitionId id = pass->rows[pass->at].id;
  const Scope scope = pass->rows[pass->at].scope;
  const auto wanted = [&] {
    return pass->at < pass->rows.size() && pass->rows[pass->at].id == id && pass->rows[pass->at].scope == scope;
  };
  for (const BatchPtr& batch : fetched->batches) {
    const uint64_t last = batch->next_offset() - 1;
    // Rows that are gone by now.
    while (wanted() && pass->rows[pass->at].last_offset < last) ++pass->at;
    if (!wanted() || pass->bytes >= options_.command_bytes) break;
    // The next one is further on.
    if (pass->rows[pass->at].last_offset != last) break;
    ++pass->at;
    auto& batches = *pass->command.mutable_batches();
    const bool joins = !batches.empty() && batches.rbegin()->topic() == id.topic &&
                       batches.rbegin()->partition() == id.partition &&
                       batches.rbegin()->principal() == batch->content->principal();
    BusBatch& to = joins ? *batches.rbegin() : *batches.Add();
    to.set_topic(id.topic);
    to.set_partition(id.partition);
    to.set_principal(std::string(batch->content->principal()));
    auto& row = *pass->command.add_rows();
    row.set_batch(static_cast<uint32_t>(batches.size() - 1));
    row.set_last_offset(last);
    row.set_log_index(batch->row.log_index());
    row.set_log_batch(batch->row.batch());
    row.set_place(static_cast<uint32_t>(to.events_size()));
    row.set_count(static_cast<uint32_t>(batch->places.size()));
    for (size_t i = 0; i < batch->places.size(); ++i) to.add_events(std::string(batch->event(i)));
    pass->bytes += batch->row.bytes();
  }
  // Nothing behind it is there any more.
  if (fetched->batches.empty() && wanted()) ++pass->at;
  read_on(pass);
}

void LogCleaner::propose(const PassPtr& pass) {
  machine::Envelope envelope;
  envelope.scope = pass->scope;
  envelope.principal = "system";
  envelope.command = std::string(kBusDomain) + ".rewrite";
  envelope.payload = pass->command.SerializeAsString();
  pass->command.Clear();
  const uint64_t bytes = std::exchange(pass->bytes, 0);
  env_.local.propose(pass->group, std::move(envelope), [this, pass, bytes](const Result<machine::Applied>& applied) {
    if (!applied) return end(pass);
    rewritten_.add(bytes);
    pass->rewritten += bytes;
    env_.loop.post_after(pause_ms(bytes, options_.bytes_per_second), [this, pass] {
      if (!pass->leads()) return end(pass);
      env_.work.post([this, pass] { read_on(pass); });
    });
  });
}

void LogCleaner::end(const PassPtr& pass) {
  env_.loop.post([this, pass] {
    busy_ = false;
    if (pass->rewritten > 0 && pass->leads()) look_again(pass);
  });
}

void LogCleaner::look_again(const PassPtr& pass) {
  env_.reader.read(pass->group, {.kind = machine::ReadLevel::Kind::kSession}, [this, pass](Result<GroupView> view) {
    if (!view) return;
    env_.work.post([this, pass, view = std::move(*view)] {
      uint64_t live_bytes = 0;
      kPartitions.scan_all(view, [&](const Scope&, std::string_view, const BusPartitionRow& row) {
        live_bytes += row.bytes();
        return true;
      });
      env_.loop.post([this, pass, view, live_bytes] {
        if (pass->leads()) look(pass->group, view, live_bytes, pass->leads);
      });
    });
  });
}

}  // namespace uccp::events
