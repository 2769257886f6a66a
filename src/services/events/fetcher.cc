#include "services/events/fetcher.h"

#include <algorithm>

namespace uccp::events {
namespace {

using machine::GroupView;
using machine::ReadLevel;

// Rows that one partition gives to one fetch. Each is at least one event.
constexpr size_t kRowsPerPartition = 512;
// Entries of others that are read along rather than reading twice.
constexpr uint64_t kGapMax = 16;

}  // namespace

bool has_newer_topic(const GroupView& bus, const KnownTopics& known) {
  bool found = false;
  kPartitions.scan(bus, known.scope, "", partition_key({known.number + 1, 0}), [&](std::string_view, const auto&) {
    found = true;
    return false;
  });
  return found;
}

struct Fetcher::Run {
  struct Planned {
    LogPlace order;
    PartitionId id;
    IndexEntry entry;
    uint64_t next = 0;  // where the reader is in this row
  };

  GroupId group;
  std::vector<ReadFrom> from;
  uint64_t bytes_max;
  std::optional<KnownTopics> known;
  Done done;
  std::vector<Planned> rows;
  size_t at = 0;  // the next row to be read
  uint64_t bytes = 0;
  bool cut = false;  // there are more rows than were planned
  Fetched out;

  void finish() {
    if (at < rows.size() || cut) out.whole = false;
    done(std::move(out));
  }
};

void Fetcher::fetch(GroupId group, std::vector<ReadFrom> from, uint64_t bytes_max, std::optional<KnownTopics> known,
                    Done done) {
  auto run = std::make_shared<Run>();
  run->group = group;
  run->from = std::move(from);
  run->bytes_max = bytes_max;
  run->known = std::move(known);
  run->done = std::move(done);
  // The newest state of this node.
  reader_.read(group, {.kind = ReadLevel::Kind::kSession}, [this, run](Result<GroupView> view) {
    if (!view) return run->done(std::unexpected(std::move(view.error())));
    work_.post([this, run, view = std::move(*view)] { plan(run, view); });
  });
}

void Fetcher::fetch_rows(GroupId group, std::vector<std::pair<PartitionId, BusIndexRow>> rows, uint64_t bytes_max,
                         Done done) {
  auto run = std::make_shared<Run>();
  run->group = group;
  run->bytes_max = bytes_max;
  run->done = std::move(done);
  for (auto& [id, row] : rows)
    run->rows.push_back({.order = {}, .id = id, .entry = {.last_offset = 0, .row = std::move(row)}});
  read_next(run);
}

// Rows of all partitions in the order of the log. Where a partition has more than it may give, nothing behind its last
// row is taken from any.
void Fetcher::plan(const std::shared_ptr<Run>& run, const GroupView& view) {
  LogPlace cut{UINT64_MAX, 0, 0};
  run->out.ahead = run->known && has_newer_topic(view, *run->known);
  if (run->out.ahead) return run->finish();
  for (const ReadFrom& from : run->from) {
    const auto partition = kPartitions.get(view, from.scope, partition_key(from.id));
    if (!partition || partition->dropped()) continue;
    uint64_t next = from.next;
    // The state was replaced by one of before: what was read since is not there any more.
    if (next > partition->next_offset()) {
      run->out.trimmed.push_back(from.id);
      next = partition->next_offset();
    }
    if (next < partition->first_offset()) {
      run->out.trimmed.push_back(from.id);
      next = partition->first_offset();
    }
    run->out.next[from.id] = next;
    if (next >= partition->next_offset()) continue;
    size_t rows = 0;
    uint64_t row_bytes = 0;
    scan_index(view, from.scope, from.id, next, [&](IndexEntry entry) {
      const LogPlace order = place_of(entry.row);
      // An entry that holds many rows is read once: no piece ends within it.
      const bool enough = rows >= kRowsPerPartition || (rows > 0 && row_bytes >= run->bytes_max);
      if (enough && entry.row.log_index() != run->rows.back().entry.row.log_index()) {
        cut = std::min(cut, run->rows.back().order);
        run->cut = true;
        return false;
      }
      ++rows;
      row_bytes += entry.row.bytes();
      run->rows.push_back({order, from.id, std::move(entry), next});
      return true;
    });
  }
  std::ranges::sort(run->rows, {}, &Run::Planned::order);
  std::erase_if(run->rows, [&](const Run::Planned& row) { return row.order > cut; });
  read_next(run);
}

// One read of the log: the entries of the rows that come next and lie close to each other.
void Fetcher::read_next(const std::shared_ptr<Run>& run) {
  // A read for the little that is missing would cost as much as one of a whole piece.
  const bool full = run->bytes >= run->bytes_max - run->bytes_max / 8;
  if (run->at == run->rows.size() || full) return run->finish();
  const uint64_t first = run->rows[run->at].entry.row.log_index();
  uint64_t last = first;
  for (size_t i = run->at; i < run->rows.size(); ++i) {
    const uint64_t index = run->rows[i].entry.row.log_index();
    if (index < last || index > last + kGapMax) break;
    last = index;
  }
  log_.read_log(run->group, LogIndex(first), LogIndex(last + 1), run->bytes_max - run->bytes,
                [this, run](Result<std::vector<Entry>> entries) {
                  work_.post([this, run, entries = std::move(entries)]() mutable { take(run, std::move(entries)); });
                });
}

void Fetcher::take(const std::shared_ptr<Run>& run, Result<std::vector<Entry>> entries) {
  if (!entries) {
    // Retention took them between the look at the index and at the log: the next fetch sees it in the index.
    const bool gone = entries.error().reason() == "LOG_COMPACTED";
    if (!gone) return run->done(std::unexpected(std::move(entries.error())));
    run->cut = true;
    run->rows.resize(run->at);
    return run->finish();
  }
  for (Entry& entry : *entries) {
    const uint64_t index = entry.index.value;
    std::vector<BatchContentPtr> batches;
    for (; run->at < run->rows.size() && run->rows[run->at].entry.row.log_index() == index; ++run->at) {
      if (batches.empty()) {
        auto decoded = decode_entry(std::move(entry));
        if (!decoded) return run->done(std::unexpected(std::move(decoded.error())));
        batches = std::move(*decoded);
      }
      Run::Planned& row = run->rows[run->at];
      if (row.entry.row.batch() >= batches.size()) {
        return run->done(
            fail(Code::kCorruption, "BUS_INDEX",
                 "the index names a batch that the log entry " + std::to_string(index) + " does not have"));
      }
      auto content = batches[row.entry.row.batch()];
      // Rows that share what was read cost its memory once.
      if (run->out.batches.empty() || run->out.batches.back()->content != content) run->bytes += content->event_bytes();
      run->out.next[row.id] = row.entry.last_offset + 1;
      run->out.batches.push_back(make_batch(run->group, row.id, std::move(row.entry.row), std::move(content)));
    }
  }
  read_next(run);
}

}  // namespace uccp::events
