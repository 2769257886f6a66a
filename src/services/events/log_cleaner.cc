#include "services/events/log_cleaner.h"

#include <algorithm>
#include <queue>
#include <tuple>

#include "services/events/bus_state.h"
#include "services/events/transaction_rows.h"

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
// Rows of what waits that are read at a time.
constexpr size_t kFetchedRows = 512;

uint64_t events_of(const BusIndexRow& row) {
  if (row.only_size() > 0) return static_cast<uint64_t>(row.only_size());
  return row.events() - std::min<uint64_t>(row.events(), static_cast<uint64_t>(row.skipped_size()));
}

// What names an entry of the log. Staged batches and scheduled events wait for their offsets.
enum class Kind : uint8_t { kIndexed, kStaged, kScheduled };

// A row whose entry is among the oldest.
struct Old {
  Kind kind = Kind::kIndexed;
  LogIndex log_index;
  uint32_t batch = 0;
  Scope scope;
  PartitionId id;
  uint64_t bytes = 0;
  // Of the index:
  uint64_t first_offset = 0;
  uint64_t last_offset = 0;
  // Of what waits: its key, how many events the batch has, and which one is meant.
  std::string key;
  uint32_t events = 0;
  uint32_t place = 0;

  // As a row of the index would say where it lies.
  BusIndexRow row() const {
    BusIndexRow row;
    row.set_log_index(log_index.value);
    row.set_batch(batch);
    row.set_events(events);
    row.set_bytes(bytes);
    if (kind == Kind::kScheduled) row.add_only(place);
    return row;
  }
  bool operator<(const Old& other) const { return std::tie(log_index, batch) < std::tie(other.log_index, other.batch); }
};

// The oldest rows, as many bytes as one pass stores again.
class Oldest {
 public:
  explicit Oldest(const LogCleanerOptions& options) : options_(options) {}

  // Counts a row of so many bytes and events. True if it is among the oldest so far: then it is to be added.
  bool takes(const Old& old, uint64_t events) {
    live_bytes_ += old.bytes + kRowBytes + kEventBytes * events;
    const bool full = bytes_ + old.bytes > options_.pass_bytes || rows_.size() >= options_.pass_rows;
    return !full || rows_.empty() || old < rows_.top();
  }
  void add(Old old) {
    bytes_ += old.bytes;
    rows_.push(std::move(old));
    const auto too_much = [&] {
      return bytes_ - rows_.top().bytes >= options_.pass_bytes || rows_.size() > options_.pass_rows;
    };
    while (rows_.size() > 1 && too_much()) {
      bytes_ -= rows_.top().bytes;
      rows_.pop();
    }
  }
  uint64_t live_bytes() const { return live_bytes_; }
  void move_to(std::vector<Old>& indexed, std::vector<Old>& waiting) {
    for (; !rows_.empty(); rows_.pop()) {
      (rows_.top().kind == Kind::kIndexed ? indexed : waiting).push_back(rows_.top());
    }
  }

 private:
  const LogCleanerOptions& options_;
  std::priority_queue<Old> rows_;
  uint64_t bytes_ = 0;
  uint64_t live_bytes_ = 0;
};

void find_indexed(const GroupView& view, Oldest& oldest) {
  kIndex.scan_all(view, [&](const Scope& scope, std::string_view key, const BusIndexRow& row) {
    const PartitionId id = decode_partition_key(key);
    Old old{
        .log_index = LogIndex(row.log_index()), .batch = row.batch(), .scope = scope, .id = id, .bytes = row.bytes()};
    if (!oldest.takes(old, events_of(row))) return true;
    old.first_offset = row.first_offset();
    old.last_offset = ByteReader(key.substr(partition_key(id).size())).u64();
    oldest.add(std::move(old));
    return true;
  });
}

void find_waiting(const GroupView& view, Oldest& oldest) {
  kStaged.scan_all(view, [&](const Scope& scope, std::string_view key, const TransactionStagedRow& row) {
    const StagedPlace place = staged_place(key, row);
    Old old{.kind = Kind::kStaged, .log_index = LogIndex(place.log_index), .batch = place.batch, .scope = scope};
    old.id = {row.topic(), row.partition()};
    for (const uint32_t size : row.sizes()) old.bytes += size;
    old.events = static_cast<uint32_t>(row.sizes_size());
    old.key = key;
    if (oldest.takes(old, old.events)) oldest.add(std::move(old));
    return true;
  });
  kScheduled.scan_all(view, [&](const Scope& scope, std::string_view key, const internal::v1::BusScheduledRow& row) {
    Old old{.kind = Kind::kScheduled, .log_index = LogIndex(row.log_index()), .batch = row.batch(), .scope = scope};
    old.id = decode_partition_key(key);
    old.bytes = row.bytes();
    old.events = row.events();
    old.place = row.place();
    old.key = key;
    if (oldest.takes(old, 1)) oldest.add(std::move(old));
    return true;
  });
}

}  // namespace

struct LogCleaner::Pass {
  GroupId group;
  std::function<bool()> leads;
  std::vector<Old> rows;  // of the index, by partition and offset
  size_t at = 0;
  std::vector<Old> waiting;  // what has no offset yet, as it lies
  size_t waiting_at = 0;
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

void LogCleaner::collect(const PassPtr& pass, const GroupView& view) {
  Oldest oldest(options_);
  find_indexed(view, oldest);
  find_waiting(view, oldest);
  const uint64_t held = log_bytes_held(view);
  if (oldest.live_bytes() * 100 >= held * options_.live_percent_min) {
    // Many small events, or many that wait: what holds the log is what goes with them. Looked at again when the log has
    // grown.
    const uint64_t until =
        log_bytes_ever(view) + std::max(held / kGrowthOfDense, options_.log_bytes_min / kGrowthOfDense);
    return env_.loop.post([this, group = pass->group, until] {
      busy_ = false;
      dense_until_[group] = until;
    });
  }
  oldest.move_to(pass->rows, pass->waiting);
  std::ranges::sort(pass->rows, {}, [](const Old& old) { return std::tie(old.scope, old.id, old.first_offset); });
  std::ranges::sort(pass->waiting, {},
                    [](const Old& old) { return std::tie(old.scope, old.log_index, old.batch, old.place); });
  read_on(pass);
}

// First what has offsets.
void LogCleaner::read_on(const PassPtr& pass) {
  const bool indexed = pass->at < pass->rows.size();
  const Old* next = indexed ? &pass->rows[pass->at] : nullptr;
  if (!indexed && pass->waiting_at < pass->waiting.size()) next = &pass->waiting[pass->waiting_at];
  const bool full = pass->bytes >= options_.command_bytes;
  if (pass->command.batches_size() > 0 && (next == nullptr || full || next->scope != pass->scope)) return propose(pass);
  if (next == nullptr) return end(pass);
  pass->scope = next->scope;
  const auto done = [this, pass, indexed](Result<Fetched> fetched) {
    env_.work.post([this, pass, indexed, fetched = std::move(fetched)]() mutable {
      if (!fetched) return end(pass);
      if (indexed) take(pass, *fetched);
      else take_waiting(pass, *fetched);
      read_on(pass);
    });
  };
  if (indexed) {
    return env_.fetcher.fetch(pass->group, {{next->scope, next->id, next->first_offset}}, options_.command_bytes, done);
  }
  std::vector<std::pair<PartitionId, BusIndexRow>> rows;
  for (size_t i = pass->waiting_at; i < pass->waiting.size() && rows.size() < kFetchedRows; ++i) {
    if (pass->waiting[i].scope != pass->scope) break;
    rows.emplace_back(pass->waiting[i].id, pass->waiting[i].row());
  }
  env_.fetcher.fetch_rows(pass->group, std::move(rows), options_.command_bytes, done);
}

void LogCleaner::take(const PassPtr& pass, const Fetched& fetched) {
  const PartitionId id = pass->rows[pass->at].id;
  const Scope scope = pass->rows[pass->at].scope;
  const auto wanted = [&] {
    return pass->at < pass->rows.size() && pass->rows[pass->at].id == id && pass->rows[pass->at].scope == scope;
  };
  for (const BatchPtr& batch : fetched.batches) {
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
  if (fetched.batches.empty() && wanted()) ++pass->at;
}

// Each row has a batch of its own, which is what it names afterwards.
void LogCleaner::take_waiting(const PassPtr& pass, const Fetched& fetched) {
  for (const BatchPtr& batch : fetched.batches) {
    if (pass->bytes >= options_.command_bytes) return;
    const Old& old = pass->waiting[pass->waiting_at++];
    BusBatch& to = *pass->command.add_batches();
    to.set_topic(old.id.topic);
    to.set_partition(old.id.partition);
    to.set_principal(std::string(batch->content->principal()));
    for (size_t i = 0; i < batch->places.size(); ++i) to.add_events(std::string(batch->event(i)));
    auto& row = *pass->command.add_waiting();
    (old.kind == Kind::kStaged ? *row.mutable_staged() : *row.mutable_scheduled()) = old.key;
    row.set_batch(static_cast<uint32_t>(pass->command.batches_size() - 1));
    row.set_log_index(old.log_index.value);
    row.set_log_batch(old.batch);
    pass->bytes += old.bytes;
  }
  // It has its offset by now, or is gone, and its entry is, too.
  if (fetched.batches.empty()) ++pass->waiting_at;
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
