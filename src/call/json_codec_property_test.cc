// Random messages: our JSON and protobuf's are understood by each other, and nothing is lost on the way.
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "call/contract.h"
#include "call/json_codec.h"
#include "call/plan_test_types.h"
#include "call/validate.h"

namespace uccp::call {
namespace {

namespace pb = google::protobuf;

bool same(const pb::Message& a, const pb::Message& b, std::string* difference) {
  pb::util::MessageDifferencer differencer;
  difference->clear();
  differencer.ReportDifferencesToString(difference);
  return differencer.Compare(a, b);
}

constexpr int kRounds = 1500;

TEST(JsonProperty, ProtobufReadsOurJson) {
  RandomMessages random(1);
  for (int i = 0; i < kRounds; ++i) {
    const auto message = TestTypes::get().make(), back = TestTypes::get().make();
    random.fill(*message);
    const std::string wire = message->SerializeAsString();
    // Through the wire once: equal map keys collapse.
    ASSERT_TRUE(message->ParseFromString(wire));
    const auto json = wire_to_json(TestTypes::get().plan(), wire, {.emit = Emit::kSet, .pretty = i % 2 == 0});
    ASSERT_TRUE(json) << json.error().to_string();
    const auto status = pb::util::JsonStringToMessage(*json, back.get());
    ASSERT_TRUE(status.ok()) << status.ToString() << *json;
    std::string difference;
    ASSERT_TRUE(same(*message, *back, &difference)) << difference << *json;
  }
}

TEST(JsonProperty, WeReadTheJsonOfProtobuf) {
  RandomMessages random(2);
  for (int i = 0; i < kRounds; ++i) {
    const auto message = TestTypes::get().make(), back = TestTypes::get().make();
    random.fill(*message);
    ASSERT_TRUE(message->ParseFromString(message->SerializeAsString()));
    std::string json;
    ASSERT_TRUE(pb::util::MessageToJsonString(*message, &json).ok());
    const auto wire = json_to_wire(TestTypes::get().plan(), json);
    ASSERT_TRUE(wire) << wire.error().to_string() << json;
    ASSERT_TRUE(back->ParseFromString(*wire));
    std::string difference;
    ASSERT_TRUE(same(*message, *back, &difference)) << difference << json;
  }
}

// For every message of the contract, its enums, sizes and options included.
TEST(JsonProperty, EveryMessageOfTheContractSurvivesTheWayThroughJson) {
  RandomMessages random(3);
  const pb::DescriptorPool& pool = *pb::DescriptorPool::generated_pool();
  std::set<const MessagePlan*> types;
  for (const Method& method : Contract::get().methods()) types.insert({method.request, method.response});
  for (const MessagePlan* plan : types) {
    const pb::Message* prototype =
        pb::MessageFactory::generated_factory()->GetPrototype(pool.FindMessageTypeByName(plan->full_name));
    ASSERT_NE(prototype, nullptr);
    for (int i = 0; i < 20; ++i) {
      const std::unique_ptr<pb::Message> message(prototype->New()), back(prototype->New());
      random.fill(*message);
      ASSERT_TRUE(message->ParseFromString(message->SerializeAsString()));
      const auto json = wire_to_json(*plan, message->SerializeAsString());
      ASSERT_TRUE(json) << plan->full_name << json.error().to_string();
      const auto wire = json_to_wire(*plan, *json, {.keep_output_only = true});
      ASSERT_TRUE(wire) << plan->full_name << wire.error().to_string() << *json;
      ASSERT_TRUE(back->ParseFromString(*wire));
      std::string difference;
      ASSERT_TRUE(same(*message, *back, &difference)) << difference << *json;
      // The same JSON always gives the same bytes, and what is canonical stays as it is.
      const std::string canonical_once = *canonical(*plan, *wire);
      ASSERT_EQ(canonical_once, *canonical(*plan, message->SerializeAsString())) << *json;
      ASSERT_EQ(canonical_once, *canonical(*plan, canonical_once));
    }
  }
}

// Cut and flipped bytes must neither crash nor hang anything that walks the wire.
TEST(JsonProperty, DamagedBytesAreOnlyErrors) {
  RandomMessages random(4);
  const MessagePlan& plan = TestTypes::get().plan();
  int good = 0;
  for (int i = 0; i < kRounds; ++i) {
    const auto message = TestTypes::get().make();
    random.fill(*message);
    std::string wire = message->SerializeAsString();
    for (uint64_t n = 1 + random.below(4); n > 0 && !wire.empty(); --n) {
      wire[random.below(wire.size())] = static_cast<char>(random.below(256));
    }
    if (random.below(2)) wire.resize(random.below(wire.size() + 1));
    const auto json = wire_to_json(plan, wire, {.emit = Emit::kNumbers});
    (void)validate(plan, wire);
    (void)canonical(plan, wire);
    if (!json) continue;
    ++good;
    // Bytes that are not UTF-8 are replaced, so the output is always JSON.
    const auto back = json_to_wire(plan, *json);
    if (!back) EXPECT_NE(back.error().reason(), "JSON_INVALID") << *json;
  }
  EXPECT_GT(good, 0);
}

}  // namespace
}  // namespace uccp::call
