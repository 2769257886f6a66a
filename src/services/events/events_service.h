// The methods of the event bus: topics, publishing, streams. Must outlive every call. Callable from any thread.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>

#include "base/clock.h"
#include "base/executor.h"
#include "base/metrics.h"
#include "call/handler.h"
#include "call/listing.h"
#include "machine/log_reader.h"
#include "machine/ports.h"
#include "services/events/bus_keeper.h"
#include "services/events/feed.h"
#include "services/events/fetcher.h"
#include "services/events/gatherer.h"
#include "services/events/publisher.h"
#include "services/events/streams.h"
#include "services/events/subscriptions.h"
#include "services/events/topic_directory.h"
#include "services/events/transactions.h"
#include "services/events/views.h"

namespace uccp::events {

// As in the configuration; docs/events.md has the defaults and why.
struct EventsOptions {
  uint32_t groups = 1;  // bus-0 to bus-(groups - 1)
  uint64_t topics_max = 100'000;
  TopicLimits topic;
  GathererOptions gatherer;
  PublisherOptions publisher;
  StreamOptions stream;
  Subscriptions::Options subscriptions;
  BusKeeperOptions keeper;
  CompactorOptions compactor;
  LogCleanerOptions cleaner;
  SilentProducersOptions producers;
  TransactionOptions transactions;
};

// Everything must outlive the service.
struct EventsEnvironment {
  machine::Proposer& local;     // proposes on this node
  machine::Proposer& anywhere;  // to the leader of the group, wherever it is
  machine::Reader& reader;
  machine::LogReader& log;
  machine::Watcher& watcher;
  Executor& loop;
  Executor& events;  // where the watcher's callbacks come
  Executor& work;
  const Clock& clock;
  MetricsRegistry& metrics;
  const call::PageTokenSigner& page_tokens;
  std::function<NodeId(GroupId)> leader;  // as far as this node knows; 0: none
  std::function<uint32_t()> feature_level;
  // What quotas allow of topics in a namespace, from the state of the work group; may be empty.
  using TopicQuotas =
      std::function<std::vector<internal::v1::TopicQuota>(const machine::GroupView& work, const machine::Scope& scope)>;
  TopicQuotas topic_quotas;
};

class EventsService {
 public:
  EventsService(EventsOptions options, EventsEnvironment environment);

  void add_handlers(call::HandlerTable& handlers);
  // Before the first call; as Streams::show_changes().
  void show_changes(std::vector<services::ChangeTopic> topics, Streams::May may) {
    streams_->show_changes(std::move(topics), std::move(may));
  }
  // The node runs: begins to listen to its groups.
  void start() { feed_.start(); }
  // On the loop: this node leads the group, which is one of the bus groups, or no longer does.
  void on_leadership(GroupId group, bool leads) {
    keeper_.on_leadership(group, leads);
    if (group == kTransactionGroup) transactions_.on_leadership(leads);
  }
  // On the loop: the same for core.
  void on_core_leadership(bool leads) { subscriptions_.on_leadership(leads); }

 private:
  using OnTopic = std::move_only_function<void(const call::CallPtr&, TopicRow)>;

  void create(const call::CallPtr& call, std::string bytes);
  void update(const call::CallPtr& call, std::string bytes);
  void remove(const call::CallPtr& call, std::string bytes);
  void get(const call::CallPtr& call, const v1::GetTopicMetadataRequest& request);
  void list(const call::CallPtr& call, std::string bytes);
  void subscribe(const call::CallPtr& call, std::string bytes);

  // What quotas allow of topics where the call makes one, as they are now.
  void read_quotas(const call::CallPtr& call,
                   std::move_only_function<void(std::vector<internal::v1::TopicQuota>)> done);
  void create_checked(const call::CallPtr& call, const std::string& bytes, v1::Topic topic, bool validate_only);
  // Proposes topics.`verb`; what it answers goes on.
  void propose(const call::CallPtr& call, std::string_view bytes, std::string_view verb,
               const google::protobuf::MessageLite& command, OnTopic on_topic);
  // `done` comes with OK if the topic may have the schema of the update; then `command` holds for the topic as it is
  // now alone.
  void check_evolution(const call::CallPtr& call, internal::v1::TopicUpdateCommand command,
                       std::move_only_function<void(Result<internal::v1::TopicUpdateCommand>)> done);
  // Opens the partitions of a topic and answers it.
  void open_and_reply(const call::CallPtr& call, const TopicRow& topic);
  v1::Topic shown(const machine::Scope& scope, const TopicRow& row, const Views& views) const;

  const EventsOptions options_;
  EventsEnvironment env_;
  TopicDirectory topics_;
  Gatherer gatherer_;
  Transactions transactions_;
  Publisher publisher_;
  Feed feed_;
  Fetcher fetcher_;
  Compactor compactor_;
  LogCleaner cleaner_;
  SilentProducers producers_;
  BusKeeper keeper_;
  const std::shared_ptr<Streams> streams_;
  Subscriptions subscriptions_;
};

}  // namespace uccp::events
