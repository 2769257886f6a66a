// Topics and subscriptions: names, patterns, defaults, and which group holds which partition.
#include "services/events/topics_state.h"

#include <gtest/gtest.h>

#include <set>

#include "machine/machine.h"
#include "storage/memory/memory_kv.h"

namespace uccp::events {
namespace {

const machine::Scope kScope{"t", "n"};

// Puts a row as a backup would bring it, whatever the log of this machine has.
class Backup final : public machine::Domain {
 public:
  std::string_view name() const override { return "backup"; }
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override {
    return {{"topic", [](machine::ApplyContext& context, std::string_view payload) -> machine::ApplyResult {
               TopicRow row;
               EXPECT_TRUE(row.ParseFromString(std::string(payload)));
               kTopics.put(context.state(), context.scope(), row.topic().name(), row);
               return std::string();
             }}};
  }
};

class TopicsLab {
 public:
  TopicsLab() : machine_(kCoreGroup, kv_, {&state_, &backup_}) { EXPECT_TRUE(machine_.open().is_ok()); }
  machine::ApplyResult apply(const std::string& verb, const google::protobuf::MessageLite& command) {
    return apply_command("topics." + verb, command, kScope);
  }
  machine::ApplyResult apply_command(std::string name, const google::protobuf::MessageLite& command,
                                     const machine::Scope& scope) {
    machine::Envelope e;
    e.feature_level = level;
    e.scope = scope;
    e.command = std::move(name);
    e.wall = {1'700'000'000'000'000};
    e.payload = command.SerializeAsString();
    const Entry entry{Term(1), machine_.applied().next(), EntryKind::kCommand, machine::encode_envelope(e)};
    auto batch = machine_.apply({&entry, 1});
    EXPECT_TRUE(batch.has_value());
    EXPECT_TRUE(machine_.verify_digest().is_ok());
    return batch->results[0].result;
  }
  Result<TopicRow> create(const std::string& name, int32_t partitions = 1, uint64_t topics_max = 100) {
    internal::v1::TopicCreateCommand command;
    command.mutable_topic()->set_name(name);
    command.mutable_topic()->set_partitions(partitions);
    command.set_groups(3);
    command.set_topics_max(topics_max);
    return row(apply("create", command));
  }
  static Result<TopicRow> row(machine::ApplyResult result) {
    if (!result) return std::unexpected(result.error());
    TopicRow row;
    EXPECT_TRUE(row.ParseFromString(*result));
    return row;
  }
  std::vector<std::string> names(const std::string& after = "") const {
    std::vector<std::string> names;
    scan_topics(machine_.view(), kScope, after, [&](std::string_view, const machine::Scope&, const TopicRow& row) {
      names.push_back(row.topic().name());
      return true;
    });
    return names;
  }
  void restore_topic(const std::string& name, uint64_t number, const machine::Scope& scope) {
    TopicRow row;
    row.mutable_topic()->set_name(name);
    row.set_number(number);
    EXPECT_TRUE(apply_command("backup.topic", row, scope).has_value());
  }
  uint64_t applied() const { return machine_.applied().value; }

  uint32_t level = machine::kFeatureLevelMax;

 private:
  storage::MemoryKv kv_;
  TopicsState state_;
  Backup backup_;
  machine::Machine machine_;
};

TEST(Topics, PartitionsGoToTheGroupsInTurnAndStayThere) {
  TopicsLab lab;
  const auto made = lab.create("a", 5);
  ASSERT_TRUE(made.has_value());
  std::set<uint32_t> groups(made->groups().begin(), made->groups().end());
  EXPECT_EQ(groups, (std::set<uint32_t>{0, 1, 2}));
  internal::v1::TopicUpdateCommand more;
  more.mutable_topic()->set_name("a");
  more.mutable_topic()->set_partitions(7);
  more.add_paths("partitions");
  more.set_groups(3);
  const auto grown = TopicsLab::row(lab.apply("update", more));
  ASSERT_TRUE(grown.has_value());
  EXPECT_EQ(grown->groups_size(), 7);
  EXPECT_TRUE(std::equal(made->groups().begin(), made->groups().end(), grown->groups().begin()));
  more.mutable_topic()->set_partitions(6);
  EXPECT_EQ(lab.apply("update", more).error().reason(), "PARTITIONS_SHRINK");
}

TEST(Topics, ANameIsTakenUntilItsTopicIsDeletedAndNumbersAreNeverUsedAgain) {
  TopicsLab lab;
  const auto first = lab.create("a");
  EXPECT_EQ(lab.create("a").error().reason(), "TOPIC_EXISTS");
  internal::v1::TopicDeleteCommand command;
  command.set_name("a");
  command.set_if_match("wrong");
  EXPECT_EQ(lab.apply("delete", command).error().reason(), "ETAG_MISMATCH");
  command.set_if_match(first->topic().etag());
  EXPECT_TRUE(lab.apply("delete", command).has_value());
  EXPECT_EQ(lab.apply("delete", command).error().reason(), "TOPIC_NOT_FOUND");
  const auto second = lab.create("a");
  ASSERT_TRUE(second.has_value());
  EXPECT_NE(second->number(), first->number());
}

TEST(Topics, NumbersAreNewAlsoInAClusterWhoseLogIsShorterThanThatOfItsBackup) {
  TopicsLab lab;
  lab.restore_topic("a", 1000, {"t", "another"});
  const auto made = lab.create("b");
  ASSERT_TRUE(made.has_value());
  EXPECT_EQ(made->number(), 1001u);
  internal::v1::SubscriptionCreateCommand command;
  command.mutable_row()->mutable_subscription()->set_name("s");
  command.set_subscriptions_max(1);
  SubscriptionRow subscription;
  ASSERT_TRUE(subscription.ParseFromString(lab.apply("subscribe", command).value_or("")));
  EXPECT_EQ(subscription.number(), 1002u) << "topics and subscriptions are older or younger than each other";
  internal::v1::TopicDeleteCommand gone;
  gone.set_name("b");
  EXPECT_TRUE(lab.apply("delete", gone).has_value());
  EXPECT_EQ(lab.create("b")->number(), 1003u);
}

TEST(Topics, ANumberIsTheIndexOfItsCommandUntilAllNodesKnowMore) {
  TopicsLab lab;
  lab.level = 1;
  lab.restore_topic("a", 1000, kScope);
  const auto made = lab.create("b");
  ASSERT_TRUE(made.has_value());
  EXPECT_EQ(made->number(), lab.applied());
}

TEST(Topics, ANamespaceHasNoMoreThanItsLimit) {
  TopicsLab lab;
  EXPECT_TRUE(lab.create("a", 1, 2).has_value());
  EXPECT_TRUE(lab.create("b", 1, 2).has_value());
  EXPECT_EQ(lab.create("c", 1, 2).error().reason(), "TOPICS_EXHAUSTED");
  internal::v1::TopicDeleteCommand command;
  command.set_name("a");
  EXPECT_TRUE(lab.apply("delete", command).has_value());
  EXPECT_TRUE(lab.create("c", 1, 2).has_value());
}

TEST(Topics, AreListedByNameAndFromWhereAPageEnded) {
  TopicsLab lab;
  for (const char* name : {"b", "a", "a.b", "c"}) EXPECT_TRUE(lab.create(name).has_value());
  EXPECT_EQ(lab.names(), (std::vector<std::string>{"a", "a.b", "b", "c"}));
  EXPECT_EQ(lab.names("a"), (std::vector<std::string>{"a.b", "b", "c"}));
}

TEST(Topics, APatternMatchesPartsAndTheRest) {
  EXPECT_TRUE(matches_pattern("a.b", "a.b"));
  EXPECT_TRUE(matches_pattern("a.*", "a.b"));
  EXPECT_TRUE(matches_pattern("*.b", "a.b"));
  EXPECT_TRUE(matches_pattern("a.>", "a.b.c"));
  EXPECT_TRUE(matches_pattern(">", "a"));
  for (const auto& [pattern, name] : std::vector<std::pair<std::string, std::string>>{
           {"a", "a.b"}, {"a.b", "a"}, {"a.*", "a"}, {"a.*", "a.b.c"}, {"a.>", "a"}, {"a.>", "b.c"}, {"*", "a.b"}}) {
    EXPECT_FALSE(matches_pattern(pattern, name)) << pattern << " " << name;
  }
}

TEST(Topics, WhatIsNotSaidHasADefaultAndWhatIsTooMuchIsRefused) {
  v1::Topic topic;
  topic.set_name("a");
  const auto made = with_defaults(topic, {});
  ASSERT_TRUE(made.has_value());
  EXPECT_EQ(made->partitions(), 1);
  EXPECT_EQ(made->persistence(), v1::TOPIC_PERSISTENCE_PERSISTENT);
  EXPECT_EQ(made->retention().seconds(), 7 * 24 * 3600);
  EXPECT_EQ(made->message_bytes_max(), 1u << 20);
  topic.set_partitions(257);
  EXPECT_EQ(with_defaults(topic, {}).error().reason(), "FIELD_INVALID");
  topic.set_partitions(1);
  topic.set_message_bytes_max(2u << 20);
  EXPECT_EQ(with_defaults(topic, {}).error().reason(), "FIELD_INVALID");
  topic.clear_message_bytes_max();
  topic.mutable_schema()->set_format(v1::SCHEMA_FORMAT_AVRO);
  EXPECT_EQ(with_defaults(topic, {}).error().reason(), "SCHEMA_INVALID");
}

TEST(Topics, AnUpdateNamesOnlyWhatCanBeChanged) {
  v1::UpdateTopicRequest request;
  request.mutable_topic()->set_name("a");
  request.mutable_topic()->set_message_bytes_max(7);
  std::vector<std::string> paths;
  EXPECT_TRUE(check_update(request, {}, paths).is_ok());
  EXPECT_EQ(paths, std::vector<std::string>{"message_bytes_max"});
  request.mutable_update_mask()->add_paths("persistence");
  EXPECT_EQ(check_update(request, {}, paths).reason(), "FIELD_INVALID");
  request.mutable_update_mask()->set_paths(0, "dedup_window");
  EXPECT_EQ(check_update(request, {}, paths).reason(), "FIELD_INVALID") << "it cannot be cleared";
  request.mutable_update_mask()->set_paths(0, "retention");
  EXPECT_EQ(check_update(request, {}, paths).reason(), "FIELD_INVALID") << "it cannot be cleared";
  request.mutable_update_mask()->set_paths(0, "retention_bytes");
  request.mutable_topic()->set_retention_bytes(7);
  paths.clear();
  EXPECT_TRUE(check_update(request, {}, paths).is_ok());
  EXPECT_EQ(paths, std::vector<std::string>{"retention_bytes"});
}

TEST(Topics, WhatKeepsNothingHasNoRetention) {
  v1::Topic topic;
  topic.set_name("a");
  topic.set_persistence(v1::TOPIC_PERSISTENCE_EPHEMERAL);
  EXPECT_FALSE(with_defaults(topic, {})->has_retention());
  topic.set_retention_events(5);
  EXPECT_EQ(with_defaults(topic, {}).error().reason(), "FIELD_INVALID");
}

TEST(TopicQuotas, ATopicHasToFitIntoEachOfThem) {
  TopicsLab lab;
  lab.level = 2;
  const auto create = [&](const std::string& name_space, const std::string& name,
                          const std::vector<std::pair<uint64_t, std::vector<std::string>>>& quotas) {
    internal::v1::TopicCreateCommand command;
    command.mutable_topic()->set_name(name);
    command.mutable_topic()->set_partitions(1);
    command.set_topics_max(100);
    for (const auto& [most, names] : quotas) {
      internal::v1::TopicQuota& quota = *command.add_quotas();
      quota.set_quota(names.empty() ? "global:" : "namespace:" + names.front());
      quota.set_topics_max(most);
      for (const std::string& one : names) quota.add_namespaces(one);
    }
    const auto applied = lab.apply_command("topics.create", command, {"t", name_space});
    return applied ? std::string() : std::string(applied.error().message());
  };
  EXPECT_EQ(create("a", "one", {{1, {"a"}}}), "");
  EXPECT_EQ(create("a", "two", {{1, {"a"}}}),
            "the quota namespace:a has 1 of 1 topics; delete some, or have the quota raised");
  EXPECT_EQ(create("b", "one", {{1, {"b"}}, {2, {}}}), "");
  EXPECT_EQ(create("c", "one", {{1, {"c"}}, {2, {}}}),
            "the quota global: has 2 of 2 topics; delete some, or have the quota raised");
  EXPECT_EQ(create("c", "one", {{2, {"a", "c"}}}), "") << "of a and c there was one";
  EXPECT_NE(create("c", "two", {{2, {"a", "c"}}}), "");
  lab.level = 1;
  EXPECT_EQ(create("a", "three", {{1, {"a"}}}), "") << "nodes of before would not refuse it";
}

}  // namespace
}  // namespace uccp::events
