#include "call/policy/policy_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "call/contract.h"

namespace uccp::call {
namespace {

const Method& method_named(std::string_view name) {
  for (const Method& method : Contract::get().methods()) {
    if (method.name == name) return method;
  }
  ADD_FAILURE() << name;
  return Contract::get().methods().front();
}

Principal user(std::string name, std::vector<std::string> groups = {}, std::string tenant = "acme") {
  Principal principal;
  principal.kind = Principal::Kind::kUser;
  principal.tenant = std::move(tenant);
  principal.name = std::move(name);
  principal.groups = std::move(groups);
  principal.credential = Principal::Credential::kToken;
  return principal;
}

PolicyInput sample() {
  PolicyInput in;
  in.tenants = {{.name = "acme"}, {.name = "strict", .declared_namespaces_only = true, .namespaces = {"team-a"}}};
  in.roles = {{"acme", "runner", {"tasks.write"}, {}}, {"acme", "lead", {"workers.read"}, {"runner", "viewer"}}};
  in.bindings = {{"acme", "b1", "runner", {"ana"}, {}, {}},
                 {"acme", "b2", "lead", {"group:leads"}, {"prod"}, {}},
                 {"acme", "b3", "developer", {"bob"}, {}, {"web-*"}},
                 {"acme", "b4", "admin", {"root"}, {}, {}},
                 {"strict", "b5", "admin", {"root"}, {}, {}}};
  in.policies = {{"acme", "freeze",
                  "forbid (principal in group \"interns\", action in permission \"*.write\", resource);\n"
                  "permit (principal == \"eve\", action == \"ListTasks\", resource);"}};
  return in;
}

Decision decide(const PolicySet& set, const Principal& principal, std::string_view method,
                std::string_view name_space = "default", std::string_view resource = "") {
  const Method& m = method_named(method);
  return set.decide({.principal = principal,
                     .method = &m,
                     .permission = PermissionTable::get().of(m),
                     .name_space = name_space,
                     .resource = resource});
}

TEST(PolicySet, RolesOfCredentialsAreTheBuiltInOnes) {
  const auto set = PolicySet::built_in();
  Principal viewer = user("vera", {}, "default");
  viewer.roles = {"viewer"};
  EXPECT_TRUE(decide(*set, viewer, "ListTasks").allowed());
  EXPECT_FALSE(decide(*set, viewer, "ScheduleTask").allowed());
  EXPECT_FALSE(decide(*set, viewer, "SearchAudit").allowed());
  EXPECT_FALSE(decide(*set, viewer, "ListUsers").allowed());
  viewer.roles = {"Viewer", "*", ""};
  EXPECT_FALSE(decide(*set, viewer, "ListTasks").allowed());
}

TEST(PolicySet, BindingsGiveRolesInTheTenantInNamespacesAndOnResources) {
  const auto set = PolicySet::compile(sample());
  EXPECT_TRUE(decide(*set, user("ana"), "ScheduleTask").allowed());
  EXPECT_FALSE(decide(*set, user("ana"), "ListTasks").allowed());
  EXPECT_FALSE(decide(*set, user("ana", {}, "other"), "ScheduleTask").allowed()) << "another tenant's ana";
  // Inherited, and only in the namespace.
  EXPECT_TRUE(decide(*set, user("lea", {"leads"}), "ScheduleTask", "prod").allowed());
  EXPECT_TRUE(decide(*set, user("lea", {"leads"}), "ListTasks", "prod").allowed());
  EXPECT_FALSE(decide(*set, user("lea", {"leads"}), "ScheduleTask", "default").allowed());
  EXPECT_FALSE(decide(*set, user("lea", {"leads"}), "ListTasks", "-").allowed()) << "all namespaces are more than one";
  EXPECT_FALSE(decide(*set, user("lea", {"leads"}), "ListWorkers", "prod").allowed()) << "workers are in no namespace";
  EXPECT_TRUE(decide(*set, user("bob"), "CancelTask", "default", "web-1").allowed());
  EXPECT_FALSE(decide(*set, user("bob"), "CancelTask", "default", "db-1").allowed());
  EXPECT_FALSE(decide(*set, user("bob"), "ListTasks").allowed()) << "a list names no resource";
}

TEST(PolicySet, ForbidWinsAndPermitAdds) {
  const auto set = PolicySet::compile(sample());
  const Decision forbidden = decide(*set, user("ana", {"interns"}), "ScheduleTask");
  EXPECT_EQ(forbidden.reason, Decision::Reason::kForbidden);
  EXPECT_EQ(*forbidden.rule, "freeze");
  EXPECT_TRUE(decide(*set, user("eve"), "ListTasks").allowed());
  EXPECT_FALSE(decide(*set, user("eve"), "ListServices").allowed());
  EXPECT_FALSE(decide(*set, user("root", {"interns"}), "ScheduleTask").allowed()) << "also an admin";
}

TEST(PolicySet, WhatConcernsTheClusterIsForOperatorsOnly) {
  const auto set = PolicySet::compile(sample());
  for (const char* method : {"UpdateConfiguration", "RemoveMember", "CreateTenant", "CordonWorker", "GetMetrics"}) {
    EXPECT_EQ(decide(*set, user("root"), method).reason, Decision::Reason::kOperatorsOnly) << method;
    Principal certified = user("root");
    certified.roles = {"admin"};
    EXPECT_EQ(decide(*set, certified, method).reason, Decision::Reason::kOperatorsOnly) << method;
  }
  Principal operators = user("root", {}, "default");
  operators.roles = {"admin"};
  EXPECT_TRUE(decide(*set, operators, "CreateTenant").allowed());
  EXPECT_TRUE((set->authority(user("root"), "") & PermissionTable::get().cluster_wide()).none());
}

TEST(PolicySet, NamespacesOfCredentialAndTenantHold) {
  const auto set = PolicySet::compile(sample());
  Principal limited = user("ana");
  limited.namespaces = {"blue"};
  EXPECT_TRUE(decide(*set, limited, "ScheduleTask", "blue").allowed());
  EXPECT_EQ(decide(*set, limited, "ScheduleTask", "red").reason, Decision::Reason::kNamespace);
  EXPECT_TRUE(set->authority(limited, "").none()) << "nothing in the whole tenant";
  EXPECT_TRUE(set->authority(limited, "blue").any());
  const Principal root = user("root", {}, "strict");
  EXPECT_TRUE(decide(*set, root, "ScheduleTask", "team-a").allowed());
  EXPECT_TRUE(decide(*set, root, "ScheduleTask", "default").allowed());
  EXPECT_EQ(decide(*set, root, "ScheduleTask", "team-b").reason, Decision::Reason::kUndeclared);
}

TEST(PolicySet, TheTraceNamesTheRuleThatDecided) {
  const auto set = PolicySet::compile(sample());
  std::vector<RuleTrace> trace;
  const Method& m = method_named("CancelTask");
  const Principal bob = user("bob");
  const Decision decision = set->decide({.principal = bob,
                                         .method = &m,
                                         .permission = PermissionTable::get().of(m),
                                         .name_space = "default",
                                         .resource = "web-7"},
                                        &trace);
  ASSERT_TRUE(decision.allowed());
  ASSERT_FALSE(trace.empty());
  EXPECT_TRUE(trace.front().decided);
  EXPECT_EQ(trace.front().kind, "binding");
  EXPECT_EQ(trace.front().name, "b3");
  const Principal lea = user("lea", {"leads"});
  trace.clear();
  set->decide({.principal = lea, .method = &m, .permission = PermissionTable::get().of(m), .name_space = "default"},
              &trace);
  ASSERT_EQ(trace.size(), 1u);
  EXPECT_EQ(trace.front().effect, "none");
  EXPECT_NE(trace.front().detail.find("it holds in other namespaces"), std::string::npos) << trace.front().detail;
}

TEST(PolicySet, APolicyThatDoesNotCompileShutsAllButTheBrokenGlass) {
  PolicyInput in = sample();
  in.policies.push_back({"default", "old", "permit (principal, action == \"Gone\", resource);"});
  std::vector<std::string> broken;
  const auto set = PolicySet::compile(in, &broken);
  ASSERT_EQ(broken.size(), 1u);
  Principal admin = user("root", {}, "default");
  admin.roles = {"admin"};
  EXPECT_FALSE(decide(*set, admin, "ListTasks").allowed());
  admin.credential = Principal::Credential::kCertificate;
  EXPECT_TRUE(decide(*set, admin, "SetPolicy").allowed());
}

// 500 bindings and 500 rules of one tenant, as a decision in the middle of them sees them.
TEST(PolicySet, ADecisionAmongAThousandRulesTakesMicroseconds) {
  PolicyInput in = sample();
  for (int i = 0; i < 500; ++i) {
    const std::string n = std::to_string(i);
    in.bindings.push_back({"acme",
                           "x" + n,
                           i % 2 == 0 ? "developer" : "viewer",
                           {"user" + std::to_string(i % 100), "group:g" + n},
                           {"team-" + n},
                           {}});
    in.policies.push_back({"acme", "p" + n,
                           "forbid (principal in group \"g" + n +
                               "\", action == \"ScheduleTask\", resource in namespace \"prod\") "
                               "when { request.task.resources.cpu > " +
                               n + " && !(context.address in ip \"10.0.0.0/8\") };"});
  }
  const auto set = PolicySet::compile(std::move(in));
  const Method& m = method_named("ScheduleTask");
  std::vector<double> micros;
  size_t allowed = 0;
  for (int i = 0; i < 20'000; ++i) {
    const int k = i % 500;
    const Principal principal =
        user("user" + std::to_string(k % 100), {"g" + std::to_string(k), "g" + std::to_string((k + 7) % 500)});
    const std::string name_space = "team-" + std::to_string(k);
    const auto start = std::chrono::steady_clock::now();
    allowed += set->decide({.principal = principal,
                            .method = &m,
                            .permission = PermissionTable::get().of(m),
                            .name_space = name_space,
                            .address = "192.0.2.1:1"})
                       .allowed()
                   ? 1
                   : 0;
    micros.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
  }
  EXPECT_EQ(allowed, 10'000u);
  std::ranges::sort(micros);
  std::printf("policy decision among 1000 rules: p50 %.2f us, p99 %.2f us\n", micros[micros.size() / 2],
              micros[micros.size() * 99 / 100]);
#ifdef __OPTIMIZE__
#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)
  EXPECT_LT(micros[micros.size() / 2], 5.0);
#endif
#endif
}

}  // namespace
}  // namespace uccp::call
