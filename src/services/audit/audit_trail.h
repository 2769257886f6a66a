// Reading the audit trails of several groups as one list, newest first.
//
// The lists of the groups are merged by wall time. A position in the merged list is how far each group's list was
// read, so a page goes on exactly where the one before ended even while records are added.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "machine/machine.h"

namespace uccp::audit {

// The clocks of the nodes that stamped neighbouring records may be this far apart.
inline constexpr int64_t kClockSlackUs = 600'000'000;

// First number kept and the one behind the last; equal: there are none.
struct AuditRange {
  uint64_t first = 0;
  uint64_t next = 0;
};
AuditRange range_of(const machine::KeyReader& state);

// Walks one group's records backwards.
class TrailReader {
 public:
  // Begins with the newest record before number `before`; nullopt: with the newest of all.
  TrailReader(const machine::KeyReader& state, std::string group, std::optional<uint64_t> before);

  const std::string& group() const { return group_; }
  // The record it stands at; null: none is left.
  const machine::AuditRecord* head();
  void pop();
  // Skips what is surely not older than this.
  void skip_to(int64_t wall_us);
  // Records before this number are still to come.
  uint64_t position() const { return position_; }

 private:
  const machine::KeyReader& state_;
  const std::string group_;
  AuditRange range_;
  uint64_t position_ = 0;
  std::vector<machine::AuditRecord> chunk_;  // ascending, ends at position_
};

struct TrailWindow {
  int64_t start_us = INT64_MIN;
  int64_t end_us = INT64_MAX;
};

// Visits the records of all trails from the newest to the oldest until `visit` returns false. `key` is the position
// behind the record; `after` is such a key or empty. Keys ascend.
using VisitRecord =
    std::function<bool(std::string_view key, const std::string& group, const machine::AuditRecord& record)>;
using Trail = std::pair<std::string, const machine::KeyReader*>;
void walk_trails(const std::vector<Trail>& trails, const TrailWindow& window, std::string_view after,
                 const VisitRecord& visit);

}  // namespace uccp::audit
