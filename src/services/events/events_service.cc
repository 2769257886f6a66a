#include "services/events/events_service.h"

#include "call/command.h"
#include "services/events/bus_compact.h"
#include "services/events/event_schema.h"
#include "services/feature_types.h"

namespace uccp::events {
namespace {

using call::CallPtr;
using machine::GroupView;
using machine::Scope;

std::string method_name(std::string_view rpc) { return "uccp.v1.EventBus/" + std::string(rpc); }

Scope scope_of(const call::Call& call) { return {call.principal.tenant, call.name_space}; }

void put_session(const CallPtr& call, LogIndex index) {
  call->set_header("Uccp-Session", machine::session_token({{kCoreGroup, index}}));
}

template <typename Request>
std::optional<Request> parse_or_finish(const CallPtr& call, std::string_view bytes) {
  auto request = call::parse_request<Request>(bytes);
  if (request) return std::move(*request);
  call->finish(std::move(request.error()));
  return std::nullopt;
}

}  // namespace

EventsService::EventsService(EventsOptions options, EventsEnvironment environment)
    : options_(options),
      env_(std::move(environment)),
      topics_(env_.reader),
      gatherer_(options_.gatherer, env_.anywhere, env_.loop, env_.clock, env_.metrics),
      transactions_(options_.transactions, {env_.local, env_.anywhere, env_.reader, env_.loop, env_.work, env_.clock,
                                            env_.metrics, env_.page_tokens, env_.feature_level}),
      publisher_(options_.publisher, env_.anywhere, topics_, gatherer_, transactions_, env_.metrics),
      feed_(env_.watcher, env_.events, options_.groups),
      fetcher_(env_.reader, env_.log, env_.work),
      compactor_(options_.compactor, {env_.local, env_.reader, fetcher_, env_.loop, env_.work, env_.metrics}),
      cleaner_(options_.cleaner, {env_.local, env_.reader, fetcher_, env_.loop, env_.work, env_.metrics}),
      producers_(options_.producers, {env_.local, env_.reader, fetcher_, env_.loop, env_.work, env_.metrics},
                 env_.clock),
      keeper_(options_.keeper, env_.local, env_.anywhere, env_.reader, env_.loop, env_.work, env_.clock, compactor_,
              cleaner_, producers_, transactions_),
      streams_(Streams::make(options_.stream,
                             {env_.reader, feed_, fetcher_, env_.events, env_.work, env_.clock, env_.metrics})),
      subscriptions_(options_.subscriptions,
                     {env_.local, env_.anywhere, env_.reader, feed_, fetcher_, gatherer_, topics_, transactions_,
                      env_.events, env_.work, env_.clock, env_.metrics, env_.page_tokens, options_.groups}) {}

void EventsService::add_handlers(call::HandlerTable& handlers) {
  handlers.add(method_name("CreateTopic"),
               [this](const CallPtr& call, std::string bytes) { create(call, std::move(bytes)); });
  handlers.add(method_name("UpdateTopic"),
               [this](const CallPtr& call, std::string bytes) { update(call, std::move(bytes)); });
  handlers.add(method_name("DeleteTopic"),
               [this](const CallPtr& call, std::string bytes) { remove(call, std::move(bytes)); });
  handlers.add_parsed<v1::GetTopicMetadataRequest>(
      method_name("GetTopicMetadata"),
      [this](const CallPtr& call, const v1::GetTopicMetadataRequest& request) { get(call, request); });
  handlers.add(method_name("ListTopics"),
               [this](const CallPtr& call, std::string bytes) { list(call, std::move(bytes)); });
  handlers.add(method_name("Publish"),
               [this](const CallPtr& call, std::string bytes) { publisher_.publish(call, std::move(bytes)); });
  handlers.add(method_name("Subscribe"),
               [this](const CallPtr& call, std::string bytes) { subscribe(call, std::move(bytes)); });
  subscriptions_.add_handlers(handlers);
  transactions_.add_handlers(handlers);
}

void EventsService::propose(const CallPtr& call, std::string_view bytes, std::string_view verb,
                            const google::protobuf::MessageLite& command, OnTopic on_topic) {
  auto envelope = call::make_envelope(*call, bytes, std::string(kTopicsDomain) + "." + std::string(verb),
                                      command.SerializeAsString());
  env_.local.propose(kCoreGroup, std::move(envelope),
                     [call, on_topic = std::move(on_topic)](Result<machine::Applied> applied) mutable {
                       if (!applied) return call->finish(std::move(applied.error()));
                       put_session(call, applied->index);
                       TopicRow row;
                       if (!row.ParseFromString(applied->response)) {
                         return call->finish(Status(Code::kInternal, "TOPIC_ROW", "the answer is no TopicRow"));
                       }
                       on_topic(call, std::move(row));
                     });
}

void EventsService::create(const CallPtr& call, std::string bytes) {
  auto request = parse_or_finish<v1::CreateTopicRequest>(call, bytes);
  if (!request) return;
  auto topic = with_defaults(std::move(*request->mutable_topic()), options_.topic);
  if (!topic) return call->finish(std::move(topic.error()));
  create_checked(call, bytes, std::move(*topic), request->validate_only());
}

// What quotas allow goes with the command, so that apply decides by it, and by what there is then.
void EventsService::create_checked(const CallPtr& call, const std::string& bytes, v1::Topic topic, bool validate_only) {
  read_quotas(call, [this, call, bytes, topic = std::move(topic),
                     validate_only](std::vector<internal::v1::TopicQuota> quotas) mutable {
    if (!validate_only) {
      internal::v1::TopicCreateCommand command;
      *command.mutable_topic() = std::move(topic);
      command.set_groups(options_.groups);
      command.set_topics_max(options_.topics_max);
      for (internal::v1::TopicQuota& quota : quotas) *command.add_quotas() = std::move(quota);
      return propose(call, bytes, "create", command,
                     [this](const CallPtr& call, const TopicRow& row) { open_and_reply(call, row); });
    }
    env_.reader.read(kCoreGroup, machine::ReadLevel::linearizable(),
                     [call, topic = std::move(topic), quotas = std::move(quotas)](Result<GroupView> core) mutable {
                       if (!core) return call->finish(std::move(core.error()));
                       for (const internal::v1::TopicQuota& quota : quotas) {
                         Status status = check_topic_quota(*core, call->principal.tenant, quota);
                         if (!status.is_ok()) return call->finish(std::move(status));
                       }
                       topic.set_namespace_(call->name_space);
                       call->reply(topic.SerializeAsString());
                     });
  });
}

void EventsService::read_quotas(const CallPtr& call,
                                std::move_only_function<void(std::vector<internal::v1::TopicQuota>)> done) {
  if (!env_.topic_quotas || env_.feature_level() < services::kSchedulingLevel) return done({});
  env_.reader.read(kWorkGroup, machine::ReadLevel::linearizable(),
                   [this, call, done = std::move(done)](Result<GroupView> work) mutable {
                     if (!work) return call->finish(std::move(work.error()));
                     done(env_.topic_quotas(*work, scope_of(*call)));
                   });
}

void EventsService::update(const CallPtr& call, std::string bytes) {
  auto request = parse_or_finish<v1::UpdateTopicRequest>(call, bytes);
  if (!request) return;
  std::vector<std::string> paths;
  if (Status status = check_update(*request, options_.topic, paths); !status.is_ok()) {
    return call->finish(std::move(status));
  }
  if (request->validate_only()) {
    return topics_.find_fresh(scope_of(*call), request->topic().name(), [call](Result<TopicRow> row) {
      if (!row) return call->finish(std::move(row.error()));
      call->reply(row->topic().SerializeAsString());
    });
  }
  internal::v1::TopicUpdateCommand command;
  *command.mutable_topic() = std::move(*request->mutable_topic());
  for (std::string& path : paths) command.add_paths(std::move(path));
  command.set_if_match(request->if_match());
  command.set_groups(options_.groups);
  const auto go_on = [this, call, bytes](Result<internal::v1::TopicUpdateCommand> checked) {
    if (!checked) return call->finish(std::move(checked.error()));
    propose(call, bytes, "update", *checked,
            [this](const CallPtr& call, const TopicRow& row) { open_and_reply(call, row); });
  };
  if (!command.topic().has_schema()) return go_on(std::move(command));
  check_evolution(call, std::move(command), go_on);
}

// Against the schemas as they are now; should another one come in between, the update is refused.
void EventsService::check_evolution(const CallPtr& call, internal::v1::TopicUpdateCommand command,
                                    std::move_only_function<void(Result<internal::v1::TopicUpdateCommand>)> done) {
  const std::string name = command.topic().name();
  topics_.find_fresh(scope_of(*call), name,
                     [command = std::move(command), done = std::move(done)](Result<TopicRow> row) mutable {
                       if (!row) return done(std::unexpected(std::move(row.error())));
                       std::vector<v1::EventSchema> before(row->former_schemas().begin(), row->former_schemas().end());
                       if (row->topic().has_schema()) before.push_back(row->topic().schema());
                       Status status = may_follow(before, command.topic().schema());
                       if (!status.is_ok()) return done(std::unexpected(std::move(status)));
                       if (command.if_match().empty()) command.set_if_match(row->topic().etag());
                       done(std::move(command));
                     });
}

// A topic whose partitions could not be opened just now exists all the same: the first publisher opens them.
void EventsService::open_and_reply(const CallPtr& call, const TopicRow& topic) {
  publisher_.open(scope_of(*call), topic,
                  [call, topic](const Status&) { call->reply(topic.topic().SerializeAsString()); });
}

void EventsService::remove(const CallPtr& call, std::string bytes) {
  const auto request = parse_or_finish<v1::DeleteTopicRequest>(call, bytes);
  if (!request) return;
  internal::v1::TopicDeleteCommand command;
  command.set_name(request->name());
  command.set_if_match(request->if_match());
  command.set_force(request->force());
  propose(call, bytes, "delete", command, [this](const CallPtr& call, const TopicRow& row) {
    // What is left when this is interrupted, the leaders of the groups find by themselves.
    keeper_.drop(scope_of(*call), row,
                 [call](const Status&) { call->reply(v1::DeleteTopicResponse().SerializeAsString()); });
  });
}

v1::Topic EventsService::shown(const Scope& scope, const TopicRow& row, const Views& views) const {
  v1::Topic topic = row.topic();
  uint64_t size = 0;
  for (int number = 0; number < row.groups_size(); ++number) {
    const GroupId group = bus_group(row.groups(number));
    v1::PartitionState& state = *topic.add_partition_states();
    state.set_partition(number);
    if (const NodeId leader = env_.leader(group)) state.set_leader_id("n" + std::to_string(leader.value));
    const auto view = views.find(group);
    if (view == views.end()) continue;
    const PartitionId id{row.number(), static_cast<uint32_t>(number)};
    const auto partition = kPartitions.get(view->second, scope, partition_key(id));
    if (!partition) continue;
    state.set_first_offset(partition->first_offset());
    state.set_next_offset(partition->next_offset());
    state.set_size(partition->bytes());
    if (partition->settings().compacted()) {
      state.set_compacted_offset(partition->compacted_offset());
      state.set_uncompacted_size(uncompacted_bytes(*partition));
    }
    size += partition->bytes();
  }
  topic.set_size(size);
  return topic;
}

void EventsService::get(const CallPtr& call, const v1::GetTopicMetadataRequest& request) {
  env_.reader.read(kCoreGroup, call->read_level, [this, call, name = request.name()](Result<GroupView> view) {
    if (!view) return call->finish(std::move(view.error()));
    put_session(call, view->applied());
    auto row = kTopics.get(*view, scope_of(*call), name);
    if (!row) return call->finish(topic_not_found(name));
    std::set<GroupId> groups;
    for (const uint32_t group : row->groups()) groups.insert(bus_group(group));
    read_views(env_.reader, call, groups, [this, call, row = std::move(*row)](const Views& views) {
      call->reply(shown(scope_of(*call), row, views).SerializeAsString());
    });
  });
}

void EventsService::list(const CallPtr& call, std::string bytes) {
  const auto request = parse_or_finish<v1::ListTopicsRequest>(call, bytes);
  if (!request) return;
  const bool everywhere = call->name_space == "-";
  auto query = call::compile_list(*call->method, bytes,
                                  {.signer = &env_.page_tokens,
                                   .now = env_.clock.wall(),
                                   .scope = scope_of(*call),
                                   // Keys of several namespaces are not in the order of names.
                                   .key_order = everywhere ? "" : "name"});
  if (!query) return call->finish(std::move(query.error()));
  std::set<GroupId> groups;
  for (uint32_t number = 0; number < options_.groups; ++number) groups.insert(bus_group(number));
  read_views(env_.reader, call, groups,
             [this, call, pattern = request->pattern(), query = std::move(*query)](const Views& views) mutable {
               env_.reader.read(
                   kCoreGroup, call->read_level, [this, call, pattern, query, views](Result<GroupView> view) mutable {
                     if (!view) return call->finish(std::move(view.error()));
                     put_session(call, view->applied());
                     env_.work.post([this, call, pattern, query, views = std::move(views), view = std::move(*view)] {
                       if (call->finished()) return;
                       const Scope scope = scope_of(*call);
                       auto page = call::paginate(query, [&](std::string_view after, const call::VisitRow& visit) {
                         scan_topics(view, scope, after,
                                     [&](std::string_view position, const Scope& at, const TopicRow& row) {
                                       if (!pattern.empty() && !matches_pattern(pattern, row.topic().name()))
                                         return true;
                                       v1::Topic topic = shown(at, row, views);
                                       topic.clear_partition_states();
                                       return visit(position, topic.SerializeAsString());
                                     });
                       });
                       if (!page) return call->finish(std::move(page.error()));
                       call->reply(call::encode_page(*call->method, *page));
                     });
                   });
             });
}

void EventsService::subscribe(const CallPtr& call, std::string bytes) {
  const auto request = parse_or_finish<v1::SubscribeRequest>(call, bytes);
  if (!request) return;
  if (!request->subscription().empty()) return subscriptions_.subscribe(call, *request, std::move(bytes));
  streams_->open(call, *request);
}

}  // namespace uccp::events
