#include "services/events/topics_state.h"

#include <algorithm>
#include <set>

#include "base/bytes.h"
#include "base/check.h"
#include "machine/stable_bytes.h"
#include "services/events/row_scan.h"
#include "services/feature_types.h"

namespace uccp::events {
namespace {

using machine::ApplyContext;
using machine::ApplyResult;
using machine::Scope;

constexpr std::string_view kTopicsCount = "topics";
constexpr std::string_view kSubscriptionsCount = "subscriptions";
// Of the whole cluster: in the empty scope.
constexpr std::string_view kLastNumber = "last number";
// Schemas of a topic that are remembered beside the newest: each has up to 64 KiB.
constexpr int kFormerSchemasMax = 7;

template <typename Command>
Command parse(std::string_view payload) {
  Command command;
  UCCP_CHECK(command.ParseFromArray(payload.data(), static_cast<int>(payload.size())), "a command is readable");
  return command;
}

uint64_t count_of(const machine::KeyReader& state, const Scope& scope, std::string_view what) {
  const auto stored = kEventCounts.get(state, scope, what);
  return stored ? ByteReader(*stored).u64() : 0;
}

void set_count(ApplyContext& context, std::string_view what, uint64_t count) {
  kEventCounts.put(context.state(), context.scope(), what, ByteWriter().u64(count).take());
}

// The greatest number that a topic or a subscription of any namespace has, for states that do not keep it yet.
uint64_t greatest_number(const machine::KeyReader& state) {
  uint64_t greatest = 0;
  const auto take = [&greatest](const auto&, std::string_view, const auto& row) {
    greatest = std::max<uint64_t>(greatest, row.number());
    return true;
  };
  kTopics.scan_all(state, take);
  kSubscriptions.scan_all(state, take);
  return greatest;
}

// A number that no topic and no subscription ever had. Usually the log index of the command; the log of a cluster that
// was restored from a backup may be shorter than the one that the backup's numbers came from.
uint64_t next_number(ApplyContext& context) {
  const uint64_t index = context.index().value;
  if (context.envelope().feature_level < services::kNumberedLevel) return index;
  const auto stored = kEventCounts.get(context.state(), {}, kLastNumber);
  const uint64_t last = stored ? ByteReader(*stored).u64() : greatest_number(context.state());
  const uint64_t number = std::max(index, last + 1);
  kEventCounts.put(context.state(), {}, kLastNumber, ByteWriter().u64(number).take());
  return number;
}

google::protobuf::Timestamp timestamp(WallTime time) {
  google::protobuf::Timestamp stamp;
  stamp.set_seconds(time.us / 1'000'000);
  stamp.set_nanos(static_cast<int32_t>(time.us % 1'000'000) * 1000);
  return stamp;
}

// Partitions go to the groups in turn, each topic beginning with another one.
void assign_groups(TopicRow& row, uint32_t groups) {
  for (int32_t partition = row.groups_size(); partition < row.topic().partitions(); ++partition) {
    row.add_groups(static_cast<uint32_t>((row.number() + static_cast<uint64_t>(partition)) % groups));
  }
}

// The schema of the row was `before`; the one that it has now gets the next version if it is another one.
void number_schema(TopicRow& row, const v1::EventSchema& before) {
  if (!row.topic().has_schema()) {
    if (!before.definition().empty()) *row.add_former_schemas() = before;
  } else {
    v1::EventSchema& schema = *row.mutable_topic()->mutable_schema();
    const bool same = schema.definition() == before.definition() && schema.format() == before.format() &&
                      schema.message_type() == before.message_type();
    if (!same) {
      row.set_schema_version(row.schema_version() + 1);
      if (!before.definition().empty()) *row.add_former_schemas() = before;
    }
    schema.set_version(row.schema_version());
  }
  while (row.former_schemas_size() > kFormerSchemasMax) row.mutable_former_schemas()->DeleteSubrange(0, 1);
}

void put_topic(ApplyContext& context, TopicRow& row) {
  v1::Topic& topic = *row.mutable_topic();
  *topic.mutable_update_time() = timestamp(context.envelope().wall);
  topic.set_etag(std::to_string(context.index().value));
  kTopics.put(context.state(), context.scope(), topic.name(), row);
  context.emit(kTopicChanges, topic.name(), static_cast<uint8_t>(TopicChange::kSet), machine::stable_bytes(row));
}

Status check_etag(const TopicRow& row, const std::string& if_match) {
  if (if_match.empty() || if_match == row.topic().etag()) return Status::ok();
  return Status(Code::kConflict, "ETAG_MISMATCH",
                "the topic '" + row.topic().name() + "' has the etag " + row.topic().etag() + ", not " + if_match +
                    "; read it again");
}

ApplyResult create(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::TopicCreateCommand>(payload);
  const std::string& name = command.topic().name();
  if (kTopics.contains(context.state(), context.scope(), name)) {
    return fail(Status(Code::kAlreadyExists, "TOPIC_EXISTS", "the topic '" + name + "' exists already")
                    .with_resource("topic", name));
  }
  const uint64_t count = count_of(context.state(), context.scope(), kTopicsCount);
  if (count >= command.topics_max()) {
    return fail(Status(Code::kExhausted, "TOPICS_EXHAUSTED",
                       "the namespace has " + std::to_string(count) + " topics, as many as it may have; delete some")
                    .with_help("events.md#limits"));
  }
  if (context.envelope().feature_level >= services::kSchedulingLevel) {
    for (const internal::v1::TopicQuota& quota : command.quotas())
      UCCP_RETURN_IF_ERROR(check_topic_quota(context.state(), context.scope().tenant, quota));
  }
  TopicRow row;
  *row.mutable_topic() = command.topic();
  row.set_number(next_number(context));
  v1::Topic& topic = *row.mutable_topic();
  topic.set_namespace_(context.scope().name_space);
  topic.set_generation(row.number());
  *topic.mutable_create_time() = timestamp(context.envelope().wall);
  assign_groups(row, std::max<uint32_t>(command.groups(), 1));
  number_schema(row, {});
  put_topic(context, row);
  set_count(context, kTopicsCount, count + 1);
  return machine::stable_bytes(row);
}

ApplyResult update(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::TopicUpdateCommand>(payload);
  auto row = kTopics.get(context.state(), context.scope(), command.topic().name());
  if (!row) return fail(topic_not_found(command.topic().name()));
  UCCP_RETURN_IF_ERROR(check_etag(*row, command.if_match()));
  v1::Topic& topic = *row->mutable_topic();
  if (std::ranges::find(command.paths(), "partitions") != command.paths().end() &&
      command.topic().partitions() < topic.partitions()) {
    return fail(Status(Code::kFailedPrecondition, "PARTITIONS_SHRINK",
                       "the topic '" + topic.name() + "' has " + std::to_string(topic.partitions()) +
                           " partitions, and they can only become more: events of a key stay in order"));
  }
  const auto* descriptor = v1::Topic::descriptor();
  const auto* reflection = v1::Topic::GetReflection();
  const v1::EventSchema schema_before = topic.schema();
  // What is named and absent is cleared; what is named and present replaces.
  v1::Topic source = command.topic();
  for (const std::string& path : command.paths()) {
    const auto* field = descriptor->FindFieldByName(path);
    if (field == nullptr) continue;
    reflection->SwapFields(&topic, &source, {field});
  }
  assign_groups(*row, std::max<uint32_t>(command.groups(), 1));
  number_schema(*row, schema_before);
  put_topic(context, *row);
  return machine::stable_bytes(*row);
}

ApplyResult remove(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::TopicDeleteCommand>(payload);
  const auto row = kTopics.get(context.state(), context.scope(), command.name());
  if (!row) return fail(topic_not_found(command.name()));
  UCCP_RETURN_IF_ERROR(check_etag(*row, command.if_match()));
  if (!command.force()) {
    std::string user;
    kSubscriptions.scan(context.state(), context.scope(), "", "", [&](std::string_view name, const SubscriptionRow& s) {
      const auto& topics = s.subscription().topics();
      if (std::ranges::find(topics, command.name()) != topics.end()) user = name;
      return user.empty();
    });
    if (!user.empty()) {
      return fail(Status(Code::kFailedPrecondition, "TOPIC_IN_USE",
                         "the subscription '" + user + "' reads the topic '" + command.name() +
                             "'; remove it first, or delete with force")
                      .with_resource("subscription", user));
    }
  }
  kTopics.erase(context.state(), context.scope(), command.name());
  context.emit(kTopicChanges, command.name(), static_cast<uint8_t>(TopicChange::kDeleted), machine::stable_bytes(*row));
  set_count(context, kTopicsCount, count_of(context.state(), context.scope(), kTopicsCount) - 1);
  return machine::stable_bytes(*row);
}

// The same topics, in whatever order, and the same settings.
bool same_subscription(const v1::Subscription& a, const v1::Subscription& b) {
  return std::set<std::string>(a.topics().begin(), a.topics().end()) ==
             std::set<std::string>(b.topics().begin(), b.topics().end()) &&
         a.filter() == b.filter() && std::ranges::equal(a.partitions(), b.partitions());
}

ApplyResult subscribe(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::SubscriptionCreateCommand>(payload);
  const std::string& name = command.row().subscription().name();
  if (const auto stored = kSubscriptions.get(context.state(), context.scope(), name)) {
    if (same_subscription(stored->subscription(), command.row().subscription())) return machine::stable_bytes(*stored);
    return fail(Status(Code::kConflict, "SUBSCRIPTION_DIFFERS",
                       "the subscription '" + name +
                           "' exists with other topics, other partitions or another filter; choose another name")
                    .with_resource("subscription", name));
  }
  const uint64_t count = count_of(context.state(), context.scope(), kSubscriptionsCount);
  if (count >= command.subscriptions_max()) {
    return fail(
        Status(Code::kExhausted, "SUBSCRIPTIONS_EXHAUSTED",
               "the namespace has " + std::to_string(count) + " subscriptions, as many as it may have; remove some")
            .with_help("events.md#limits"));
  }
  SubscriptionRow row = command.row();
  row.set_number(next_number(context));
  row.mutable_subscription()->set_namespace_(context.scope().name_space);
  *row.mutable_subscription()->mutable_create_time() = timestamp(context.envelope().wall);
  kSubscriptions.put(context.state(), context.scope(), name, row);
  context.emit(kSubscriptionChanges, name, static_cast<uint8_t>(TopicChange::kSet), machine::stable_bytes(row));
  set_count(context, kSubscriptionsCount, count + 1);
  return machine::stable_bytes(row);
}

ApplyResult unsubscribe(ApplyContext& context, std::string_view payload) {
  const auto command = parse<internal::v1::SubscriptionDeleteCommand>(payload);
  const auto row = kSubscriptions.get(context.state(), context.scope(), command.name());
  if (!row) return fail(subscription_not_found(command.name()));
  kSubscriptions.erase(context.state(), context.scope(), command.name());
  context.emit(kSubscriptionChanges, command.name(), static_cast<uint8_t>(TopicChange::kDeleted),
               machine::stable_bytes(*row));
  set_count(context, kSubscriptionsCount, count_of(context.state(), context.scope(), kSubscriptionsCount) - 1);
  return machine::stable_bytes(*row);
}

}  // namespace

uint64_t newest_number(const machine::GroupView& core) {
  const auto stored = kEventCounts.get(core, {}, kLastNumber);
  return stored ? ByteReader(*stored).u64() : core.applied().value;
}

std::map<std::string, machine::ApplyFunction, std::less<>> TopicsState::commands() {
  return {{"create", create},
          {"update", update},
          {"delete", remove},
          {"subscribe", subscribe},
          {"unsubscribe", unsubscribe}};
}

uint64_t topics_of(const machine::KeyReader& core, const Scope& scope) {
  if (!scope.name_space.empty()) return count_of(core, scope, kTopicsCount);
  uint64_t sum = 0;
  const std::string prefix = machine::table_key::begin(kEventCountTable).key_part(scope.tenant).take();
  core.scan(prefix, machine::prefix_end(prefix), [&](std::string_view key, std::string_view value) {
    ByteReader in(key.substr(prefix.size()));
    (void)in.key_part();
    if (in.rest() == kTopicsCount) sum += ByteReader(value).u64();
    return true;
  });
  return sum;
}

Status check_topic_quota(const machine::KeyReader& core, const std::string& tenant,
                         const internal::v1::TopicQuota& quota) {
  uint64_t count = quota.namespaces().empty() ? topics_of(core, {tenant, ""}) : 0;
  for (const std::string& name_space : quota.namespaces()) count += topics_of(core, {tenant, name_space});
  if (count < quota.topics_max()) return Status::ok();
  return Status(Code::kExhausted, "QUOTA_TOPICS_EXHAUSTED",
                "the quota " + quota.quota() + " has " + std::to_string(count) + " of " +
                    std::to_string(quota.topics_max()) + " topics; delete some, or have the quota raised")
      .with_resource("quota", quota.quota())
      .with_help("quotas.md#limits");
}

void scan_topics(const machine::KeyReader& state, const Scope& scope, std::string_view after, const VisitTopic& visit) {
  scan_rows<TopicRow>(state, kTopicTable, scope, after, visit);
}

void scan_subscriptions(const machine::KeyReader& state, const Scope& scope, std::string_view after,
                        const VisitSubscription& visit) {
  scan_rows<SubscriptionRow>(state, kSubscriptionTable, scope, after, visit);
}

Status topic_not_found(std::string_view name) {
  return Status(Code::kNotFound, "TOPIC_NOT_FOUND",
                "the topic '" + std::string(name) + "' does not exist; make it with CreateTopic")
      .with_resource("topic", std::string(name));
}

Status subscription_not_found(std::string_view name) {
  return Status(Code::kNotFound, "SUBSCRIPTION_NOT_FOUND",
                "the subscription '" + std::string(name) + "' does not exist")
      .with_resource("subscription", std::string(name));
}

}  // namespace uccp::events
