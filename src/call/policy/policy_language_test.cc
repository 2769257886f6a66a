#include "call/policy/policy_language.h"

#include <gtest/gtest.h>

#include "call/contract.h"
#include "call/policy/policy_expression.h"
#include "call/policy/words.h"

namespace uccp::call {
namespace {

// A call as conditions see it.
struct Sample {
  Principal principal;
  std::string method = "ScheduleTask";
  std::string name_space = "default";
  std::string resource = "nightly";
  std::string json = "{}";
  std::string address = "10.1.2.3:4000";
  int64_t wall_us = 1'764'075'600'000'000;  // Tuesday 2025-11-25, 13:00 UTC

  Sample() {
    principal.kind = Principal::Kind::kUser;
    principal.tenant = "acme";
    principal.name = "ana";
    principal.groups = {"devs", "night"};
    principal.credential = Principal::Credential::kApiKey;
  }
};

const Method& method_named(std::string_view name) {
  for (const Method& method : Contract::get().methods()) {
    if (method.name == name) return method;
  }
  ADD_FAILURE() << name;
  return Contract::get().methods().front();
}

// Wire bytes of ScheduleTask with a command, cpu and a timeout.
std::string task_request(int cpu, int timeout_s) {
  const MessagePlan& plan = *method_named("ScheduleTask").request;
  std::string wire;
  set_string(*FieldPath::compile(plan, "task.name"), wire, "big");
  set_string(*FieldPath::compile(plan, "task.command"), wire, "sh");
  set_string(*FieldPath::compile(plan, "task.command"), wire, "-c");
  std::string cpu_field;
  const double value = cpu;
  put_tag(cpu_field, FieldPath::compile(plan, "task.resources.cpu")->leaf().number, WireType::kFixed64);
  cpu_field.append(reinterpret_cast<const char*>(&value), sizeof value);
  append_at(*FieldPath::compile(plan, "task.resources.cpu"), wire, cpu_field);
  set_uint(*FieldPath::compile(plan, "task.timeout.seconds"), wire, static_cast<uint64_t>(timeout_s));
  return wire;
}

bool applies(const std::string& text, const Sample& sample = {}, const std::string& wire = task_request(8, 60)) {
  const auto statements = compile_policy(text);
  EXPECT_TRUE(statements) << text << "\n" << (statements ? "" : statements.error().message());
  if (!statements) return false;
  return statements->front().applies({.principal = sample.principal,
                                      .method = &method_named(sample.method),
                                      .name_space = sample.name_space,
                                      .resource = sample.resource,
                                      .request = wire,
                                      .address = sample.address,
                                      .door = "http",
                                      .wall = {sample.wall_us}});
}

bool holds(const std::string& condition, const std::string& wire = task_request(8, 60)) {
  return applies("forbid (principal, action == \"ScheduleTask\", resource) when { " + condition + " };", {}, wire);
}

std::string error_of(const std::string& text) {
  const auto statements = compile_policy(text);
  EXPECT_FALSE(statements) << text;
  if (statements) return "";
  EXPECT_EQ(statements.error().reason(), "POLICY_INVALID");
  return statements.error().message();
}

TEST(PolicyLanguage, HeadsNarrowWhoWhatAndWhere) {
  EXPECT_TRUE(applies("permit (principal, action, resource);"));
  EXPECT_TRUE(applies("permit (principal == \"ana\", action, resource);"));
  EXPECT_FALSE(applies("permit (principal == \"bob\", action, resource);"));
  EXPECT_TRUE(applies("permit (principal in group \"night\", action, resource);"));
  EXPECT_FALSE(applies("permit (principal in group \"day\", action, resource);"));
  EXPECT_TRUE(applies("permit (principal is user, action, resource);"));
  EXPECT_FALSE(applies("permit (principal is service, action, resource);"));
  EXPECT_TRUE(applies("permit (principal, action in [\"GetTaskStatus\", \"ScheduleTask\"], resource);"));
  EXPECT_FALSE(applies("permit (principal, action == \"GetTaskStatus\", resource);"));
  EXPECT_TRUE(applies("permit (principal, action in permission \"tasks.*\", resource);"));
  EXPECT_FALSE(applies("permit (principal, action in permission \"*.read\", resource);"));
  EXPECT_TRUE(applies("permit (principal, action, resource == \"nightly\");"));
  EXPECT_TRUE(applies("permit (principal, action, resource like \"night*\");"));
  EXPECT_FALSE(applies("permit (principal, action, resource like \"day*\");"));
  EXPECT_TRUE(applies("permit (principal, action, resource in namespace \"default\");"));
  EXPECT_FALSE(applies("permit (principal, action, resource in namespace \"prod\");"));
  EXPECT_FALSE(applies("permit (principal, action, resource) unless { principal.name == \"ana\" };"));
  EXPECT_TRUE(applies("permit (principal, action == \"uccp.v1.TaskScheduling/ScheduleTask\", resource); // full name"));
}

TEST(PolicyLanguage, ConditionsLookAtTheRequest) {
  EXPECT_TRUE(holds("request.task.resources.cpu > 4"));
  EXPECT_FALSE(holds("request.task.resources.cpu > 4", task_request(2, 60)));
  EXPECT_TRUE(holds("request.task.timeout <= 60"));
  EXPECT_FALSE(holds("request.task.timeout < 60"));
  EXPECT_TRUE(holds("request.task.command.contains(\"-c\")"));
  EXPECT_FALSE(holds("request.task.command.contains(\"-x\")"));
  EXPECT_TRUE(holds("has request.task.resources && !(has request.task.retry)"));
  EXPECT_TRUE(holds("request.task.name == \"big\" || false"));
  EXPECT_TRUE(holds("request.task.name in [\"small\", \"big\"]"));
  EXPECT_TRUE(holds("request.task.name like \"b*g\""));
  // What is not there has the zero value of its type.
  EXPECT_TRUE(holds("request.task.name == \"\" && request.task.resources.cpu == 0", ""));
}

TEST(PolicyLanguage, ConditionsLookAtCallerAndSurroundings) {
  EXPECT_TRUE(holds("principal.groups.contains(\"devs\")"));
  EXPECT_TRUE(
      holds("principal.credential == \"apikey\" && principal.tenant == \"acme\" && principal.kind == \"user\""));
  EXPECT_TRUE(holds("context.address in ip \"10.0.0.0/8\""));
  EXPECT_FALSE(holds("context.address in ip \"10.0.0.0/16\""));
  EXPECT_TRUE(holds("!(context.address in ip \"::1\")"));
  EXPECT_TRUE(holds("context.hour >= 9 && context.hour < 17 && context.weekday == 2"));
  EXPECT_TRUE(holds("context.door == \"http\" && resource.namespace == \"default\" && resource.name != \"x\""));
  EXPECT_TRUE(holds("(1 < 2) == true"));
  EXPECT_TRUE(holds("-1 < 0"));
}

TEST(PolicyLanguage, AddressesOfBothKindsAreCompared) {
  Network network;
  ASSERT_TRUE(parse_network("fd00::/8", network));
  std::array<unsigned char, 16> address{};
  ASSERT_TRUE(parse_address("[fd12::1]:443", address));
  EXPECT_TRUE(network.contains(address));
  ASSERT_TRUE(parse_address("192.0.2.1:1", address));
  EXPECT_FALSE(network.contains(address));
  for (const char* bad : {"", "10.0.0.0/33", "10.0.0/8", "x", "10.0.0.1:80", "::/129", "10.0.0.0/-1", "[::1]"}) {
    EXPECT_FALSE(parse_network(bad, network)) << bad;
  }
}

TEST(PolicyLanguage, ErrorsSayWhereAndWhatWasMeant) {
  EXPECT_EQ(error_of("permit (principal,\n  action == \"ScheduleTsk\", resource);"),
            "line 2, column 13: there is no method 'ScheduleTsk'; did you mean 'ScheduleTask'?");
  EXPECT_EQ(
      error_of("forbid (principal, action == \"ScheduleTask\", resource) when { request.task.resorces.cpu > 1 };"),
      "line 1, column 71: the request of ScheduleTask has no field 'task.resorces.cpu'; did you mean resources?");
  EXPECT_NE(error_of("forbid (principal, action, resource) when { request.task.name == \"a\" };")
                .find("has to name its methods"),
            std::string::npos);
  EXPECT_NE(error_of("forbid (principal, action, resource) when { principal.nam == \"a\" };")
                .find("did you mean 'principal.name'?"),
            std::string::npos);
  EXPECT_NE(error_of("forbid (principal, action, resource) when { context.hour == \"a\" };").find("a number is needed"),
            std::string::npos);
  EXPECT_NE(error_of("forbid (principal, action, resource) when { context.hour };").find("true or false is needed"),
            std::string::npos);
  EXPECT_NE(error_of("forbid (principal, action in permission \"task.write\", resource);")
                .find("did you mean 'tasks.write'?"),
            std::string::npos);
  EXPECT_NE(error_of("forbid (principal, action == \"SignIn\", resource) when { request.password == \"a\" };")
                .find("is a secret"),
            std::string::npos);
  for (const char* bad :
       {"", "allow (principal, action, resource);", "permit (principal, action, resource)", "permit (principal);",
        "permit (principal == ana, action, resource);", "permit (principal == \"\", action, resource);",
        "permit (principal, action, resource) when { };", "permit (principal, action, resource) when { true",
        "permit (principal, action, resource == \"a*\");", "permit (principal, action, resource) when { \"a };",
        "permit (principal, action, resource) when { true } when { true };", "permit (principal, action, \x01);",
        "permit (principal, action, resource) when { context.address in ip \"10\" };",
        "permit (principal, action, resource) when { 1.2.3 < 4 };"}) {
    EXPECT_NE(error_of(bad), "") << bad;
  }
}

TEST(PolicyLanguage, LimitsHold) {
  std::string many;
  for (size_t i = 0; i <= kStatementsMax; ++i) many += "permit (principal, action, resource);\n";
  EXPECT_NE(error_of(many).find("at most 64 rules"), std::string::npos);
  const std::string head = "permit (principal, action, resource) when { ";
  EXPECT_NE(error_of(head + std::string(200, '!') + "true };").find("nested deeper"), std::string::npos);
  EXPECT_NE(error_of(head + std::string(200, '(') + "true };").find("nested deeper"), std::string::npos);
  std::string wide = "true";
  for (size_t i = 0; i < kExpressionNodesMax; ++i) wide += " && true";
  EXPECT_NE(error_of(head + wide + " };").find("more than 512 parts"), std::string::npos);
  EXPECT_NE(error_of(std::string(kPolicyBytesMax + 1, ' ')).find("more than"), std::string::npos);
}

TEST(Words, GlobsAndSlips) {
  EXPECT_TRUE(glob_matches("*", ""));
  EXPECT_TRUE(glob_matches("a*b*c", "aXXbYYc"));
  EXPECT_FALSE(glob_matches("a*b*c", "aXXbYY"));
  EXPECT_TRUE(glob_matches("", ""));
  EXPECT_FALSE(glob_matches("", "a"));
  EXPECT_TRUE(glob_matches("**a", "bba"));
  // Not quadratic to the power of the stars.
  EXPECT_FALSE(glob_matches("*a*a*a*a*a*a*a*a*b", std::string(10'000, 'a')));
}

}  // namespace
}  // namespace uccp::call
