#include "call/plan.h"

#include <gtest/gtest.h>

#include "call/contract.h"
#include "call/plan_test_types.h"

namespace uccp::call {
namespace {

TEST(ByteSize, TakesDecimalAndBinarySuffixes) {
  const std::pair<const char*, uint64_t> cases[] = {{"0", 0},
                                                    {"512", 512},
                                                    {"10k", 10'000},
                                                    {"64Mi", 64ull << 20},
                                                    {"1.5Gi", 3ull << 29},
                                                    {"2KiB", 2048},
                                                    {"1.5GB", 1'500'000'000},
                                                    {"0.5", 1},
                                                    {".5k", 500},
                                                    {"15Ei", 15ull << 60},
                                                    {"18446744073709551615", UINT64_MAX}};
  for (const auto& [text, bytes] : cases) {
    const auto size = parse_byte_size(text);
    ASSERT_TRUE(size) << text;
    EXPECT_EQ(*size, bytes) << text;
  }
}

TEST(ByteSize, RefusesEverythingElse) {
  for (const char* text : {"", "Mi", "-1", "1e3", "64MI", "64mi", "ki", "1ki", "1K", "16Ei", "18446744073709551616",
                           "1 Mi", "1.Mi.", "0x10", "1Bi"}) {
    EXPECT_FALSE(parse_byte_size(text)) << text;
  }
}

TEST(Plan, FindsFieldsByNumberAndBothNames) {
  const MessagePlan& plan = TestTypes::get().plan();
  for (const FieldPlan& field : plan.fields) {
    EXPECT_EQ(plan.by_number(field.number), &field);
    EXPECT_EQ(plan.by_name(field.name), &field);
    EXPECT_EQ(plan.by_name(field.json_name), &field);
  }
  EXPECT_EQ(plan.by_number(2000)->name, "maybe");
  EXPECT_EQ(plan.by_number(1999), nullptr);
  EXPECT_EQ(plan.by_number(0), nullptr);
  EXPECT_EQ(plan.by_name("nope"), nullptr);
  EXPECT_EQ(plan.by_name(""), nullptr);
}

TEST(Plan, KnowsPresenceAndOneofs) {
  const MessagePlan& plan = TestTypes::get().plan();
  EXPECT_TRUE(plan.by_name("maybe")->presence);
  EXPECT_EQ(plan.by_name("maybe")->oneof, -1);
  EXPECT_FALSE(plan.by_name("a_bool")->presence);
  EXPECT_EQ(plan.by_name("text_choice")->oneof, plan.by_name("message_choice")->oneof);
  EXPECT_TRUE(plan.by_name("many_an_int32")->packed);
}

TEST(Plan, EnumValuesLoseThePrefixOfTheirType) {
  const FieldPlan* status = Contract::get().plan("uccp.v1.Task").by_name("status");
  ASSERT_NE(status, nullptr);
  ASSERT_NE(status->enumeration, nullptr);
  EXPECT_EQ(status->enumeration->by_number(0)->name, "UNSPECIFIED");
  EXPECT_NE(status->enumeration->by_name("SUCCEEDED"), nullptr);
  EXPECT_EQ(status->enumeration->by_name("TASK_STATUS_SUCCEEDED"), status->enumeration->by_name("SUCCEEDED"));
  EXPECT_EQ(status->enumeration->by_name("succeeded"), nullptr);
}

TEST(Plan, SuggestsTheNearestName) {
  const MessagePlan& plan = Contract::get().plan("uccp.v1.ServiceRegistration");
  EXPECT_EQ(plan.nearest("serviceNam")->json_name, "serviceName");
  EXPECT_EQ(plan.nearest("service_nmae")->json_name, "serviceName");
  EXPECT_EQ(plan.nearest("adress")->json_name, "address");
  EXPECT_EQ(plan.nearest("somethingElse"), nullptr);
}

}  // namespace
}  // namespace uccp::call
