// Puts publishes that come at the same time into one command: whatever arrives while appends of the same group and
// namespace are under way goes together into the next one. A publish that comes alone goes at once.
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
  struct Publish {
    std::vector<internal::v1::BusBatch> batches;
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
