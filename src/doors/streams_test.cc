// Streams through both doors: forms, flow control, resuming, uploads.
#include "call/error_json.h"
#include "doors/test_support.h"
#include "uccp/internal/v1/agent.pb.h"
#include "uccp/v1/compute.pb.h"
#include "uccp/v1/events.pb.h"
#include "uccp/v1/tasks.pb.h"

namespace uccp::doors {
namespace {

using namespace testing;
using call::CallPtr;

constexpr char kLogs[] = "uccp.v1.TaskScheduling/GetTaskLogs";
constexpr char kArtifact[] = "uccp.v1.TaskScheduling/GetTaskArtifact";
constexpr char kSubscribe[] = "uccp.v1.EventBus/Subscribe";
constexpr char kUpload[] = "uccp.v1.ComputeExecution/UploadObject";
constexpr char kConnect[] = "uccp.internal.v1.AgentLink/Connect";
constexpr char kSse[] = "Accept: text/event-stream\r\n";
constexpr char kNdjsonBody[] = "Content-Type: application/x-ndjson\r\n";

// Sends items of 10 KB until 64 MiB were sent, stopping while 256 KiB wait; remembers the most that waited.
struct Flood : std::enable_shared_from_this<Flood> {
  void run() {
    while (sent < (64u << 20)) {
      most_queued = std::max<size_t>(most_queued, call->sink->queued_bytes());
      if (call->sink->queued_bytes() > (256u << 10)) return;
      v1::LogLine line;
      line.set_text(std::string(10'000, 'x'));
      sent += 10'000;
      call->send(line.SerializeAsString());
    }
    call->finish(Status::ok());
  }
  CallPtr call;
  std::atomic<size_t> sent{0};
  std::atomic<size_t> most_queued{0};
};

class StreamsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    doors.rest_options.heartbeat_ms = 300;
    doors.handlers.add_parsed<v1::GetTaskLogsRequest>(
        kLogs, [this](const CallPtr& call, v1::GetTaskLogsRequest request) { logs(call, request); });
    doors.handlers.add_parsed<v1::GetTaskArtifactRequest>(
        kArtifact, [](const CallPtr& call, v1::GetTaskArtifactRequest request) {
          if (request.path() == "none")
            return call->finish(Status(Code::kNotFound, "ARTIFACT_NOT_FOUND", "no such artifact"));
          v1::ArtifactChunk chunk;
          chunk.set_data(std::string("ab\0cd", 5));
          call->send(chunk.SerializeAsString());
          call->send(chunk.SerializeAsString());
          v1::ArtifactChunk end;
          end.mutable_end()->set_reason(request.path() == "cut" ? v1::STREAM_END_REASON_RECONNECT
                                                                : v1::STREAM_END_REASON_COMPLETED);
          call->send(end.SerializeAsString());
          call->finish(Status::ok());
        });
    doors.handlers.add(kSubscribe, [](const CallPtr& call, std::string) {
      v1::EventDelivery item;
      item.set_cursor("e1");
      call->send(item.SerializeAsString());
      call->finish(Status::ok());
    });
    doors.handlers.add(kUpload, [](const CallPtr& call, std::string) {
      auto size = std::make_shared<size_t>(0);
      call->on_message([size, raw = call.get()](std::string message) {
        v1::UploadObjectRequest request;
        request.ParseFromString(message);
        if (request.data() == "stop") return raw->finish(Status(Code::kConflict, "UPLOAD_STOPPED", "enough"));
        *size += request.data().size();
      });
      call->on_half_close([size, raw = call.get()] {
        v1::Object object;
        object.set_key("k");
        object.set_store("s");
        object.set_size(*size);
        raw->reply(object.SerializeAsString());
      });
    });
    doors.handlers.add(kConnect, [](const CallPtr& call, std::string) {
      call->on_message([raw = call.get()](std::string message) { raw->send(std::move(message)); });
      call->on_half_close([raw = call.get()] { raw->finish(Status::ok()); });
    });
    doors.open();
  }
  void logs(const CallPtr& call, const v1::GetTaskLogsRequest& request) {
    if (request.id() == "silent") return;
    if (request.id() == "denied") return call->finish(Status(Code::kNotFound, "TASK_NOT_FOUND", "no task"));
    if (request.id() == "flood") {
      flood = std::make_shared<Flood>();
      flood->call = call;
      call->on_drain([f = flood.get()] { f->run(); });
      call->on_cancel([this] { cancelled = true; });
      return flood->run();
    }
    if (request.id() == "greedy") {
      // Minds no back-pressure: the door has to.
      v1::LogLine line;
      line.set_text(std::string(100'000, 'x'));
      for (int i = 0; i < 2000 && !call->finished(); ++i) call->send(line.SerializeAsString());
      return;
    }
    if (request.id() == "run") return runs(call);
    if (request.id() == "greedy-run") {
      for (int i = 0; i < 400 && !call->finished(); ++i) call->send_run(run_of(5, 100'000));
      return;
    }
    for (int i = request.since().empty() ? 1 : std::stoi(request.since()) + 1; i <= 3; ++i) {
      v1::LogLine line;
      line.set_text("line " + std::to_string(i));
      line.set_cursor(std::to_string(i));
      call->send(line.SerializeAsString());
    }
    if (request.id() == "broken") return call->finish(Status(Code::kUnavailable, "LOG_GONE", "the worker is gone"));
    v1::LogLine end;
    end.mutable_end()->set_reason(v1::STREAM_END_REASON_COMPLETED);
    call->send(end.SerializeAsString());
    call->finish(Status::ok());
  }
  static call::MessageRun run_of(int count, size_t bytes) {
    call::MessageRun run;
    for (int i = 1; i <= count; ++i) {
      v1::LogLine line;
      line.set_text(std::to_string(i) + std::string(bytes, 'x'));
      run.bytes += line.SerializeAsString();
      run.ends.push_back(static_cast<uint32_t>(run.bytes.size()));
    }
    return run;
  }
  static void runs(const CallPtr& call) {
    call->send_run(run_of(3, 0));
    // An empty message between others, and some that need many frames.
    call::MessageRun run = run_of(1, 0);
    run.ends.push_back(run.ends.back());
    call->send_run(std::move(run));
    call->send_run(run_of(2, 100'000));
    v1::LogLine line;
    line.set_text("last");
    call->send(line.SerializeAsString());
    call->finish(Status::ok());
  }
  static std::string logs_request(const std::string& id) {
    v1::GetTaskLogsRequest request;
    request.set_id(id);
    return request.SerializeAsString();
  }
  Doors doors;
  std::shared_ptr<Flood> flood;
  std::atomic<bool> cancelled{false};
};

TEST_F(StreamsTest, GrpcServerStream) {
  auto stream = doors.channel()->stream(kLogs);
  ASSERT_TRUE(stream->write(logs_request("t")));
  stream->half_close();
  std::vector<std::string> texts;
  while (auto message = stream->read()) {
    v1::LogLine line;
    line.ParseFromString(*message);
    texts.push_back(line.text());
  }
  EXPECT_EQ(texts, (std::vector<std::string>{"line 1", "line 2", "line 3", ""}));
  EXPECT_TRUE(stream->finish().is_ok());
}

TEST_F(StreamsTest, MessagesOfARunArriveOneByOne) {
  auto stream = doors.channel()->stream(kLogs);
  ASSERT_TRUE(stream->write(logs_request("run")));
  stream->half_close();
  const std::string large(100'000, 'x');
  const std::vector<std::string> expected{"1", "2", "3", "1", "", "1" + large, "2" + large, "last"};
  std::vector<std::string> texts;
  while (auto message = stream->read()) {
    v1::LogLine line;
    ASSERT_TRUE(line.ParseFromString(*message));
    texts.push_back(line.text());
  }
  EXPECT_EQ(texts, expected);
  EXPECT_TRUE(stream->finish().is_ok());
  const auto reply = HttpsClient(doors.rest_port).ask("GET", "/api/v1/tasks/run/logs");
  std::string body;
  for (const std::string& text : expected) body += text.empty() ? "{}\n" : "{\"text\":\"" + text + "\"}\n";
  EXPECT_EQ(reply.body.substr(0, body.size()), body);
}

TEST_F(StreamsTest, NdjsonIsTheDefault) {
  HttpsClient client(doors.rest_port);
  const auto reply = client.ask("GET", "/api/v1/tasks/t/logs");
  EXPECT_EQ(reply.headers.at("content-type"), "application/x-ndjson");
  EXPECT_EQ(reply.body.find("{\"text\":\"line 1\",\"cursor\":\"1\"}\n"), 0u) << reply.body;
  EXPECT_NE(reply.body.find("{\"end\":{\"reason\":\"COMPLETED\"}}\n"), std::string::npos) << reply.body;
  // The connection goes on.
  EXPECT_EQ(client.ask("GET", "/api/v1/tasks/denied/logs").status, 404);
  EXPECT_EQ(client.ask("HEAD", "/api/v1/tasks/t/logs").status, 200);
}

TEST_F(StreamsTest, SseCarriesCursorsAndResumes) {
  HttpsClient client(doors.rest_port);
  const auto reply = client.ask("GET", "/api/v1/tasks/t/logs", {}, std::string(kSse) + "Last-Event-ID: 2\r\n");
  EXPECT_EQ(reply.headers.at("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(reply.body,
            "retry: 2000\n\nid: 3\ndata: {\"text\":\"line 3\",\"cursor\":\"3\"}\n\n"
            "event: end\ndata: {\"end\":{\"reason\":\"COMPLETED\"}}\n\n");
}

TEST_F(StreamsTest, ErrorsAfterTheFirstItemComeInTheStream) {
  HttpsClient client(doors.rest_port);
  EXPECT_NE(
      client.ask("GET", "/api/v1/tasks/broken/logs").body.find("{\"error\":{\"type\":\"urn:uccp:error:LOG_GONE\""),
      std::string::npos);
  EXPECT_NE(client.ask("GET", "/api/v1/tasks/broken/logs", {}, kSse).body.find("event: error\ndata: {\"type\""),
            std::string::npos);
  auto stream = doors.channel()->stream(kLogs);
  stream->write(logs_request("broken"));
  int items = 0;
  while (stream->read()) ++items;
  EXPECT_EQ(items, 3);
  EXPECT_EQ(stream->finish().reason(), "LOG_GONE");
}

TEST_F(StreamsTest, SilentStreamGetsItsHeaderAndHeartbeats) {
  HttpsClient client(doors.rest_port);
  client.send("GET /api/v1/tasks/silent/logs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin:root\r\n" +
              std::string(kSse) + "\r\n");
  EXPECT_EQ(client.read_head().status, 200);
  EXPECT_EQ(client.read_chunk(), "retry: 2000\n\n");
  EXPECT_EQ(client.read_chunk(), ":\n\n");
  EXPECT_EQ(client.read_chunk(), ":\n\n");
}

TEST_F(StreamsTest, SubscribeIsSseUnlessNdjsonIsAsked) {
  HttpsClient client(doors.rest_port);
  const std::string json = "Content-Type: application/json\r\n";
  const std::string body = "{\"topics\":[\"a\"]}";
  EXPECT_NE(client.ask("POST", "/api/v1/events/subscribe", body, json).body.find("id: e1\n"), std::string::npos);
  EXPECT_EQ(client.ask("POST", "/api/v1/events/subscribe", body, json + "Accept: application/x-ndjson\r\n").body,
            "{\"cursor\":\"e1\"}\n");
}

TEST_F(StreamsTest, ArtifactIsItsBytes) {
  HttpsClient client(doors.rest_port);
  const auto reply = client.ask("GET", "/api/v1/tasks/t/artifacts/out/model.bin");
  EXPECT_EQ(reply.headers.at("content-type"), "application/octet-stream");
  EXPECT_EQ(reply.body, std::string("ab\0cdab\0cd", 10));
  EXPECT_EQ(client.ask("GET", "/api/v1/tasks/t/artifacts/none").status, 404);
  EXPECT_NE(client.ask("GET", "/api/v1/tasks/t/artifacts/x", {}, "Accept: application/json\r\n")
                .body.find("\"data\":\"YWIAY2Q=\""),
            std::string::npos);
  // A stream that ended early must not look complete.
  client.send("GET /api/v1/tasks/t/artifacts/cut HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin:root\r\n\r\n");
  const std::string all = client.read_until("never there");
  EXPECT_FALSE(all.ends_with("0\r\n\r\n"));
}

TEST_F(StreamsTest, SlowGrpcReaderHoldsTheHandlerBack) {
  auto stream = doors.channel()->stream(kLogs);
  stream->write(logs_request("flood"));
  ASSERT_TRUE(stream->read());
  ASSERT_TRUE(eventually([&] { return flood->most_queued > (256u << 10); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_LT(flood->sent, 24u << 20);
  size_t items = 1;
  while (stream->read()) ++items;
  EXPECT_EQ(items, (64u << 20) / 10'000 + 1);
  EXPECT_TRUE(stream->finish().is_ok());
  EXPECT_LT(flood->most_queued, 300u << 10);
  EXPECT_FALSE(cancelled);
}

TEST_F(StreamsTest, SlowRestReaderHoldsTheHandlerBack) {
  HttpsClient client(doors.rest_port, {.receive_buffer = 64 * 1024});
  client.send("GET /api/v1/tasks/flood/logs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin:root\r\n\r\n");
  EXPECT_EQ(client.read_head().status, 200);
  ASSERT_TRUE(eventually([&] { return flood->most_queued > (256u << 10); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_LT(flood->sent, 24u << 20);
  size_t bytes = 0;
  for (std::string chunk = client.read_chunk(); !chunk.empty(); chunk = client.read_chunk()) bytes += chunk.size();
  EXPECT_GT(bytes, 64u << 20);
  EXPECT_LT(flood->most_queued, 300u << 10);
}

TEST_F(StreamsTest, GreedyHandlerLosesItsCall) {
  for (const char* id : {"greedy", "greedy-run"}) {
    auto stream = doors.channel()->stream(kLogs);
    stream->write(logs_request(id));
    ASSERT_TRUE(eventually([&] { return doors.pipeline->calls_in_flight() == 0; })) << id;
    EXPECT_EQ(stream->finish().reason(), "STREAM_TOO_SLOW") << id;
  }
  HttpsClient client(doors.rest_port, {.receive_buffer = 64 * 1024});
  client.send("GET /api/v1/tasks/greedy/logs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin:root\r\n\r\n");
  EXPECT_TRUE(eventually([&] { return doors.pipeline->calls_in_flight() == 0; }));
}

TEST_F(StreamsTest, UploadByNdjsonAndByGrpc) {
  HttpsClient client(doors.rest_port);
  const std::string body = "{\"data\":\"YWJj\"}\n\n{\"data\":\"ZA==\"}";
  const auto reply = client.ask("POST", "/api/v1/objects:upload", body, kNdjsonBody);
  EXPECT_EQ(reply.status, 201) << reply.body;
  EXPECT_NE(reply.body.find("\"size\":4"), std::string::npos) << reply.body;
  EXPECT_EQ(reply.headers.at("location"), "/api/v1/objectstores/s/objects/k");
  auto stream = doors.channel()->stream(kUpload);
  v1::UploadObjectRequest chunk;
  chunk.set_data("abc");
  stream->write(chunk.SerializeAsString());
  stream->write(chunk.SerializeAsString());
  stream->half_close();
  v1::Object object;
  object.ParseFromString(stream->read().value_or(""));
  EXPECT_EQ(object.size(), 6u);
  EXPECT_TRUE(stream->finish().is_ok());
}

TEST_F(StreamsTest, UploadErrors) {
  const auto post = [&](const std::string& body, const std::string& headers) {
    HttpsClient client(doors.rest_port);
    return client.ask("POST", "/api/v1/objects:upload", body, headers);
  };
  const auto bad = post("{\"data\":\"YWJj\"}\n{oops\n", kNdjsonBody);
  EXPECT_EQ(bad.status, 400);
  EXPECT_NE(bad.body.find("line 2"), std::string::npos) << bad.body;
  EXPECT_EQ(post("{}", "Content-Type: application/json\r\n").status, 415);
  EXPECT_EQ(post("{\"data\":\"c3RvcA==\"}\n{\"data\":\"YWJj\"}\n", kNdjsonBody).status, 409);
}

TEST_F(StreamsTest, BidiEchoesInOrder) {
  std::mutex mutex;
  std::condition_variable done;
  std::vector<std::string> got;
  std::optional<Status> outcome;
  StreamCallbacks callbacks;
  callbacks.on_message = [&](std::string message) {
    std::lock_guard lock(mutex);
    got.push_back(std::move(message));
  };
  callbacks.on_done = [&](Status status) {
    std::lock_guard lock(mutex);
    outcome = std::move(status);
    done.notify_one();
  };
  auto channel = doors.channel();
  auto stream = channel->stream_async(kConnect, std::move(callbacks));
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(stream->send(std::to_string(i)));
  stream->half_close();
  std::unique_lock lock(mutex);
  ASSERT_TRUE(done.wait_for(lock, std::chrono::seconds(30), [&] { return outcome.has_value(); }));
  EXPECT_TRUE(outcome->is_ok()) << outcome->to_string();
  ASSERT_EQ(got.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(got[static_cast<size_t>(i)], std::to_string(i));
  HttpsClient client(doors.rest_port);
  EXPECT_EQ(client.ask("POST", "/uccp.internal.v1.AgentLink/Connect").status, 501);
}

TEST_F(StreamsTest, ServerGoingAwayEndsStreams) {
  auto stream = doors.channel()->stream(kLogs);
  stream->write(logs_request("silent"));
  ASSERT_TRUE(eventually([&] { return doors.pipeline->calls_in_flight() == 1; }));
  doors.grpc.stop(0);
  EXPECT_FALSE(stream->read());
  EXPECT_FALSE(stream->finish().is_ok());
  const auto refused = doors.channel()->unary(kLogs, {});
  EXPECT_EQ(refused.error().reason(), "CONNECT_REFUSED") << refused.error().to_string();
}

}  // namespace
}  // namespace uccp::doors
