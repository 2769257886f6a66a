// Reading a group's changes and its audit trail as one sequence: the order, places in the middle, pieces, what is gone.
#include "services/events/system_topics.h"

#include <gtest/gtest.h>

#include "machine/machine.h"
#include "services/events/topics_state.h"
#include "storage/memory/memory_kv.h"
#include "uccp/v1/events.pb.h"

namespace uccp::events {
namespace {

const machine::Scope kScope{"t", "n"};

services::ChangeTopic topics_as_changes() {
  return {.name = "$sys.topics",
          .group = kCoreGroup,
          .feed = std::string(kTopicChanges),
          .permission = "topics.read",
          .resource_type = "uccp.v1.Topic",
          .show = [](const machine::Change& change) -> std::optional<services::ShownChange> {
            TopicRow row;
            EXPECT_TRUE(row.ParseFromString(change.payload));
            return services::ShownChange{services::change_type("topic", "TOPIC_EVENT_KIND_SET"), change.key,
                                         row.topic().SerializeAsString()};
          }};
}

services::ChangeTopic audit() {
  return {.name = "$sys.audit",
          .group = kCoreGroup,
          .feed = std::string(machine::kAuditTopic),
          .permission = "audit.read",
          .resource_type = "uccp.v1.AuditRecord",
          .show_audit = [](const machine::AuditRecord& record) {
            return services::ShownChange{"audit.recorded", record.resource, ""};
          }};
}

class SystemTopics : public ::testing::Test {
 protected:
  explicit SystemTopics(machine::MachineLimits limits = {}) : machine_(kCoreGroup, kv_, {&state_}, limits) {
    EXPECT_TRUE(machine_.open().is_ok());
  }

  void create(const std::string& name, const machine::Scope& scope = kScope) {
    internal::v1::TopicCreateCommand command;
    command.mutable_topic()->set_name(name);
    command.mutable_topic()->set_partitions(1);
    command.set_groups(1);
    command.set_topics_max(1000);
    machine::Envelope e;
    e.scope = scope;
    e.principal = "p";
    e.method = "uccp.v1.EventBus/CreateTopic";
    e.command = "topics.create";
    e.resource = name;
    e.payload = command.SerializeAsString();
    e.audited = true;
    const Entry entry{Term(1), machine_.applied().next(), EntryKind::kCommand, machine::encode_envelope(e)};
    EXPECT_TRUE(machine_.apply({&entry, 1}).has_value());
  }
  SystemRead read(const ChangeTopics& topics, LogPlace after = {}, size_t count_max = 100) {
    auto read = read_system(machine_.view(), topics, kScope, after, count_max);
    EXPECT_TRUE(read.has_value()) << (read ? "" : read.error().to_string());
    return read ? std::move(*read) : SystemRead();
  }
  // "topic.set a": type and key.
  static std::vector<std::string> shown(const SystemRead& read) {
    std::vector<std::string> out;
    for (const SystemEvent& one : read.events) {
      v1::Event event;
      EXPECT_TRUE(event.ParseFromString(one.event));
      out.push_back(event.type() + " " + event.key());
    }
    return out;
  }

  using Shown = std::vector<std::string>;
  storage::MemoryKv kv_;
  TopicsState state_;
  machine::Machine machine_;
  const services::ChangeTopic topics_ = topics_as_changes();
  const services::ChangeTopic audit_ = audit();
};

class FewKept : public SystemTopics {
 protected:
  FewKept() : SystemTopics({.changes_kept = 2, .audit_records_kept = 4}) {}
};

TEST_F(SystemTopics, ChangesAndRecordsAreOneSequenceInTheOrderOfTheLog) {
  create("a");
  create("of-others", {"t", "other"});
  create("b");
  create("a");  // refused, and on record
  const SystemRead both = read({&topics_, &audit_});
  EXPECT_EQ(shown(both),
            (Shown{"topic.set a", "audit.recorded a", "topic.set b", "audit.recorded b", "audit.recorded a"}));
  EXPECT_TRUE(both.whole);
  EXPECT_EQ(both.next, behind(machine_.applied()));
  EXPECT_EQ(shown(read({&topics_})), (Shown{"topic.set a", "topic.set b"}));
  EXPECT_TRUE(read({&topics_, &audit_}, both.next).events.empty());
  v1::Event first;
  ASSERT_TRUE(first.ParseFromString(both.events.front().event));
  EXPECT_EQ(first.topic(), "$sys.topics");
  EXPECT_EQ(first.json().struct_value().fields().at("name").string_value(), "a");
}

TEST_F(SystemTopics, EachPlaceIsOneToGoOnFrom) {
  for (const char* name : {"a", "b", "c"}) create(name);
  const ChangeTopics all = {&audit_, &topics_};
  const SystemRead whole = read(all);
  const Shown shown_whole = shown(whole);
  ASSERT_EQ(shown_whole.size(), 6u);
  for (size_t i = 0; i < whole.events.size(); ++i) {
    const Shown expected(shown_whole.begin() + static_cast<ptrdiff_t>(i) + 1, shown_whole.end());
    EXPECT_EQ(shown(read(all, whole.events[i].place)), expected) << i;
  }
}

TEST_F(SystemTopics, ItIsReadInPiecesWithoutGapOrRepetition) {
  for (int i = 0; i < 25; ++i) create("t" + std::to_string(i));
  const ChangeTopics all = {&topics_, &audit_};
  const auto expected = shown(read(all));
  for (const size_t count : {1u, 2u, 7u}) {
    Shown found;
    LogPlace after;
    for (int turns = 0; turns < 100; ++turns) {
      const SystemRead piece = read(all, after, count);
      for (std::string& one : shown(piece)) found.push_back(std::move(one));
      if (piece.whole) break;
      EXPECT_GT(piece.next, after);
      after = piece.next;
    }
    EXPECT_EQ(found, expected) << count;
  }
}

TEST_F(FewKept, ThePlaceBehindWhichSomethingIsGoneIsTold) {
  for (const char* name : {"a", "b", "c", "d", "e", "f"}) create(name);
  // From the oldest that is left of each.
  EXPECT_EQ(shown(read({&topics_})), (Shown{"topic.set e", "topic.set f"}));
  EXPECT_EQ(shown(read({&audit_})).size(), 4u);
  const auto gone = read_system(machine_.view(), {&topics_}, kScope, behind(LogIndex(2)), 100);
  EXPECT_EQ(gone.error().reason(), "CURSOR_COMPACTED");
  EXPECT_EQ(read_system(machine_.view(), {&audit_}, kScope, behind(LogIndex(1)), 100).error().reason(),
            "CURSOR_COMPACTED");
  EXPECT_TRUE(read_system(machine_.view(), {&audit_}, kScope, behind(LogIndex(2)), 100).has_value());
  EXPECT_EQ(shown(read({&topics_}, behind(LogIndex(5)))), (Shown{"topic.set f"}));
}

}  // namespace
}  // namespace uccp::events
