// What a node makes of callers when it, or the node that they reached, may not know the newest about them.
#include "call/error_json.h"
#include "doors/test_support.h"
#include "uccp/v1/admin.pb.h"
#include "uccp/v1/tasks.pb.h"

namespace uccp::doors {
namespace {

using namespace testing;
using call::CallPtr;
using call::Principal;

constexpr char kVersion[] = "uccp.v1.Administration/GetVersion";
constexpr char kHealth[] = "uccp.v1.Administration/GetHealth";
constexpr char kGetTask[] = "uccp.v1.TaskScheduling/GetTaskStatus";
constexpr char kSchedule[] = "uccp.v1.TaskScheduling/ScheduleTask";

class CutOffTest : public ::testing::Test {
 protected:
  CutOffTest() {
    doors.limits.current = [this] {
      return fresh.load() ? Status::ok() : Status(Code::kUnavailable, "STATE_STALE", "nobody is heard");
    };
    for (const char* method : {kVersion, kHealth, kGetTask}) {
      doors.handlers.add(method, [](const CallPtr& call, std::string) { call->reply({}); });
    }
    doors.open();
  }
  std::string outcome(const char* method, const std::string& token = "admin:root") {
    v1::GetTaskStatusRequest request;
    request.set_id("task_1");
    const std::string bytes = method == kGetTask ? request.SerializeAsString() : std::string();
    const auto answer = doors.channel(token)->unary(method, bytes);
    return answer ? "ok" : std::string(answer.error().reason());
  }
  std::atomic<bool> fresh{true};
  Doors doors;
};

TEST_F(CutOffTest, HealthAndStateOfTheClusterAreAllThatItTells) {
  EXPECT_EQ(outcome(kGetTask), "ok");
  fresh = false;
  EXPECT_EQ(outcome(kGetTask), "STATE_STALE");
  EXPECT_EQ(outcome(kHealth, ""), "ok");
  EXPECT_EQ(outcome(kVersion), "ok");
  HttpsClient client(doors.rest_port);
  const HttpReply reply = client.ask("GET", "/api/v1/tasks/task_1");
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(call::from_problem_json(reply.body, 503).reason(), "STATE_STALE");
  fresh = true;
  EXPECT_EQ(outcome(kGetTask), "ok");
}

TEST_F(CutOffTest, StrangersLearnNothingOfIt) {
  fresh = false;
  EXPECT_EQ(outcome(kGetTask, "nonsense"), "TOKEN_INVALID");
}

// A leader that hears of a call which another node allowed.
class VouchedForTest : public ::testing::Test {
 protected:
  VouchedForTest() {
    call.method = call::Contract::get().find(kSchedule);
    call.policy_revision = 7;
    call.name_space = "default";
    call.principal.kind = Principal::Kind::kUser;
    call.principal.tenant = "default";
    call.principal.name = "ann";
    call.principal.roles = {"developer"};
    call.principal.groups = {"left"};
    doors.limits.policies = [this] { return set; };
    doors.open();
  }
  void policies(uint64_t revision, const std::string& text) {
    call::PolicyInput in;
    in.revision = revision;
    in.tenants = {{.name = "default"}};
    in.policies = {{"default", "p", text}};
    set = call::PolicySet::compile(in);
  }
  std::string outcome() {
    const Status status = doors.pipeline->authorize_again(call, {});
    return status.is_ok() ? "ok" : std::string(status.reason());
  }
  std::shared_ptr<const call::PolicySet> set;
  call::Call call;
  Doors doors;
};

constexpr char kForbidBob[] = "forbid (principal == \"bob\", action == \"ScheduleTask\", resource);";
constexpr char kForbidAnn[] = "forbid (principal == \"ann\", action == \"ScheduleTask\", resource);";

TEST_F(VouchedForTest, NewerPoliciesDecideAgain) {
  policies(8, kForbidAnn);
  EXPECT_EQ(outcome(), "POLICY_FORBIDS");
  policies(8, kForbidBob);
  EXPECT_EQ(outcome(), "ok");
}

TEST_F(VouchedForTest, ThoseOfTheEntryNodeAndOlderOnesDoNot) {
  for (const uint64_t revision : {6, 7}) {
    policies(revision, kForbidAnn);
    EXPECT_EQ(outcome(), "ok") << "the entry node knew more than this";
  }
}

TEST_F(VouchedForTest, ACredentialThatEndedIsRefused) {
  doors.authenticator.still_good = Status(Code::kUnauthenticated, "TOKEN_REVOKED", "");
  policies(8, kForbidBob);
  EXPECT_EQ(outcome(), "TOKEN_REVOKED");
  policies(7, kForbidBob);
  EXPECT_EQ(outcome(), "ok");
}

TEST_F(VouchedForTest, GroupsAreThoseOfNow) {
  policies(8, "forbid (principal in group \"left\", action == \"ScheduleTask\", resource);");
  EXPECT_EQ(outcome(), "ok") << "it is in the stored group no more";
  call.principal.groups = {"left"};
  call.principal.credential_groups = 1;
  EXPECT_EQ(outcome(), "POLICY_FORBIDS") << "the credential still says so";
}

TEST_F(VouchedForTest, NodesNeedNoPolicy) {
  policies(8, kForbidBob);
  call.principal.kind = Principal::Kind::kNode;
  call.principal.roles.clear();
  EXPECT_EQ(outcome(), "ok");
}

}  // namespace
}  // namespace uccp::doors
