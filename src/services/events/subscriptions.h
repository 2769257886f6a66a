// The subscriptions with a name of this node, as long as it leads core: made when somebody first asks for them, with
// their places from the bus groups. The methods of the contract that name a subscription.
//
// Subscriptions live on the events executor; the methods are callable from any thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "call/call.h"
#include "call/handler.h"
#include "call/listing.h"
#include "services/events/subscription.h"
#include "services/events/transactions.h"
#include "services/events/views.h"

namespace uccp::events {

class Subscriptions {
 public:
  struct Options {
    uint64_t subscriptions_max = 1'000;  // of a namespace
    int64_t idle_check_ms = 5'000;       // between two looks for subscriptions that nobody uses
    SubscriptionOptions subscription;
  };
  // Everything must outlive the calls. `local` proposes on this node.
  struct Environment {
    machine::Proposer& local;
    machine::Proposer& anywhere;
    machine::Reader& reader;
    Feed& feed;
    Fetcher& fetcher;
    Gatherer& gatherer;
    TopicDirectory& topics;
    Transactions& transactions;
    Executor& events;
    Executor& work;
    const Clock& clock;
    MetricsRegistry& metrics;
    const call::PageTokenSigner& page_tokens;
    uint32_t groups;
  };
  Subscriptions(Options options, const Environment& environment);

  void add_handlers(call::HandlerTable& handlers);
  // Requires that the request names a subscription.
  void subscribe(const call::CallPtr& call, const v1::SubscribeRequest& request, std::string bytes);
  // This node leads core or no longer does.
  void on_leadership(bool leads);

 private:
  using Key = std::pair<machine::Scope, std::string>;
  using SubscriptionPtr = std::shared_ptr<Subscription>;
  using OnLoaded = std::move_only_function<void(Result<SubscriptionPtr>)>;
  struct Slot {
    uint64_t load = 0;             // which of all loads fills it: an earlier one that ends later is none of it
    SubscriptionPtr subscription;  // once it is loaded
    std::vector<OnLoaded> waiting;
  };

  void unsubscribe(const call::CallPtr& call, std::string bytes);
  void ack(const call::CallPtr& call, v1::AckEventsRequest request);
  void ack_in_transaction(const call::CallPtr& call, const v1::AckEventsRequest& request);
  void nack(const call::CallPtr& call, v1::NackEventsRequest request);
  void pull(const call::CallPtr& call, const v1::PullEventsRequest& request);
  void seek(const call::CallPtr& call, const v1::SeekSubscriptionRequest& request);
  struct SoughtPartition {
    const machine::GroupView& view;
    const machine::Scope& scope;
    GroupId group;
    PartitionId id;
    const std::string& topic;
    const BusPartitionRow& row;
  };
  static Result<std::optional<uint64_t>> sought(const v1::SeekSubscriptionRequest& request, const Cursor& cursor,
                                                const SoughtPartition& at);
  void move_places(const call::CallPtr& call, const v1::SeekSubscriptionRequest& request, const Cursor& cursor,
                   const SubscriptionPtr& subscription, const Views& views);
  void get(const call::CallPtr& call, const std::string& name);
  void list(const call::CallPtr& call, std::string bytes);

  // The subscription of that name, with its places. `done` comes on the events executor.
  void find(const machine::Scope& scope, const std::string& name, OnLoaded done);
  void load(const Key& key, uint64_t number, SubscriptionRow row);
  void take_loaded(const Key& key, uint64_t number, Result<SubscriptionPtr> loaded);
  // Removes subscriptions that had no subscriber for their idle TTL, as long as this leadership lasts.
  void remove_idle(uint64_t leadership);
  void remove_unused(const Key& key, const SubscriptionRow& row);
  // Nobody finds it any more, and whoever waits for it or has a stream is told why.
  void close(std::map<Key, Slot>::node_type slot, v1::StreamEndReason reason, const Status& status);
  // With what is known of its progress; `views` are the states of core and the bus groups.
  v1::Subscription shown(const machine::Scope& scope, const SubscriptionRow& row, const Views& views) const;
  void overlay(v1::Subscription& shown, const machine::Scope& scope) const;
  void read_all(const call::CallPtr& call, std::move_only_function<void(const Views&)> done);
  void join(const call::CallPtr& call, const SubscriptionPtr& subscription, const MemberPtr& member);
  void join_until(const call::CallPtr& call, const SubscriptionPtr& subscription, const MemberPtr& member);
  void join_pull(const call::CallPtr& call, const SubscriptionPtr& subscription, const MemberPtr& member,
                 int64_t wait_ms);
  void forget_places(const machine::Scope& scope, const SubscriptionRow& row,
                     std::map<PartitionId, std::pair<GroupId, std::string>> partitions);

  const Options options_;
  const Environment env_;
  SubscriptionCounters counters_;
  Gauge& members_;
  bool leads_ = false;         // core, as far as the events executor was told
  std::map<Key, Slot> slots_;  // none is loaded while this node does not lead
  uint64_t last_load_ = 0;
  uint64_t leadership_ = 0;
  std::map<Key, BootTime> used_;  // since this node leads: when it last had a subscriber or was asked for
};

}  // namespace uccp::events
