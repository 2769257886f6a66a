// Compaction by key: finds out which events newer ones of their keys replaced, and removes them, one partition at a
// time.
//
// A pass first goes through what was published since the last one and remembers the last offset of each key, then
// through the whole partition, and gives up each event whose key comes again later. Keys are remembered up to a number
// of bytes; if there are more, the pass goes only as far. It reads no more than so many bytes a second. Nothing of it
// is kept: whoever leads next begins anew, and what is removed twice is removed once.
//
// Thread: the loop's; events are looked at on the work executor.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "base/executor.h"
#include "base/metrics.h"
#include "machine/ports.h"
#include "services/events/bus_compact.h"
#include "services/events/fetcher.h"

namespace uccp::events {

struct CompactorOptions {
  CompactionLimits limits;
  uint64_t memory_bytes_max = 64u << 20;
  uint64_t bytes_per_second = 32u << 20;
  uint64_t fetch_bytes = 256u << 10;
  // Rows of the index that one command changes: about a millisecond of the loop.
  int rows_per_command = 500;
};

// A partition, wherever it is.
struct PartitionAt {
  GroupId group;
  machine::Scope scope;
  PartitionId id;
};

// What works on the log of a group beside its users. Everything must outlive it, and it every command it proposes.
struct LogWorkEnvironment {
  machine::Proposer& local;  // proposes on this node
  machine::Reader& reader;
  Fetcher& fetcher;
  Executor& loop;
  Executor& work;
  MetricsRegistry& metrics;
};

// Milliseconds to wait after so many bytes, so that they are no more than that a second.
inline int64_t pause_ms(uint64_t bytes, uint64_t bytes_per_second) {
  return static_cast<int64_t>(bytes * 1000 / std::max<uint64_t>(bytes_per_second, 1));
}

class Compactor {
 public:
  Compactor(CompactorOptions options, const LogWorkEnvironment& environment);

  // Callable from any thread.
  bool due(const BusPartitionRow& row, int64_t now_ms) const { return compaction_due(row, now_ms, options_.limits); }
  // What of the group waits for a pass from now on; `leads` answers whether this node still leads it.
  void begin(GroupId group, std::vector<PartitionAt> partitions, std::function<bool()> leads);

 private:
  struct Pass;
  using PassPtr = std::shared_ptr<Pass>;
  struct Waiting {
    PartitionAt at;
    std::function<bool()> leads;
  };

  void next();
  void start(const PassPtr& pass, const machine::GroupView& view);
  void read_on(const PassPtr& pass);
  void take(const PassPtr& pass, Result<Fetched> fetched);
  // False: the pass has seen all that it goes through.
  bool map_keys(Pass& pass, const Batch& batch) const;
  bool sweep(Pass& pass, const Batch& batch) const;
  void remove(const PassPtr& pass, uint64_t read_bytes);
  void end(const PassPtr& pass);

  const CompactorOptions options_;
  const LogWorkEnvironment env_;
  Counter& passes_;
  Counter& read_bytes_;
  Counter& removed_;
  std::deque<Waiting> waiting_;
  bool busy_ = false;
};

}  // namespace uccp::events
