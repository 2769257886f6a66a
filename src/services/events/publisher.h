// Publish: finds the topic, sorts events into partitions, appends them to the groups that hold these, and answers when
// all are stored. Callable from any thread.
#pragma once

#include <atomic>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "call/call.h"
#include "machine/ports.h"
#include "services/events/event_schema.h"
#include "services/events/gatherer.h"
#include "services/events/topic_directory.h"
#include "services/events/transactions.h"
#include "uccp/v1/events.pb.h"

namespace uccp::events {

struct PublisherOptions {
  // Bytes of the events of one request for one group; what one command can carry.
  uint64_t request_bytes_max = 3u << 19;
};

class Publisher {
 public:
  // Everything must outlive every call. `proposer` reaches the leaders of all groups.
  Publisher(PublisherOptions options, machine::Proposer& proposer, TopicDirectory& topics, Gatherer& gatherer,
            Transactions& transactions, MetricsRegistry& metrics);

  void publish(const call::CallPtr& call, std::string bytes);
  // Makes the partitions of the topic in their groups, or gives them its present settings.
  using Done = std::move_only_function<void(Status)>;
  void open(const machine::Scope& scope, const TopicRow& topic, Done done);

 private:
  struct Request;
  using RequestPtr = std::shared_ptr<Request>;
  // By partition: a batch, and the places of its events in the request.
  using Sorted = std::map<uint32_t, std::pair<internal::v1::BusBatch, std::vector<int>>>;
  Result<Sorted> sort(const RequestPtr& request, const TopicRow& topic);
  void begin(const RequestPtr& request, const TopicRow& topic);
  void join_transaction(const RequestPtr& request);
  void append_all(const RequestPtr& request);
  void append(const RequestPtr& request, uint32_t group);
  void reopen(const RequestPtr& request, uint32_t group);
  void take(const RequestPtr& request, uint32_t group, Result<std::vector<internal::v1::BusBatchResult>> results);

  // Checks the event against the schema of its topic, and notes the version. Errors: invalid SCHEMA_MISMATCH,
  // SCHEMA_VERSION_UNKNOWN.
  Status check_schema(const TopicRow& topic, const std::string& field, v1::Event& event);

  const PublisherOptions options_;
  SchemaCache schemas_;
  machine::Proposer& proposer_;
  TopicDirectory& topics_;
  Gatherer& gatherer_;
  Transactions& transactions_;
  Counter& events_;
  Counter& bytes_;
  std::atomic<uint32_t> turn_{0};  // of events without a key
};

// The partition of an event with this key. Part of the contract with what is stored: never changes.
uint32_t partition_of(std::string_view key, uint32_t partitions);
// The id of an event that was published without one.
std::string default_event_id(uint64_t topic, uint32_t partition, uint64_t offset);

}  // namespace uccp::events
