// HTTP as the REST door speaks it: routing, negotiation, limits, health, metrics. And what only gRPC has.
#include <future>

#include "call/contract.h"
#include "call/error_json.h"
#include "call/wire.h"
#include "doors/rest/http_server.h"
#include "doors/test_support.h"
#include "uccp/v1/tasks.pb.h"

namespace uccp::doors {
namespace {

using namespace testing;
using call::CallPtr;

class RestHttpTest : public ::testing::Test {
 protected:
  void SetUp() override {
    doors.rest_options.http.header_timeout_ms = 200;
    doors.rest_options.http.idle_timeout_ms = 1000;
    doors.rest_options.http.connections_max = 8;
    doors.handlers.add("uccp.v1.Administration/GetVersion", [](const CallPtr& call, std::string) {
      call->reply(
          "\x0a\x01"
          "1");
    });
    doors.handlers.add_parsed<v1::ScheduleTaskRequest>("uccp.v1.TaskScheduling/ScheduleTask",
                                                       [](const CallPtr& call, v1::ScheduleTaskRequest request) {
                                                         v1::Task task = request.task();
                                                         task.set_id("task_1");
                                                         task.set_etag("v1");
                                                         task.set_status_reason(request.request_id());
                                                         call->reply(task.SerializeAsString());
                                                       });
    doors.handlers.add_parsed<v1::GetTaskStatusRequest>("uccp.v1.TaskScheduling/GetTaskStatus",
                                                        [](const CallPtr& call, v1::GetTaskStatusRequest request) {
                                                          v1::Task task;
                                                          task.set_id(request.id());
                                                          task.set_namespace_(request.namespace_());
                                                          task.set_etag("v1");
                                                          call->reply(task.SerializeAsString());
                                                        });
    doors.handlers.add_parsed<v1::UpdateTaskPriorityRequest>(
        "uccp.v1.TaskScheduling/UpdateTaskPriority", [](const CallPtr& call, v1::UpdateTaskPriorityRequest request) {
          v1::Task task;
          task.set_id(request.id());
          task.set_etag(request.if_match());
          call->reply(task.SerializeAsString());
        });
    doors.open();
  }
  Doors doors;
  const std::string json = "Content-Type: application/json\r\n";
};

TEST_F(RestHttpTest, CreateAnswers201WithLocationAndEtag) {
  HttpsClient client(doors.rest_port);
  const auto reply = client.ask("POST", "/api/v1/tasks?namespace=blue", "{\"name\":\"n\",\"command\":[\"true\"]}",
                                json + "Idempotency-Key: k1\r\n");
  EXPECT_EQ(reply.status, 201) << reply.body;
  EXPECT_EQ(reply.headers.at("location"), "/api/v1/tasks/task_1?namespace=blue");
  EXPECT_EQ(reply.headers.at("etag"), "\"v1\"");
  EXPECT_EQ(reply.headers.at("cache-control"), "no-store");
  EXPECT_NE(reply.body.find("\"namespace\":\"blue\""), std::string::npos) << reply.body;
  EXPECT_NE(reply.body.find("\"statusReason\":\"k1\""), std::string::npos) << reply.body;
}

TEST_F(RestHttpTest, EtagsAreCompared) {
  HttpsClient client(doors.rest_port);
  const auto same = client.ask("GET", "/api/v1/tasks/t", {}, "If-None-Match: W/\"v0\", \"v1\"\r\n");
  EXPECT_EQ(same.status, 304);
  EXPECT_EQ(same.body, "");
  EXPECT_EQ(client.ask("GET", "/api/v1/tasks/t", {}, "If-None-Match: \"v0\"\r\n").status, 200);
  EXPECT_EQ(
      client.ask("PUT", "/api/v1/tasks/t/priority", "{\"priority\":1}", json + "If-Match: \"v9\"\r\n").headers["etag"],
      "\"v9\"");
}

TEST_F(RestHttpTest, HeadAndOptions) {
  HttpsClient client(doors.rest_port);
  const auto head = client.ask("HEAD", "/api/v1/tasks/t");
  EXPECT_EQ(head.status, 200);
  const auto get = client.ask("GET", "/api/v1/tasks/t");
  EXPECT_EQ(head.headers.at("content-length"), std::to_string(get.body.size()));
  const auto options = client.ask("OPTIONS", "/api/v1/tasks/t");
  EXPECT_EQ(options.status, 204);
  EXPECT_EQ(options.headers.at("allow"), "DELETE, GET, HEAD, OPTIONS");
}

TEST_F(RestHttpTest, RoutingErrors) {
  HttpsClient client(doors.rest_port);
  const auto missing = client.ask("GET", "/api/v1/nothing");
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(call::from_problem_json(missing.body, 404).reason(), "ROUTE_NOT_FOUND");
  const auto wrong = client.ask("PATCH", "/api/v1/tasks/t");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "DELETE, GET, HEAD, OPTIONS");
  EXPECT_NE(wrong.body.find("\"status\":405"), std::string::npos);
  EXPECT_EQ(client.ask("GET", "/api/v1/tasks/%zz").status, 400);
  EXPECT_EQ(client.ask("POST", "/api/v1/tasks", "a=b", "Content-Type: application/x-www-form-urlencoded\r\n").status,
            415);
  EXPECT_EQ(doors.metrics.value("uccp_http_unrouted_total", {{"status", "415"}}), 1);
}

TEST_F(RestHttpTest, PrettyAndRpcPaths) {
  HttpsClient client(doors.rest_port);
  EXPECT_NE(client.ask("GET", "/api/v1/tasks/t?pretty").body.find("\n  \"id\": \"t\""), std::string::npos);
  const auto rpc = client.ask("POST", "/uccp.v1.TaskScheduling/ScheduleTask",
                              "{\"task\":{\"name\":\"n\",\"command\":[\"true\"]}}", json);
  EXPECT_EQ(rpc.status, 200) << rpc.body;
  EXPECT_EQ(client.ask("GET", "/api/v1/tasks/t?consistency=nonsense").status, 400);
  EXPECT_EQ(client.ask("GET", "/api/v1/tasks/t", {}, "Uccp-Consistency: nonsense\r\n").status, 400);
}

TEST_F(RestHttpTest, PipelinedRequestsAreAnsweredInOrder) {
  HttpsClient client(doors.rest_port);
  std::string all;
  for (int i = 0; i < 100; ++i) {
    all +=
        "GET /api/v1/tasks/t" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin:root\r\n\r\n";
  }
  client.send(all);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(client.read_reply().body.find("{\"id\":\"t" + std::to_string(i) + "\""), 0u) << i;
  }
}

TEST_F(RestHttpTest, SlowHeaderIs408AndIdleConnectionsAreClosed) {
  HttpsClient slow(doors.rest_port);
  slow.send("GET /api/v1/version HT");
  EXPECT_EQ(slow.read_reply().status, 408);
  EXPECT_TRUE(slow.at_end());
  HttpsClient idle(doors.rest_port);
  EXPECT_EQ(idle.ask("GET", "/api/v1/version").status, 200);
  EXPECT_TRUE(idle.at_end());
}

TEST_F(RestHttpTest, MalformedAndOversizedHeaders) {
  HttpsClient garbage(doors.rest_port);
  garbage.send("BLAH\r\n\r\n");
  EXPECT_EQ(garbage.read_reply().status, 400);
  EXPECT_TRUE(garbage.at_end());
  HttpsClient big(doors.rest_port);
  EXPECT_EQ(big.ask("GET", "/api/v1/version", {}, "X-Big: " + std::string(20'000, 'x') + "\r\n").status, 431);
  HttpsClient plain(doors.rest_port, {.tls = false});
  plain.send("GET / HTTP/1.1\r\n\r\n");
  while (plain.fill()) {}
  HttpsClient chunked(doors.rest_port);
  chunked.send("POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin:root\r\n" + json +
               "Transfer-Encoding: chunked\r\n\r\n1E\r\n{\"name\":\"n\",\"command\":[\"true\"]\r\n1\r\n}\r\n0\r\n\r\n");
  EXPECT_EQ(chunked.read_reply().status, 201);
  EXPECT_EQ(chunked.ask("GET", "/api/v1/version").status, 200);
}

TEST_F(RestHttpTest, ContinueIsSentWhenExpected) {
  HttpsClient client(doors.rest_port);
  client.send("POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin:root\r\n" + json +
              "Expect: 100-continue\r\nContent-Length: 31\r\n\r\n");
  EXPECT_EQ(client.read_head().status, 100);
  client.send("{\"name\":\"n\",\"command\":[\"true\"]}");
  EXPECT_EQ(client.read_reply().status, 201);
}

TEST_F(RestHttpTest, Http10AndConnectionClose) {
  HttpsClient old(doors.rest_port);
  old.send("GET /api/v1/version HTTP/1.0\r\nAuthorization: Bearer admin:root\r\n\r\n");
  const auto reply = old.read_reply();
  EXPECT_EQ(reply.headers.at("connection"), "close");
  EXPECT_TRUE(old.at_end());
}

TEST_F(RestHttpTest, ConnectionsBeyondTheLimitGet503) {
  std::vector<std::unique_ptr<HttpsClient>> clients;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(std::make_unique<HttpsClient>(doors.rest_port));
    EXPECT_EQ(clients.back()->ask("GET", "/api/v1/version").status, 200);
  }
  HttpsClient extra(doors.rest_port);
  const auto reply = extra.ask("GET", "/api/v1/version");
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.headers.at("retry-after"), "1");
  EXPECT_EQ(doors.metrics.value("uccp_http_connections_refused_total"), 1);
}

// Keeps the way to answer, as a handler does whose answer comes late.
class KeepingHandler final : public HttpHandler {
 public:
  BodyMode body_mode(const HttpRequest&) override { return BodyMode::kBuffered; }
  void handle(HttpRequest, HttpExchangePtr exchange) override { kept.set_value(std::move(exchange)); }
  HttpResponse refusal(int status, std::string_view, std::string_view) override { return {.status = status}; }
  std::promise<HttpExchangePtr> kept;
};

TEST(HttpServerTest, AnExchangeMayBeLetGoAfterTheServer) {
  for (const bool tls : {false, true}) {
    HttpExchangePtr exchange;
    {
      KeepingHandler handler;
      runtime::RealClock clock;
      MetricsRegistry metrics;
      HttpServer server;
      HttpServerOptions options;
      if (tls) options.certificate_pem = Keys::get().server.certificate_pem;
      if (tls) options.key_pem = Keys::get().server.key_pem;
      const auto port = server.start(options, handler, clock, metrics);
      ASSERT_TRUE(port) << port.error().to_string();
      HttpsClient client(*port, {.tls = tls});
      client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      exchange = handler.kept.get_future().get();
      server.stop(0);
      EXPECT_TRUE(client.at_end());
      EXPECT_EQ(metrics.gauge("uccp_http_connections", "").value(), 0);
    }
    bool ran = false;
    exchange->post([&ran] { ran = true; });
    exchange.reset();
    EXPECT_FALSE(ran);
  }
}

TEST_F(RestHttpTest, HealthPaths) {
  HttpsClient client(doors.rest_port);
  for (const char* path : {"/health", "/health/live", "/health/ready", "/health/startup"}) {
    const auto reply = client.ask("GET", path, {}, {}, "");
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.body, std::string("{\"path\":\"") + path + "\"}");
  }
  for (const char* path : {"/health/detailed", "/health/raft", "/health/storage", "/health/cache"}) {
    EXPECT_EQ(client.ask("GET", path, {}, {}, "").status, 401);
    EXPECT_EQ(client.ask("GET", path, {}, {}, "agent:a").status, 403);
    EXPECT_EQ(client.ask("GET", path, {}, {}, "viewer:v").body, std::string("{\"path\":\"") + path + "\"}");
  }
  doors.health.ready = false;
  EXPECT_EQ(client.ask("GET", "/health/ready", {}, {}, "").status, 503);
}

TEST_F(RestHttpTest, MetricsDoorHasMetricsAndHealthOnly) {
  MetricsDoor door;
  const auto port = door.start({}, doors.clock, doors.metrics, doors.health);
  ASSERT_TRUE(port);
  HttpsClient client(*port, {.tls = false});
  EXPECT_NE(client.ask("GET", "/metrics").body.find("uccp_http_connections"), std::string::npos);
  EXPECT_NE(client.ask("GET", "/metrics").body.find("uccp_grpc_active_connections"), std::string::npos);
  EXPECT_EQ(client.ask("GET", "/health/live").status, 200);
  EXPECT_EQ(client.ask("GET", "/health/detailed").status, 404);
  EXPECT_EQ(client.ask("GET", "/api/v1/version").status, 404);
  EXPECT_EQ(client.ask("POST", "/metrics").status, 405);
}

TEST_F(RestHttpTest, GrpcReflectionListsAndDescribes) {
  for (const char* version : {"v1", "v1alpha"}) {
    auto stream =
        doors.channel("")->stream(std::string("grpc.reflection.") + version + ".ServerReflection/ServerReflectionInfo");
    std::string list;
    call::put_bytes(list, 7, "");
    ASSERT_TRUE(stream->write(list));
    const std::string services = stream->read().value_or("");
    EXPECT_NE(services.find("uccp.v1.TaskScheduling"), std::string::npos);
    EXPECT_NE(services.find("grpc.health.v1.Health"), std::string::npos);
    EXPECT_EQ(services.find("uccp.internal"), std::string::npos);
    std::string symbol;
    call::put_bytes(symbol, 4, "uccp.v1.TaskScheduling");
    stream->write(symbol);
    const std::string files = stream->read().value_or("");
    EXPECT_NE(files.find("uccp/v1/tasks.proto"), std::string::npos);
    EXPECT_NE(files.find("google/protobuf/timestamp.proto"), std::string::npos);
    std::string unknown;
    call::put_bytes(unknown, 4, "no.Such");
    stream->write(unknown);
    EXPECT_NE(stream->read().value_or("").find("not found: no.Such"), std::string::npos);
    EXPECT_TRUE(stream->finish().is_ok());
  }
}

TEST_F(RestHttpTest, GrpcHealthChecksAndWatches) {
  auto channel = doors.channel("");
  EXPECT_EQ(*channel->unary("grpc.health.v1.Health/Check", {}), "\x08\x01");
  std::string service;
  call::put_bytes(service, 1, "no.Such");
  EXPECT_EQ(channel->unary("grpc.health.v1.Health/Check", service).error().code(), Code::kNotFound);
  auto watch = channel->stream("grpc.health.v1.Health/Watch");
  watch->write({});
  EXPECT_EQ(watch->read(), "\x08\x01");
  doors.health.ready = false;
  EXPECT_EQ(watch->read(), "\x08\x02");
  doors.grpc.stop(10'000);
  EXPECT_FALSE(watch->read());
}

TEST_F(RestHttpTest, ClientTellsTlsFailureFromRefusal) {
  ChannelOptions options;
  options.target = "127.0.0.1:" + std::to_string(doors.grpc_port);
  options.ca_pem = runtime::create_ca("other", 1, runtime::RealClock().wall())->certificate_pem;
  const auto error = (*GrpcChannel::connect(options))->unary("uccp.v1.Administration/GetVersion", {});
  EXPECT_EQ(error.error().reason(), "TLS_FAILED") << error.error().to_string();
  options.ca_pem = Keys::get().ca.certificate_pem;
  options.target = "no-such-host.invalid:1";
  const auto name = (*GrpcChannel::connect(options))->unary("uccp.v1.Administration/GetVersion", {});
  EXPECT_EQ(name.error().reason(), "CONNECT_FAILED") << name.error().to_string();
  options.target = "127.0.0.1:1";
  EXPECT_EQ((*GrpcChannel::connect(options))->wait_ready(500).reason(), "CONNECT_REFUSED");
  options.certificate_pem = Keys::get().client.certificate_pem;
  options.key_pem = Keys::get().server.key_pem;
  EXPECT_EQ(GrpcChannel::connect(options).error().reason(), "KEY_MISMATCH");
}

}  // namespace
}  // namespace uccp::doors
