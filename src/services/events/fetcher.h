// Reads stored events of a bus group in pieces: index rows from the state, then the log entries that they name. Keeps
// nothing; whoever reads keeps where they are. Index and entries are worked on by the work executor.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/executor.h"
#include "machine/log_reader.h"
#include "machine/ports.h"
#include "services/events/batches.h"

namespace uccp::events {

// Where somebody is in a partition.
struct ReadFrom {
  machine::Scope scope;
  PartitionId id;
  uint64_t next = 0;
};

struct Fetched {
  std::vector<BatchPtr> batches;  // in the order of the log
  // For partitions that were looked at: everything below was answered, or is not there any more.
  std::map<PartitionId, uint64_t> next;
  // Partitions that lost events which were still to be read.
  std::vector<PartitionId> trimmed;
  bool whole = true;  // there is nothing behind, as of now
  // There are events of topics that the reader does not know. Nothing was read: what is behind them in the log, it
  // would send before them.
  bool ahead = false;
};

// The topics that a reader of patterns knows: all of its namespace up to a number.
struct KnownTopics {
  machine::Scope scope;
  uint64_t number = 0;
};
// The state of a bus group has a partition of a later one.
bool has_newer_topic(const machine::GroupView& bus, const KnownTopics& known);

class Fetcher {
 public:
  // Everything must outlive every fetch.
  Fetcher(machine::Reader& reader, machine::LogReader& log, Executor& work) : reader_(reader), log_(log), work_(work) {}

  // About `bytes_max` of events, at least one if there is one. `done` comes on any thread. Errors: those of the log.
  using Done = std::move_only_function<void(Result<Fetched>)>;
  void fetch(GroupId group, std::vector<ReadFrom> from, uint64_t bytes_max, Done done) {
    fetch(group, std::move(from), bytes_max, std::nullopt, std::move(done));
  }
  void fetch(GroupId group, std::vector<ReadFrom> from, uint64_t bytes_max, std::optional<KnownTopics> known,
             Done done);
  // The events of rows, wherever they lie; sorted by that. Fewer if the log has one no more.
  void fetch_rows(GroupId group, std::vector<std::pair<PartitionId, BusIndexRow>> rows, uint64_t bytes_max, Done done);

 private:
  struct Run;
  void plan(const std::shared_ptr<Run>& run, const machine::GroupView& view);
  void read_next(const std::shared_ptr<Run>& run);
  void take(const std::shared_ptr<Run>& run, Result<std::vector<Entry>> entries);

  machine::Reader& reader_;
  machine::LogReader& log_;
  Executor& work_;
};

}  // namespace uccp::events
