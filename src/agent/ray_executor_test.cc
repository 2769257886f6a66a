// Calls on Ray, with a driver that is pretended: the test says what one would, over the real socket.
#include "agent/ray_executor.h"

#include <gtest/gtest.h>
#include <signal.h>
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

constexpr size_t kAhead = 2;

// What a driver got: kinds and fields, in order.
using Messages = std::vector<std::pair<char, std::string>>;

class RayExecutorTest : public ::testing::Test, protected OnLoop {
 protected:
  RayExecutorTest() {
    directory_ = (std::filesystem::temp_directory_path() / ("uccp-ray-" + std::to_string(getpid()))).string();
    std::filesystem::create_directories(directory_);
    v1::Function bundle;
    bundle.set_name("f");
    bundle.set_entry_point("m:f");
    bundle.set_source("code");
    std::ofstream(directory_ + "/bundle", std::ios::binary) << bundle.SerializeAsString();
    executor_ = std::make_unique<RayExecutor>(reactor_, clock_,
                                              RayExecutorOptions{.data_directory = directory_,
                                                                 .sidecar = {.command = {"/bin/sleep", "600"},
                                                                             .address = "auto",
                                                                             .log_path = directory_ + "/log",
                                                                             .restart_ms_min = 1,
                                                                             .packets_ahead = kAhead}},
                                              recorder_);
    reactor_.start();
    on_loop([&] {
      EXPECT_TRUE(executor_->attach(processes_).is_ok());
      executor_->reconcile();
    });
  }
  ~RayExecutorTest() override {
    on_loop([&] { executor_.reset(); });
    reactor_.stop();
    std::filesystem::remove_all(directory_);
  }

  void launch(const std::string& key, bool actor = false) {
    AttemptSpec spec{.key = key, .task_id = key, .tenant = "t", .namespace_name = "n"};
    spec.function = FunctionCallSpec{.name = "f", .actor = actor};
    spec.inputs = {{.path = std::string(functions::kBundleInput), .source_path = directory_ + "/bundle"}};
    on_loop([&] { executor_->launch({spec}); });
  }
  // What the environment of the present driver says.
  std::map<std::string, std::string> environment() {
    pid_t pid = 0;
    EXPECT_TRUE(run_until([&] {
      pid = executor_->sidecar().pid();
      return pid > 0;
    }));
    std::ifstream file("/proc/" + std::to_string(pid) + "/environ", std::ios::binary);
    std::map<std::string, std::string> found;
    for (std::string entry; std::getline(file, entry, '\0');) {
      const size_t equals = entry.find('=');
      found[entry.substr(0, equals)] = entry.substr(equals + 1);
    }
    return found;
  }
  OwnedFd connect_with(const std::map<std::string, std::string>& environment, char kind = 'H') {
    OwnedFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    const std::string& name = environment.at("UCCP_RAY_SOCKET");
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data(), name.size());
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address),
                      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())),
              0);
    const std::string hello = field('w', environment.at("UCCP_RAY_EPOCH")) +
                              field('x', environment.at("UCCP_RAY_SECRET")) + field('m', "there is no Ray");
    EXPECT_TRUE(send_packet(fd.get(), kind, hello, {}).is_ok());
    return fd;
  }
  OwnedFd connect_now() {
    OwnedFd driver = connect_with(environment());
    EXPECT_TRUE(run_until([&] { return executor_->sidecar().up(); }));
    return driver;
  }
  // The messages of the next packet.
  Messages packet_of(const OwnedFd& driver) {
    std::string body;
    EXPECT_TRUE(run_until([&] {
      auto packet = receive_packet(driver.get());
      if (packet && packet->has_value()) body = *body_of(std::move(**packet), 1u << 30);
      return !body.empty();
    }));
    Messages messages;
    ByteReader in(body);
    while (in.ok() && in.remaining() > 0) {
      const char kind = static_cast<char>(in.u8());
      messages.emplace_back(kind, in.raw(in.u32()));
    }
    return messages;
  }
  bool has_packet(const OwnedFd& driver) {
    const auto packet = receive_packet(driver.get());
    return packet && packet->has_value();
  }
  static std::string number_in(const Messages& messages, size_t index) {
    return std::string(find_field(messages.at(index).second, 'i'));
  }
  void say(const OwnedFd& driver, char kind, const std::string& fields) {
    EXPECT_TRUE(send_packet(driver.get(), 'B', field(kind, fields), {}).is_ok());
  }
  void answer(const OwnedFd& driver, const std::string& number, const std::string& value) {
    say(driver, 'P',
        field('i', number) + field('k', "R") +
            field('b', field('q', std::string(1, '\0')) + field('c', "x/y") + field('d', value)));
  }

  std::string directory_;
  std::unique_ptr<RayExecutor> executor_;
};

TEST_F(RayExecutorTest, CallsThatWaitGoTogetherAndTheCodeGoesOnce) {
  launch("one");
  launch("two");
  EXPECT_TRUE(on_loop([&] { return recorder_.begun.empty(); }));
  const OwnedFd driver = connect_now();
  const Messages got = packet_of(driver);
  ASSERT_EQ(got.size(), 3u);
  EXPECT_EQ(got[0].first, 'F');
  EXPECT_EQ(find_field(got[0].second, 's'), "code");
  EXPECT_EQ(got[1].first, 'C');
  EXPECT_EQ(find_field(got[1].second, 't'), "t");
  EXPECT_EQ(find_field(find_field(got[1].second, 'b'), 'e'), "m:f");
  say(driver, 'P', field('i', number_in(got, 1)) + field('k', "O") + field('b', "\1printed"));
  answer(driver, number_in(got, 1), "1");
  answer(driver, number_in(got, 2), std::string(functions::kInlineValueBytes + 1, 'v'));
  ASSERT_TRUE(run_until_ended("one"));
  EXPECT_EQ(end_of("one").value->data, "1");
  EXPECT_EQ(on_loop([&] { return recorder_.text["one"]; }), "printed");
  ASSERT_TRUE(run_until_ended("two"));
  EXPECT_TRUE(end_of("two").value->is_artifact);
}

TEST_F(RayExecutorTest, ADriverThatDiesLosesWhatItHadAndNothingThatItTold) {
  const OwnedFd driver = connect_now();
  launch("told");
  const Messages got = packet_of(driver);
  launch("under way");
  packet_of(driver);
  const auto before = environment();
  on_loop([&] {
    answer(driver, number_in(got, 1), "1");
    kill(executor_->sidecar().pid(), SIGKILL);
  });
  ASSERT_TRUE(run_until([&] { return recorder_.ended.size() == 2; }));
  EXPECT_EQ(end_of("told").kind, EndKind::kExited);
  EXPECT_EQ(end_of("under way").kind, EndKind::kLost);
  EXPECT_TRUE(end_of("under way").worker_fault);
  launch("next");
  const auto after = environment();
  EXPECT_NE(before.at("UCCP_RAY_EPOCH"), after.at("UCCP_RAY_EPOCH"));
  // The old one is nobody any more, whatever it says and however it comes.
  const OwnedFd late = connect_with(before);
  ASSERT_TRUE(run_until([&] {
    const auto packet = receive_packet(late.get());
    return !packet && packet.error().reason() == "WORKER_GONE";
  }));
  EXPECT_FALSE(on_loop([&] { return executor_->sidecar().up(); }));
  const OwnedFd present = connect_with(after);
  const Messages again = packet_of(present);
  ASSERT_EQ(again.size(), 2u) << "another driver has none of the code";
  answer(present, number_in(again, 1), "2");
  EXPECT_TRUE(run_until_ended("next"));
}

TEST_F(RayExecutorTest, NoMorePacketsGoThanAreTaken) {
  const OwnedFd driver = connect_now();
  for (size_t i = 0; i < kAhead + 2; ++i) {
    launch("call " + std::to_string(i));
    on_loop([] {}, kTurnMs);  // a turn of its own, so a packet of its own
  }
  for (size_t i = 0; i < kAhead; ++i) packet_of(driver);
  on_loop([] {}, kTurnMs);
  EXPECT_FALSE(has_packet(driver));
  say(driver, 'T', field('w', "2"));
  const Messages rest = packet_of(driver);
  EXPECT_EQ(rest.size(), 2u) << "what waited goes together";
}

TEST_F(RayExecutorTest, WhyThereIsNoRayIsTheReasonOfTheCalls) {
  launch("one");
  const OwnedFd refused = connect_with(environment(), 'N');
  ASSERT_TRUE(run_until_ended("one"));
  EXPECT_EQ(end_of("one").kind, EndKind::kLaunchFailed);
  EXPECT_EQ(end_of("one").message, "there is no connection to Ray at auto: there is no Ray");
}

TEST_F(RayExecutorTest, StoppedCallsEndAsTheyWereToldWhateverRaySays) {
  const OwnedFd driver = connect_now();
  launch("one");
  launch("two");
  Messages got = packet_of(driver);
  for (Messages more; got.size() < 3; got.insert(got.end(), more.begin(), more.end())) more = packet_of(driver);
  say(driver, 'T', field('w', "2"));
  on_loop([&] {
    executor_->cancel("one", {.grace_ms = 50, .reason = "enough"});
    executor_->cancel("two", {.reason = "too much"});
  });
  const Messages stops = packet_of(driver);
  ASSERT_EQ(stops.size(), 2u);
  EXPECT_EQ(stops[0].first, 'X');
  EXPECT_EQ(find_field(stops[0].second, 'g'), "50");
  say(driver, 'E', field('i', number_in(got, 1)) + field('q', "crashed") + field('m', "gone"));
  answer(driver, number_in(got, 2), "late");
  ASSERT_TRUE(run_until([&] { return recorder_.ended.size() == 2; }));
  EXPECT_EQ(end_of("one").kind, EndKind::kCancelled);
  EXPECT_EQ(end_of("one").message, "enough");
  EXPECT_FALSE(end_of("two").value.has_value());
}

TEST_F(RayExecutorTest, HowRayEndsACallDecidesWhetherItCosts) {
  const OwnedFd driver = connect_now();
  const std::pair<const char*, EndKind> ends[] = {
      {"crashed", EndKind::kSignalled}, {"lost", EndKind::kLost}, {"refused", EndKind::kLaunchFailed}};
  for (const auto& [how, kind] : ends) {
    launch(how);
    const Messages got = packet_of(driver);
    say(driver, 'E', field('i', number_in(got, got.size() - 1)) + field('q', how) + field('m', "why"));
    ASSERT_TRUE(run_until_ended(how));
    EXPECT_EQ(end_of(how).kind, kind) << how;
    EXPECT_EQ(end_of(how).worker_fault, kind == EndKind::kLost) << how;
    EXPECT_EQ(end_of(how).message, "why");
    say(driver, 'T', field('w', "1"));
  }
}

TEST_F(RayExecutorTest, CommandsPassThroughAndDrainingWaitsForCalls) {
  const OwnedFd driver = connect_now();
  on_loop([&] { executor_->launch({AttemptSpec{.key = "command", .command = {"true"}}}); });
  EXPECT_EQ(on_loop([&] { return processes_.launched.size(); }), 1u);
  launch("one");
  const Messages got = packet_of(driver);
  bool drained = false;
  on_loop([&] { executor_->drain({.reason = "the agent ends"}, [&] { drained = true; }); });
  on_loop([&] { processes_.drained(); });
  EXPECT_FALSE(on_loop([&] { return drained; }));
  say(driver, 'E', field('i', number_in(got, 1)) + field('q', "crashed") + field('m', ""));
  EXPECT_TRUE(run_until([&] { return drained; }));
}

}  // namespace
}  // namespace uccp::agent
