#include "runtime/subprocess.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <future>
#include <sstream>
#include <thread>

#include "runtime/real_clock.h"
#include "runtime/test_support.h"

namespace uccp::runtime {
namespace {

using testing::TemporaryDirectory;

struct Finished {
  ExitStatus exit;
  std::string out;
};

std::string contents(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

class SubprocessTest : public ::testing::Test {
 protected:
  // Runs to the end with stdout and stderr in one file.
  Result<Finished> run(SpawnOptions options) {
    const std::string path = directory.at("out" + std::to_string(++runs));
    const int fd = ::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    options.stdout_fd = fd;
    options.stderr_fd = fd;
    Result<Subprocess> child = Subprocess::spawn(options);
    ::close(fd);
    if (!child) return fail(child.error());
    UCCP_TRY(const ExitStatus exit, child->wait());
    return Finished{exit, contents(path)};
  }
  std::string output(SpawnOptions options) {
    const auto finished = run(std::move(options));
    if (!finished) return finished.error().to_string();
    EXPECT_TRUE(finished->exit.succeeded()) << finished->exit.to_string() << ": " << finished->out;
    return finished->out;
  }
  static SpawnOptions shell(const std::string& script) { return {.argv = {"/bin/sh", "-c", script}}; }

  TemporaryDirectory directory;
  int runs = 0;
};

// True once the process is gone or a zombie.
bool ends(pid_t pid) {
  for (int i = 0; i < 3000; ++i) {
    const std::string stat = contents("/proc/" + std::to_string(pid) + "/stat");
    if (stat.empty() || stat.find(") Z ") != std::string::npos) return true;
    ::poll(nullptr, 0, 10);
  }
  return false;
}

TEST_F(SubprocessTest, ReportsExitCodesAndSignals) {
  EXPECT_EQ(run(shell("exit 3"))->exit.exit_code, 3);
  EXPECT_EQ(run(shell("kill -TERM $$"))->exit.signal, SIGTERM);
  EXPECT_EQ(run(shell("exit 3"))->exit.to_string(), "exit code 3");
  EXPECT_TRUE(run(shell("true"))->exit.succeeded());
}

TEST_F(SubprocessTest, AChildThatIsDetachedGoesOn) {
  SpawnOptions options;
  options.argv = {"/bin/sleep", "600"};
  pid_t pid = 0;
  {
    auto child = Subprocess::spawn(options);
    ASSERT_TRUE(child) << child.error().to_string();
    pid = child->pid();
    child->detach();
  }
  EXPECT_EQ(::waitpid(pid, nullptr, WNOHANG), 0) << "it runs";
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFSIGNALED(status));
}

TEST_F(SubprocessTest, ReportsWhatTheChildUsed) {
  const auto finished = run(shell("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"));
  ASSERT_TRUE(finished);
  EXPECT_GT(finished->exit.usage.user_cpu_us, 0);
  EXPECT_GT(finished->exit.usage.memory_bytes_max, 100'000);
}

TEST_F(SubprocessTest, AProgramThatCannotStartIsAnErrorOfSpawn) {
  EXPECT_EQ(run({.argv = {"/no/such/program"}}).error().reason(), "PROGRAM_NOT_FOUND");
  EXPECT_EQ(run({.argv = {"no-such-program-anywhere"}}).error().reason(), "PROGRAM_NOT_FOUND");
  EXPECT_EQ(run({.argv = {"/etc/passwd"}}).error().reason(), "PROGRAM_PERMISSION");
  EXPECT_EQ(run({.argv = {}}).error().reason(), "SPAWN_OPTIONS_INVALID");
  EXPECT_EQ(run({.argv = {std::string("a\0b", 3)}}).error().reason(), "SPAWN_OPTIONS_INVALID");
  SpawnOptions nowhere = shell("true");
  nowhere.working_directory = "/no/such/directory";
  const Status status = run(nowhere).error();
  EXPECT_EQ(status.reason(), "SPAWN_FAILED");
  EXPECT_NE(status.message().find("/no/such/directory"), std::string::npos) << status.message();
  SpawnOptions no_group = shell("true");
  no_group.cgroup_procs = {"/no/such/cgroup.procs"};
  EXPECT_NE(run(no_group).error().message().find("/no/such/cgroup.procs"), std::string::npos);
}

TEST_F(SubprocessTest, TheEnvironmentIsWhatWasAskedFor) {
  ::setenv("UCCP_TEST_INHERITED", "yes", 1);
  SpawnOptions options = shell("echo $UCCP_TEST_INHERITED-$UCCP_TEST_SET");
  options.environment = {{"UCCP_TEST_SET", "a b"}};
  EXPECT_EQ(output(options), "yes-a b\n");
  options.clear_environment = true;
  EXPECT_EQ(output(options), "-a b\n");
  EXPECT_EQ(output({.argv = {"env"}, .environment = {{"PATH", "/usr/bin:/bin"}}, .clear_environment = true}),
            "PATH=/usr/bin:/bin\n");
}

TEST_F(SubprocessTest, InputComesFromBytesOrIsEmpty) {
  SpawnOptions options{.argv = {"cat"}};
  EXPECT_EQ(output(options), "");
  options.stdin_bytes = std::string(1 << 20, 'x');
  EXPECT_EQ(output(options).size(), 1u << 20);
}

TEST_F(SubprocessTest, OnlyTheDescriptorsAskedForReachTheProgram) {
  const int leaked = ::open("/dev/null", O_RDONLY);  // without O_CLOEXEC, as a careless library does it
  ASSERT_GE(leaked, 0);
  EXPECT_EQ(output(shell("for f in /proc/$$/fd/*; do echo ${f##*/}; done | sort -n | head -3; test ! -e /proc/$$/fd/" +
                         std::to_string(leaked) + " || echo leaked")),
            "0\n1\n2\n");
  const int given = ::open(directory.at("given").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  SpawnOptions options = shell("echo hello >&4; test -e /proc/self/fd/3 && test ! -e /proc/self/fd/5");
  options.extra_fds = {leaked, given};
  EXPECT_EQ(output(options), "");
  EXPECT_EQ(contents(directory.at("given")), "hello\n");
  ::close(given);
  ::close(leaked);
}

TEST_F(SubprocessTest, DescriptorsMayBeSwapped) {
  // The sources are the targets of each other.
  const int a = ::open(directory.at("a").c_str(), O_CREAT | O_RDWR, 0600);
  const int b = ::open(directory.at("b").c_str(), O_CREAT | O_RDWR, 0600);
  SpawnOptions options = shell("echo three >&3; echo four >&4");
  options.extra_fds = {std::max(a, b), std::min(a, b)};
  EXPECT_EQ(output(options), "");
  EXPECT_EQ(contents(directory.at(a > b ? "a" : "b")), "three\n");
  EXPECT_EQ(contents(directory.at(a > b ? "b" : "a")), "four\n");
  ::close(a);
  ::close(b);
}

TEST_F(SubprocessTest, LimitsDirectoryUmaskAndPriorityApply) {
  SpawnOptions options =
      shell("ulimit -n; pwd; umask; nice; cat /proc/$$/oom_score_adj; grep NoNewPrivs /proc/$$/status");
  options.limits = {{RLIMIT_NOFILE, 17, 17}};
  options.working_directory = "/usr";
  options.umask = 027;
  options.nice = 5;
  options.oom_score_adjust = 500;
  EXPECT_EQ(output(options), "17\n/usr\n0027\n5\n500\nNoNewPrivs:\t1\n");
}

TEST_F(SubprocessTest, SignalsOfTheCallerAreNotInherited) {
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
  EXPECT_EQ(output({.argv = {"grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"}}),
            "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
  pthread_sigmask(SIG_UNBLOCK, &blocked, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
}

TEST_F(SubprocessTest, KillingTheGroupReachesGrandchildren) {
  int ends_of_pipe[2];
  ASSERT_EQ(::pipe2(ends_of_pipe, O_CLOEXEC), 0);
  SpawnOptions options = shell("sleep 1000 & echo $!; wait");
  options.stdout_fd = ends_of_pipe[1];
  auto child = Subprocess::spawn(options);
  ASSERT_TRUE(child) << child.error().to_string();
  char text[32] = {};
  ASSERT_GT(::read(ends_of_pipe[0], text, sizeof text - 1), 0);
  const pid_t grandchild = std::stoi(text);
  EXPECT_FALSE(child->try_wait()->has_value());
  EXPECT_TRUE(child->signal_group(SIGKILL).is_ok());
  EXPECT_EQ(child->wait()->signal, SIGKILL);
  EXPECT_TRUE(ends(grandchild));
  ::close(ends_of_pipe[0]);
  ::close(ends_of_pipe[1]);
}

TEST_F(SubprocessTest, WhatALeaderLeavesBehindIsKilledWhenItIsReaped) {
  const std::string grandchild = output(shell("sleep 1000 >/dev/null 2>&1 & echo $!"));
  EXPECT_TRUE(ends(std::stoi(grandchild)));
}

TEST_F(SubprocessTest, AReapedChildIsNeverSignalled) {
  auto child = Subprocess::spawn(shell("exit 7"));
  ASSERT_TRUE(child);
  EXPECT_EQ(child->wait()->exit_code, 7);
  EXPECT_EQ(child->wait()->exit_code, 7) << "the result is kept";
  EXPECT_EQ(child->signal(SIGTERM).reason(), "PROCESS_GONE");
  EXPECT_EQ(child->signal_group(SIGTERM).reason(), "PROCESS_GONE");
}

TEST_F(SubprocessTest, AForgottenChildIsKilled) {
  pid_t pid = 0;
  {
    auto child = Subprocess::spawn({.argv = {"sleep", "1000"}});
    ASSERT_TRUE(child);
    pid = child->pid();
  }
  EXPECT_NE(::kill(pid, 0), 0);
}

TEST_F(SubprocessTest, TheDeathSignalComesWhenTheSpawningThreadEnds) {
  std::optional<Subprocess> child;
  std::thread([&] {
    auto spawned = Subprocess::spawn({.argv = {"sleep", "1000"}, .parent_death_signal = SIGKILL});
    ASSERT_TRUE(spawned);
    child.emplace(std::move(*spawned));
  }).join();
  EXPECT_EQ(child->wait()->signal, SIGKILL);
}

TEST_F(SubprocessTest, ManyThreadsSpawnAtOnce) {
  std::vector<std::future<int>> results;
  for (int t = 0; t < 4; ++t) {
    results.push_back(std::async(std::launch::async, [] {
      int good = 0;
      for (int i = 0; i < 20; ++i) {
        auto child = Subprocess::spawn({.argv = {"true"}});
        if (child && child->wait()->succeeded()) ++good;
      }
      return good;
    }));
  }
  for (auto& result : results) EXPECT_EQ(result.get(), 20);
}

class RootSubprocessTest : public SubprocessTest {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  }
};

TEST_F(RootSubprocessTest, RunsAsAnotherUserWithoutItsGroupsOrPrivileges) {
  SpawnOptions options = shell("id -u; id -g; id -G; grep CapEff /proc/$$/status");
  options.identity = ProcessIdentity{.uid = 65534, .gid = 65533, .supplementary_groups = {65533, 1234}};
  EXPECT_EQ(output(options), "65534\n65533\n65533 1234\nCapEff:\t0000000000000000\n");
  options = {.argv = {"sleep", "1000"}, .parent_death_signal = SIGKILL};
  options.identity = ProcessIdentity{.uid = 65534, .gid = 65534};
  std::optional<Subprocess> child;
  std::thread([&] { child.emplace(std::move(*Subprocess::spawn(options))); }).join();
  EXPECT_EQ(child->wait()->signal, SIGKILL) << "the death signal outlasts the change of user";
}

TEST_F(RootSubprocessTest, AMountIsSeenByTheChildOnlyAndReachesBelowPrivateParents) {
  std::filesystem::create_directories(directory.at("secret/task"));
  std::filesystem::create_directories(directory.at("mnt"));
  std::ofstream(directory.at("secret/task/data")) << "inside";
  std::ofstream(directory.at("secret/key")) << "key";
  ::chmod(directory.at("secret").c_str(), 0700);
  ::chmod(directory.path().c_str(), 0755);
  ::chmod(directory.at("mnt").c_str(), 0755);

  SpawnOptions options =
      shell("cat data; ls " + directory.at("secret") + " 2>&1 | grep -c denied; touch x 2>/dev/null || echo read-only");
  options.working_directory = directory.at("mnt");
  options.bind_mounts = {{directory.at("secret/task"), directory.at("mnt"), true}};
  options.hidden_directories = {directory.at("secret")};
  options.identity = ProcessIdentity{.uid = 65534, .gid = 65534};
  EXPECT_EQ(output(options), "inside1\nread-only\n");
  EXPECT_TRUE(std::filesystem::is_empty(directory.at("mnt"))) << "the caller's mounts are untouched";
  EXPECT_EQ(contents(directory.at("secret/key")), "key");

  options.bind_mounts[0].to = directory.at("missing");
  const Status status = run(options).error();
  EXPECT_EQ(status.reason(), "SPAWN_FAILED");
  EXPECT_NE(status.message().find(directory.at("missing")), std::string::npos) << status.message();
}

TEST_F(RootSubprocessTest, EntersControlGroupsByTheirFiles) {
  // Any file will do: the child writes "0" to it, which means itself to the kernel.
  std::ofstream(directory.at("cgroup.procs")) << "";
  SpawnOptions options = shell("true");
  options.cgroup_procs = {directory.at("cgroup.procs")};
  EXPECT_EQ(output(options), "");
  EXPECT_EQ(contents(directory.at("cgroup.procs")), "0");
}

}  // namespace
}  // namespace uccp::runtime
