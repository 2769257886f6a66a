// Words, cells and YAML: the small things that every command's output is made of.
#include <gtest/gtest.h>

#include "call/contract.h"
#include "cli/errors.h"
#include "cli/render.h"
#include "cli/settings.h"
#include "cli/text.h"
#include "cli/yaml.h"

namespace uccp::cli {
namespace {

TEST(Text, NamesOfTheContractBecomeFlags) {
  EXPECT_EQ(to_kebab("serviceName"), "service-name");
  EXPECT_EQ(to_kebab("health_check.interval"), "health-check.interval");
  EXPECT_EQ(singular("labels"), "label");
  EXPECT_EQ(singular("dependencies"), "dependency");
  EXPECT_EQ(singular("status"), "");
  EXPECT_EQ(singular("address"), "");
  EXPECT_EQ(plural("latch"), "latches");
  EXPECT_EQ(past("cancel"), "cancelled");
  EXPECT_EQ(past("deregister"), "deregistered");
}

TEST(Text, SwappedLettersAreNear) {
  const std::vector<std::string> words = {"list", "get", "logs"};
  EXPECT_EQ(nearest("lsit", words), "list");
  EXPECT_EQ(nearest("xyzzy", words), "");
}

TEST(Text, ControlCharactersDoNotReachTheTerminal) { EXPECT_EQ(printable("a\x1b[31mb\nc"), "a?[31mb c"); }

TEST(Render, AgesHaveOneUnit) {
  EXPECT_EQ(age_text(0), "0s");
  EXPECT_EQ(age_text(119), "119s");
  EXPECT_EQ(age_text(120), "2m");
  EXPECT_EQ(age_text(7200), "2h");
  EXPECT_EQ(age_text(2 * 86400), "2d");
  EXPECT_EQ(age_text(-30), "+30s");
}

TEST(Render, SizesAreShort) {
  EXPECT_EQ(byte_size_text(0), "0");
  EXPECT_EQ(byte_size_text(64 << 20), "64Mi");
  EXPECT_EQ(byte_size_text((3ull << 30) / 2), "1.5Gi");
}

TEST(Render, AnEmptyListIsAnEmptyArray) {
  EXPECT_EQ(json_array({}), "[]\n");
  EXPECT_EQ(json_array({"{\n  \"a\": 1\n}", "2"}), "[\n  {\n    \"a\": 1\n  },\n  2\n]\n");
}

TEST(Yaml, WordsThatLookLikeOtherTypesAreQuoted) {
  EXPECT_EQ(json_to_yaml(R"({"a":"true","b":true,"c":"x: y","d":"10.0.0.7","e":"no","f":null,"g":""})"),
            "a: \"true\"\nb: true\nc: \"x: y\"\nd: \"10.0.0.7\"\ne: \"no\"\nf: null\ng: \"\"\n");
}

TEST(Yaml, ListsAndObjectsNest) {
  EXPECT_EQ(json_to_yaml(R"([{"a":[1,{"b":2}],"c":{}},[]])"), "- a:\n    - 1\n    - b: 2\n  c: {}\n- []\n");
}

TEST(Yaml, TheFieldDecidesWhatABareWordIs) {
  const call::MessagePlan& task = call::Contract::get().plan("uccp.v1.Task");
  const Result<std::string> json =
      yaml_to_json("name: 42\ncommand: [sleep, 5]\npriority: 7\nenv:\n  PORT: 8080\n  ON: true\n", task, "t.yaml");
  ASSERT_TRUE(json) << json.error().message();
  EXPECT_EQ(*json, R"({"name":"42","command":["sleep","5"],"priority":7,"env":{"PORT":"8080","ON":"true"}})");
}

TEST(Yaml, AnErrorNamesThePlace) {
  const call::MessagePlan& task = call::Contract::get().plan("uccp.v1.Task");
  // On this the library alone would never end.
  EXPECT_FALSE(yaml_to_json(",a", task, "t.yaml"));
  const Result<std::string> json = yaml_to_json("name: [1", task, "t.yaml");
  ASSERT_FALSE(json);
  EXPECT_EQ(json.error().reason(), "YAML_INVALID");
  EXPECT_TRUE(json.error().message().starts_with("t.yaml line ")) << json.error().message();
}

TEST(Settings, TimeoutsTakeSecondsAndDurations) {
  EXPECT_EQ(parse_timeout_ms("30").value_or(-1), 30'000);
  EXPECT_EQ(parse_timeout_ms("1m30s").value_or(-1), 90'000);
  EXPECT_EQ(parse_timeout_ms("250ms").value_or(-1), 250);
  EXPECT_FALSE(parse_timeout_ms("soon"));
  EXPECT_FALSE(parse_timeout_ms("-1s"));
}

TEST(Errors, EveryCodeHasAnExitCodeOfTheTable) {
  const std::string table = exit_code_help();
  for (int i = 1; i < kCodeCount; ++i) {
    const int code = exit_code(Status(static_cast<Code>(i), "X", "x"));
    EXPECT_NE(table.find("\n  " + std::to_string(code) + " "), std::string::npos) << i;
  }
}

}  // namespace
}  // namespace uccp::cli
