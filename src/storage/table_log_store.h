// TableLogStore: a LogStore over any DurableTable. What is not synced is kept in memory; sync() commits it as one
// batch.
//
// In memory are hard states, starts, terms and the entries that were not synced; other entries are read from the table.
// Format: table_format.h and docs/formats/log_table.md. One thread at a time.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "storage/compression.h"
#include "storage/durable_table.h"
#include "storage/log_store.h"
#include "storage/term_runs.h"

namespace uccp::storage {

class TableLogStore final : public LogStore {
 public:
  struct Options {
    // More than this that is not synced is synced at once.
    uint64_t unsynced_bytes_max = 64u << 20;
    CompressionOptions compression;
    Counter* saved_bytes = nullptr;
  };

  // Reads the whole table once and checks it; an empty one becomes the log of `identity`. Errors: corruption
  // LOG_DAMAGED; failed_precondition LOG_OF_ANOTHER_NODE, LOG_VERSION_UNSUPPORTED; those of the table.
  static Result<std::unique_ptr<TableLogStore>> open(std::unique_ptr<DurableTable> table, const std::string& directory,
                                                     const StoreIdentity& identity, Options options);

  std::vector<GroupId> groups() override;
  Result<GroupLog> load(GroupId group) override;
  Status append(GroupId group, std::span<const Entry> entries) override;
  Status set_hard_state(GroupId group, const HardState& state) override;
  Status sync() override;
  Result<std::vector<Entry>> read(GroupId group, LogIndex from, LogIndex to, uint64_t bytes_max) override;
  Result<Term> term(GroupId group, LogIndex index) override;
  Status truncate_before(GroupId group, LogPosition position) override;
  Status remove(GroupId group) override;
  uint64_t size_bytes() override;
  uint64_t sync_count() const override { return sync_count_; }
  Status close() override;

  // For the log line of a start.
  std::string report() const;

 private:
  // Entries up to `stored_last` that are behind the start and not replaced lie in the table, the rest in `unsynced`.
  struct Log {
    HardState hard_state;
    LogPosition start;
    LogIndex last;
    TermRuns terms;
    std::deque<Entry> unsynced;  // ends with `last`
    LogIndex stored_first;       // rows of entries in the table; none if first > last
    LogIndex stored_last;
    bool stored_row = false;

    LogIndex clean_last() const { return LogIndex(last.value - unsynced.size()); }
    Term term_at(LogIndex index) const { return index == start.index ? start.term : terms.of(index); }
    LogPosition position() const { return {term_at(last), last}; }
  };

  TableLogStore(std::unique_ptr<DurableTable> table, std::string directory, Options options)
      : table_(std::move(table)),
        directory_(std::move(directory)),
        options_(options),
        packer_(options.compression, options.saved_bytes) {}

  Status check_identity(const StoreIdentity& identity);
  Status load_groups();
  Status load_entries();
  Status damaged(const std::string& what) const;
  Status usable() const;
  Status fail_for_good(Status why);
  void drop_unsynced_from(Log& log, LogIndex index);
  void add_changes(GroupId group, const Log& log, TableBatch& batch);

  const std::unique_ptr<DurableTable> table_;
  const std::string directory_;
  const Options options_;
  Packer packer_;
  std::map<GroupId, Log> logs_;
  std::set<GroupId> changed_;
  std::set<GroupId> removed_;  // whose rows are still in the table
  uint64_t unsynced_bytes_ = 0;
  uint64_t entries_loaded_ = 0;
  uint64_t sync_count_ = 0;
  Status failure_;
};

}  // namespace uccp::storage
