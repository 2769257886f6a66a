// The disk of a node: writes what its groups output for persisting, one sync for all that waits.
//
// submit() belongs to the loop. Writing runs on the disk executor; while one sync is under way, further records gather
// and go with the next one. Completions come back on the loop, in order. The first error is fatal for the node.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/metrics.h"
#include "storage/kv.h"
#include "storage/log_store.h"

namespace uccp::node {

struct DiskRecord {
  GroupId group;
  std::optional<HardState> hard_state;
  std::optional<LogPosition> log_start;  // the log begins anew behind this, before `entries`
  std::vector<Entry> entries;
  std::move_only_function<void()> done;  // on the loop, when durable
};

class Disk {
 public:
  using Fatal = std::move_only_function<void(Status)>;

  // Everything passed in must outlive the disk and its executor's queue.
  // `flush` writes the state, which may take long; the log is written on `io` meanwhile. They may be the same.
  Disk(Executor& loop, Executor& io, Executor& flush, storage::LogStore& log, storage::Kv& kv, const Clock& clock,
       MetricsRegistry& metrics, Fatal fatal);

  void submit(DiskRecord record);
  // Flushes the state, then drops log entries up to `position`; `done` comes on the loop.
  void flush_and_compact(GroupId group, LogPosition position, std::move_only_function<void()> done);
  // Runs `work` on the disk executor between batches and `done` on the loop.
  void run(std::move_only_function<Status()> work, std::move_only_function<void()> done);
  bool idle() const { return !busy_ && waiting_.empty(); }

 private:
  void start_batch();
  void run_on(Executor& executor, std::move_only_function<Status()> work, std::move_only_function<void()> done);
  Status write(std::vector<DiskRecord>& batch);

  Executor& loop_;
  Executor& io_;
  Executor& flush_;
  storage::LogStore& log_;
  storage::Kv& kv_;
  const Clock& clock_;
  Histogram& fsync_seconds_;
  Histogram& batch_entries_;
  Fatal fatal_;
  std::vector<DiskRecord> waiting_;
  bool busy_ = false;
  bool failed_ = false;
};

}  // namespace uccp::node
