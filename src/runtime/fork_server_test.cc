#include "runtime/fork_server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "runtime/subprocess.h"
#include "runtime/test_support.h"

namespace uccp::runtime {
namespace {

using testing::TemporaryDirectory;

std::string contents(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

class ForkServerTest : public ::testing::Test {
 protected:
  ForkServerTest() {
    // A copy of this program: where the small one is, the tests of the agent see to.
    auto started = ForkServer::start("");
    EXPECT_TRUE(started) << started.error().to_string();
    server_ = std::move(*started);
  }
  SpawnOptions shell(const std::string& script) {
    return {.argv = {"/bin/sh", "-c", script}, .fork_server = server_.get()};
  }
  // Runs to the end; what it wrote.
  Result<std::string> output(SpawnOptions options) {
    const std::string path = directory_.at("out");
    const int fd = ::open(path.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    options.stdout_fd = options.stderr_fd = fd;
    auto child = Subprocess::spawn(options);
    ::close(fd);
    if (!child) return fail(child.error());
    UCCP_TRY(const ExitStatus exit, child->wait());
    EXPECT_TRUE(exit.succeeded()) << exit.to_string();
    return contents(path);
  }

  TemporaryDirectory directory_;
  std::unique_ptr<ForkServer> server_;
};

TEST_F(ForkServerTest, ChildrenBelongToTheProgramAndNotToTheServer) {
  EXPECT_EQ(*output(shell("echo $PPID")), std::to_string(::getpid()) + "\n");
  auto child = Subprocess::spawn(shell("exit 7"));
  ASSERT_TRUE(child);
  EXPECT_EQ(child->wait()->exit_code, 7);
  EXPECT_EQ(::waitpid(child->pid(), nullptr, WNOHANG), -1);  // it was reaped here
}

TEST_F(ForkServerTest, TheWholePlanArrives) {
  SpawnOptions options = shell("echo $A-$B; pwd; ulimit -n; umask; cat; cat <&3; nice; cat /proc/self/oom_score_adj");
  options.clear_environment = true;
  options.environment = {{"A", "one two"}, {"B", std::string(100'000, 'b')}, {"PATH", "/bin:/usr/bin"}};
  options.working_directory = directory_.path();
  options.limits = {{RLIMIT_NOFILE, 50, 60}};
  options.umask = 027;
  options.nice = 3;
  options.oom_score_adjust = 700;
  options.stdin_bytes = "input\n";
  std::ofstream(directory_.at("extra")) << "extra\n";
  const int extra = ::open(directory_.at("extra").c_str(), O_RDONLY | O_CLOEXEC);
  options.extra_fds = {extra};
  const auto text = output(options);
  ::close(extra);
  ASSERT_TRUE(text) << text.error().to_string();
  EXPECT_EQ(*text, "one two-" + std::string(100'000, 'b') + "\n" +
                       std::filesystem::canonical(directory_.path()).string() + "\n50\n0027\ninput\nextra\n3\n700\n");
}

TEST_F(ForkServerTest, NoDescriptorButThoseAskedForReachesTheProgram) {
  const int open_here = ::open("/dev/null", O_RDONLY);  // without O_CLOEXEC
  const auto text = output(shell("ls /proc/self/fd | wc -l"));
  ::close(open_here);
  EXPECT_EQ(std::atoi(text->c_str()), 4);  // three, and that of ls
}

TEST_F(ForkServerTest, AFailedStartNamesItsStepAsWithoutAServer) {
  SpawnOptions missing = shell("");
  missing.argv = {"/no/such/program"};
  EXPECT_EQ(Subprocess::spawn(missing).error().reason(), "PROGRAM_NOT_FOUND");
  SpawnOptions nowhere = shell("true");
  nowhere.working_directory = "/no/such/folder";
  const Status status = Subprocess::spawn(nowhere).error();
  EXPECT_EQ(status.reason(), "SPAWN_FAILED");
  EXPECT_NE(status.message().find("/no/such/folder"), std::string::npos) << status.message();
  SpawnOptions mounts = shell("true");
  mounts.unshare_mount = true;
  EXPECT_EQ(Subprocess::spawn(mounts).error().reason(), "SPAWN_OPTIONS_INVALID");
  EXPECT_TRUE(server_->alive());
}

TEST_F(ForkServerTest, ManyThreadsMayAskAtOnce) {
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i) {
        auto child = Subprocess::spawn(shell("exit " + std::to_string(t * 25 + i)));
        if (child && child->wait()->exit_code == t * 25 + i) ++right;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 100);
}

TEST_F(ForkServerTest, WhenItIsKilledRequestsFailAndChildrenLiveOn) {
  int input[2];
  ASSERT_EQ(::pipe2(input, O_CLOEXEC), 0);
  SpawnOptions waiting = shell("read line; exit $line");
  waiting.stdin_fd = input[0];
  auto child = Subprocess::spawn(waiting);
  ::close(input[0]);
  ASSERT_TRUE(child);
  ::kill(server_->pid(), SIGKILL);
  ::waitpid(server_->pid(), nullptr, 0);
  EXPECT_EQ(Subprocess::spawn(shell("true")).error().reason(), "FORK_SERVER_GONE");
  EXPECT_FALSE(server_->alive());
  (void)!::write(input[1], "4\n", 2);
  ::close(input[1]);
  EXPECT_EQ(child->wait()->exit_code, 4);
}

// True once the process is gone or a zombie.
bool ends(pid_t pid) {
  for (int i = 0; i < 3000; ++i) {
    const std::string stat = contents("/proc/" + std::to_string(pid) + "/stat");
    if (stat.empty() || stat.find(") Z ") != std::string::npos) return true;
    ::poll(nullptr, 0, 10);
  }
  return false;
}

TEST(ForkServerDeath, ServerAndChildrenDieWithTheProgram) {
  int told[2];
  ASSERT_EQ(::pipe(told), 0);
  const pid_t program = ::fork();
  if (program == 0) {
    auto server = ForkServer::start("");
    SpawnOptions options{.argv = {"/bin/sleep", "600"}, .fork_server = server->get()};
    options.new_session = true;
    options.parent_death_signal = SIGKILL;
    auto child = Subprocess::spawn(options);
    const pid_t pids[2] = {(*server)->pid(), child ? child->pid() : 0};
    (void)!::write(told[1], pids, sizeof pids);
    ::pause();
    ::_exit(0);
  }
  pid_t pids[2] = {};
  ASSERT_EQ(::read(told[0], pids, sizeof pids), static_cast<ssize_t>(sizeof pids));
  ASSERT_GT(pids[1], 0);
  EXPECT_EQ(::kill(pids[1], 0), 0);
  ::kill(program, SIGKILL);
  ::waitpid(program, nullptr, 0);
  EXPECT_TRUE(ends(pids[0]));
  EXPECT_TRUE(ends(pids[1]));
  ::close(told[0]);
  ::close(told[1]);
}

TEST_F(ForkServerTest, MountsAreSeenByItsChildrenAlone) {
  if (::geteuid() != 0) GTEST_SKIP() << "mounts need root";
  std::filesystem::create_directory(directory_.at("from"));
  std::filesystem::create_directory(directory_.at("to"));
  std::ofstream(directory_.at("from") + "/file") << "seen\n";
  const Status bound = server_->bind(directory_.at("from"), directory_.at("to"));
  if (bound.message().find("unshare") != std::string::npos) GTEST_SKIP() << bound.message();
  ASSERT_TRUE(bound.is_ok()) << bound.message();
  EXPECT_EQ(*output(shell("cat " + directory_.at("to") + "/file")), "seen\n");
  EXPECT_FALSE(std::filesystem::exists(directory_.at("to") + "/file"));
  const Status missing = server_->bind("/no/such/folder", directory_.at("to"));
  EXPECT_EQ(missing.reason(), "MOUNT_NAMESPACE_FAILED");
  EXPECT_NE(missing.message().find("cannot bind /no/such/folder"), std::string::npos) << missing.message();
}

}  // namespace
}  // namespace uccp::runtime
