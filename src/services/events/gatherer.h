// Puts publishes that come at the same time into one command: whatever arrives while appends of the same group and
// namespace are under way goes together into the next one. A publish that comes alone goes at once. Batches for one
// partition become one, if nothing but the events differs: then a row of the index stands for many publishes.
//
// Lives on one executor; append() is callable from any thread.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/metrics.h"
#include "machine/ports.h"
#include "uccp/internal/v1/events_state.pb.h"

namespace uccp::events {

struct GathererOptions {
  // Bytes of events of one command.
  uint64_t command_bytes_max = 1u << 20;
  // Bytes of events that wait to be proposed, of all groups.
  uint64_t queue_bytes_max = 64u << 20;
  // Commands of one group and namespace at a time: one is written while the next is made.
  size_t under_way_max = 2;
};

class Gatherer {
 public:
  // Everything must outlive the gatherer and every append.
  Gatherer(GathererOptions options, machine::Proposer& proposer, Executor& executor, const Clock& clock,
           MetricsRegistry& metrics);

  // One result a batch. Errors: exhausted EVENTS_QUEUE_FULL, deadline; those of the proposer.
  using Done = std::move_only_function<void(Result<std::vector<internal::v1::BusBatchResult>>)>;
  void append(GroupId group, const machine::Scope& scope, std::vector<internal::v1::BusBatch> batches,
              std::optional<BootTime> deadline, Done done);

 private:
  // Where a batch went: these events of a batch of the command.
  struct Slot {
    int batch = 0;
    uint32_t first = 0;
    uint32_t count = 0;
  };
  struct Publish {
    std::vector<internal::v1::BusBatch> batches;
    std::vector<Slot> slots;
    uint64_t bytes = 0;
    std::optional<BootTime> deadline;
    Done done;
  };
  struct Queue {
    std::deque<Publish> waiting;
    size_t under_way = 0;
  };
  using Key = std::pair<GroupId, machine::Scope>;

  void add(const Key& key, Publish publish);
  void flush(const Key& key);
  static Slot put(internal::v1::BusAppendCommand& command, std::map<std::pair<uint64_t, uint32_t>, int>& last,
                  internal::v1::BusBatch batch);
  static internal::v1::BusBatchResult result_of(const Slot& slot, const internal::v1::BusBatchResult& whole);
  void finish(const Key& key, std::vector<Publish> publishes, Result<machine::Applied> applied);

  const GathererOptions options_;
  machine::Proposer& proposer_;
  Executor& executor_;
  const Clock& clock_;
  Histogram& gathered_;
  std::map<Key, Queue> queues_;
  uint64_t queued_bytes_ = 0;
};

uint64_t bytes_of(const internal::v1::BusBatch& batch);

}  // namespace uccp::events
