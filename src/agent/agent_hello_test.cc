// What the agent says of itself: the number of its session, its devices, and to whom they are handed out.
#include "agent/agent_test_support.h"

namespace uccp::agent {
namespace {

TEST_F(AgentTest, SessionsGrowOverConnectionsAndRestarts) {
  uint64_t last = 0;
  for (int start = 0; start < 3; ++start) {
    for (int connection = 0; connection < 3; ++connection) {
      const uint64_t session = connect().session();
      EXPECT_GT(session, last);
      last = session;
      link_->down();
    }
    boot_agent();
  }
  // The file of an agent that did not count its starts.
  agent_.reset();
  std::ofstream(options_.data_directory + "/worker") << "worker_1\ncluster\n5\n";
  boot_agent();
  EXPECT_GT(connect().session(), 0u);
}

TEST_F(AgentTest, DevicesAreHandedOutNamedAndGivenBack) {
  api::WorkerGpu& gpus = options_.devices.gpus.emplace_back();
  gpus.set_type("nvidia-a100");
  gpus.set_count(2);
  ASSERT_TRUE(number_devices(options_.devices).is_ok());
  options_.devices.extended["licence/x"] = 3;
  options_.devices.network_bps = 1000;
  boot_agent();
  const wire::Hello hello = connect();
  EXPECT_EQ(hello.capacity().gpu().count(), 2);
  EXPECT_EQ(hello.capacity().extended().at("licence/x"), 3);
  EXPECT_EQ(hello.capacity().network_bps(), 1000u);
  EXPECT_EQ(hello.type(), api::WORKER_TYPE_ACCELERATOR);
  const auto ask = [&](const std::string& task, double count) {
    wire::ServerMessage message = launch_message(id(task));
    message.mutable_launch()->mutable_task()->mutable_resources()->mutable_gpu()->set_count(count);
    (*message.mutable_launch()->mutable_task()->mutable_env())["CUDA_VISIBLE_DEVICES"] = "0,1,2,3";
    link_->deliver(message);
  };
  ask("both", 2);
  ASSERT_EQ(executor_->launched.size(), 1u);
  EXPECT_EQ(executor_->launched[0].env.at("CUDA_VISIBLE_DEVICES"), "0,1");
  ask("none", 0);
  EXPECT_EQ(executor_->launched.at(1).env.at("CUDA_VISIBLE_DEVICES"), "");
  ask("more", 1);
  const auto denials = link_->take(Body::kDenied);
  ASSERT_EQ(denials.size(), 1u);
  EXPECT_EQ(denials[0].denied().reason(), wire::DENY_REASON_NO_CAPACITY);
  finish(key_of(id("both")));
  loop_.advance(1000);
  ask("again", 1);
  EXPECT_EQ(executor_->launched.at(2).env.at("CUDA_VISIBLE_DEVICES"), "0");
  // What is handed out goes with the next heartbeat.
  (void)link_->take(Body::kHeartbeat);
  loop_.advance(1000);
  const auto beats = link_->take(Body::kHeartbeat);
  ASSERT_FALSE(beats.empty());
  EXPECT_EQ(beats[0].heartbeat().gpus(0).devices(0).allocated(), 1);
  EXPECT_EQ(beats[0].heartbeat().gpus(0).devices(1).allocated(), 0);
}

}  // namespace
}  // namespace uccp::agent
