#include "call/error_json.h"

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>
#include <gtest/gtest.h>

namespace uccp::call {
namespace {

Status rich() {
  return Status(Code::kFailedPrecondition, "TASK_ENDED", "task_1 has \"ended\"")
      .with_field("task.resources.cpu", "must be from 0 to 1048576, not -1", "1.5")
      .with_field("name", "is required")
      .with_retry_after_ms(1500)
      .with_resource("task", "task_1")
      .with_help("tasks.md#quota")
      .with_leader_hint("node-2");
}

void expect_same(const Status& a, const Status& b) {
  EXPECT_EQ(a.code(), b.code());
  EXPECT_EQ(a.reason(), b.reason());
  EXPECT_EQ(a.message(), b.message());
  EXPECT_EQ(a.detail().retry_after_ms, b.detail().retry_after_ms);
  EXPECT_EQ(a.detail().resource_type, b.detail().resource_type);
  EXPECT_EQ(a.detail().resource_name, b.detail().resource_name);
  EXPECT_EQ(a.detail().help, b.detail().help);
  EXPECT_EQ(a.detail().leader_hint, b.detail().leader_hint);
  ASSERT_EQ(a.detail().fields.size(), b.detail().fields.size());
  for (size_t i = 0; i < a.detail().fields.size(); ++i) {
    EXPECT_EQ(a.detail().fields[i].field, b.detail().fields[i].field);
    EXPECT_EQ(a.detail().fields[i].description, b.detail().fields[i].description);
    EXPECT_EQ(a.detail().fields[i].example, b.detail().fields[i].example);
  }
}

TEST(ProblemJson, HasTheWholeContent) {
  EXPECT_EQ(
      to_problem_json(rich(), "call-1"),
      R"({"type":"urn:uccp:error:TASK_ENDED","title":"Failed precondition","status":412,"detail":"task_1 has \"ended\"",)"
      R"("code":"failed_precondition","reason":"TASK_ENDED","fields":[{"field":"task.resources.cpu","description":)"
      R"("must be from 0 to 1048576, not -1","example":"1.5"},{"field":"name","description":"is required"}],)"
      R"("retryAfterMs":1500,"resource":{"type":"task","name":"task_1"},"help":"tasks.md#quota","leaderHint":"node-2","callId":"call-1"})");
  EXPECT_EQ(
      to_problem_json(Status(Code::kNotFound, "X", "m")),
      R"({"type":"urn:uccp:error:X","title":"Not found","status":404,"detail":"m","code":"not_found","reason":"X"})");
}

TEST(ErrorForms, EveryCodeComesBackThroughBoth) {
  for (int i = 1; i < kCodeCount; ++i) {
    const CodeInfo& info = code_info(static_cast<Code>(i));
    const Status status(info.code, "SOME_REASON", "what happened");
    expect_same(status, from_problem_json(to_problem_json(status), info.http));
    expect_same(status, from_rpc_status(to_rpc_status(status), info.grpc, status.message()));
  }
  expect_same(rich(), from_problem_json(to_problem_json(rich()), 412));
  expect_same(rich(), from_rpc_status(to_rpc_status(rich()), 9, rich().message()));
}

TEST(RpcStatus, IsWhatGoogleDefines) {
  google::rpc::Status status;
  ASSERT_TRUE(status.ParseFromString(to_rpc_status(rich())));
  EXPECT_EQ(status.code(), 9);
  EXPECT_EQ(status.message(), rich().message());
  ASSERT_EQ(status.details_size(), 6);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(status.details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), "TASK_ENDED");
  EXPECT_EQ(info.domain(), "uccp");
  EXPECT_EQ(info.metadata().at("code"), "failed_precondition");
  google::rpc::BadRequest bad;
  ASSERT_TRUE(status.details(1).UnpackTo(&bad));
  EXPECT_EQ(bad.field_violations(0).field(), "task.resources.cpu");
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(status.details(2).UnpackTo(&retry));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 500'000'000);
  google::rpc::PreconditionFailure failure;
  ASSERT_TRUE(status.details(3).UnpackTo(&failure));
  EXPECT_EQ(failure.violations(0).type(), "TASK_ENDED");
  google::rpc::ResourceInfo resource;
  ASSERT_TRUE(status.details(4).UnpackTo(&resource));
  EXPECT_EQ(resource.resource_name(), "task_1");
  google::rpc::Help help;
  ASSERT_TRUE(status.details(5).UnpackTo(&help));
  EXPECT_EQ(help.links(0).url(), "docs/tasks.md#quota");
}

TEST(ErrorForms, ForeignAndDamagedInputBecomesAStatus) {
  EXPECT_EQ(from_problem_json("<html>", 502).code(), Code::kUnavailable);
  EXPECT_EQ(from_problem_json("{}", 404).code(), Code::kNotFound);
  EXPECT_EQ(from_problem_json("[1]", 418).code(), Code::kInvalid);
  EXPECT_EQ(from_problem_json(R"({"code":"ok"})", 500).code(), Code::kInternal);
  EXPECT_EQ(
      from_problem_json(R"({"code":"not_found","fields":[1,{"field":2}],"resource":3,"retryAfterMs":-1})", 404).code(),
      Code::kNotFound);
  EXPECT_EQ(from_rpc_status("\x1a\xff", 14, "down").code(), Code::kUnavailable);
  EXPECT_EQ(from_rpc_status("", 5, "no").message(), "no");
  EXPECT_TRUE(from_rpc_status("", 0, "").is_ok());
  // A name that contradicts the code of gRPC does not count.
  const Status lie(Code::kNotFound, "X", "m");
  EXPECT_EQ(from_rpc_status(to_rpc_status(lie), 7, "m").code(), Code::kPermission);
}

TEST(ErrorText, SaysWhatToDo) {
  const std::string text = to_text(rich());
  for (const char* part :
       {"TASK_ENDED", "task.resources.cpu", "for example 1.5", "1500 ms", "node-2", "docs/tasks.md#quota"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part;
  }
}

}  // namespace
}  // namespace uccp::call
