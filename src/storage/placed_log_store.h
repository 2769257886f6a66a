// PlacedLogStore: one LogStore made of several. Most groups share one; a group may own a store of its own, so that its
// entries can stay for long, or go fast, without holding the segments of others.
//
// sync() hands what all of them have to write to the disk before it waits for any, so that their syncs overlap. It is
// atomic for each group, not over groups that lie in different stores. One thread at a time.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <vector>

#include "storage/log_store.h"

namespace uccp::storage {

class PlacedLogStore final : public LogStore {
 public:
  using Own = std::map<GroupId, std::unique_ptr<LogStore>>;

  // Takes the stores over. A group whose log lies where the placement does not want it is moved, durably; a crash
  // meanwhile is made up for by the next open. `retired` are stores of groups that had one and are shared now; they are
  // empty and closed afterwards. Errors: those of the stores.
  static Result<std::unique_ptr<PlacedLogStore>> open(std::unique_ptr<LogStore> shared, Own own, Own retired);

  std::vector<GroupId> groups() override;
  Result<GroupLog> load(GroupId group) override { return of(group).load(group); }
  Status append(GroupId group, std::span<const Entry> entries) override;
  Status set_hard_state(GroupId group, const HardState& state) override;
  Status begin_sync() override;
  Status sync() override;
  Result<std::vector<Entry>> read(GroupId group, LogIndex from, LogIndex to, uint64_t bytes_max) override {
    return of(group).read(group, from, to, bytes_max);
  }
  Result<Term> term(GroupId group, LogIndex index) override { return of(group).term(group, index); }
  Status truncate_before(GroupId group, LogPosition position) override;
  Status remove(GroupId group) override;
  uint64_t size_bytes() override;
  uint64_t own_bytes(GroupId group) override;
  uint64_t sync_count() const override;
  Status close() override;

 private:
  PlacedLogStore(std::unique_ptr<LogStore> shared, Own own) : shared_(std::move(shared)), own_(std::move(own)) {}

  LogStore& of(GroupId group);
  // The same, to be written to.
  LogStore& touch(GroupId group);

  const std::unique_ptr<LogStore> shared_;
  const Own own_;
  std::set<LogStore*> written_;  // since the last sync
};

// Moves the log of a group to another store, durably. What `to` has of the group is from a move that a crash
// interrupted, and is dropped. Nothing if `from` has no such group.
Status move_log(GroupId group, LogStore& from, LogStore& to);

}  // namespace uccp::storage
