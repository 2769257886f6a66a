#include "call/routes.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "call/json_codec.h"

namespace uccp::call {
namespace {

const RouteTable& routes() { return RouteTable::get(); }

std::string method_of(std::string_view verb, std::string_view path) {
  const RouteMatch match = routes().match(verb, path);
  switch (match.outcome) {
    case RouteMatch::Outcome::kFound: return match.method().name;
    case RouteMatch::Outcome::kNotFound: return "404";
    case RouteMatch::Outcome::kMethodNotAllowed: return "405 " + match.allow;
    case RouteMatch::Outcome::kBadPath: return "400";
  }
  return {};
}

// The request that verb, target and body become, as JSON, or the error.
std::string request_of(std::string_view verb, std::string_view target, std::string_view body = {}) {
  const size_t mark = target.find('?');
  const RouteMatch match = routes().match(verb, target.substr(0, mark));
  if (match.outcome != RouteMatch::Outcome::kFound) return "no route";
  const auto query = parse_query(mark == std::string_view::npos ? "" : target.substr(mark + 1));
  if (!query) return query.error().to_string();
  static constexpr std::string_view kReserved[] = {"consistency"};
  const auto wire = build_request(match, *query, body, kReserved);
  if (!wire) return wire.error().to_string();
  return *wire_to_json(*match.method().request, *wire, {.emit = Emit::kSet});
}

TEST(Routes, LiteralsBeatVariablesAndVerbsAreFound) {
  EXPECT_EQ(method_of("GET", "/api/v1/services"), "ListServices");
  EXPECT_EQ(method_of("GET", "/api/v1/services/discover"), "Discover");
  EXPECT_EQ(method_of("GET", "/api/v1/services/svc_1"), "GetServiceMetadata");
  EXPECT_EQ(method_of("HEAD", "/api/v1/services/svc_1"), "GetServiceMetadata");
  EXPECT_EQ(method_of("DELETE", "/api/v1/services/svc_1"), "Deregister");
  EXPECT_EQ(method_of("GET", "/api/v1/services:watch"), "WatchServices");
  EXPECT_EQ(method_of("POST", "/api/v1/tasks/task_1:resume"), "ResumeTask");
  EXPECT_EQ(method_of("GET", "/api/v1/tasks/a:b"), "GetTaskStatus");
  EXPECT_EQ(method_of("GET", "/api/v1/tasks/t/artifacts/out/a/b.bin"), "GetTaskArtifact");
  EXPECT_EQ(method_of("POST", "/uccp.v1.TaskScheduling/ScheduleTask"), "ScheduleTask");
  EXPECT_EQ(method_of("GET", "/nothing"), "404");
  EXPECT_EQ(method_of("GET", "/api/v1/services/"), "404");
  EXPECT_EQ(method_of("GET", "/api/v1//services"), "404");
  EXPECT_EQ(method_of("GET", ""), "404");
  EXPECT_EQ(method_of("GET", std::string(1000, '/')), "404");
  EXPECT_EQ(method_of("PUT", "/api/v1/services"), "405 GET, POST");
  EXPECT_EQ(method_of("GET", "/uccp.v1.TaskScheduling/ScheduleTask"), "405 POST");
  EXPECT_EQ(method_of("GET", "/api/v1/services/%zz"), "400");
}

TEST(Routes, PathsAreDecodedAfterRouting) {
  EXPECT_EQ(request_of("GET", "/api/v1/services/a%2Fb%3Awatch"), R"({"id":"a/b:watch"})");
  EXPECT_EQ(request_of("GET", "/api/v1/services/a+b"), R"({"id":"a+b"})");
  EXPECT_EQ(request_of("GET", "/api/v1/tasks/t/artifacts/out/a%20b"), R"({"id":"t","path":"out/a b"})");
}

TEST(BuildRequest, BodyQueryAndPathMeet) {
  EXPECT_EQ(request_of("POST", "/api/v1/tasks?requestId=r1&validate_only=true", R"({"name":"t","command":["a"]})"),
            R"({"task":{"name":"t","command":["a"]},"requestId":"r1","validateOnly":true})");
  EXPECT_EQ(request_of("POST", "/api/v1/tasks?namespace=blue", R"({"name":"t"})"),
            R"({"task":{"name":"t","namespace":"blue"}})");
  EXPECT_EQ(request_of("GET",
                       "/api/v1/services/discover?name=web&health=any&capabilities=a&capabilities=b&consistency=lease"),
            R"({"name":"web","capabilities":["a","b"],"health":"ANY"})");
  EXPECT_EQ(request_of("PATCH", "/api/v1/services/svc_1", R"({"weight":5})"),
            R"({"service":{"id":"svc_1","weight":5}})");
  EXPECT_EQ(request_of("PATCH", "/api/v1/services/svc_1", R"({"id":"svc_1"})"), R"({"service":{"id":"svc_1"}})");
  EXPECT_EQ(request_of("POST", "/api/v1/services/svc_1/heartbeat"), R"({"id":"svc_1"})");
  EXPECT_EQ(request_of("POST", "/api/v1/services/svc_1/heartbeat", R"({"load":0.5})"), R"({"id":"svc_1","load":0.5})");
  EXPECT_EQ(request_of("GET", "/api/v1/tasks?status=QUEUED&status=RUNNING&pageSize=5"),
            R"({"pageSize":5,"status":["QUEUED","RUNNING"]})");
  EXPECT_EQ(request_of("POST", "/uccp.v1.TaskScheduling/GetTaskStatus", R"({"id":"t"})"), R"({"id":"t"})");
  EXPECT_EQ(request_of("DELETE", "/api/v1/services/svc_1", R"({"ifMatch":"x"})"), R"({"id":"svc_1","ifMatch":"x"})");
}

TEST(BuildRequest, WhatDoesNotFitIsRefused) {
  const auto says = [](const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; };
  EXPECT_PRED2(says, request_of("GET", "/api/v1/services?pagesize=5"), "did you mean pageSize?");
  EXPECT_PRED2(says, request_of("GET", "/api/v1/services?pageSize=x"), "must be a whole number");
  EXPECT_PRED2(says, request_of("GET", "/api/v1/services?pageSize=1&pageSize=2"), "more than once");
  EXPECT_PRED2(says, request_of("GET", "/api/v1/services/a?id=b"), "more than once");
  EXPECT_PRED2(says, request_of("PATCH", "/api/v1/services/a", R"({"id":"b"})"), "differs from the path");
  EXPECT_PRED2(says, request_of("GET", "/api/v1/services", "{}"), "takes no body");
  EXPECT_PRED2(says, request_of("POST", "/api/v1/tasks", R"({"resources":{"cpu":[]}})"), "task.resources.cpu");
  EXPECT_PRED2(says, request_of("POST", "/api/v1/tasks?task.env=1", "{}"), "is a map");
  EXPECT_PRED2(says, request_of("GET", "/api/v1/services?filter=%4"), "PATH_INVALID");
}

TEST(Routes, LocationsAreFilledAndEncoded) {
  const Method* method = Contract::get().find("uccp.v1.TaskScheduling/ScheduleTask");
  const std::string task = *json_to_wire(*method->response, R"({"id":"a/b c"})");
  EXPECT_EQ(location_of(*method, task), "/api/v1/tasks/a%2Fb%20c");
  EXPECT_EQ(location_of(*method, ""), "");
  method = Contract::get().find("uccp.v1.ResourceManagement/SetQuota");
  const auto place = [&](std::string_view json) {
    return location_of(*method, *json_to_wire(*method->response, json));
  };
  EXPECT_EQ(place(R"({"namespace":"n","scope":"USER","subject":"a b"})"), "/api/v1/quotas/n?scope=USER&subject=a%20b");
  EXPECT_EQ(place(R"({"namespace":"n","scope":"NAMESPACE"})"), "/api/v1/quotas/n?scope=NAMESPACE");
  EXPECT_EQ(place(R"({"scope":"USER","subject":"a"})"), "");
}

TEST(Routes, EveryBindingFindsItself) {
  for (const Method& method : Contract::get().methods()) {
    for (const RestBinding& binding : method.bindings) {
      std::string path;
      for (size_t at = 0; at < binding.path.size(); ++at) {
        if (binding.path[at] == '{') {
          path += "x1";
          at = binding.path.find('}', at);
        } else {
          path += binding.path[at];
        }
      }
      const RouteMatch match = routes().match(binding.verb, path);
      ASSERT_EQ(match.outcome, RouteMatch::Outcome::kFound) << binding.verb << " " << path;
      EXPECT_EQ(match.binding, &binding) << binding.verb << " " << path << " found " << match.method().full_name;
    }
  }
}

// The paths of the specification, as far as their group is in the contract yet.
TEST(Routes, TheListedEndpointsExist) {
  std::ifstream list("docs/spec/rest-endpoints.tsv");
  ASSERT_TRUE(list) << "run in the repository root";
  std::set<std::string> groups;
  for (const Method& method : Contract::get().methods()) {
    for (const RestBinding& binding : method.bindings) {
      if (!binding.rpc_path) groups.insert(binding.path.substr(0, binding.path.find_first_of("/:", 8)));
    }
  }
  int checked = 0;
  for (std::string line; std::getline(list, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t tab = line.find('\t'), second = line.find('\t', tab + 1);
    const std::string verb = line.substr(0, tab);
    std::string path = line.substr(tab + 1, second - tab - 1);
    path = path.substr(0, path.find('?'));
    for (size_t at; (at = path.find('{')) != std::string::npos;) path.replace(at, path.find('}', at) - at + 1, "x1");
    // The /health family belongs to the node's own door.
    if (!path.starts_with("/api/") || !groups.contains(path.substr(0, path.find_first_of("/:", 8)))) continue;
    ++checked;
    EXPECT_EQ(routes().match(verb, path).outcome, RouteMatch::Outcome::kFound) << line << ": " << method_of(verb, path);
  }
  EXPECT_GE(checked, 16);
}

}  // namespace
}  // namespace uccp::call
