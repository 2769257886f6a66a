#include "services/tasks/agent_connections.h"

#include <gtest/gtest.h>

namespace uccp::tasks {
namespace {

class Session final : public AgentSession {
 public:
  Session(std::string at, bool may) {
    connection = std::move(at);
    may_multiplex = may;
  }
  void send(internal::v1::ServerMessage) override {}
  void close(Status) override { open_ = false; }
  bool open() const override { return open_; }

 private:
  bool open_ = true;
};

std::shared_ptr<Session> stream(const std::string& at, bool may = false) { return std::make_shared<Session>(at, may); }

TEST(AgentConnections, OneIsOfOneWorkerWithoutThePermission) {
  AgentConnections connections;
  const auto first = stream("a"), again = stream("a"), other = stream("a"), elsewhere = stream("b");
  EXPECT_TRUE(connections.admit(first, "w1").is_ok());
  EXPECT_TRUE(connections.admit(again, "w1").is_ok()) << "a newer stream of the same worker takes over";
  EXPECT_TRUE(connections.admit(elsewhere, "w2").is_ok());
  const Status refused = connections.admit(other, "w2");
  EXPECT_EQ(refused.reason(), "AGENT_MULTIPLEX_DENIED");
  EXPECT_EQ(refused.code(), Code::kPermission);
  EXPECT_NE(refused.message().find("the worker w1; "), std::string::npos) << refused.message();
  EXPECT_NE(refused.message().find("agent.multiplex"), std::string::npos);
}

TEST(AgentConnections, WorkersWithoutAnIdAreDifferentOnes) {
  AgentConnections connections;
  const auto first = stream("a"), second = stream("a");
  EXPECT_TRUE(connections.admit(first, "").is_ok());
  EXPECT_EQ(connections.admit(second, "").reason(), "AGENT_MULTIPLEX_DENIED");
  first->worker_id = "made";
  EXPECT_TRUE(connections.admit(second, "made").is_ok()) << "it says by now who it is";
}

TEST(AgentConnections, WithThePermissionThereAreManyOnOne) {
  AgentConnections connections;
  std::vector<std::shared_ptr<Session>> streams;
  for (int i = 0; i < 100; ++i) {
    streams.push_back(stream("a", true));
    EXPECT_TRUE(connections.admit(streams.back(), "w" + std::to_string(i)).is_ok());
  }
  EXPECT_EQ(connections.admit(stream("a"), "w0").reason(), "AGENT_MULTIPLEX_DENIED") << "another caller has it not";
}

TEST(AgentConnections, StreamsThatAreGoneDoNotCount) {
  AgentConnections connections;
  auto first = stream("a"), second = stream("a"), third = stream("a"), fourth = stream("a");
  EXPECT_TRUE(connections.admit(first, "w1").is_ok());
  first->close(Status::ok());
  EXPECT_TRUE(connections.admit(second, "w2").is_ok()) << "the first one was closed";
  connections.remove(*second);
  EXPECT_EQ(connections.size(), 0u);
  EXPECT_TRUE(connections.admit(third, "w3").is_ok());
  third.reset();
  EXPECT_TRUE(connections.admit(fourth, "w4").is_ok());
}

TEST(AgentConnections, InsideAProcessThereAreNone) {
  AgentConnections connections;
  const auto first = stream(""), second = stream("");
  EXPECT_TRUE(connections.admit(first, "w1").is_ok());
  EXPECT_TRUE(connections.admit(second, "w2").is_ok());
  EXPECT_EQ(connections.size(), 0u);
}

}  // namespace
}  // namespace uccp::tasks
