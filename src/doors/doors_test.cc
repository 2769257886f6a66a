// Rules that hold for both doors, over one pipeline.

#include "call/error_json.h"
#include "call/json_codec.h"
#include "doors/test_support.h"
#include "uccp/v1/admin.pb.h"
#include "uccp/v1/tasks.pb.h"

namespace uccp::doors {
namespace {

using namespace testing;
using call::CallPtr;

constexpr char kVersion[] = "uccp.v1.Administration/GetVersion";
constexpr char kGetTask[] = "uccp.v1.TaskScheduling/GetTaskStatus";

class DoorsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    doors.handlers.add(kVersion, [](const CallPtr& call, std::string) {
      v1::Version version;
      version.set_version("1.2.3");
      call->set_header("Uccp-Session", "s1");
      call->reply(version.SerializeAsString());
    });
    doors.handlers.add_parsed<v1::GetTaskStatusRequest>(
        kGetTask, [this](const CallPtr& call, v1::GetTaskStatusRequest request) {
          {
            std::lock_guard lock(mutex);
            seen = call;
          }
          if (request.id() == "hang") return;
          if (request.id().starts_with("park")) return call->begin_waiting();
          if (request.id() == "missing") {
            return call->finish(
                Status(Code::kNotFound, "TASK_NOT_FOUND", "there is no task missing").with_resource("task", "missing"));
          }
          v1::Task task;
          task.set_id(request.id());
          task.set_namespace_(request.namespace_());
          task.set_etag("v7");
          // As a node's loop does: the answer comes from another thread.
          std::thread([call, bytes = task.SerializeAsString()] { call->reply(bytes); }).detach();
        });
    doors.open();
  }
  static std::string task_request(const std::string& id) {
    v1::GetTaskStatusRequest request;
    request.set_id(id);
    return request.SerializeAsString();
  }
  CallPtr seen_call() {
    std::lock_guard lock(mutex);
    return seen;
  }
  std::mutex mutex;
  CallPtr seen;
  Doors doors;
};

TEST_F(DoorsTest, GiveTheSameAnswer) {
  CallOptions options;
  Metadata headers;
  options.response_headers = &headers;
  auto bytes = doors.channel()->unary(kGetTask, task_request("task_1"), options);
  ASSERT_TRUE(bytes) << bytes.error().to_string();
  const auto& plan = call::Contract::get().plan("uccp.v1.Task");
  HttpsClient client(doors.rest_port);
  const HttpReply reply = client.ask("GET", "/api/v1/tasks/task_1");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body, *call::wire_to_json(plan, *bytes));
  EXPECT_NE(reply.body.find("\"namespace\":\"default\""), std::string::npos);
  EXPECT_EQ(reply.headers.at("etag"), "\"v7\"");
}

TEST_F(DoorsTest, SendHeadersOfTheCall) {
  CallOptions options;
  Metadata headers;
  options.response_headers = &headers;
  options.metadata = {{"x-request-id", "call-1"}};
  ASSERT_TRUE(doors.channel()->unary(kVersion, {}, options));
  std::map<std::string, std::string> by_name(headers.begin(), headers.end());
  EXPECT_EQ(by_name["uccp-session"], "s1");
  EXPECT_EQ(by_name["x-request-id"], "call-1");
  HttpsClient client(doors.rest_port);
  auto reply = client.ask("GET", "/api/v1/version", {}, "X-Request-Id: call-2\r\n");
  EXPECT_EQ(reply.headers["uccp-session"], "s1");
  EXPECT_EQ(reply.headers["x-request-id"], "call-2");
  EXPECT_EQ(reply.headers["cache-control"], "private, max-age=60");
}

TEST_F(DoorsTest, GiveTheSameErrorReason) {
  auto channel = doors.channel();
  HttpsClient client(doors.rest_port);
  const auto missing = channel->unary(kGetTask, task_request("missing"));
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().reason(), "TASK_NOT_FOUND");
  EXPECT_EQ(missing.error().detail().resource_type, "task");
  const auto reply = client.ask("GET", "/api/v1/tasks/missing");
  EXPECT_EQ(reply.status, 404);
  EXPECT_EQ(reply.headers.at("content-type"), "application/problem+json");
  EXPECT_EQ(call::from_problem_json(reply.body, 404).reason(), "TASK_NOT_FOUND");

  const auto invalid = channel->unary(kGetTask, task_request("?"));
  ASSERT_FALSE(invalid);
  EXPECT_EQ(invalid.error().reason(), "FIELD_INVALID");
  const auto bad = client.ask("GET", "/api/v1/tasks/%3F");
  EXPECT_EQ(bad.status, 400);
  EXPECT_EQ(call::from_problem_json(bad.body, 400).reason(), "FIELD_INVALID");
  EXPECT_EQ(call::from_problem_json(bad.body, 400).detail().fields.size(), invalid.error().detail().fields.size());
}

TEST_F(DoorsTest, RefuseWithoutOrWithWeakCredentials) {
  HttpsClient client(doors.rest_port);
  auto reply = client.ask("GET", "/api/v1/version", {}, {}, "");
  EXPECT_EQ(reply.status, 401);
  EXPECT_EQ(reply.headers["www-authenticate"], "Bearer realm=\"uccp\"");
  EXPECT_EQ(doors.channel("")->unary(kVersion, {}).error().reason(), "CREDENTIALS_MISSING");
  EXPECT_EQ(client.ask("GET", "/api/v1/version", {}, {}, "agent:a").status, 403);
  EXPECT_EQ(doors.channel("agent:a")->unary(kVersion, {}).error().reason(), "PERMISSION_DENIED");
}

TEST_F(DoorsTest, TakeClientCertificates) {
  HttpsClient client(doors.rest_port, {.certificate = true});
  EXPECT_EQ(client.ask("GET", "/api/v1/version", {}, {}, "").status, 200);
  ChannelOptions options;
  options.target = "localhost:" + std::to_string(doors.grpc_port);
  options.ca_pem = Keys::get().ca.certificate_pem;
  options.certificate_pem = Keys::get().client.certificate_pem;
  options.key_pem = Keys::get().client.key_pem;
  auto channel = *GrpcChannel::connect(options);
  EXPECT_TRUE(channel->unary(kVersion, {}));
  EXPECT_EQ(seen_call(), nullptr);
}

TEST_F(DoorsTest, RefuseTls12) {
  for (const uint16_t port : {doors.grpc_port, doors.rest_port}) {
    EXPECT_FALSE(HttpsClient(port, {.tls_version_max = TLS1_2_VERSION}).connected());
    EXPECT_TRUE(HttpsClient(port, {}).connected());
  }
}

// Raw HTTP/2 on the gRPC port: the preface, empty SETTINGS, and what a test adds.
struct RawHttp2 {
  explicit RawHttp2(uint16_t port) : client(port) {
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    frame(4, 0, 0, {});
  }
  void frame(char type, char flags, char stream, const std::string& payload) {
    const char head[] = {
        0, static_cast<char>(payload.size() >> 8), static_cast<char>(payload.size()), type, flags, 0, 0, 0, stream};
    client.send(std::string(head, sizeof head) + payload);
  }
  // Literal header fields without indexing, of names and values shorter than 127 bytes.
  void request(const std::vector<std::pair<std::string, std::string>>& fields) {
    std::string block;
    for (const auto& [name, value] : fields) {
      block += '\0';
      block += static_cast<char>(name.size()) + name;
      block += static_cast<char>(value.size()) + value;
    }
    frame(1, 4, 1, block);
  }
  HttpsClient client;
};

TEST_F(DoorsTest, StrangersOnTheGrpcPortAreTurnedAway) {
  const std::vector<std::pair<std::string, std::string>> pseudo = {
      {":method", "POST"}, {":scheme", "https"}, {":authority", "x"}, {":path", std::string("/") + kVersion}};
  {
    HttpsClient client(doors.grpc_port);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    const std::string said = client.read_until("never said");
    EXPECT_EQ(said.find("HTTP/1.1"), std::string::npos);
  }
  {
    RawHttp2 raw(doors.grpc_port);
    auto fields = pseudo;
    fields.emplace_back("content-type", "application/json");
    raw.request(fields);
    const std::string said = raw.client.read_until("415");
    EXPECT_TRUE(said.ends_with("415")) << said.size();
  }
  {
    RawHttp2 raw(doors.grpc_port);
    raw.frame(0, 0, 5, "data of a stream that was never opened");
    EXPECT_FALSE(raw.client.read_until("never said").empty());
    EXPECT_TRUE(raw.client.at_end());
  }
  // None of them kept the door from serving.
  EXPECT_TRUE(doors.channel()->unary(kVersion, {}));
}

TEST_F(DoorsTest, AnswerUnimplementedOnBoth) {
  const auto unbuilt = doors.channel()->unary("uccp.v1.Administration/GetBackup", "\x0a\x01x");
  EXPECT_EQ(unbuilt.error().reason(), "METHOD_UNIMPLEMENTED");
  HttpsClient client(doors.rest_port);
  EXPECT_EQ(client.ask("GET", "/api/v1/backups/x").status, 501);
  const auto unknown = doors.channel()->unary("no.Such/Method", {});
  EXPECT_EQ(unknown.error().reason(), "METHOD_UNKNOWN");
  EXPECT_EQ(unknown.error().code(), Code::kUnimplemented);
}

TEST_F(DoorsTest, CancelReachesTheHandler) {
  std::atomic<int> cancelled{0};
  {
    HttpsClient client(doors.rest_port);
    client.send("GET /api/v1/tasks/hang HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin:root\r\n\r\n");
    ASSERT_TRUE(eventually([&] { return seen_call() != nullptr; }));
    seen_call()->on_cancel([&] { ++cancelled; });
  }
  EXPECT_TRUE(eventually([&] { return cancelled == 1 && seen_call()->finished(); }));
  {
    std::lock_guard lock(mutex);
    seen.reset();
  }
  auto stream = doors.channel()->stream(kGetTask);
  stream->write(task_request("hang"));
  ASSERT_TRUE(eventually([&] { return seen_call() != nullptr; }));
  seen_call()->on_cancel([&] { ++cancelled; });
  stream->cancel();
  EXPECT_EQ(stream->finish().code(), Code::kCancelled);
  EXPECT_TRUE(eventually([&] { return cancelled == 2 && seen_call()->finished(); }));
}

TEST_F(DoorsTest, CallsThatWaitAreNoWorkAndLeaveRoomForOthers) {
  // More than all calls that a node may have at work.
  constexpr size_t kParked = 2'500;
  auto channel = doors.channel();
  std::atomic<size_t> ended{0};
  for (size_t i = 0; i < kParked; ++i) {
    channel->unary_async(kGetTask, task_request("park"), [&](Result<std::string>) { ++ended; });
  }
  ASSERT_TRUE(eventually([&] { return doors.pipeline->calls_waiting() == kParked; }));
  EXPECT_EQ(doors.pipeline->calls_working(), 0u);
  EXPECT_TRUE(channel->unary(kVersion, {}));
  HttpsClient client(doors.rest_port);
  client.send("GET /api/v1/tasks/park HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin:root\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return doors.pipeline->calls_waiting() == kParked + 1; }));
  doors.grpc.stop(0);
  doors.rest.stop(0);
  EXPECT_EQ(doors.pipeline->calls_waiting(), 0u);
  EXPECT_EQ(doors.pipeline->calls_working(), 0u);
  EXPECT_TRUE(eventually([&] { return ended == kParked; }));
}

class CallLimitsTest : public DoorsTest {
 protected:
  CallLimitsTest() { doors.limits = {.calls_in_flight_max = 4, .calls_waiting_max = 2}; }
};

TEST_F(CallLimitsTest, EachHasItsReasonAndWaitingDoesNotCountAsWork) {
  auto channel = doors.channel();
  std::atomic<size_t> ended{0};
  const auto start = [&](const std::string& id) {
    channel->unary_async(kGetTask, task_request(id), [&](Result<std::string>) { ++ended; });
  };
  start("park");
  start("park");
  ASSERT_TRUE(eventually([&] { return doors.pipeline->calls_waiting() == 2; }));
  const auto too_many = channel->unary(kGetTask, task_request("park"));
  ASSERT_FALSE(too_many);
  EXPECT_EQ(too_many.error().reason(), "WAITS_EXHAUSTED");
  for (int i = 0; i < 4; ++i) start("hang");
  ASSERT_TRUE(eventually([&] { return doors.pipeline->calls_working() == 4; }));
  const auto refused = channel->unary(kGetTask, task_request("x"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason(), "CALLS_IN_FLIGHT");
  EXPECT_GE(refused.error().detail().retry_after_ms, 200u);
  // Operators still get in.
  EXPECT_TRUE(channel->unary(kVersion, {}));
  doors.grpc.stop(0);
  EXPECT_TRUE(eventually([&] { return ended == 6; }));
}

class TenantLimitsTest : public DoorsTest {
 protected:
  TenantLimitsTest() { doors.limits = {.calls_in_flight_max = 10, .calls_in_flight_tenant_percent = 60}; }

  void hang(GrpcChannel& channel, int count) {
    for (int i = 0; i < count; ++i)
      channel.unary_async(kGetTask, task_request("hang"), [&](Result<std::string>) { ++ended_; });
  }
  static std::string refusal(GrpcChannel& channel) {
    const auto answer = channel.unary(kGetTask, task_request("x"));
    return answer ? "" : std::string(answer.error().reason());
  }
  std::atomic<size_t> ended_{0};
};

TEST_F(TenantLimitsTest, OneAloneMayHaveAllAndBesideOthersItsPart) {
  auto first = doors.channel(), second = doors.channel("admin:root@other");
  hang(*first, 10);
  ASSERT_TRUE(eventually([&] { return doors.pipeline->calls_working() == 10; }));
  EXPECT_EQ(refusal(*first), "CALLS_IN_FLIGHT") << "nobody else calls";
  EXPECT_EQ(refusal(*second), "") << "the first one has all, and the other gets in";
  EXPECT_EQ(refusal(*first), "TENANT_CALLS_IN_FLIGHT") << "it has more than its part by now";
  // What the other may have beside it is bounded too.
  hang(*second, 4);
  ASSERT_TRUE(eventually([&] { return doors.pipeline->calls_working() == 14; }));
  EXPECT_EQ(refusal(*second), "CALLS_IN_FLIGHT");
  EXPECT_TRUE(first->unary(kVersion, {})) << "operators still get in";
  doors.grpc.stop(0);
  EXPECT_TRUE(eventually([&] { return ended_ == 14; }));
}

TEST_F(TenantLimitsTest, WithRoomLeftEachHasItsPart) {
  auto first = doors.channel(), second = doors.channel("admin:root@other");
  EXPECT_EQ(refusal(*second), "");
  hang(*first, 6);
  ASSERT_TRUE(eventually([&] { return doors.pipeline->calls_working() == 6; }));
  EXPECT_EQ(refusal(*first), "TENANT_CALLS_IN_FLIGHT");
  EXPECT_EQ(refusal(*second), "");
  doors.grpc.stop(0);
  EXPECT_TRUE(eventually([&] { return ended_ == 6; }));
}

// A gateway calls as many tenants over one connection: none of them is refused for another.
TEST_F(TenantLimitsTest, AConnectionOfSeveralTenantsIsNotTakenForOne) {
  auto first = doors.channel();
  HttpsClient rest(doors.rest_port);
  const auto ask = [&](const std::string& token) { return rest.ask("GET", "/api/v1/tasks/x", {}, {}, token).status; };
  EXPECT_EQ(ask("admin:root@other"), 200);
  hang(*first, 6);
  ASSERT_TRUE(eventually([&] { return doors.pipeline->calls_working() == 6; }));
  EXPECT_EQ(ask("admin:root"), 429);
  EXPECT_EQ(ask("admin:root@other"), 200);
  doors.grpc.stop(0);
  EXPECT_TRUE(eventually([&] { return ended_ == 6; }));
}

TEST_F(DoorsTest, DeadlineOfTheClientEndsTheCall) {
  CallOptions options;
  options.deadline_ms = 1'000;
  const auto channel = doors.channel();
  ASSERT_TRUE(channel->unary(kVersion, {})) << "the connection is there before the clock runs";
  const auto late = channel->unary(kGetTask, task_request("hang"), options);
  EXPECT_EQ(late.error().code(), Code::kDeadline);
  ASSERT_TRUE(eventually([&] { return seen_call() != nullptr; }));
  EXPECT_TRUE(eventually([&] { return seen_call()->finished(); }));
}

TEST_F(DoorsTest, MessageTooLargeHasOneReason) {
  std::string huge = task_request("x") + std::string("\x12\x80\x80\x80\x03", 5) + std::string(6u << 20, 'n');
  const auto error = doors.channel()->unary(kGetTask, huge);
  EXPECT_EQ(error.error().reason(), "REQUEST_TOO_LARGE");
  HttpsClient client(doors.rest_port);
  const auto reply =
      client.ask("POST", "/api/v1/tasks", std::string(5u << 20, ' '), "Content-Type: application/json\r\n");
  EXPECT_EQ(reply.status, 413);
  EXPECT_EQ(call::from_problem_json(reply.body, 413).reason(), "REQUEST_TOO_LARGE");
}

TEST_F(DoorsTest, MalformedRequestsAreRefusedAfterAuthentication) {
  EXPECT_EQ(doors.channel()->unary(kGetTask, "\xff\xff").error().reason(), "WIRE_INVALID");
  HttpsClient client(doors.rest_port);
  const std::string json = "Content-Type: application/json\r\n";
  auto reply = client.ask("POST", "/api/v1/tasks", "{\"name\":", json);
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(call::from_problem_json(reply.body, 400).reason(), "JSON_INVALID");
  EXPECT_EQ(client.ask("POST", "/api/v1/tasks", "{\"name\":", json, "").status, 401);
  EXPECT_EQ(client.ask("GET", "/api/v1/tasks/x?nonsense=1").status, 400);
}

TEST_F(DoorsTest, CloseWhileCallsAreAtWork) {
  auto stream = doors.channel()->stream(kGetTask);
  stream->write(task_request("hang"));
  ASSERT_TRUE(eventually([&] { return seen_call() != nullptr; }));
  HttpsClient client(doors.rest_port);
  client.send("GET /api/v1/tasks/hang HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin:root\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return doors.pipeline->calls_in_flight() == 2; }));
  doors.rest.stop(50);
  doors.grpc.stop(50);
  EXPECT_FALSE(stream->finish().is_ok());
  EXPECT_TRUE(client.at_end());
  EXPECT_EQ(doors.pipeline->calls_in_flight(), 0u);
}

}  // namespace
}  // namespace uccp::doors
