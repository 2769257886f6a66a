// MemoryLogStore: LogStore without files, for tests. Also the model that the write-ahead log is compared with.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <vector>

#include "storage/log_store.h"

namespace uccp::storage {

class MemoryLogStore final : public LogStore {
 public:
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
  Status close() override { return sync(); }
  uint64_t sync_count() const override { return sync_count_; }

  // Reverts to the last sync.
  void crash();

 private:
  struct Log {
    HardState hard_state;
    LogPosition start;
    std::deque<Entry> entries;

    LogPosition last() const;
    const Entry& at(LogIndex index) const { return entries[index.value - start.index.value - 1]; }
    void append(const std::vector<Entry>& added);
    void truncate_before(LogPosition position);
  };
  using Logs = std::map<GroupId, Log>;
  using Operation = std::function<void(Logs&)>;

  void write(Operation operation);
  const Log& find(GroupId group) const;

  Logs current_;
  Logs synced_;
  std::vector<Operation> unsynced_;  // what leads from synced_ to current_
  uint64_t sync_count_ = 0;
};

}  // namespace uccp::storage
