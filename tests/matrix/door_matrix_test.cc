// The matrix: every method of the contract x every door x every stage of the pipeline.
//
// Goal: no door has a private way in. The cases are generated from the contract, so a new method is covered by being
// declared. Each cell asks that the stage refuses (or lets pass), that both doors give the same reason, and that the
// outcome is accounted. Requests are made from the options of their fields.
#include <gtest/gtest.h>
#include <re2/re2.h>

#include <map>
#include <mutex>
#include <set>

#include "base/log.h"
#include "call/error_json.h"
#include "call/json_codec.h"
#include "call/validate.h"
#include "doors/test_support.h"

namespace uccp::doors::testing {
namespace {

using call::Contract;
using call::FieldPlan;
using call::Kind;
using call::MessagePlan;
using call::Method;

std::string sample(const MessagePlan& plan, int depth = 0);

std::string sample_text(const FieldPlan& field) {
  for (const std::string& text : {field.example, std::string("x1"), std::string(64, '0')}) {
    if (!text.empty() && (!field.pattern_re || re2::RE2::FullMatch(text, *field.pattern_re))) return text;
  }
  return "x1";
}

void append_sample(const FieldPlan& field, std::string& out, int depth) {
  switch (field.kind) {
    case Kind::kMessage: return call::put_bytes(out, field.number, sample(*field.message, depth + 1));
    case Kind::kString: return call::put_bytes(out, field.number, sample_text(field));
    case Kind::kBytes: return call::put_bytes(out, field.number, "x");
    case Kind::kEnum:
      return call::put_uint(out, field.number, static_cast<uint64_t>(field.enumeration->values[1].number));
    case Kind::kDouble: {
      call::put_tag(out, field.number, call::WireType::kFixed64);
      return call::put_fixed64(out, std::bit_cast<uint64_t>(std::max(1.0, field.min.value_or(1))));
    }
    default: return call::put_uint(out, field.number, static_cast<uint64_t>(std::max(1.0, field.min.value_or(1))));
  }
}

// A message that has what is required, and nothing else.
std::string sample(const MessagePlan& plan, int depth) {
  std::string out;
  for (const FieldPlan& field : plan.fields) {
    if (!field.required || field.output_only || depth > 6) continue;
    append_sample(field, out, depth);
  }
  return out;
}

struct Outcome {
  std::string reason;  // "" is success
  bool operator==(const Outcome&) const = default;
};

class DoorMatrix : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    log::configure({.level = log::Level::kFatal});  // each denial is logged
    doors_ = new Doors();
    for (const Method& method : Contract::get().methods()) {
      doors_->handlers.add(method.full_name, [](const call::CallPtr& call, std::string) {
        if (!call->method->client_streaming) return call->reply("");
        call->on_half_close([call] { call->reply(""); });
      });
    }
    doors_->open();
    doors_->pipeline->observe_stages([](const call::Call& call, call::Stage stage) {
      std::lock_guard lock(mutex_);
      if (call.method != nullptr) stages_[{call.method->full_name, call.door}].insert(stage);
    });
  }
  static void TearDownTestSuite() {
    delete doors_;
    doors_ = nullptr;
  }

  static Outcome over_grpc(const Method& method, const std::string& request, const std::string& token) {
    const auto channel = doors_->channel(token);
    auto stream = channel->stream(method.grpc_path);
    if (!method.client_streaming) (void)stream->write(request);
    (void)stream->half_close();
    while (stream->read()) {}
    return {std::string(stream->finish().reason())};
  }
  static Outcome over_rest(const Method& method, const std::string& json, const std::string& token) {
    HttpsClient client(doors_->rest_port);
    // A client stream is uploaded as lines, here none.
    const std::string type = method.client_streaming ? "application/x-ndjson" : "application/json";
    const HttpReply reply = client.ask("POST", method.grpc_path, method.client_streaming ? "\n" : json,
                                       "Content-Type: " + type + "\r\n", token);
    if (reply.status < 300) return {""};
    return {std::string(call::from_problem_json(reply.body, reply.status).reason())};
  }
  // Over REST a method that takes a stream in both directions is not offered: HTTP/1.1 has none.
  static bool in_rest(const Method& method) { return !(method.client_streaming && method.server_streaming); }

  static std::string json_of(const Method& method, const std::string& wire) {
    auto json = call::wire_to_json(*method.request, wire, {.emit = call::Emit::kSet});
    EXPECT_TRUE(json.has_value()) << method.full_name;
    return json.value_or("{}");
  }

  // Runs one cell through all doors and wants the same reason from each.
  static void expect(const Method& method, const std::string& wire, const std::string& json, const std::string& token,
                     const std::string& reason) {
    EXPECT_EQ(over_grpc(method, wire, token).reason, reason) << method.full_name << " over gRPC";
    if (in_rest(method)) EXPECT_EQ(over_rest(method, json, token).reason, reason) << method.full_name << " over REST";
  }

  static Doors* doors_;
  static std::mutex mutex_;
  static std::map<std::pair<std::string, call::Call::Door>, std::set<call::Stage>> stages_;
};

// What needs no role, once it is known who calls.
bool for_everybody(const Method& method) { return method.is_public || method.permission == call::kSelfPermission; }

Doors* DoorMatrix::doors_ = nullptr;
std::mutex DoorMatrix::mutex_;
std::map<std::pair<std::string, call::Call::Door>, std::set<call::Stage>> DoorMatrix::stages_;

TEST_F(DoorMatrix, EveryMethodHasASampleThatIsValid) {
  for (const Method& method : Contract::get().methods()) {
    if (method.client_streaming) continue;
    const Status status = call::validate(*method.request, sample(*method.request));
    EXPECT_TRUE(status.is_ok()) << method.full_name << ": " << status.to_string();
  }
}

TEST_F(DoorMatrix, WithoutCredentialsNothingButPublicMethodsAnswers) {
  for (const Method& method : Contract::get().methods()) {
    const std::string wire = sample(*method.request);
    expect(method, wire, json_of(method, wire), "", method.is_public ? "" : "CREDENTIALS_MISSING");
  }
}

TEST_F(DoorMatrix, BadCredentialsAreRefusedAlsoWherePublicOnesAreNotNeeded) {
  for (const Method& method : Contract::get().methods()) {
    const std::string wire = sample(*method.request);
    expect(method, wire, json_of(method, wire), "no-token", "TOKEN_INVALID");
  }
}

TEST_F(DoorMatrix, APrincipalWithoutRolesIsDenied) {
  for (const Method& method : Contract::get().methods()) {
    const std::string wire = sample(*method.request);
    expect(method, wire, json_of(method, wire), "stranger:eve", for_everybody(method) ? "" : "PERMISSION_DENIED");
  }
}

TEST_F(DoorMatrix, AViewerMayReadAndNothingElse) {
  for (const Method& method : Contract::get().methods()) {
    const std::string wire = sample(*method.request);
    const bool by_name = method.permission == "audit.read" || method.permission == "identity.read";
    const bool reads = for_everybody(method) || (method.permission.ends_with(".read") && !by_name);
    expect(method, wire, json_of(method, wire), "viewer:vera", reads ? "" : "PERMISSION_DENIED");
  }
}

TEST_F(DoorMatrix, AnUnknownFieldIsRefusedBeforeTheHandler) {
  for (const Method& method : Contract::get().methods()) {
    if (method.client_streaming) continue;  // their messages are parsed by the handler
    std::string wire = sample(*method.request);
    call::put_uint(wire, 19'999, 1);
    expect(method, wire, R"({"noSuchField":1})", "admin:root", "FIELD_INVALID");
  }
}

TEST_F(DoorMatrix, AnAdminReachesTheHandlerAndEveryStageWasPassed) {
  using enum call::Stage;
  for (const Method& method : Contract::get().methods()) {
    {
      std::lock_guard lock(mutex_);
      stages_.clear();
    }
    const std::string wire = sample(*method.request);
    expect(method, wire, json_of(method, wire), "admin:root", "");
    for (const call::Call::Door door : {call::Call::Door::kGrpc, call::Call::Door::kRest}) {
      if (door == call::Call::Door::kRest && !in_rest(method)) continue;
      std::lock_guard lock(mutex_);
      for (const call::Stage stage :
           {kLimits, kTrace, kMethod, kAuthenticate, kRate, kDecode, kAuthorize, kQuota, kHandler, kAudit}) {
        EXPECT_TRUE(stages_[std::pair(method.full_name, door)].contains(stage))
            << method.full_name << " skipped " << call::stage_name(stage) << " at door " << static_cast<int>(door);
      }
    }
  }
}

TEST_F(DoorMatrix, EveryOutcomeIsCountedDenialsIncluded) {
  for (const Method& method : Contract::get().methods()) {
    if (method.is_public) continue;
    const std::string wire = sample(*method.request);
    const Labels denied = {{"method", method.full_name}, {"code", "unauthenticated"}};
    const double grpc = doors_->metrics.value("uccp_grpc_requests_total", denied);
    const double http = doors_->metrics.value("uccp_http_requests_total", denied);
    expect(method, wire, json_of(method, wire), "", "CREDENTIALS_MISSING");
    EXPECT_EQ(doors_->metrics.value("uccp_grpc_requests_total", denied), grpc + 1) << method.full_name;
    if (in_rest(method))
      EXPECT_EQ(doors_->metrics.value("uccp_http_requests_total", denied), http + 1) << method.full_name;
  }
}

// Rates need a pipeline of their own: each principal has one token of each class.
TEST(DoorMatrixRates, ASpentRateIsRefusedThroughEveryDoor) {
  Doors doors;
  for (const Method& method : Contract::get().methods()) {
    doors.handlers.add(method.full_name, [](const call::CallPtr& call, std::string) {
      if (!call->method->client_streaming) return call->reply("");
      call->on_half_close([call] { call->reply(""); });
    });
  }
  for (const char* quota_class : {"read", "write", "stream", "admin", "agent"}) {
    doors.rates.push_back({.quota_class = quota_class, .per_second = 0.0001, .burst = 10});
  }
  doors.open();
  for (const Method& method : Contract::get().methods()) {
    if (method.is_public) continue;
    const std::string token = "admin:" + std::to_string(method.index);
    const std::string wire = sample(*method.request);
    const auto channel = doors.channel(token);
    std::string reason;
    for (int i = 0; i <= 10 && reason != "RATE_LIMITED"; ++i) {
      auto stream = channel->stream(method.grpc_path);
      if (!method.client_streaming) (void)stream->write(wire);
      (void)stream->half_close();
      while (stream->read()) {}
      reason = stream->finish().reason();
    }
    EXPECT_EQ(reason, "RATE_LIMITED") << method.full_name << " over gRPC";
    if (method.client_streaming && method.server_streaming) continue;
    HttpsClient client(doors.rest_port);
    const std::string type = method.client_streaming ? "application/x-ndjson" : "application/json";
    const HttpReply reply = client.ask("POST", method.grpc_path, "{}", "Content-Type: " + type + "\r\n", token);
    EXPECT_EQ(reply.status, 429) << method.full_name << " over REST";
    EXPECT_NE(reply.headers.count("retry-after"), 0u) << method.full_name;
  }
}

}  // namespace
}  // namespace uccp::doors::testing
