// Two nodes in one process: calls of the one are served by the other.
#include "call/forward.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include <deque>
#include <map>

#include "uccp/internal/v1/node.pb.h"
#include "uccp/v1/discovery.pb.h"
#include "uccp/v1/tasks.pb.h"

namespace uccp::call {
namespace {

constexpr std::string_view kRegister = "uccp.v1.ServiceDiscovery/Register";    // a change with a request id
constexpr std::string_view kDiscover = "uccp.v1.ServiceDiscovery/Discover";    // served anywhere
constexpr std::string_view kGetTask = "uccp.v1.TaskScheduling/GetTaskStatus";  // a read of the leader's memory
constexpr std::string_view kLogs = "uccp.v1.TaskScheduling/GetTaskLogs";       // a server stream
constexpr std::string_view kConnect = "uccp.internal.v1.AgentLink/Connect";    // both ways

class TestClock final : public Clock {
 public:
  BootTime boot() const override { return now; }
  WallTime wall() const override { return {now.us}; }
  BootTime now{1'000'000};
};

// Runs what is due when told to.
class TestExecutor final : public Executor {
 public:
  explicit TestExecutor(TestClock& clock) : clock_(clock) {}
  void post(Task task) override { post_after(0, std::move(task)); }
  TimerId post_after(int64_t delay_ms, Task task) override {
    tasks_.emplace(clock_.now.plus_ms(delay_ms).us, std::move(task));
    return 1;
  }
  void cancel(TimerId) override {}
  bool is_current() const override { return true; }
  // Passes time until nothing is left or `ms` are over.
  void run(int64_t ms) {
    const int64_t end = clock_.now.plus_ms(ms).us;
    while (!tasks_.empty() && tasks_.begin()->first <= end) {
      auto first = tasks_.extract(tasks_.begin());
      clock_.now.us = std::max(clock_.now.us, first.key());
      first.mapped()();
    }
    clock_.now.us = std::max(clock_.now.us, end);
  }

 private:
  TestClock& clock_;
  std::multimap<int64_t, Task> tasks_;
};

struct Answers final : Sink {
  void send(std::string message) override {
    queued += message.size();
    messages.push_back(std::move(message));
  }
  void finish(Status status) override { outcome = std::move(status); }
  size_t queued_bytes() const override { return queued; }
  std::vector<std::string> messages;
  std::optional<Status> outcome;
  size_t queued = 0;
};

struct NodeState;

// The way to the other node: a stream is a call of NodeLink/Forward there.
class TestPort final : public ForwardPort {
 public:
  bool leads(GroupId) const override { return leading; }
  NodeId leader(GroupId) const override { return known_leader; }
  std::shared_ptr<ForwardStream> open(NodeId, ForwardEvents events) override;

  bool leading = false;
  NodeId known_leader;
  NodeState* other = nullptr;
  Principal::Kind shown_as = Principal::Kind::kNode;
  bool breaks = false;  // after the request arrived
  int opened = 0;
};

struct NodeState {
  explicit NodeState(TestClock& test_clock)
      : clock(test_clock),
        executor(test_clock),
        service(local, port, test_clock,
                [this](Call& call, const std::string& request) { return decide(call, request); }) {}
  void complete() {
    service.add_handlers(local);
    forwarder = std::make_unique<Forwarder>(local, port, executor, clock, metrics);
    forwarder->add_handlers(doors);
  }
  TestClock& clock;
  TestExecutor executor;
  MetricsRegistry metrics;
  HandlerTable local, doors;
  TestPort port;
  std::function<Status(Call&, const std::string&)> decide = [](Call&, const std::string&) { return Status::ok(); };
  ForwardService service;
  std::unique_ptr<Forwarder> forwarder;
};

class TestStream final : public ForwardStream {
 public:
  TestStream(CallPtr call, std::shared_ptr<ForwardEvents> events)
      : call_(std::move(call)), events_(std::move(events)) {}
  void send(std::string message) override { call_->deliver_message(std::move(message)); }
  size_t queued_bytes() const override { return 0; }
  void half_close() override { call_->deliver_half_close(); }
  void cancel() override {
    call_->deliver_cancel();
    call_->finish(Status(Code::kCancelled, "CANCELLED", ""));
  }

 private:
  CallPtr call_;
  std::shared_ptr<ForwardEvents> events_;
};

struct StreamSink final : Sink {
  void send(std::string message) override {
    if (!*broken) events->on_message(std::move(message));
  }
  void finish(Status status) override {
    auto done = std::exchange(events->on_done, {});
    if (!done) return;
    done(*broken ? Status(Code::kOutcomeUnknown, "REPLY_LOST", "") : std::move(status));
  }
  size_t queued_bytes() const override { return 0; }
  std::shared_ptr<ForwardEvents> events;
  const bool* broken = nullptr;
};

// Calls that a test leaves open hold themselves through their callbacks: they are ended with it.
std::vector<CallPtr> g_open_calls;

std::shared_ptr<ForwardStream> TestPort::open(NodeId, ForwardEvents events) {
  ++opened;
  auto shared = std::make_shared<ForwardEvents>(std::move(events));
  auto sink = std::make_shared<StreamSink>();
  sink->events = shared;
  sink->broken = &breaks;
  auto call = std::make_shared<Call>();
  call->method = Contract::get().find("uccp.internal.v1.NodeLink/Forward");
  call->principal.kind = shown_as;
  call->principal.name = "n1";
  call->sink = sink;
  g_open_calls.push_back(call);
  (*other->local.find(call->method))(call, {});
  return std::make_shared<TestStream>(call, shared);
}

class ForwardTest : public ::testing::Test {
 protected:
  ForwardTest() : entry(clock), leader(clock) {
    entry.port.other = &leader;
    entry.port.known_leader = NodeId(2);
    leader.port.leading = true;
    leader.port.known_leader = NodeId(2);
  }
  ~ForwardTest() override {
    for (const CallPtr& call : std::exchange(g_open_calls, {})) {
      call->deliver_cancel();
      call->finish(Status(Code::kCancelled, "CANCELLED", "the test is over"));
    }
  }
  void serve(std::string_view method, const Handler& handler) {
    leader.local.add(method, handler);
    entry.local.add(method, [](const CallPtr& call, std::string) { call->reply("served by the entry node"); });
  }
  CallPtr start(std::string_view method, std::string request, const std::string& request_id = {}) {
    auto call = std::make_shared<Call>();
    g_open_calls.push_back(call);
    answers = std::make_shared<Answers>();
    call->method = Contract::get().find(method);
    call->sink = answers;
    call->request_id = request_id;
    call->call_id = "call-1";
    call->name_space = "blue";
    call->resource = "res";
    call->principal = {.kind = Principal::Kind::kUser,
                       .tenant = "acme",
                       .name = "ann",
                       .roles = {"developer"},
                       .groups = {"of the credential", "stored"},
                       .credential_groups = 1,
                       .namespaces = {"blue"},
                       .issued_us = 77};
    call->policy_revision = 5;
    call->deadline = clock.now.plus_ms(30'000);
    call->started = clock.now;
    (*entry.doors.find(call->method))(call, std::move(request));
    return call;
  }
  void complete() {
    entry.complete();
    leader.complete();
  }

  TestClock clock;
  NodeState entry, leader;
  std::shared_ptr<Answers> answers;
};

TEST_F(ForwardTest, EveryMethodHasAPlace) {
  int to_leader = 0;
  for (const Method& method : Contract::get().methods()) {
    const Placement placement = placement_of(method);
    if (method.service == "uccp.internal.v1.NodeLink") {
      EXPECT_FALSE(placement.leader_only) << method.full_name;
    }
    // Publishing goes to the leaders of the groups that it finds.
    const bool finds_groups = method.full_name == "uccp.v1.EventBus/Publish";
    if (method.mutating && method.service.starts_with("uccp.v1.") && !finds_groups) {
      EXPECT_TRUE(placement.leader_only) << method.full_name;
    }
    to_leader += placement.leader_only ? 1 : 0;
  }
  EXPECT_GT(to_leader, 20);
  // Who leads bus-0 coordinates transactions over topics.
  EXPECT_EQ(placement_of(*Contract::get().find("uccp.v1.EventBus/BeginTransaction")).group, GroupId(16));
  EXPECT_EQ(placement_of(*Contract::get().find(kGetTask)).group, kWorkGroup);
  EXPECT_TRUE(placement_of(*Contract::get().find(kGetTask)).leader_only);
  // Quotas are rows beside the tasks that they limit, and what is used of them its leader knows.
  for (const char* name : {"SetQuota", "DeleteQuota", "GetQuota", "ExplainQuota", "GetClusterResources"}) {
    const Placement placement = placement_of(*Contract::get().find("uccp.v1.ResourceManagement/" + std::string(name)));
    EXPECT_EQ(placement.group, kWorkGroup) << name;
    EXPECT_TRUE(placement.leader_only) << name;
  }
  EXPECT_EQ(placement_of(*Contract::get().find(kRegister)).group, kCoreGroup);
  EXPECT_FALSE(placement_of(*Contract::get().find(kDiscover)).leader_only);
}

TEST_F(ForwardTest, ARequestMaySayWhereItIsServed) {
  const Method& propose = *Contract::get().find("uccp.internal.v1.NodeLink/Propose");
  std::string request;
  put_uint(request, 1, 17);
  EXPECT_EQ(placement_of(propose, request).group, GroupId(17));
  EXPECT_TRUE(placement_of(propose, request).leader_only);
  const Method& subscribe = *Contract::get().find("uccp.v1.EventBus/Subscribe");
  request.clear();
  put_bytes(request, 1, "orders");
  EXPECT_FALSE(placement_of(subscribe, request).leader_only);
  put_bytes(request, 3, "billing");
  EXPECT_TRUE(placement_of(subscribe, request).leader_only);
}

TEST_F(ForwardTest, AChangeIsServedByTheLeaderWithThePrincipalOfTheCaller) {
  CallPtr seen;
  serve(kRegister, [&](const CallPtr& call, std::string request) {
    seen = call;
    call->set_header("Uccp-Session", "1=7");
    call->reply("answer to " + request);
  });
  complete();
  const CallPtr call = start(kRegister, "request", "id-1");
  ASSERT_TRUE(answers->outcome);
  EXPECT_TRUE(answers->outcome->is_ok()) << answers->outcome->to_string();
  EXPECT_EQ(answers->messages, std::vector<std::string>{"answer to request"});
  EXPECT_EQ(call->headers().at(0).second, "1=7");
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->principal.tenant, "acme");
  EXPECT_EQ(seen->principal.name, "ann");
  EXPECT_EQ(seen->principal.roles, std::vector<std::string>{"developer"});
  EXPECT_EQ(seen->principal.namespaces, std::vector<std::string>{"blue"});
  EXPECT_EQ(seen->request_id, "id-1");
  EXPECT_EQ(seen->name_space, "blue");
  EXPECT_EQ(seen->call_id, "call-1");
  ASSERT_TRUE(seen->deadline);
  EXPECT_EQ(seen->deadline->ms_since(clock.now), 30'000);
}

TEST_F(ForwardTest, TheTimeThatIsLeftIsWhatTheLeaderGets) {
  CallPtr seen;
  serve(kRegister, [&](const CallPtr& call, std::string) {
    seen = call;
    call->reply("done");
  });
  complete();
  entry.port.known_leader = NodeId();
  (void)start(kRegister, "request", "id-1");
  entry.executor.run(2'000);
  EXPECT_FALSE(seen);
  entry.port.known_leader = NodeId(2);
  entry.executor.run(1'000);
  ASSERT_TRUE(seen);
  EXPECT_LE(seen->deadline->ms_since(seen->started), 28'000);
  EXPECT_GE(seen->deadline->ms_since(seen->started), 27'000);
}

TEST_F(ForwardTest, TheLeaderDecidesAgainAboutWhatTheEntryNodeAllowed) {
  bool served = false;
  serve(kRegister, [&](const CallPtr& call, std::string) {
    served = true;
    call->reply("done");
  });
  complete();
  leader.decide = [](Call& call, const std::string& request) {
    EXPECT_EQ(call.policy_revision, 5u);
    EXPECT_EQ(call.principal.name, "ann");
    EXPECT_EQ(call.principal.groups.size(), 2u);
    EXPECT_EQ(call.principal.credential_groups, 1u);
    EXPECT_EQ(call.principal.issued_us, 77);
    EXPECT_EQ(call.resource, "res");
    EXPECT_EQ(request, "request");
    return Status(Code::kPermission, "ACCESS_DENIED", "ann may not any more");
  };
  (void)start(kRegister, "request", "id-1");
  ASSERT_TRUE(answers->outcome);
  EXPECT_EQ(answers->outcome->reason(), "ACCESS_DENIED") << "and it is not sent again";
  EXPECT_EQ(entry.port.opened, 1);
  EXPECT_FALSE(served);
}

TEST_F(ForwardTest, WhatNeedsNoLeaderAndWhatThisNodeLeadsIsServedHere) {
  const Handler never = [](const CallPtr& call, std::string) { call->reply("served by the leader"); };
  serve(kDiscover, never);
  serve(kRegister, never);
  complete();
  start(kDiscover, "");
  EXPECT_EQ(answers->messages, std::vector<std::string>{"served by the entry node"});
  entry.port.leading = true;
  start(kRegister, "");
  EXPECT_EQ(answers->messages, std::vector<std::string>{"served by the entry node"});
  EXPECT_EQ(entry.port.opened, 0);
}

TEST_F(ForwardTest, AnErrorKeepsCodeReasonMessageAndDetails) {
  serve(kRegister, [](const CallPtr& call, std::string) {
    call->finish(Status(Code::kConflict, "ETAG_MISMATCH", "read it again").with_resource("service", "svc_1"));
  });
  complete();
  start(kRegister, "");
  ASSERT_TRUE(answers->outcome);
  EXPECT_EQ(answers->outcome->to_string(), "conflict ETAG_MISMATCH: read it again");
  EXPECT_EQ(answers->outcome->detail().resource_name, "svc_1");
}

TEST_F(ForwardTest, ACallWaitsForALeaderAndIsServedOnce) {
  int served = 0;
  serve(kRegister, [&](const CallPtr& call, std::string) {
    ++served;
    call->reply("done");
  });
  complete();
  entry.port.known_leader = NodeId();
  start(kRegister, "");
  entry.executor.run(1000);
  EXPECT_FALSE(answers->outcome);
  leader.port.leading = false;  // a leader is named that does not lead yet
  entry.port.known_leader = NodeId(2);
  entry.executor.run(1000);
  EXPECT_FALSE(answers->outcome);
  leader.port.leading = true;
  entry.executor.run(1000);
  ASSERT_TRUE(answers->outcome);
  EXPECT_TRUE(answers->outcome->is_ok());
  EXPECT_EQ(served, 1);
}

TEST_F(ForwardTest, WithoutALeaderTheAnswerIsUnavailable) {
  serve(kRegister, [](const CallPtr& call, std::string) { call->reply(""); });
  complete();
  entry.port.known_leader = NodeId();
  start(kRegister, "");
  entry.executor.run(20'000);
  ASSERT_TRUE(answers->outcome);
  EXPECT_EQ(answers->outcome->code(), Code::kUnavailable);
  EXPECT_EQ(answers->outcome->reason(), "NO_LEADER");
  EXPECT_GT(answers->outcome->detail().retry_after_ms, 0u);
}

TEST_F(ForwardTest, AChangeWhoseAnswerIsLostIsRepeatedOnlyWithARequestId) {
  int served = 0;
  serve(kRegister, [&](const CallPtr& call, std::string) {
    ++served;
    call->reply("done");
  });
  complete();
  entry.port.breaks = true;
  start(kRegister, "");
  ASSERT_TRUE(answers->outcome);
  EXPECT_EQ(answers->outcome->code(), Code::kOutcomeUnknown);
  EXPECT_EQ(served, 1);

  start(kRegister, "", "id-2");
  EXPECT_FALSE(answers->outcome);
  entry.port.breaks = false;
  entry.executor.run(1000);
  ASSERT_TRUE(answers->outcome);
  EXPECT_TRUE(answers->outcome->is_ok());
  EXPECT_EQ(served, 3);
}

TEST_F(ForwardTest, AnUnknownOutcomeIsNotAnsweredAsIfNothingHadBeenDone) {
  serve(kRegister, [](const CallPtr& call, std::string) { call->reply("done"); });
  complete();
  entry.port.breaks = true;
  start(kRegister, "", "id-3");
  entry.port.known_leader = NodeId();
  entry.executor.run(20'000);
  ASSERT_TRUE(answers->outcome);
  EXPECT_EQ(answers->outcome->code(), Code::kOutcomeUnknown);
}

TEST_F(ForwardTest, OnlyNodesForward) {
  serve(kRegister, [](const CallPtr& call, std::string) { call->reply("done"); });
  complete();
  entry.port.shown_as = Principal::Kind::kUser;
  start(kRegister, "");
  ASSERT_TRUE(answers->outcome);
  EXPECT_EQ(answers->outcome->reason(), "NODES_ONLY");
}

TEST_F(ForwardTest, AStreamIsSentNoFasterThanTheClientTakesIt) {
  CallPtr serving;
  int drained = 0;
  serve(kLogs, [&](const CallPtr& call, std::string) {
    serving = call;
    call->on_drain([&] { ++drained; });
    for (int i = 0; i < 4; ++i) call->send(std::string(100'000, 'x'));
  });
  complete();
  const CallPtr call = start(kLogs, "");
  ASSERT_EQ(answers->messages.size(), 4u);
  EXPECT_EQ(serving->sink->queued_bytes(), 400'000u);
  answers->queued = 0;  // the client has read everything
  call->deliver_drain();
  EXPECT_EQ(serving->sink->queued_bytes(), 0u);
  EXPECT_GT(drained, 0);
  serving->finish(Status::ok());
  ASSERT_TRUE(answers->outcome);
  EXPECT_TRUE(answers->outcome->is_ok());
}

TEST_F(ForwardTest, MessagesTravelBothWaysAndACancellationReachesTheLeader) {
  std::vector<std::string> received;
  bool cancelled = false, closed = false;
  serve(kConnect, [&](const CallPtr& call, std::string) {
    call->on_message([&, raw = call.get()](std::string message) {
      received.push_back(message);
      raw->send("re: " + message);
    });
    call->on_half_close([&] { closed = true; });
    call->on_cancel([&] { cancelled = true; });
  });
  complete();
  const CallPtr call = start(kConnect, "");
  call->deliver_message("one");
  call->deliver_message("two");
  EXPECT_EQ(received, (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(answers->messages, (std::vector<std::string>{"re: one", "re: two"}));
  call->deliver_half_close();
  EXPECT_TRUE(closed);
  call->deliver_cancel();
  EXPECT_TRUE(cancelled);
  ASSERT_TRUE(answers->outcome);
  EXPECT_EQ(answers->outcome->code(), Code::kCancelled);
}

TEST_F(ForwardTest, AStreamThatHasAnsweredIsNotBegunAgain) {
  int served = 0;
  serve(kLogs, [&](const CallPtr& call, std::string) {
    ++served;
    call->send("a line");
    call->finish(Status(Code::kUnavailable, "SHUTTING_DOWN", ""));
  });
  complete();
  start(kLogs, "");
  entry.executor.run(5000);
  ASSERT_TRUE(answers->outcome);
  EXPECT_EQ(answers->outcome->code(), Code::kUnavailable);
  EXPECT_EQ(served, 1);
}

}  // namespace
}  // namespace uccp::call
