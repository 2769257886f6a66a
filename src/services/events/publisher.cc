#include "services/events/publisher.h"

#include <algorithm>
#include <array>
#include <map>

#include "base/hash.h"
#include "call/command.h"
#include "services/events/bus_rows.h"
#include "services/events/bus_state.h"
#include "services/events/join.h"

namespace uccp::events {
namespace {

using call::CallPtr;
using internal::v1::BusBatch;
using internal::v1::BusBatchResult;

// What the place of an event tells, and what only the server says.
void strip(v1::Event& event) {
  event.clear_topic();
  event.clear_publish_time();
  event.clear_partition();
  event.clear_offset();
  event.clear_principal();
  event.clear_dead_letter_reason();
  event.clear_dead_letter_attempts();
  event.clear_dead_letter_source();
}

Status check_time(const TopicRow& topic, const std::string& field, const v1::Event& event) {
  if (topic.topic().persistence() != v1::TOPIC_PERSISTENCE_EPHEMERAL) return Status::ok();
  return Status(Code::kInvalid, "FIELD_INVALID", "an ephemeral topic keeps nothing, so nothing can be delivered later")
      .with_field(field + ".deliverTime", "is not for ephemeral topics; leave it out");
}

// A version is that of one key.
Status check_aggregate(const v1::PublishRequest& request) {
  for (const v1::Event& event : request.events()) {
    if (event.key().empty() || event.key() != request.events(0).key()) {
      return Status(Code::kInvalid, "FIELD_INVALID", "expectedVersion is the version of one key, which all events have")
          .with_field("events", "have not all the same key");
    }
    if (event.has_deliver_time()) {
      return Status(Code::kInvalid, "FIELD_INVALID", "an event with a version counts at once")
          .with_field("events", "have a deliverTime, which does not go with expectedVersion");
    }
  }
  return Status::ok();
}

// What counts at the moment of publishing does not go with a transaction, of which nobody knows when it is committed.
Status check_transaction(const v1::PublishRequest& request, const TopicRow& topic) {
  const auto refuse = [](const std::string& field, const std::string& why) {
    return Status(Code::kInvalid, "FIELD_INVALID", why).with_field(field, "does not go with transactionId");
  };
  if (topic.topic().persistence() == v1::TOPIC_PERSISTENCE_EPHEMERAL) {
    return refuse("topic", "an ephemeral topic keeps nothing, so nothing of it can wait for a transaction");
  }
  if (request.sequence() > 0) {
    return refuse("sequence", "in a transaction a repeat is told by its requestId, not by a sequence");
  }
  if (request.has_expected_offset()) {
    return refuse("expectedOffset", "events of a transaction get their offsets when it is committed");
  }
  if (request.has_expected_version()) {
    return refuse("expectedVersion", "events of a transaction change their key when it is committed");
  }
  for (int i = 0; i < request.events_size(); ++i) {
    if (!request.events(i).has_deliver_time()) continue;
    return refuse("events[" + std::to_string(i) + "].deliverTime", "events of a transaction are delivered with it");
  }
  return Status::ok();
}

Status refusal_of(const BusBatchResult& result, const std::string& topic) {
  const std::string expected = std::to_string(result.expected());
  switch (result.refusal()) {
    case BusBatchResult::REFUSAL_STALE_EPOCH:
      return Status(Code::kFailedPrecondition, "PRODUCER_FENCED",
                    "a producer of this name with epoch " + expected + " has published to '" + topic +
                        "'; this one was replaced and must stop");
    case BusBatchResult::REFUSAL_SEQUENCE_GAP:
      return Status(Code::kFailedPrecondition, "SEQUENCE_GAP",
                    "the producer's next sequence number in this partition of '" + topic + "' is " + expected +
                        "; send the events that are missing first")
          .with_field("sequence", "is not " + expected, expected);
    case BusBatchResult::REFUSAL_UNKNOWN_PRODUCER:
      return Status(Code::kFailedPrecondition, "PRODUCER_UNKNOWN",
                    "nothing is known of the producer in this partition of '" + topic +
                        "': it has not published there, or was silent for longer than bus_producer_idle. Whether what "
                        "it sent last arrived is to be found out by reading; then it begins with sequence 1")
          .with_field("sequence", "is not 1", "1")
          .with_help("events.md#publishing");
    case BusBatchResult::REFUSAL_UNEXPECTED_OFFSET:
      return Status(Code::kConflict, "OFFSET_MISMATCH",
                    "the next offset of the partition of '" + topic + "' is " + expected +
                        "; read what was published meanwhile, then try again")
          .with_field("expectedOffset", "is not " + expected, expected);
    case BusBatchResult::REFUSAL_UNEXPECTED_VERSION:
      return Status(Code::kConflict, "VERSION_MISMATCH",
                    "the key has version " + expected + " in '" + topic +
                        "'; read its events, decide again, and publish with that version")
          .with_field("expectedVersion", "is not " + expected, expected);
    case BusBatchResult::REFUSAL_SCHEDULED_FULL:
      return Status(Code::kExhausted, "SCHEDULED_EXHAUSTED",
                    expected + " events wait for their time in a partition of '" + topic +
                        "', as many as may; nothing was published there")
          .with_help("events.md#limits");
    case BusBatchResult::REFUSAL_TRANSACTION_ENDED:
      return Status(Code::kFailedPrecondition, "TRANSACTION_ENDED",
                    "the transaction ended while the events were on their way; nothing of them is in it");
    default: return topic_not_found(topic);
  }
}

}  // namespace

// One call on its way. Parts of it end on any thread.
struct Publisher::Request {
  struct Part {
    std::vector<BusBatch> batches;
    std::vector<std::vector<int>> places;  // of the events of each batch in the request
    bool reopened = false;
  };

  CallPtr call;
  std::string wire;    // for the hash of the deduplication key
  uint64_t bytes = 0;  // of the events
  v1::PublishRequest request;
  machine::Scope scope;
  TopicRow topic;
  std::map<uint32_t, Part> parts;  // by group
  v1::PublishResponse response;
  std::shared_ptr<Join> join;  // of the parts
};

Publisher::Publisher(PublisherOptions options, machine::Proposer& proposer, TopicDirectory& topics, Gatherer& gatherer,
                     Transactions& transactions, MetricsRegistry& metrics)
    : options_(options),
      proposer_(proposer),
      topics_(topics),
      gatherer_(gatherer),
      transactions_(transactions),
      events_(metrics.counter("uccp_events_published_total", "Events published through this node")),
      bytes_(metrics.counter("uccp_events_published_bytes_total", "Bytes of events published through this node")) {}

void Publisher::publish(const CallPtr& call, std::string bytes) {
  auto request = std::make_shared<Request>();
  request->call = call;
  request->scope = {call->principal.tenant, call->name_space};
  if (!request->request.ParseFromString(bytes)) {
    return call->finish(Status(Code::kInvalid, "WIRE_INVALID", "the request cannot be parsed"));
  }
  if (!call->request_id.empty()) request->wire = std::move(bytes);
  topics_.find(request->scope, request->request.topic(), [this, request](Result<TopicRow> topic) {
    if (!topic) return request->call->finish(std::move(topic.error()));
    begin(request, *topic);
  });
}

// The events as they are stored, a batch for each partition. Errors: what is wrong with them.
Result<Publisher::Sorted> Publisher::sort(const RequestPtr& request, const TopicRow& topic) {
  v1::PublishRequest& wanted = request->request;
  const auto partitions = static_cast<uint32_t>(topic.groups_size());
  if (wanted.has_partition() && static_cast<uint32_t>(wanted.partition()) >= partitions) {
    return fail(Status(Code::kInvalid, "FIELD_INVALID", "the topic has no such partition")
                    .with_field("partition", "is not below " + std::to_string(partitions), "0"));
  }
  const uint32_t turn = turn_.fetch_add(1, std::memory_order_relaxed) % partitions;
  Sorted sorted;
  for (int i = 0; i < wanted.events_size(); ++i) {
    v1::Event& event = *wanted.mutable_events(i);
    const std::string field = "events[" + std::to_string(i) + "]";
    if (event.has_deliver_time()) UCCP_RETURN_IF_ERROR(check_time(topic, field, event));
    if (topic.topic().compacted() && event.key().empty()) {
      return fail(Status(Code::kInvalid, "KEY_REQUIRED",
                         "'" + wanted.topic() + "' keeps the newest event of each key, and event " + std::to_string(i) +
                             " has none")
                      .with_field(field + ".key", "is empty", "customer-3")
                      .with_help("events.md#compaction"));
    }
    const uint32_t partition = wanted.has_partition() ? static_cast<uint32_t>(wanted.partition())
                               : event.key().empty()  ? turn
                                                      : partition_of(event.key(), partitions);
    strip(event);
    if (topic.topic().has_schema()) UCCP_RETURN_IF_ERROR(check_schema(topic, field, event));
    std::string stored = event.SerializeAsString();
    if (stored.size() > topic.topic().message_bytes_max()) {
      return fail(Status(Code::kInvalid, "EVENT_TOO_LARGE",
                         "event " + std::to_string(i) + " has " + std::to_string(stored.size()) + " bytes; '" +
                             wanted.topic() + "' takes at most " + std::to_string(topic.topic().message_bytes_max()) +
                             ". Keep large content elsewhere, and its address in the event")
                      .with_field(field, "is too large")
                      .with_help("events.md#limits"));
    }
    request->bytes += stored.size();
    auto& [batch, places] = sorted[partition];
    *batch.add_events() = std::move(stored);
    places.push_back(i);
  }
  if (wanted.has_expected_version()) UCCP_RETURN_IF_ERROR(check_aggregate(wanted));
  if ((wanted.sequence() > 0 || wanted.has_expected_offset()) && sorted.size() > 1) {
    return fail(Code::kInvalid, "SEVERAL_PARTITIONS",
                "sequence and expectedOffset count in one partition, and the events belong to " +
                    std::to_string(sorted.size()) + "; name the partition, or give all the same key");
  }
  if (request->bytes > options_.request_bytes_max) {
    return fail(Status(Code::kInvalid, "PUBLISH_TOO_LARGE",
                       "the events have " + std::to_string(request->bytes) + " bytes together; at most " +
                           std::to_string(options_.request_bytes_max) + " are taken at a time. Publish them in parts")
                    .with_help("events.md#limits"));
  }
  return sorted;
}

Status Publisher::check_schema(const TopicRow& topic, const std::string& field, v1::Event& event) {
  const v1::EventSchema* schema = &topic.topic().schema();
  if (event.schema_version() == 0) event.set_schema_version(schema->version());
  if (event.schema_version() != schema->version()) {
    const auto found = std::ranges::find(topic.former_schemas(), event.schema_version(), &v1::EventSchema::version);
    if (found == topic.former_schemas().end()) {
      return Status(Code::kInvalid, "SCHEMA_VERSION_UNKNOWN",
                    "'" + topic.topic().name() + "' has no schema of version " +
                        std::to_string(event.schema_version()) + "; the newest is " + std::to_string(schema->version()))
          .with_field(field + ".schemaVersion", "is not known", std::to_string(schema->version()));
    }
    schema = &*found;
  }
  UCCP_TRY(const auto compiled, schemas_.find(topic.number(), *schema));
  if (Status status = compiled->check(event); !status.is_ok()) {
    return Status(status.code(), std::string(status.reason()),
                  field + " does not follow version " + std::to_string(schema->version()) + " of the schema of '" +
                      topic.topic().name() + "': " + std::string(status.message()))
        .with_field(field, "does not follow the schema: " + std::string(status.message()))
        .with_help("events.md#schemas");
  }
  return Status::ok();
}

// The batches of each group become one part, which goes its own way.
void Publisher::begin(const RequestPtr& request, const TopicRow& topic) {
  const v1::PublishRequest& wanted = request->request;
  if (wanted.sequence() > 0 && wanted.producer_id().empty()) {
    return request->call->finish(Status(Code::kInvalid, "FIELD_INVALID", "a sequence is one of a producer")
                                     .with_field("producerId", "is required with sequence", "billing-7"));
  }
  if (!wanted.transaction_id().empty()) {
    if (Status status = check_transaction(wanted, topic); !status.is_ok()) {
      return request->call->finish(std::move(status));
    }
  }
  auto sorted = sort(request, topic);
  if (!sorted) return request->call->finish(std::move(sorted.error()));
  for (auto& [partition, entry] : *sorted) {
    auto& [batch, places] = entry;
    batch.set_topic(topic.number());
    batch.set_partition(partition);
    batch.set_ephemeral(topic.topic().persistence() == v1::TOPIC_PERSISTENCE_EPHEMERAL);
    batch.set_principal(request->call->principal.name);
    batch.set_producer_id(wanted.producer_id());
    batch.set_producer_epoch(wanted.producer_epoch());
    batch.set_sequence(wanted.sequence());
    if (wanted.has_expected_offset()) batch.set_expected_offset(wanted.expected_offset());
    if (wanted.has_expected_version()) batch.set_expected_version(wanted.expected_version());
    auto& part = request->parts[topic.groups(static_cast<int>(partition))];
    part.batches.push_back(std::move(batch));
    part.places.push_back(std::move(places));
  }
  for (int i = 0; i < wanted.events_size(); ++i) request->response.add_results();
  events_.add(static_cast<uint64_t>(wanted.events_size()));
  bytes_.add(request->bytes);
  request->topic = topic;
  request->join = Join::make(request->parts.size(), [request = request.get()](Status status) {
    if (!status.is_ok()) return request->call->finish(std::move(status));
    request->call->reply(request->response.SerializeAsString());
  });
  if (wanted.transaction_id().empty()) append_all(request);
  else join_transaction(request);
}

void Publisher::append_all(const RequestPtr& request) {
  std::vector<uint32_t> groups;
  for (const auto& [group, part] : request->parts) groups.push_back(group);
  for (const uint32_t group : groups) append(request, group);
}

void Publisher::join_transaction(const RequestPtr& request) {
  Transactions::Part joining{.events = static_cast<uint64_t>(request->request.events_size()), .bytes = request->bytes};
  for (const auto& [group, part] : request->parts) joining.groups.insert(group);
  transactions_.join(request->call, request->wire, request->request.transaction_id(), joining,
                     [this, request](Result<TransactionRow> transaction) {
                       if (!transaction) return request->call->finish(std::move(transaction.error()));
                       for (auto& [group, part] : request->parts) {
                         for (BusBatch& batch : part.batches) {
                           batch.set_transaction(transaction->number());
                           batch.set_transaction_producer(transaction->producer_id());
                         }
                       }
                       append_all(request);
                     });
}

// With a request id the command is recognised when it comes again, so it goes by itself.
void Publisher::append(const RequestPtr& request, uint32_t group) {
  Request::Part& part = request->parts[group];
  if (request->call->request_id.empty()) {
    return gatherer_.append(bus_group(group), request->scope, part.batches, request->call->deadline,
                            [this, request, group](auto results) { take(request, group, std::move(results)); });
  }
  internal::v1::BusAppendCommand command;
  for (const BusBatch& batch : part.batches) *command.add_batches() = batch;
  auto envelope = call::make_envelope(*request->call, request->wire, std::string(kBusDomain) + ".append",
                                      command.SerializeAsString());
  // The first answer under this id is the refusal.
  if (part.reopened) envelope.dedup.request_id += " again";
  proposer_.propose(bus_group(group), std::move(envelope), [this, request, group](Result<machine::Applied> applied) {
    if (!applied) return take(request, group, std::unexpected(std::move(applied.error())));
    internal::v1::BusAppendResult result;
    if (!result.ParseFromString(applied->response)) {
      return take(request, group,
                  fail(Code::kInternal, "BUS_ANSWER", "a bus group answered what is no BusAppendResult"));
    }
    take(request, group,
         std::vector<BusBatchResult>(std::make_move_iterator(result.mutable_batches()->begin()),
                                     std::make_move_iterator(result.mutable_batches()->end())));
  });
}

void Publisher::take(const RequestPtr& request, uint32_t group, Result<std::vector<BusBatchResult>> results) {
  if (!results) return request->join->arrive(std::move(results.error()));
  Request::Part& part = request->parts[group];
  const bool unknown = std::ranges::any_of(
      *results, [](const auto& r) { return r.refusal() == BusBatchResult::REFUSAL_UNKNOWN_PARTITION; });
  // All of them: partitions of one topic are opened together, in a group.
  if (unknown && !std::exchange(part.reopened, true)) return reopen(request, group);
  Status status;
  for (size_t i = 0; i < part.batches.size() && i < results->size(); ++i) {
    const BusBatch& batch = part.batches[i];
    const BusBatchResult& result = (*results)[i];
    if (result.refusal() != BusBatchResult::REFUSAL_UNSPECIFIED) {
      status = refusal_of(result, request->request.topic());
      continue;
    }
    uint64_t offset = result.first_offset();
    // Of the key, before those events that were stored.
    const auto stored = part.places[i].size() - static_cast<size_t>(result.duplicates_size());
    uint64_t version = result.version() - std::min<uint64_t>(result.version(), stored);
    for (size_t place = 0; place < part.places[i].size(); ++place) {
      const v1::Event& event = request->request.events(part.places[i][place]);
      v1::PublishResult& out = *request->response.mutable_results(part.places[i][place]);
      out.set_partition(static_cast<int32_t>(batch.partition()));
      if (result.staged()) {
        out.set_pending(true);
        out.set_id(event.id());
        continue;
      }
      const auto found = std::ranges::find(result.duplicates(), static_cast<uint32_t>(place));
      if (found != result.duplicates().end()) {
        out.set_duplicate(true);
        out.set_offset(result.duplicate_offsets(static_cast<int>(found - result.duplicates().begin())));
      } else if (std::ranges::find(result.scheduled(), static_cast<uint32_t>(place)) != result.scheduled().end()) {
        // An id that the server makes tells the place, which it gets at its time.
        out.set_scheduled(true);
        out.set_id(event.id());
        continue;
      } else if (!batch.ephemeral()) {
        out.set_offset(offset++);
        if (result.version() > 0) out.set_version(++version);
      }
      out.set_id(event.id().empty() && !batch.ephemeral()
                     ? default_event_id(batch.topic(), batch.partition(), out.offset())
                     : event.id());
    }
  }
  request->join->arrive(std::move(status));
}

// The topic was made a moment ago, or has more partitions than a moment ago, or is gone.
void Publisher::reopen(const RequestPtr& request, uint32_t group) {
  topics_.find_fresh(request->scope, request->request.topic(), [this, request, group](Result<TopicRow> topic) {
    if (!topic) return request->join->arrive(std::move(topic.error()));
    if (topic->number() != request->topic.number())
      return request->join->arrive(topic_not_found(request->request.topic()));
    open(request->scope, *topic, [this, request, group](Status status) {
      if (!status.is_ok()) return request->join->arrive(std::move(status));
      append(request, group);
    });
  });
}

void Publisher::open(const machine::Scope& scope, const TopicRow& topic, Done done) {
  std::map<uint32_t, internal::v1::BusOpenCommand> commands;
  for (int partition = 0; partition < topic.groups_size(); ++partition) {
    commands[topic.groups(partition)].add_partitions(static_cast<uint32_t>(partition));
  }
  const auto join = Join::make(commands.size(), std::move(done));
  for (auto& [group, command] : commands) {
    command.set_topic(topic.number());
    *command.mutable_settings() = settings_of(topic.topic());
    machine::Envelope envelope;
    envelope.scope = scope;
    envelope.principal = "system";
    envelope.command = std::string(kBusDomain) + ".open";
    envelope.payload = command.SerializeAsString();
    proposer_.propose(bus_group(group), std::move(envelope), [join](Result<machine::Applied> applied) {
      join->arrive(applied ? Status::ok() : std::move(applied.error()));
    });
  }
}

uint32_t partition_of(std::string_view key, uint32_t partitions) {
  return static_cast<uint32_t>(hash64(key) % partitions);
}

std::string default_event_id(uint64_t topic, uint32_t partition, uint64_t offset) {
  // Crockford's base 32, most significant first: ids of one partition sort by offset.
  constexpr std::string_view kDigits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
  std::string id = "evt_";
  const auto add = [&](uint64_t value, int digits) {
    for (int shift = (digits - 1) * 5; shift >= 0; shift -= 5) id += kDigits[value >> shift & 31];
  };
  add(topic, 9);
  add(partition, 2);
  add(offset, 10);
  return id;
}

}  // namespace uccp::events
