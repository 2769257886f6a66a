// What the REST door adds to the contract: compression, projections, links, dry runs, batches, cross-origin calls, and
// the document that describes it.
#include <simdjson.h>

#include "call/wire.h"
#include "doors/net/encoding.h"
#include "doors/test_support.h"
#include "uccp/v1/discovery.pb.h"
#include "uccp/v1/tasks.pb.h"

namespace uccp::doors {
namespace {

using namespace testing;
using call::CallPtr;

TEST(Encoding, AcceptEncodingIsRead) {
  for (const auto& [header, expected] :
       std::initializer_list<std::pair<std::string_view, std::string_view>>{{"gzip, deflate, br", "br"},
                                                                            {"gzip", "gzip"},
                                                                            {"x-gzip", "gzip"},
                                                                            {"br;q=0.8, gzip;q=1.0", "gzip"},
                                                                            {"br;q=1.0, gzip;q=0.8", "br"},
                                                                            {"*", "br"},
                                                                            {"", ""},
                                                                            {"deflate, identity", ""},
                                                                            {"gzip;q=0, *", "br"},
                                                                            {"br;q=0, *;q=0.5", "gzip"},
                                                                            {"*;q=0.0", ""},
                                                                            {"gzip;q=0.001", "gzip"},
                                                                            {"br;q=x", "br"}}) {
    EXPECT_EQ(encoding_name(accepted_encoding(header)), expected) << header;
  }
}

TEST(Encoding, WhatWasCompressedComesBackUnlessItIsTooMuch) {
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += std::to_string(i) + ",";
  EXPECT_EQ(*unbrotli(brotli(text), text.size()), text);
  EXPECT_EQ(*unbrotli(brotli(""), 10), "");
  EXPECT_LT(brotli(text).size(), gzip(text).size());
  EXPECT_EQ(unbrotli(brotli(text), text.size() - 1).error().reason(), "REQUEST_TOO_LARGE");
  const std::string small_bomb = brotli(std::string(64u << 20, '0'));
  EXPECT_LT(small_bomb.size(), 10'000u);
  EXPECT_EQ(unbrotli(small_bomb, 4u << 20).error().reason(), "REQUEST_TOO_LARGE");
  for (const std::string& wrong :
       {brotli(text).substr(0, 100), std::string("no brotli"), std::string(), brotli("a") + "b"}) {
    EXPECT_EQ(unbrotli(wrong, text.size()).error().reason(), "ENCODING_INVALID");
  }
  EXPECT_EQ(*gunzip(gzip(text), text.size()), text);
  EXPECT_EQ(*gunzip(gzip(""), 10), "");
  EXPECT_EQ(gunzip(gzip(text), text.size() - 1).error().reason(), "REQUEST_TOO_LARGE");
  const std::string bomb = gzip(std::string(64u << 20, '0'));
  EXPECT_LT(bomb.size(), 400'000u);
  EXPECT_EQ(gunzip(bomb, 4u << 20).error().reason(), "REQUEST_TOO_LARGE");
  const std::string packed = gzip(text);
  EXPECT_EQ(gunzip(packed.substr(0, packed.size() / 2), text.size()).error().reason(), "ENCODING_INVALID");
  EXPECT_EQ(gunzip("no gzip", 100).error().reason(), "ENCODING_INVALID");
  EXPECT_EQ(gunzip("", 100).error().reason(), "ENCODING_INVALID");
  EXPECT_EQ(gunzip(gzip("a") + "b", 100).error().reason(), "ENCODING_INVALID");
}

class RestApiTest : public ::testing::Test {
 protected:
  void SetUp() override {
    doors.handlers.add("uccp.v1.Administration/GetVersion", [](const CallPtr& call, std::string) {
      call->reply(
          "\x0a\x01"
          "1");
    });
    doors.handlers.add_parsed<v1::ScheduleTaskRequest>("uccp.v1.TaskScheduling/ScheduleTask",
                                                       [](const CallPtr& call, v1::ScheduleTaskRequest request) {
                                                         v1::Task task = request.task();
                                                         task.set_id(request.validate_only() ? "dry" : "task_1");
                                                         task.set_status_reason(request.request_id());
                                                         call->reply(task.SerializeAsString());
                                                       });
    doors.handlers.add_parsed<v1::GetTaskStatusRequest>(
        "uccp.v1.TaskScheduling/GetTaskStatus", [](const CallPtr& call, v1::GetTaskStatusRequest request) {
          if (request.id() == "none") {
            return call->finish(Status(Code::kNotFound, "TASK_NOT_FOUND", "none"));
          }
          v1::Task task;
          task.set_id(request.id());
          task.set_etag("v1");
          if (request.id() == "large") task.set_status_reason(std::string(5000, 'x'));
          call->reply(task.SerializeAsString());
        });
    doors.handlers.add("uccp.v1.TaskScheduling/UpdateTaskPriority", [](const CallPtr& call, std::string) {
      call->finish(Status(Code::kConflict, "ETAG_MISMATCH", "changed"));
    });
    doors.handlers.add("uccp.v1.ServiceDiscovery/ListServices", [](const CallPtr& call, std::string) {
      v1::ListServicesResponse response;
      response.add_services()->set_id("s1");
      response.set_next_page_token("a/b=");
      call->reply(response.SerializeAsString());
    });
    doors.rest_options.cors_origins = {"https://console.example.com"};
    doors.rest_options.handlers = &doors.handlers;
    doors.rest_options.pages_directory = "/nonexistent";
  }
  HttpReply ask(const std::string& verb, const std::string& target, const std::string& body = {},
                const std::string& headers = {}, const std::string& token = "admin:root") {
    if (doors.rest_port == 0) doors.open();
    HttpsClient client(doors.rest_port);
    return client.ask(verb, target, body, headers, token);
  }
  Doors doors;
  const std::string json = "Content-Type: application/json\r\n";
};

TEST_F(RestApiTest, LargeAnswersAreCompressedForWhoTakesIt) {
  const auto small = ask("GET", "/api/v1/tasks/x", {}, "Accept-Encoding: gzip\r\n");
  EXPECT_FALSE(small.headers.contains("content-encoding"));
  EXPECT_EQ(small.headers.at("etag"), "\"v1\"");
  const auto packed = ask("GET", "/api/v1/tasks/large", {}, "Accept-Encoding: gzip\r\n");
  EXPECT_EQ(packed.headers.at("content-encoding"), "gzip");
  EXPECT_EQ(packed.headers.at("etag"), "W/\"v1\"");
  const auto plain = gunzip(packed.body, 1 << 20);
  ASSERT_TRUE(plain);
  const auto smaller = ask("GET", "/api/v1/tasks/large", {}, "Accept-Encoding: gzip, br\r\n");
  EXPECT_EQ(smaller.headers.at("content-encoding"), "br");
  EXPECT_EQ(*unbrotli(smaller.body, 1 << 20), *plain);
  EXPECT_EQ(ask("GET", "/api/v1/tasks/large", {}, {}, "admin:other").body, *plain);
}

TEST_F(RestApiTest, CompressedRequestsAreTakenUpToALimit) {
  const std::string body = R"({"name":"n","command":["true"]})";
  const std::string head = json + "Content-Encoding: gzip\r\n";
  EXPECT_EQ(ask("POST", "/api/v1/tasks", gzip(body), head).status, 201);
  EXPECT_EQ(ask("POST", "/api/v1/tasks", body, head).status, 400);
  EXPECT_EQ(ask("POST", "/api/v1/tasks", gzip(std::string(64u << 20, ' ')), head).status, 413);
  EXPECT_EQ(ask("POST", "/api/v1/tasks", body, json + "Content-Encoding: deflate\r\n").status, 415);
  EXPECT_EQ(ask("POST", "/api/v1/tasks", brotli(body), json + "Content-Encoding: br\r\n").status, 201);
  EXPECT_EQ(ask("POST", "/api/v1/tasks", brotli(std::string(64u << 20, ' ')), json + "Content-Encoding: br\r\n").status,
            413);
}

TEST_F(RestApiTest, AProjectionAnswersTheFieldsAskedForAndNoOthers) {
  const auto all = ask("GET", "/api/v1/services");
  EXPECT_NE(all.body.find("\"healthy\""), std::string::npos) << all.body;
  EXPECT_EQ(ask("GET", "/api/v1/services?fields=id").body, R"({"services":[{"id":"s1"}],"nextPageToken":"a/b="})");
  EXPECT_EQ(ask("GET", "/api/v1/services?fields=id,healthy", {}, {}, "admin:other").body,
            R"({"services":[{"id":"s1","healthy":false}],"nextPageToken":"a/b="})");
}

TEST_F(RestApiTest, AListLinksItsNextPage) {
  EXPECT_EQ(ask("GET", "/api/v1/services?pageSize=1&pageToken=old&filter=port%3D1").headers.at("link"),
            "</api/v1/services?pageSize=1&filter=port%3D1&pageToken=a%2Fb%3D>; rel=\"next\"");
}

TEST_F(RestApiTest, RatesAreTold) {
  doors.rates = {{.quota_class = "read", .per_second = 2, .burst = 2}};
  EXPECT_EQ(ask("GET", "/api/v1/services").headers.at("ratelimit-limit"), "2");
  HttpReply reply;
  for (int i = 0; i < 5 && reply.status != 429; ++i) reply = ask("GET", "/api/v1/services");
  ASSERT_EQ(reply.status, 429);
  EXPECT_EQ(reply.headers.at("ratelimit-remaining"), "0");
  EXPECT_EQ(reply.headers.at("ratelimit-reset"), reply.headers.at("retry-after"));
}

TEST_F(RestApiTest, AStaleEtagIs412) {
  const auto reply = ask("PUT", "/api/v1/tasks/a/priority", R"({"priority":1})", json + "If-Match: \"v0\"\r\n");
  EXPECT_EQ(reply.status, 412) << reply.body;
  EXPECT_NE(reply.body.find("\"status\":412"), std::string::npos) << reply.body;
}

TEST_F(RestApiTest, ADryRunSetsValidateOnly) {
  const std::string body = R"({"name":"n","command":["true"]})";
  EXPECT_NE(ask("POST", "/api/v1/tasks?dryRun=true", body, json).body.find("\"id\":\"dry\""), std::string::npos);
  EXPECT_NE(ask("POST", "/api/v1/tasks?dryRun=false", body, json).body.find("\"id\":\"task_1\""), std::string::npos);
  EXPECT_EQ(ask("POST", "/api/v1/tasks?dryRun=maybe", body, json).status, 400);
  EXPECT_EQ(ask("GET", "/api/v1/tasks/a?dryRun=true").status, 400);
  EXPECT_EQ(ask("GET", "/api/v1/tasks/a?dryRun=true", {}, {}, "").status, 401);
}

TEST_F(RestApiTest, EveryAnswerHasARequestId) {
  EXPECT_EQ(ask("GET", "/nowhere", {}, "X-Request-Id: abc\r\n").headers.at("x-request-id"), "abc");
  EXPECT_EQ(ask("GET", "/nowhere").headers.at("x-request-id").size(), 32u);
  EXPECT_EQ(ask("GET", "/nowhere", {}, "X-Request-Id: a\"b\r\n").headers.at("x-request-id").size(), 32u);
  EXPECT_EQ(ask("GET", "/api/v1/tasks/a", {}, "X-Request-Id: abc\r\n").headers.at("x-request-id"), "abc");
}

TEST_F(RestApiTest, OnlyNamedOriginsMayCall) {
  const auto good = ask("GET", "/api/v1/tasks/a", {}, "Origin: https://console.example.com\r\n");
  EXPECT_EQ(good.headers.at("access-control-allow-origin"), "https://console.example.com");
  const auto bad = ask("GET", "/api/v1/tasks/a", {}, "Origin: https://evil.example.com\r\n");
  EXPECT_FALSE(bad.headers.contains("access-control-allow-origin"));
  const std::string preflight = "Access-Control-Request-Method: PUT\r\n";
  const auto allowed = ask("OPTIONS", "/api/v1/tasks/a", {}, "Origin: https://console.example.com\r\n" + preflight, "");
  EXPECT_EQ(allowed.status, 204);
  EXPECT_TRUE(allowed.headers.contains("access-control-allow-methods"));
  const auto refused = ask("OPTIONS", "/api/v1/tasks/a", {}, "Origin: https://evil.example.com\r\n" + preflight, "");
  EXPECT_FALSE(refused.headers.contains("access-control-allow-methods"));
}

TEST_F(RestApiTest, ABatchAnswersEachRequestInOrder) {
  const auto reply =
      ask("POST", "/api/v1/batch",
          R"({"requests":[{"method":"POST","path":"/api/v1/tasks?pretty=true","body":{"name":"ü","command":["true"]},)"
          R"("headers":{"Idempotency-Key":"k1"}},{"method":"GET","path":"/api/v1/tasks/none"},)"
          R"({"method":"GET","path":"/nope"}]})",
          json);
  EXPECT_EQ(reply.status, 400) << reply.body;  // not below /api/v1
  const auto good =
      ask("POST", "/api/v1/batch",
          R"({"requests":[{"method":"POST","path":"/api/v1/tasks?pretty=true","body":{"name":"u","command":["true"]},)"
          R"("headers":{"Idempotency-Key":"k1"}},{"method":"GET","path":"/api/v1/tasks/none"},)"
          R"({"method":"GET","path":"/api/v1/nope"},{"method":"GET","path":"/api/v1/tasks/x/logs"}]})",
          json + "X-Request-Id: id\r\n");
  ASSERT_EQ(good.status, 200) << good.body;
  simdjson::dom::parser parser;
  const simdjson::dom::element root = parser.parse(good.body);
  const auto at = [&](int i) -> simdjson::dom::element { return root["responses"].at(static_cast<size_t>(i)); };
  EXPECT_EQ(int64_t(at(0)["status"]), 201) << good.body;
  EXPECT_EQ(std::string_view(at(0)["body"]["statusReason"]), "k1");
  EXPECT_EQ(std::string_view(at(0)["headers"]["Location"]), "/api/v1/tasks/task_1");
  EXPECT_EQ(std::string_view(at(0)["headers"]["X-Request-Id"]), "id-0");
  EXPECT_EQ(int64_t(at(1)["status"]), 404);
  EXPECT_EQ(std::string_view(at(1)["body"]["reason"]), "TASK_NOT_FOUND");
  EXPECT_EQ(std::string_view(at(2)["body"]["reason"]), "ROUTE_NOT_FOUND");
  EXPECT_EQ(std::string_view(at(3)["body"]["reason"]), "BATCH_STREAM");
}

TEST_F(RestApiTest, ABatchIsCheckedBeforeAnythingIsDone) {
  const std::string get = R"({"method":"GET","path":"/api/v1/version"})";
  const auto status = [&](const std::string& body, const std::string& token = "admin:root") {
    return ask("POST", "/api/v1/batch", body, json, token).status;
  };
  EXPECT_EQ(status("{\"requests\":[" + get + "]}"), 200);
  EXPECT_EQ(status("{\"requests\":[" + get + "]}", ""), 401);
  EXPECT_EQ(status("{\"requests\":[" + get + "]}", "nonsense"), 401);
  EXPECT_EQ(status(R"({"requests":[{"method":"GET","path":"/api/v1/nope"}]})", "nonsense"), 401);
  for (const char* wrong :
       {"", "[]", "{}", R"({"requests":[]})", R"({"requests":[1]})", R"({"requests":[{"method":"GET"}]})",
        R"({"requests":[{"path":"/api/v1/version"}]})", R"({"requests":[{"method":"HEAD","path":"/api/v1/version"}]})",
        R"({"requests":[{"method":"POST","path":"/api/v1/batch","body":{}}]})",
        R"({"requests":[{"method":"GET","path":"/api/v1/version","headers":{"Authorization":"x"}}]})",
        R"({"more":1})"}) {
    EXPECT_EQ(status(wrong), 400) << wrong;
  }
  std::string many = get;
  for (int i = 0; i < 99; ++i) many += "," + get;
  EXPECT_EQ(status("{\"requests\":[" + many + "]}", "admin:many"), 200);
  EXPECT_EQ(status("{\"requests\":[" + many + "," + get + "]}", "admin:many"), 400);
  EXPECT_EQ(ask("GET", "/api/v1/batch").status, 405);
  EXPECT_EQ(ask("POST", "/api/v1/batch", "a", "Content-Type: text/plain\r\n").status, 415);
}

TEST_F(RestApiTest, TheDocumentNeedsNoCredentialsAndMarksWhatIsNotBuilt) {
  const auto reply = ask("GET", "/openapi.json", {}, {}, "");
  ASSERT_EQ(reply.status, 200);
  simdjson::dom::parser parser;
  const simdjson::dom::element root = parser.parse(reply.body);
  EXPECT_EQ(std::string_view(root["openapi"]), "3.1.0");
  EXPECT_EQ(root["paths"]["/api/v1/tasks"]["post"]["x-uccp-unbuilt"].error(), simdjson::NO_SUCH_FIELD);
  EXPECT_TRUE(bool(root["paths"]["/api/v1/tasks"]["get"]["x-uccp-unbuilt"]));
  EXPECT_EQ(ask("GET", "/openapi.json", {}, "If-None-Match: " + reply.headers.at("etag") + "\r\n", "").status, 304);
  EXPECT_EQ(ask("HEAD", "/openapi.json", {}, {}, "").body, "");
  EXPECT_EQ(ask("POST", "/openapi.json", {}, {}, "").status, 405);
  const auto old = ask("GET", "/openapi-3.0.json", {}, {}, "");
  EXPECT_NE(old.body.find("\"openapi\":\"3.0.3\""), std::string::npos);
  EXPECT_EQ(ask("GET", "/docs", {}, {}, "").status, 404);
}

TEST_F(RestApiTest, PagesHaveAStrictPolicy) {
  doors.rest_options.pages_directory = "web/apidocs";
  const auto page = ask("GET", "/docs", {}, {}, "");
  ASSERT_EQ(page.status, 200);
  EXPECT_EQ(page.headers.at("content-type"), "text/html; charset=utf-8");
  const std::string policy = page.headers.at("content-security-policy");
  EXPECT_NE(policy.find("script-src 'self';"), std::string::npos);
  EXPECT_EQ(policy.find("unsafe"), std::string::npos);
  EXPECT_EQ(page.body.find("http"), std::string::npos);  // nothing from elsewhere
  EXPECT_EQ(page.body.find("<script>"), std::string::npos);
  EXPECT_EQ(ask("GET", "/docs/swagger-init.js", {}, {}, "").headers.at("content-type"),
            "text/javascript; charset=utf-8");
  EXPECT_EQ(ask("GET", "/docs/../package.json", {}, {}, "").status, 404);
}

}  // namespace
}  // namespace uccp::doors
