// The part of a group's log that consensus and apply look at again: terms of all entries, the recent entries
// themselves.
//
// Filled with what the core outputs for persisting, before it is durable. Loop thread only.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/log_types.h"
#include "raft/core.h"

namespace uccp::node {

class LogCache final : public raft::LogReader {
 public:
  // `bytes_max` bounds the entries kept beyond those not applied yet.
  explicit LogCache(uint64_t bytes_max) : bytes_max_(bytes_max) {}

  // The log begins behind `start`, and nothing is known of it yet.
  void reset(LogPosition start);
  // Entries from `first` on have `term`, up to where the next call says otherwise. Ascending.
  void add_term_run(LogIndex first, Term term) { terms_[first] = term; }
  void set_last(LogIndex last) { last_ = last; }
  // Replaces everything from the first entry's index on.
  void append(const std::vector<Entry>& entries);
  // Entries up to `index` need not be kept if memory is short.
  void release(LogIndex index);
  // The log now begins behind `start`.
  void compact(LogPosition start);

  Result<Term> term(LogIndex index) const override;
  Result<std::vector<Entry>> entries(LogIndex from, LogIndex to, uint64_t bytes_max) const override;
  // The same from memory alone, asking nobody to read the rest; nothing if `from` is not in memory.
  std::optional<std::vector<Entry>> recent(LogIndex from, LogIndex to, uint64_t bytes_max) const;
  LogIndex last() const { return last_; }

  // The first entry that was asked for and is on disk only, once. The owner reads it and what follows, and adds that.
  std::optional<LogIndex> take_wanted() { return std::exchange(wanted_, std::nullopt); }
  void add_fetched(std::vector<Entry> entries);

 private:
  uint64_t bytes_max_;
  uint64_t bytes_ = 0;
  LogPosition start_;
  LogIndex last_;
  std::map<LogIndex, Term> terms_;  // first index of each run
  std::deque<Entry> recent_;        // consecutive, ends with last_ unless empty
  LogIndex released_;
  // Read back from the disk for slow followers, by the first index. All of them are committed: never overwritten.
  std::map<LogIndex, std::vector<Entry>> fetched_;
  std::deque<LogIndex> fetched_order_;
  mutable std::optional<LogIndex> wanted_;
};

}  // namespace uccp::node
