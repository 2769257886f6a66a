#include "services/events/subscriptions.h"

#include <algorithm>

#include "call/command.h"
#include "services/events/bus_state.h"
#include "services/events/system_topics.h"
#include "services/message_types.h"

namespace uccp::events {
namespace {

using call::CallPtr;
using machine::GroupView;
using machine::ReadLevel;
using machine::Scope;
using services::ms_of;
using services::us_of;

constexpr int32_t kInFlightDefault = 100;
constexpr int32_t kPulledDefault = 100;

std::string method_name(std::string_view rpc) { return "uccp.v1.EventBus/" + std::string(rpc); }

Scope scope_of(const call::Call& call) { return {call.principal.tenant, call.name_space}; }

// The subscription that the request makes if there is none.
SubscriptionRow row_of(const v1::SubscribeRequest& request) {
  SubscriptionRow row;
  v1::Subscription& subscription = *row.mutable_subscription();
  subscription.set_name(request.subscription());
  *subscription.mutable_topics() = request.topics();
  subscription.set_filter(request.filter());
  subscription.set_ack_mode(request.ack_mode() == v1::ACK_MODE_UNSPECIFIED ? v1::ACK_MODE_MANUAL : request.ack_mode());
  subscription.set_sharing(request.sharing() == v1::SUBSCRIPTION_SHARING_UNSPECIFIED ? v1::SUBSCRIPTION_SHARING_KEY
                                                                                     : request.sharing());
  subscription.set_dead_letter_topic(request.dead_letter_topic());
  subscription.set_deliveries_max(request.deliveries_max());
  if (request.has_ack_timeout()) *subscription.mutable_ack_timeout() = request.ack_timeout();
  else subscription.mutable_ack_timeout()->set_seconds(30);
  row.set_start(request.start());
  row.set_start_time_us(us_of(request.start_time()));
  row.set_start_offset(request.start_offset());
  const std::set<int32_t> partitions(request.partitions().begin(), request.partitions().end());
  for (const int32_t partition : partitions) {
    row.add_partitions(static_cast<uint32_t>(partition));
    subscription.add_partitions(partition);
  }
  if (request.has_idle_ttl()) *subscription.mutable_idle_ttl() = request.idle_ttl();
  return row;
}

Status check(const v1::SubscribeRequest& request) {
  if (!request.since().empty()) {
    return Status(Code::kInvalid, "FIELD_INVALID", "a subscription keeps its own place; move it with SeekSubscription")
        .with_field("since", "cannot be given with a subscription");
  }
  if (std::ranges::any_of(request.topics(), [](const std::string& topic) { return is_system(topic); })) {
    return Status(Code::kInvalid, "FIELD_INVALID",
                  "topics of the system have no subscriptions; a stream of them goes on "
                  "from its cursor")
        .with_field("subscription", "cannot be given with topics that begin with $sys; leave it out");
  }
  return Status::ok();
}

}  // namespace

Subscriptions::Subscriptions(Options options, const Environment& environment)
    : options_(options),
      env_(environment),
      counters_{env_.metrics.counter("uccp_subscription_delivered_total", "Deliveries of subscriptions"),
                env_.metrics.counter("uccp_subscription_redelivered_total", "Of them, those that were not the first"),
                env_.metrics.counter("uccp_subscription_acknowledged_total", "Deliveries that were confirmed"),
                env_.metrics.counter("uccp_subscription_dead_lettered_total", "Events moved to a dead-letter topic"),
                env_.metrics.counter("uccp_subscription_dropped_total",
                                     "Events that a subscription gave up: no dead-letter topic, or no longer kept")},
      members_(env_.metrics.gauge("uccp_event_subscribers", "Streams of subscriptions that this node serves")) {}

void Subscriptions::add_handlers(call::HandlerTable& handlers) {
  handlers.add(method_name("Unsubscribe"),
               [this](const CallPtr& call, std::string bytes) { unsubscribe(call, std::move(bytes)); });
  handlers.add_parsed<v1::AckEventsRequest>(
      method_name("AckEvents"),
      [this](const CallPtr& call, v1::AckEventsRequest request) { ack(call, std::move(request)); });
  handlers.add_parsed<v1::NackEventsRequest>(
      method_name("NackEvents"),
      [this](const CallPtr& call, v1::NackEventsRequest request) { nack(call, std::move(request)); });
  handlers.add_parsed<v1::PullEventsRequest>(
      method_name("PullEvents"),
      [this](const CallPtr& call, const v1::PullEventsRequest& request) { pull(call, request); });
  handlers.add_parsed<v1::SeekSubscriptionRequest>(
      method_name("SeekSubscription"),
      [this](const CallPtr& call, const v1::SeekSubscriptionRequest& request) { seek(call, request); });
  handlers.add_parsed<v1::GetSubscriptionRequest>(
      method_name("GetSubscription"),
      [this](const CallPtr& call, const v1::GetSubscriptionRequest& request) { get(call, request.subscription()); });
  handlers.add(method_name("ListSubscriptions"),
               [this](const CallPtr& call, std::string bytes) { list(call, std::move(bytes)); });
}

// --- which there are ------------------------------------------------------------------------------------------------

void Subscriptions::on_leadership(bool leads) {
  env_.events.post([this, leads] {
    leads_ = leads;
    used_.clear();
    if (leads) return remove_idle(++leadership_);
    while (!slots_.empty()) {
      close(slots_.extract(slots_.begin()), v1::STREAM_END_REASON_RECONNECT, leader_moved());
    }
    members_.set(0);
  });
}

// Whoever leads begins to count anew, so that nobody loses a subscription to a change of leaders.
void Subscriptions::remove_idle(uint64_t leadership) {
  if (!leads_ || leadership != leadership_) return;
  env_.events.post_after(options_.idle_check_ms, [this, leadership] { remove_idle(leadership); });
  env_.reader.read(kCoreGroup, {.kind = ReadLevel::Kind::kSession}, [this, leadership](Result<GroupView> core) {
    if (!core) return;
    env_.events.post([this, leadership, core = std::move(*core)] {
      if (!leads_ || leadership != leadership_) return;
      const BootTime now = env_.clock.boot();
      std::map<Key, BootTime> used;
      kSubscriptions.scan_all(core, [&](const Scope& scope, std::string_view name, const SubscriptionRow& row) {
        if (!row.subscription().has_idle_ttl()) return true;
        const Key key(scope, std::string(name));
        const auto slot = slots_.find(key);
        const bool in_use =
            slot != slots_.end() && (!slot->second.subscription || slot->second.subscription->members() > 0);
        const auto known = used_.find(key);
        used[key] = in_use || known == used_.end() ? now : known->second;
        if (now.ms_since(used[key]) >= ms_of(row.subscription().idle_ttl())) remove_unused(key, row);
        return true;
      });
      used_ = std::move(used);
    });
  });
}

void Subscriptions::remove_unused(const Key& key, const SubscriptionRow& row) {
  internal::v1::SubscriptionDeleteCommand command;
  command.set_name(key.second);
  machine::Envelope envelope;
  envelope.scope = key.first;
  envelope.principal = "system";
  envelope.command = std::string(kTopicsDomain) + ".unsubscribe";
  envelope.payload = command.SerializeAsString();
  env_.local.propose(kCoreGroup, std::move(envelope), [this, key, row](const Result<machine::Applied>& applied) {
    if (!applied) return;
    env_.events.post([this, key, row] {
      const auto slot = slots_.find(key);
      if (slot == slots_.end() || !slot->second.subscription) return;
      forget_places(key.first, row, slot->second.subscription->partitions());
      close(slots_.extract(slot), v1::STREAM_END_REASON_DELETED,
            Status(Code::kNotFound, "SUBSCRIPTION_NOT_FOUND", "the subscription had no subscriber for its idleTtl"));
    });
  });
}

void Subscriptions::close(std::map<Key, Slot>::node_type slot, v1::StreamEndReason reason, const Status& status) {
  if (slot.empty()) return;
  if (slot.mapped().subscription) slot.mapped().subscription->close(reason, status);
  for (OnLoaded& done : slot.mapped().waiting) done(std::unexpected(status));
}

void Subscriptions::find(const Scope& scope, const std::string& name, OnLoaded done) {
  env_.events.post([this, key = Key(scope, name), done = std::move(done)]() mutable {
    used_[key] = env_.clock.boot();
    const auto at = slots_.find(key);
    if (at != slots_.end() && at->second.subscription) {
      // One that was replaced without this node having heard of it ends what it has; the next one is loaded anew.
      if (!at->second.subscription->closed()) return done(at->second.subscription);
      slots_.erase(at);
    }
    Slot& slot = slots_[key];
    slot.waiting.push_back(std::move(done));
    if (slot.waiting.size() > 1) return;
    slot.load = ++last_load_;
    env_.reader.read(kCoreGroup, ReadLevel::linearizable(), [this, key, number = slot.load](Result<GroupView> view) {
      env_.events.post([this, key, number, view = std::move(view)]() mutable {
        if (!view) return take_loaded(key, number, std::unexpected(std::move(view.error())));
        // The call came when this node led. What is loaded now would be there, and long replaced, when it leads again.
        if (!leads_) return take_loaded(key, number, std::unexpected(leader_moved()));
        auto row = kSubscriptions.get(*view, key.first, key.second);
        if (!row) return take_loaded(key, number, std::unexpected(subscription_not_found(key.second)));
        load(key, number, std::move(*row));
      });
    });
  });
}

void Subscriptions::load(const Key& key, uint64_t number, SubscriptionRow row) {
  auto filter = EventFilter::compile(row.subscription().filter());
  if (!filter) return take_loaded(key, number, std::unexpected(std::move(filter.error())));
  auto subscription = std::make_shared<Subscription>(
      SubscriptionEnvironment{options_.subscription, env_.anywhere, env_.reader, env_.feed, env_.fetcher, env_.gatherer,
                              env_.topics, env_.events, env_.clock, env_.metrics, counters_},
      key.first, std::move(row), std::move(*filter));
  subscription->load([this, key, number, subscription](Status status) {
    // The node may have begun to stop.
    if (status.is_ok() && subscription->closed()) status = leader_moved();
    if (status.is_ok()) return take_loaded(key, number, subscription);
    subscription->close(v1::STREAM_END_REASON_RECONNECT, status);
    take_loaded(key, number, std::unexpected(std::move(status)));
  });
}

void Subscriptions::take_loaded(const Key& key, uint64_t number, Result<SubscriptionPtr> loaded) {
  const auto at = slots_.find(key);
  if (at == slots_.end() || at->second.load != number) {
    // The leadership went meanwhile, and perhaps came back; who asked was told so.
    if (loaded) (*loaded)->close(v1::STREAM_END_REASON_RECONNECT, leader_moved());
    return;
  }
  if (!loaded) return close(slots_.extract(at), v1::STREAM_END_REASON_RECONNECT, loaded.error());
  at->second.subscription = *loaded;
  for (OnLoaded& done : std::exchange(at->second.waiting, {})) done(*loaded);
}

// --- members --------------------------------------------------------------------------------------------------------

void Subscriptions::subscribe(const CallPtr& call, const v1::SubscribeRequest& request, std::string bytes) {
  if (Status status = check(request); !status.is_ok()) return call->finish(std::move(status));
  if (auto filter = EventFilter::compile(request.filter()); !filter) {
    return call->finish(std::move(filter.error()));
  }
  internal::v1::SubscriptionCreateCommand command;
  *command.mutable_row() = row_of(request);
  command.set_subscriptions_max(options_.subscriptions_max);
  auto envelope =
      call::make_envelope(*call, bytes, std::string(kTopicsDomain) + ".subscribe", command.SerializeAsString());
  auto member = std::make_shared<Member>();
  member->call = call;
  member->manual = command.row().subscription().ack_mode() == v1::ACK_MODE_MANUAL;
  member->in_flight_max = static_cast<size_t>(request.in_flight_max() > 0 ? request.in_flight_max() : kInFlightDefault);
  member->limit = static_cast<uint64_t>(request.limit());
  member->follow = !request.no_follow();
  env_.local.propose(kCoreGroup, std::move(envelope), [this, call, member](Result<machine::Applied> applied) {
    if (!applied) return call->finish(std::move(applied.error()));
    SubscriptionRow row;
    if (!row.ParseFromString(applied->response)) {
      return call->finish(Status(Code::kInternal, "SUBSCRIPTION_ROW", "the answer is no SubscriptionRow"));
    }
    find(scope_of(*call), row.subscription().name(), [this, call, member](Result<SubscriptionPtr> subscription) {
      if (!subscription) return call->finish(std::move(subscription.error()));
      if (member->follow) return join(call, *subscription, member);
      join_until(call, *subscription, member);
    });
  });
}

// A stream that does not follow gets what was published before it was asked for.
void Subscriptions::join_until(const CallPtr& call, const SubscriptionPtr& subscription, const MemberPtr& member) {
  read_all(call, [this, call, subscription, member](const Views& views) {
    env_.events.post([this, call, subscription, member, views] {
      for (const auto& [id, place] : subscription->partitions()) {
        const auto view = views.find(place.first);
        if (view == views.end()) continue;
        const auto row = kPartitions.get(view->second, subscription->scope(), partition_key(id));
        if (row) member->until[id] = row->next_offset();
      }
      join(call, subscription, member);
    });
  });
}

void Subscriptions::join(const CallPtr& call, const SubscriptionPtr& subscription, const MemberPtr& member) {
  if (call->finished()) return;
  const auto sharing = subscription->row().subscription().sharing();
  if (sharing == v1::SUBSCRIPTION_SHARING_EXCLUSIVE && subscription->members() > 0) {
    return call->finish(Status(Code::kFailedPrecondition, "SUBSCRIPTION_EXCLUSIVE",
                               "the subscription '" + subscription->row().subscription().name() +
                                   "' is exclusive and has a subscriber; wait until that is gone"));
  }
  if (!member->pull) {
    members_.add(1);
    call->on_cancel([this, weak = std::weak_ptr(subscription), member] {
      member->call->finish(Status(Code::kCancelled, "CANCELLED", "the client went away"));
      env_.events.post([this, weak, member] {
        members_.add(-1);
        if (const auto subscription = weak.lock()) subscription->leave(member);
      });
    });
  }
  subscription->join(member);
}

void Subscriptions::pull(const CallPtr& call, const v1::PullEventsRequest& request) {
  auto member = std::make_shared<Member>();
  member->call = call;
  member->pull = true;
  member->limit = static_cast<uint64_t>(request.max_events() > 0 ? request.max_events() : kPulledDefault);
  member->in_flight_max = member->limit;
  const int64_t wait_ms = ms_of(request.wait());
  // Who was replaced and has not heard of it would hand out what is confirmed elsewhere: this node leads now, or the
  // call goes to who does.
  env_.reader.read(kCoreGroup, ReadLevel::linearizable(),
                   [this, call, member, wait_ms, name = request.subscription()](const Result<GroupView>& view) {
                     if (!view) return call->finish(view.error());
                     find(scope_of(*call), name, [this, call, member, wait_ms](Result<SubscriptionPtr> subscription) {
                       if (!subscription) return call->finish(std::move(subscription.error()));
                       join_pull(call, *subscription, member, wait_ms);
                     });
                   });
}

void Subscriptions::join_pull(const CallPtr& call, const SubscriptionPtr& subscription, const MemberPtr& member,
                              int64_t wait_ms) {
  member->manual = subscription->row().subscription().ack_mode() == v1::ACK_MODE_MANUAL;
  join(call, subscription, member);
  // What there is may have to be read first.
  env_.events.post_after(std::max<int64_t>(wait_ms, options_.subscription.tick_ms), [subscription, member] {
    if (member->call->finished()) return;
    member->call->reply(member->pulled.SerializeAsString());
    subscription->leave(member);
  });
}

void Subscriptions::ack(const CallPtr& call, v1::AckEventsRequest request) {
  if (!request.transaction_id().empty()) return ack_in_transaction(call, request);
  find(scope_of(*call), request.subscription(),
       [call, request = std::move(request)](Result<SubscriptionPtr> subscription) {
         if (!subscription) return call->finish(std::move(subscription.error()));
         auto response = std::make_shared<v1::AckEventsResponse>();
         const std::vector<std::string> ids(request.ack_ids().begin(), request.ack_ids().end());
         // The answer waits until the places are committed, which is never within ack().
         auto expired = std::make_shared<std::vector<std::string>>();
         auto answered = std::make_shared<std::pair<bool, Status>>();
         const auto reply = [call, expired](const Status& status) {
           if (!status.is_ok()) return call->finish(status);
           v1::AckEventsResponse response;
           for (const std::string& id : *expired) response.add_expired_ack_ids(id);
           call->reply(response.SerializeAsString());
         };
         auto within = std::make_shared<bool>(true);
         *expired = (*subscription)->ack(ids, [reply, within, answered](Status status) {
           if (*within) *answered = {true, std::move(status)};
           else reply(status);
         });
         *within = false;
         if (answered->first) reply(answered->second);
       });
}

// The transaction knows the groups before anything is held there.
void Subscriptions::ack_in_transaction(const CallPtr& call, const v1::AckEventsRequest& request) {
  const auto number = transaction_number(request.transaction_id());
  if (!number) return call->finish(transaction_not_found(request.transaction_id()));
  find(scope_of(*call), request.subscription(), [this, call, request, number = *number](Result<SubscriptionPtr> found) {
    if (!found) return call->finish(std::move(found.error()));
    const SubscriptionPtr subscription = *found;
    const std::vector<std::string> ids(request.ack_ids().begin(), request.ack_ids().end());
    const auto named = subscription->named(ids, number);
    if (!named) return call->finish(named.error());
    const Transactions::Part part{.groups = named->groups, .events = 0, .bytes = 0, .acks = named->fresh};
    env_.transactions.join(call, request.SerializeAsString(), request.transaction_id(), part,
                           [this, call, ids, subscription](Result<TransactionRow> transaction) {
                             if (!transaction) return call->finish(std::move(transaction.error()));
                             env_.events.post([call, ids, subscription, transaction = std::move(*transaction)] {
                               subscription->hold(ids, transaction, [call](Status status) {
                                 if (!status.is_ok()) return call->finish(std::move(status));
                                 call->reply(v1::AckEventsResponse().SerializeAsString());
                               });
                             });
                           });
  });
}

void Subscriptions::nack(const CallPtr& call, v1::NackEventsRequest request) {
  find(scope_of(*call), request.subscription(),
       [call, request = std::move(request)](Result<SubscriptionPtr> subscription) {
         if (!subscription) return call->finish(std::move(subscription.error()));
         v1::NackEventsResponse response;
         const std::vector<std::string> ids(request.ack_ids().begin(), request.ack_ids().end());
         for (std::string& id : (*subscription)->nack(ids, ms_of(request.delay()), request.dead_letter())) {
           response.add_expired_ack_ids(std::move(id));
         }
         call->reply(response.SerializeAsString());
       });
}

void Subscriptions::unsubscribe(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::UnsubscribeRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  const std::string name = request->subscription();
  // Loaded first, so that its places are known and can be removed.
  find(scope_of(*call), name, [this, call, name, bytes = std::move(bytes)](Result<SubscriptionPtr> subscription) {
    if (!subscription) return call->finish(std::move(subscription.error()));
    internal::v1::SubscriptionDeleteCommand command;
    command.set_name(name);
    auto envelope =
        call::make_envelope(*call, bytes, std::string(kTopicsDomain) + ".unsubscribe", command.SerializeAsString());
    env_.local.propose(kCoreGroup, std::move(envelope), [this, call, name, subscription = *subscription](auto applied) {
      if (!applied) return call->finish(std::move(applied.error()));
      env_.events.post([this, call, name, subscription] {
        forget_places(subscription->scope(), subscription->row(), subscription->partitions());
        // Usually the same one; another one if the leadership went and came back.
        const Status removed(Code::kNotFound, "SUBSCRIPTION_NOT_FOUND", "the subscription was removed");
        subscription->close(v1::STREAM_END_REASON_DELETED, removed);
        close(slots_.extract(Key(subscription->scope(), name)), v1::STREAM_END_REASON_DELETED, removed);
        call->reply(v1::UnsubscribeResponse().SerializeAsString());
      });
    });
  });
}

// A place that is not removed costs its row and nothing else: numbers of subscriptions are never used again.
void Subscriptions::forget_places(const Scope& scope, const SubscriptionRow& row,
                                  std::map<PartitionId, std::pair<GroupId, std::string>> partitions) {
  std::map<GroupId, internal::v1::BusForgetCommand> commands;
  for (const auto& [id, place] : partitions) {
    auto& partition = *commands[place.first].add_partitions();
    partition.set_topic(id.topic);
    partition.set_partition(id.partition);
  }
  for (auto& [group, command] : commands) {
    command.set_subscription(row.number());
    machine::Envelope envelope;
    envelope.scope = scope;
    envelope.principal = "system";
    envelope.command = std::string(kBusDomain) + ".forget";
    envelope.payload = command.SerializeAsString();
    env_.anywhere.propose(group, std::move(envelope), [](const Result<machine::Applied>&) {});
  }
}

// --- progress -------------------------------------------------------------------------------------------------------

void Subscriptions::read_all(const CallPtr& call, std::move_only_function<void(const Views&)> done) {
  std::set<GroupId> groups{kCoreGroup};
  for (uint32_t number = 0; number < env_.groups; ++number) groups.insert(bus_group(number));
  events::read_views(env_.reader, call, groups, std::move(done));
}

v1::Subscription Subscriptions::shown(const Scope& scope, const SubscriptionRow& row, const Views& views) const {
  v1::Subscription out = row.subscription();
  uint64_t backlog = 0;
  scan_topics(views.at(kCoreGroup), scope, "", [&](std::string_view, const Scope&, const TopicRow& topic) {
    const bool read = std::ranges::any_of(
        out.topics(), [&](const std::string& pattern) { return matches_pattern(pattern, topic.topic().name()); });
    for (int number = 0; read && number < topic.groups_size(); ++number) {
      const auto view = views.find(bus_group(topic.groups(number)));
      if (view == views.end() || !reads_partition(row, static_cast<uint32_t>(number))) continue;
      const PartitionId id{topic.number(), static_cast<uint32_t>(number)};
      const auto partition = kPartitions.get(view->second, scope, partition_key(id));
      const auto position = kPositions.get(view->second, scope, position_key(id, row.number()));
      if (!partition || !position || position->unset()) continue;
      auto& place = *out.add_positions();
      place.set_topic(topic.topic().name());
      place.set_partition(number);
      place.set_offset(position->offset());
      const uint64_t from = std::max(position->offset(), partition->first_offset());
      const uint64_t left = partition->next_offset() - std::min(partition->next_offset(), from);
      backlog +=
          left - std::min<uint64_t>(left, static_cast<uint64_t>(position->above_size() + position->settled_size()));
    }
    return true;
  });
  out.set_backlog(backlog);
  return out;
}

void Subscriptions::overlay(v1::Subscription& shown, const Scope& scope) const {
  const auto at = slots_.find(Key(scope, shown.name()));
  if (at == slots_.end() || !at->second.subscription) return;
  shown.set_in_flight(static_cast<int32_t>(at->second.subscription->in_flight()));
  shown.set_subscribers(static_cast<int32_t>(at->second.subscription->members()));
}

void Subscriptions::get(const CallPtr& call, const std::string& name) {
  // Loaded, so that the places of a new subscription are committed.
  find(scope_of(*call), name, [this, call](Result<SubscriptionPtr> subscription) {
    if (!subscription) return call->finish(std::move(subscription.error()));
    read_all(call, [this, call, row = (*subscription)->row()](const Views& views) {
      v1::Subscription out = shown(scope_of(*call), row, views);
      env_.events.post([this, call, out = std::move(out)]() mutable {
        overlay(out, scope_of(*call));
        call->reply(out.SerializeAsString());
      });
    });
  });
}

void Subscriptions::list(const CallPtr& call, std::string bytes) {
  const bool everywhere = call->name_space == "-";
  auto query = call::compile_list(*call->method, bytes,
                                  {.signer = &env_.page_tokens,
                                   .now = env_.clock.wall(),
                                   .scope = scope_of(*call),
                                   .key_order = everywhere ? "" : "name"});
  if (!query) return call->finish(std::move(query.error()));
  read_all(call, [this, call, query = std::move(*query)](const Views& views) {
    env_.events.post([this, call, query, views] {
      auto page = call::paginate(query, [&](std::string_view after, const call::VisitRow& visit) {
        scan_subscriptions(views.at(kCoreGroup), scope_of(*call), after,
                           [&](std::string_view position, const Scope& at, const SubscriptionRow& row) {
                             v1::Subscription out = shown(at, row, views);
                             overlay(out, at);
                             out.clear_positions();
                             return visit(position, out.SerializeAsString());
                           });
      });
      if (!page) return call->finish(std::move(page.error()));
      call->reply(call::encode_page(*call->method, *page));
    });
  });
}

// Where a partition goes to by the request; nothing if it stays where it is. Errors: invalid OFFSET_OUT_OF_RANGE.
Result<std::optional<uint64_t>> Subscriptions::sought(const v1::SeekSubscriptionRequest& request, const Cursor& cursor,
                                                      const SoughtPartition& at) {
  switch (request.target_case()) {
    case v1::SeekSubscriptionRequest::kPosition: {
      const auto& wanted = request.position();
      if (wanted.topic() != at.topic || static_cast<uint32_t>(wanted.partition()) != at.id.partition)
        return std::nullopt;
      if (wanted.offset() >= at.row.first_offset() && wanted.offset() <= at.row.next_offset()) return wanted.offset();
      return fail(Status(Code::kInvalid, "OFFSET_OUT_OF_RANGE",
                         "the partition keeps the offsets from " + std::to_string(at.row.first_offset()) + " to " +
                             std::to_string(at.row.next_offset()))
                      .with_field("position.offset", "is not kept"));
    }
    case v1::SeekSubscriptionRequest::kTime:
      return first_offset_where(at.view, at.scope, at.id, at.row, [us = us_of(request.time())](const BusIndexRow& row) {
        return row.publish_us() >= us;
      });
    case v1::SeekSubscriptionRequest::kCursor: {
      const auto place = cursor.find(at.group);
      if (place == cursor.end()) return at.row.first_offset();
      return std::max(at.row.first_offset(), offset_behind(at.view, at.scope, at.id, at.row, place->second));
    }
    default: return request.start() == v1::SUBSCRIBE_START_EARLIEST ? at.row.first_offset() : at.row.next_offset();
  }
}

void Subscriptions::seek(const CallPtr& call, const v1::SeekSubscriptionRequest& request) {
  Cursor cursor;
  if (request.target_case() == v1::SeekSubscriptionRequest::kCursor) {
    auto decoded = decode_cursor(request.cursor());
    if (!decoded) return call->finish(Status(decoded.error()).with_field("cursor", "is not the cursor of an item"));
    cursor = std::move(*decoded);
  }
  find(scope_of(*call), request.subscription(), [this, call, request, cursor](Result<SubscriptionPtr> subscription) {
    if (!subscription) return call->finish(std::move(subscription.error()));
    read_all(call, [this, call, request, cursor, subscription = *subscription](const Views& views) {
      env_.events.post([this, call, request, cursor, subscription, views] {
        move_places(call, request, cursor, subscription, views);
      });
    });
  });
}

void Subscriptions::move_places(const CallPtr& call, const v1::SeekSubscriptionRequest& request, const Cursor& cursor,
                                const SubscriptionPtr& subscription, const Views& views) {
  std::map<PartitionId, uint64_t> places;
  const Scope scope = scope_of(*call);
  for (const auto& [id, place] : subscription->partitions()) {
    const auto view = views.find(place.first);
    const auto row = view == views.end() ? std::nullopt : kPartitions.get(view->second, scope, partition_key(id));
    if (!row) continue;
    auto offset = sought(request, cursor, {view->second, scope, place.first, id, place.second, *row});
    if (!offset) return call->finish(std::move(offset.error()));
    if (*offset) places[id] = **offset;
  }
  if (places.empty()) {
    return call->finish(Status(Code::kInvalid, "FIELD_INVALID", "the subscription reads no such partition")
                            .with_field("position", "names a partition that the subscription does not read"));
  }
  subscription->seek(places, [this, call, name = request.subscription()](Status status) {
    if (!status.is_ok()) return call->finish(std::move(status));
    get(call, name);
  });
}

}  // namespace uccp::events
