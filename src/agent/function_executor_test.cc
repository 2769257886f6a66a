// Calls and their places, with processes that are pretended: the test says what a worker would, over the real socket.
#include "agent/function_executor.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "agent/function_test_support.h"
#include "services/function_names.h"
#include "uccp/v1/compute.pb.h"

namespace uccp::agent {
namespace {

class FunctionExecutorTest : public ::testing::Test, protected OnLoop {
 protected:
  FunctionExecutorTest() {
    directory_ = (std::filesystem::temp_directory_path() / ("uccp-functions-" + std::to_string(getpid()))).string();
    std::filesystem::create_directories(directory_);
    v1::Function bundle;
    bundle.set_name("f");
    bundle.set_entry_point("m:f");
    bundle.set_source("code");
    std::ofstream(directory_ + "/bundle", std::ios::binary) << bundle.SerializeAsString();
    executor_ = std::make_unique<FunctionExecutor>(
        reactor_, clock_, FunctionExecutorOptions{.data_directory = directory_, .python = "python", .workers_max = 2},
        recorder_);
    processes_.sink = executor_.get();
    EXPECT_TRUE(executor_->attach(processes_).is_ok());
    executor_->reconcile();
    reactor_.start();
  }
  ~FunctionExecutorTest() override {
    on_loop([&] { executor_.reset(); });
    reactor_.stop();
    std::filesystem::remove_all(directory_);
  }

  std::vector<AttemptSpec> launched() {
    return on_loop([&] { return processes_.launched; });
  }
  void launch(const std::string& key, uint64_t memory_bytes = 64u << 20, int64_t timeout_ms = 0) {
    AttemptSpec spec{.key = key,
                     .task_id = key,
                     .tenant = "t",
                     .namespace_name = "n",
                     .function = FunctionCallSpec{.name = "f"},
                     .timeout_ms = timeout_ms};
    spec.inputs = {{.path = std::string(functions::kBundleInput), .source_path = directory_ + "/bundle"}};
    spec.limits.memory_bytes = memory_bytes;
    on_loop([&] { executor_->launch({spec}); });
  }
  // Connects as the worker that was launched as number `index`, with its secret or another one.
  OwnedFd connect_as(size_t index, const std::string& secret = "") {
    const AttemptSpec spec = launched().at(index);
    OwnedFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    const std::string& name = spec.env.at("UCCP_FUNCTION_SOCKET");
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data(), name.size());
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address),
                      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())),
              0);
    EXPECT_TRUE(
        send_packet(fd.get(), 'H',
                    field('w', spec.key) + field('x', secret.empty() ? spec.env.at("UCCP_FUNCTION_SECRET") : secret),
                    {})
            .is_ok());
    return fd;
  }
  // The call that a worker got.
  std::string call_of(const OwnedFd& worker) {
    std::string body;
    EXPECT_TRUE(run_until([&] {
      auto packet = receive_packet(worker.get());
      if (packet && packet->has_value()) body = (*packet)->body;
      return !body.empty();
    }));
    return body;
  }
  void answer(const OwnedFd& worker, const std::string& content) {
    EXPECT_TRUE(
        send_packet(worker.get(), 'R', field('q', std::string(1, '\0')) + field('c', "x/y") + field('d', content), {})
            .is_ok());
  }

  std::string directory_;
  std::unique_ptr<FunctionExecutor> executor_;
};

TEST_F(FunctionExecutorTest, AWorkerServesOneCallAfterTheOtherAndGetsTheCodeOnce) {
  launch("one");
  ASSERT_EQ(launched().size(), 1u);
  const OwnedFd worker = connect_as(0);
  EXPECT_EQ(find_field(call_of(worker), 's'), "code");
  answer(worker, "1");
  ASSERT_TRUE(run_until_ended("one"));
  EXPECT_EQ(end_of("one").value->data, "1");
  EXPECT_EQ(end_of("one").exit_code, 0);
  launch("two");
  EXPECT_EQ(find_field(call_of(worker), 's'), "");
  answer(worker, std::string(functions::kInlineValueBytes + 1, 'v'));
  ASSERT_TRUE(run_until_ended("two"));
  EXPECT_TRUE(end_of("two").value->is_artifact);
  ASSERT_EQ(end_of("two").artifacts.size(), 1u);
  EXPECT_EQ(std::filesystem::file_size(end_of("two").artifacts[0].file), functions::kInlineValueBytes + 1);
  EXPECT_EQ(launched().size(), 1u);
}

TEST_F(FunctionExecutorTest, WhoDoesNotKnowTheSecretIsNoWorker) {
  launch("one");
  const OwnedFd stranger = connect_as(0, "guessed");
  ASSERT_TRUE(run_until([&] {
    auto packet = receive_packet(stranger.get());
    return !packet && packet.error().reason() == "WORKER_GONE";
  }));
  EXPECT_TRUE(on_loop([&] { return recorder_.begun.empty(); }));
  const OwnedFd worker = connect_as(0);
  EXPECT_FALSE(call_of(worker).empty());
}

TEST_F(FunctionExecutorTest, OtherLimitsHaveOtherWorkersAndTakeThePlaceOfIdleOnes) {
  launch("small", 1);
  launch("medium", 2);
  launch("large", 3);
  ASSERT_EQ(launched().size(), 2u) << "two places";
  const OwnedFd small = connect_as(0), medium = connect_as(1);
  EXPECT_FALSE(call_of(small).empty());
  EXPECT_FALSE(call_of(medium).empty());
  EXPECT_TRUE(on_loop([&] { return processes_.cancelled.empty(); }));
  answer(medium, "");
  ASSERT_TRUE(run_until([&] { return processes_.launched.size() == 3; }));
  EXPECT_EQ(on_loop([&] { return processes_.cancelled; }), std::vector{launched()[1].key});
  EXPECT_EQ(launched()[2].limits.memory_bytes, 3u);
}

TEST_F(FunctionExecutorTest, AWorkerThatDiesTakesItsCallAlongAndTheNextGetsAnother) {
  launch("one");
  const OwnedFd worker = connect_as(0);
  EXPECT_FALSE(call_of(worker).empty());
  launch("two");
  const AttemptKey dead = launched()[0].key;
  on_loop([&] { executor_->finished(dead, {.kind = EndKind::kExited, .exit_code = 0, .message = "exit code 0"}); });
  ASSERT_TRUE(run_until_ended("one"));
  EXPECT_EQ(end_of("one").kind, EndKind::kExited);
  EXPECT_NE(end_of("one").exit_code, 0) << "a process that ends has returned nothing";
  EXPECT_EQ(on_loop([&] { return processes_.released; }), std::vector{launched()[0].key});
  const OwnedFd next = connect_as(launched().size() - 1);
  EXPECT_FALSE(call_of(next).empty());
}

TEST_F(FunctionExecutorTest, CancelledCallsEndWithTheirReasonWhetherTheyRunOrWait) {
  launch("runs", 1);
  const OwnedFd worker = connect_as(0);
  EXPECT_FALSE(call_of(worker).empty());
  launch("waits", 1);
  on_loop([&] {
    executor_->cancel("waits", {.reason = "not needed"});
    executor_->cancel("runs", {.reason = "enough"});
  });
  answer(worker, "late");  // it crosses the stop
  ASSERT_TRUE(run_until([&] { return recorder_.ended.size() == 2; }));
  for (const char* key : {"runs", "waits"}) EXPECT_EQ(end_of(key).kind, EndKind::kCancelled) << key;
  EXPECT_EQ(end_of("runs").message, "enough");
  EXPECT_FALSE(end_of("runs").value.has_value());
}

TEST_F(FunctionExecutorTest, ACallThatTakesTooLongTimesOut) {
  launch("slow", 1, 30);
  const OwnedFd worker = connect_as(0);
  EXPECT_FALSE(call_of(worker).empty());
  ASSERT_TRUE(run_until_ended("slow"));
  EXPECT_EQ(end_of("slow").kind, EndKind::kTimedOut);
}

TEST_F(FunctionExecutorTest, AWorkerThatDoesNotStartFailsTheCallsWithWhatItWrote) {
  launch("one");
  const AttemptKey key = launched()[0].key;
  on_loop([&] {
    executor_->output(key, tasks::LogStreamKind::kStderr, {}, "No module named uccp_worker\n");
    executor_->finished(key, {.kind = EndKind::kExited, .exit_code = 1, .message = "exit code 1"});
  });
  ASSERT_TRUE(run_until_ended("one"));
  EXPECT_EQ(end_of("one").kind, EndKind::kLaunchFailed);
  EXPECT_NE(end_of("one").message.find("No module named uccp_worker"), std::string::npos);
}

TEST_F(FunctionExecutorTest, CommandsPassThrough) {
  on_loop([&] {
    executor_->launch({AttemptSpec{.key = "command", .command = {"true"}}});
    executor_->started("command", {});
    executor_->output("command", tasks::LogStreamKind::kStdout, {}, "text");
    executor_->finished("command", {.kind = EndKind::kExited, .exit_code = 0});
    EXPECT_EQ(processes_.launched.size(), 1u);
    EXPECT_EQ(recorder_.begun, std::vector<AttemptKey>{"command"});
    EXPECT_EQ(recorder_.text["command"], "text");
    EXPECT_TRUE(recorder_.ended.contains("command"));
  });
}

}  // namespace
}  // namespace uccp::agent
