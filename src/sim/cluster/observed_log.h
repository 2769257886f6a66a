// A log store as the checkers see it: passes every call on, and tells what is appended.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "storage/log_store.h"

namespace uccp::sim {

class ObservedLog final : public storage::LogStore {
 public:
  // `previous` is the term of the entry before the first one.
  using Observer = std::function<void(GroupId group, Term previous, std::span<const Entry> entries)>;
  // `inner` must outlive this.
  ObservedLog(storage::LogStore& inner, Observer observer) : inner_(inner), observer_(std::move(observer)) {}

  std::vector<GroupId> groups() override { return inner_.groups(); }
  Result<storage::GroupLog> load(GroupId group) override { return inner_.load(group); }
  Status append(GroupId group, std::span<const Entry> entries) override {
    if (!entries.empty()) {
      const auto previous = inner_.term(group, entries.front().index.prev());
      if (previous) observer_(group, *previous, entries);
    }
    return inner_.append(group, entries);
  }
  Status set_hard_state(GroupId group, const HardState& state) override { return inner_.set_hard_state(group, state); }
  Status sync() override { return inner_.sync(); }
  Status begin_sync() override { return inner_.begin_sync(); }
  Status close() override { return inner_.close(); }
  Result<std::vector<Entry>> read(GroupId group, LogIndex from, LogIndex to, uint64_t bytes_max) override {
    return inner_.read(group, from, to, bytes_max);
  }
  Result<Term> term(GroupId group, LogIndex index) override { return inner_.term(group, index); }
  Status truncate_before(GroupId group, LogPosition position) override {
    return inner_.truncate_before(group, position);
  }
  Status remove(GroupId group) override { return inner_.remove(group); }
  uint64_t size_bytes() override { return inner_.size_bytes(); }
  uint64_t sync_count() const override { return inner_.sync_count(); }

 private:
  storage::LogStore& inner_;
  const Observer observer_;
};

}  // namespace uccp::sim
