// Cleans the log of a bus group: when most of what it holds is no longer needed, but the oldest of what is needed keeps
// all of it, the events of the oldest entries are stored again at the end: those of one partition together, and then
// what waits for its offsets, of transactions and scheduled.
//
// Each byte of the log is looked at once a round and freed or copied. A round begins only when less than a share of the
// log is needed, so no more is copied than that share of what is freed: with 45 %, 0.82 bytes for each byte published.
//
// Thread: the loop's; rows and events are looked at on the work executor.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "services/events/compactor.h"

namespace uccp::events {

struct LogCleanerOptions {
  // Below this share of needed bytes the log is cleaned.
  uint32_t live_percent_min = 45;
  // Logs up to this size are left alone.
  uint64_t log_bytes_min = 512u << 20;
  // Bytes of events, and rows of the index, that one pass stores again. Each looks at all rows once; as long as it is
  // due, one follows the other.
  uint64_t pass_bytes = 128u << 20;
  size_t pass_rows = 100'000;
  uint64_t bytes_per_second = 32u << 20;
  // Bytes of events of one command, which is what a reader gets at a time.
  uint64_t command_bytes = 256u << 10;
};

class LogCleaner {
 public:
  LogCleaner(LogCleanerOptions options, const LogWorkEnvironment& environment);

  // The state of the group, and how many bytes of events it needs. Begins a pass if that is worth its while and none is
  // under way on this node.
  void look(GroupId group, const machine::GroupView& view, uint64_t live_bytes, std::function<bool()> leads);

 private:
  struct Pass;
  using PassPtr = std::shared_ptr<Pass>;

  void collect(const PassPtr& pass, const machine::GroupView& view);
  void read_on(const PassPtr& pass);
  void take(const PassPtr& pass, const Fetched& fetched);
  void take_waiting(const PassPtr& pass, const Fetched& fetched);
  void propose(const PassPtr& pass);
  void end(const PassPtr& pass);
  void look_again(const PassPtr& pass);

  const LogCleanerOptions options_;
  const LogWorkEnvironment env_;
  Counter& rewritten_;
  std::map<GroupId, uint64_t> dense_until_;  // bytes that the log must have had before a group is looked at again
  bool busy_ = false;
};

}  // namespace uccp::events
