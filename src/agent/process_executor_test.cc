// What every executor has to do, tried on real processes.
#include "agent/process_executor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "agent/cgroup_files.h"
#include "agent/function_wire.h"
#include "runtime/posix_file_system.h"
#include "runtime/real_clock.h"

namespace uccp::agent {
namespace {

using tasks::LogStreamKind;

struct Seen {
  bool started = false;
  std::string out, err;
  size_t output_bytes = 0;
  std::optional<AttemptEnd> end;
};

class RecordingSink final : public ExecutorSink {
 public:
  void started(const AttemptKey& key, WallTime) override {
    change(key, [](Seen& seen) { seen.started = true; });
  }
  void output(const AttemptKey& key, LogStreamKind stream, WallTime, std::string_view bytes) override {
    change(key, [&](Seen& seen) {
      seen.output_bytes += bytes.size();
      std::string& text = stream == LogStreamKind::kStdout ? seen.out : seen.err;
      if (text.size() < (1u << 20)) text.append(bytes);
    });
    if (credit) credit(key, bytes.size());
  }
  void finished(const AttemptKey& key, AttemptEnd end) override {
    change(key, [&](Seen& seen) {
      seen.end = std::move(end);
      ++finished_count_;
    });
  }

  template <typename Predicate>
  testing::AssertionResult wait(const AttemptKey& key, Predicate predicate) {
    std::unique_lock lock(mutex_);
    if (changed_.wait_for(lock, std::chrono::seconds(30), [&] { return predicate(seen_[key]); }))
      return testing::AssertionSuccess();
    return testing::AssertionFailure() << "attempt " << key << ": stdout \"" << seen_[key].out.substr(0, 2000) << "\"";
  }
  void wait_finished(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return finished_count_ >= count; });
  }
  Seen seen(const AttemptKey& key) {
    std::lock_guard lock(mutex_);
    return seen_[key];
  }

  std::function<void(const AttemptKey&, size_t)> credit;

 private:
  template <typename Change>
  void change(const AttemptKey& key, Change apply) {
    std::lock_guard lock(mutex_);
    apply(seen_[key]);
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<AttemptKey, Seen> seen_;
  size_t finished_count_ = 0;
};

class ProcessExecutorTest : public testing::Test {
 protected:
  ProcessExecutorTest() : reactor_(clock_) {
    std::string name = "/tmp/uccp_exec_XXXXXX";
    data_ = mkdtemp(name.data());
    reactor_.start();
    open({});
  }
  ~ProcessExecutorTest() override {
    on_loop([&] { executor_.reset(); });
    reactor_.stop();
    std::filesystem::remove_all(data_);
  }

  void open(ProcessExecutorOptions options) {
    options.data_directory = data_;
    on_loop([&] {
      executor_.reset();
      auto executor = ProcessExecutor::open(reactor_, clock_, files_, std::move(options), sink_);
      ASSERT_TRUE(executor) << executor.error().to_string();
      executor_ = std::move(*executor);
      sink_.credit = [this](const AttemptKey& key, size_t bytes) {
        if (crediting_) executor_->credit(key, bytes);
      };
    });
  }

  template <typename Work>
  void on_loop(Work work) {
    std::mutex mutex;
    std::condition_variable done;
    bool ready = false;
    reactor_.post([&] {
      work();
      std::lock_guard lock(mutex);
      ready = true;
      done.notify_all();
    });
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return ready; });
  }

  static AttemptSpec shell(const std::string& script) { return command({"sh", "-c", script}); }
  static AttemptSpec command(std::vector<std::string> argv) {
    static int number = 0;
    AttemptSpec spec;
    spec.key = "task_" + std::to_string(++number) + ".1.1.1";
    spec.identity = "identity of " + spec.key;
    spec.task_id = "task_" + std::to_string(number);
    spec.tenant = "default";
    spec.namespace_name = "default";
    spec.command = std::move(argv);
    return spec;
  }

  AttemptKey launch(AttemptSpec spec) {
    const AttemptKey key = spec.key;
    std::vector<AttemptSpec> specs;
    specs.push_back(std::move(spec));
    on_loop([&] { executor_->launch(std::move(specs)); });
    return key;
  }
  void cancel(const AttemptKey& key, CancelOptions options) {
    on_loop([&] { executor_->cancel(key, options); });
  }
  Seen finish(const AttemptKey& key) {
    EXPECT_TRUE(sink_.wait(key, [](const Seen& seen) { return seen.end.has_value(); }));
    return sink_.seen(key);
  }
  Seen run(AttemptSpec spec) { return finish(launch(std::move(spec))); }
  testing::AssertionResult wait_output(const AttemptKey& key, const std::string& text) {
    return sink_.wait(key, [&](const Seen& seen) { return seen.out.find(text) != std::string::npos; });
  }
  static bool alive(int pid) {
    const std::string status = read_control("/proc/" + std::to_string(pid) + "/stat");
    const size_t paren = status.rfind(')');
    return paren != std::string::npos && status[paren + 2] != 'Z';
  }

  // Killed processes take a moment to be gone.
  static bool dies(int pid) {
    const OwnedFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    if (!process) return errno == ESRCH;
    pollfd end{.fd = process.get(), .events = POLLIN, .revents = 0};
    return poll(&end, 1, 30'000) == 1;
  }

  runtime::RealClock clock_;
  runtime::PosixFileSystem files_;
  Reactor reactor_;
  std::string data_;
  RecordingSink sink_;
  std::atomic<bool> crediting_{true};
  std::unique_ptr<ProcessExecutor> executor_;
};

TEST_F(ProcessExecutorTest, ExitCodeAndBothOutputsComeBack) {
  const Seen seen = run(shell("echo out; echo err >&2; exit 7"));
  EXPECT_TRUE(seen.started);
  EXPECT_EQ(seen.out, "out\n");
  EXPECT_EQ(seen.err, "err\n");
  EXPECT_EQ(seen.end->kind, EndKind::kExited);
  EXPECT_EQ(seen.end->exit_code, 7);
  EXPECT_GT(seen.end->end.us, seen.end->start.us);
  EXPECT_GT(seen.end->usage.memory_peak_bytes, 0u);
}

TEST_F(ProcessExecutorTest, ASignalIsNamed) {
  const Seen seen = run(shell("kill -USR1 $$"));
  EXPECT_EQ(seen.end->kind, EndKind::kSignalled);
  EXPECT_EQ(seen.end->signal, SIGUSR1);
  EXPECT_FALSE(seen.end->exit_code);
  EXPECT_NE(seen.end->message.find("signal 10"), std::string::npos) << seen.end->message;
}

TEST_F(ProcessExecutorTest, StandardInputIsTheBytesGivenAndElseEmpty) {
  AttemptSpec spec = command({"cat"});
  spec.stdin_bytes = std::string(300'000, 'x') + "end";
  EXPECT_EQ(run(std::move(spec)).out, std::string(300'000, 'x') + "end");
  EXPECT_EQ(run(command({"cat"})).out, "");
}

TEST_F(ProcessExecutorTest, TheEnvironmentIsClearedAndTheTasksOwnIsThere) {
  setenv("UCCP_SECRET_OF_AGENT", "hidden", 1);
  AttemptSpec spec = command({"env"});
  spec.env = {{"MINE", "a b"}};
  spec.attempt_number = 3;
  const Seen seen = run(std::move(spec));
  EXPECT_EQ(seen.out.find("UCCP_SECRET_OF_AGENT"), std::string::npos);
  for (const char* line : {"MINE=a b\n", "UCCP_ATTEMPT=3\n", "UCCP_NAMESPACE=default\n", "UCCP_TASK_ID=task_",
                           "PATH=", "HOME=", "TMPDIR="}) {
    EXPECT_NE(seen.out.find(line), std::string::npos) << line << " in " << seen.out;
  }
}

TEST_F(ProcessExecutorTest, WorkingFolderInputsAndTemporaryFolderAreUsable) {
  AttemptSpec spec = shell(
      "test \"$PWD\" = \"$HOME/deep/er\" && cat ../../in/a.txt && ../../run.sh && touch $TMPDIR/t && echo x > made");
  spec.working_dir = "deep/er";
  std::ofstream(data_ + "/blob") << "from a blob\n";
  spec.inputs = {{.path = "in/a.txt", .source_path = data_ + "/blob"},
                 {.path = "run.sh", .data = "#!/bin/sh\necho script ran\n", .mode = 0755}};
  const Seen seen = run(std::move(spec));
  EXPECT_EQ(seen.out, "from a blob\nscript ran\n") << seen.err;
  EXPECT_EQ(seen.end->exit_code, 0);
}

TEST_F(ProcessExecutorTest, AnInputOutsideTheFolderIsRefused) {
  AttemptSpec spec = command({"true"});
  spec.inputs = {{.path = "../escape", .data = "x"}};
  const Seen seen = run(std::move(spec));
  EXPECT_EQ(seen.end->kind, EndKind::kLaunchFailed);
  EXPECT_NE(seen.end->message.find("leaves the task's folder"), std::string::npos);
  EXPECT_FALSE(seen.end->worker_fault);
}

TEST_F(ProcessExecutorTest, ArtifactsAreCollectedAndEscapesRefused) {
  AttemptSpec spec = shell(
      "mkdir -p out/sub; echo one > out/a.bin; echo two > out/sub/b.bin; echo no > c.txt; chmod 700 out/a.bin;"
      "ln -s /etc/passwd out/evil; ln -s a.bin out/good; mkfifo out/pipe");
  spec.outputs = {"out/**", "/etc/*", "../x"};
  const Seen seen = run(std::move(spec));
  ASSERT_EQ(seen.end->artifacts.size(), 3u) << seen.end->message;
  EXPECT_EQ(seen.end->artifacts[0].path, "out/a.bin");
  EXPECT_EQ(seen.end->artifacts[0].size, 4u);
  EXPECT_EQ(seen.end->artifacts[0].mode, 0700);
  EXPECT_EQ(seen.end->artifacts[0].sha256, "2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806");
  EXPECT_EQ(seen.end->artifacts[1].path, "out/good");
  EXPECT_EQ(seen.end->artifacts[2].path, "out/sub/b.bin");
  for (const char* refused : {"out/evil: ", "/etc/*: ", "../x: ", "out/pipe: "}) {
    EXPECT_NE(seen.end->message.find(refused), std::string::npos) << seen.end->message;
  }
}

TEST_F(ProcessExecutorTest, ATimeoutAsksThenKills) {
  AttemptSpec spec = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done");
  spec.timeout_ms = 300;
  spec.grace_ms = 100;
  const Seen seen = run(std::move(spec));
  EXPECT_EQ(seen.end->kind, EndKind::kTimedOut);
  EXPECT_EQ(seen.end->signal, SIGKILL);
  EXPECT_EQ(seen.end->message,
            "took longer than its timeout of 300 ms; killed because it had not stopped after SIGTERM");
}

TEST_F(ProcessExecutorTest, CancelLeavesTimeToCleanUp) {
  const AttemptKey key = launch(shell("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"));
  ASSERT_TRUE(wait_output(key, "ready"));
  cancel(key, {.grace_ms = 20'000, .reason = "not needed"});
  const Seen seen = finish(key);
  EXPECT_EQ(seen.end->kind, EndKind::kCancelled);
  EXPECT_EQ(seen.end->exit_code, 3);
  EXPECT_EQ(seen.end->message, "not needed");
  EXPECT_NE(seen.out.find("bye"), std::string::npos);
}

TEST_F(ProcessExecutorTest, CancelRightAfterLaunchStillStopsIt) {
  AttemptSpec spec = command({"sleep", "1000"});
  const AttemptKey key = spec.key;
  std::vector<AttemptSpec> specs;
  specs.push_back(std::move(spec));
  on_loop([&] {
    executor_->launch(std::move(specs));
    executor_->cancel(key, {.grace_ms = 0, .kind = EndKind::kPreempted, .reason = "made room"});
  });
  EXPECT_EQ(finish(key).end->kind, EndKind::kPreempted);
}

TEST_F(ProcessExecutorTest, NothingOutlivesAnAttemptNotEvenAnotherSession) {
  const AttemptKey key =
      launch(shell("setsid sh -c 'setsid sleep 1000 & echo \"pid=$!.\"; exec sleep 1000' & "
                   "sleep 0.3; (sleep 1000 &) ; echo ready; wait"));
  ASSERT_TRUE(wait_output(key, "ready"));
  ASSERT_TRUE(wait_output(key, "pid="));
  const std::string out = sink_.seen(key).out;
  const int pid = std::stoi(out.substr(out.find("pid=") + 4));
  ASSERT_TRUE(alive(pid));
  cancel(key, {.grace_ms = 0});
  finish(key);
  EXPECT_FALSE(alive(pid));
}

TEST_F(ProcessExecutorTest, WhatTheCommandLeavesInTheBackgroundDiesWithIt) {
  const Seen seen = run(shell("setsid sleep 1000 & echo $!"));
  EXPECT_EQ(seen.end->exit_code, 0);
  EXPECT_FALSE(alive(std::stoi(seen.out)));
}

TEST_F(ProcessExecutorTest, WithoutControlGroupsEscapedProcessesDieToo) {
  CgroupLayout none;
  none.problems = {"this test"};
  open({.cgroups = none});
  const Seen seen = run(shell("setsid sleep 1000 & echo $!"));
  EXPECT_EQ(seen.end->exit_code, 0);
  EXPECT_TRUE(dies(std::stoi(seen.out)));
  EXPECT_EQ(executor_->limits_note(),
            "no limits by control groups; not enforced: cpu, memory, pids; cannot use this test");
}

TEST_F(ProcessExecutorTest, MemoryOverTheLimitIsNamedInTheReason) {
  if (!executor_->groups().layout().has_memory()) GTEST_SKIP() << executor_->limits_note();
  AttemptSpec spec = command({"python3", "-c", "x = bytearray(200 << 20)"});
  spec.limits.memory_bytes = 32 << 20;
  const Seen seen = run(std::move(spec));
  EXPECT_EQ(seen.end->kind, EndKind::kSignalled);
  EXPECT_EQ(seen.end->signal, SIGKILL);
  EXPECT_EQ(seen.end->message, "out of memory: killed by the kernel at its limit of 32 MiB; ask for more memory");
  // The next one in the same group is not blamed for it.
  AttemptSpec next = command({"true"});
  next.limits.memory_bytes = 32 << 20;
  EXPECT_EQ(run(std::move(next)).end->message, "exit code 0");
}

TEST_F(ProcessExecutorTest, CpuOverTheQuotaIsThrottled) {
  if (!executor_->groups().layout().has_cpu()) GTEST_SKIP() << executor_->limits_note();
  AttemptSpec spec = shell("timeout 1 sh -c 'while :; do :; done'; exit 0");
  spec.limits.cpu_millis = 200;
  const Seen seen = run(std::move(spec));
  EXPECT_LT(seen.end->usage.cpu_seconds, 0.5);
  EXPECT_GT(seen.end->usage.cpu_seconds, 0.05);
}

TEST_F(ProcessExecutorTest, ProcessesOverTheLimitAreRefused) {
  if (!executor_->groups().layout().has_pids()) GTEST_SKIP() << executor_->limits_note();
  AttemptSpec spec = shell("for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; exit 0");
  spec.limits.pids = 4;
  const Seen seen = run(std::move(spec));
  EXPECT_NE(seen.end->exit_code, 0);
  EXPECT_NE(seen.err.find("ork"), std::string::npos) << seen.err;
}

TEST_F(ProcessExecutorTest, AMissingProgramSaysWhatWasLookedForAndWhere) {
  const Seen seen = run(command({"no-such-program-here"}));
  EXPECT_EQ(seen.end->kind, EndKind::kLaunchFailed);
  EXPECT_FALSE(seen.started);
  EXPECT_EQ(seen.end->start.us, 0);
  EXPECT_NE(seen.end->message.find("command not found: \"no-such-program-here\""), std::string::npos)
      << seen.end->message;
  EXPECT_NE(seen.end->message.find("/usr/bin"), std::string::npos);
  EXPECT_FALSE(seen.end->worker_fault);
  EXPECT_EQ(run(command({"./missing"})).end->kind, EndKind::kLaunchFailed);
  EXPECT_EQ(run(command({"/etc/passwd"})).end->kind, EndKind::kLaunchFailed);
}

TEST_F(ProcessExecutorTest, OutputThatIsNoTextIsKeptAsItIs) {
  EXPECT_EQ(run(shell("printf '\\377\\000\\200x'")).out, std::string("\xff\0\x80x", 4));
}

TEST_F(ProcessExecutorTest, WithoutCreditTheTaskWaitsAndMemoryIsBounded) {
  crediting_ = false;
  const AttemptKey key = launch(shell("head -c 10000000 /dev/zero; echo done >&2"));
  ASSERT_TRUE(sink_.wait(key, [](const Seen& seen) { return seen.output_bytes > kOutputWindowBytes; }));
  const size_t stalled = sink_.seen(key).output_bytes;
  EXPECT_LE(stalled, kOutputWindowBytes + (64u << 10));
  crediting_ = true;
  on_loop([&] { executor_->credit(key, stalled); });
  const Seen seen = finish(key);
  EXPECT_EQ(seen.output_bytes, 10'000'005u);
}

TEST_F(ProcessExecutorTest, TasksOfANamespaceRunAsItsUserAndCannotReachTheAgent) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root: " << executor_->isolation_note();
  std::ofstream(data_ + "/secret") << "key";
  chmod((data_ + "/secret").c_str(), 0644);
  AttemptSpec one = shell("id -u; cat " + data_ + "/secret; grep NoNewPrivs /proc/self/status");
  const Seen first = run(std::move(one));
  AttemptSpec two = shell("id -u");
  two.namespace_name = "other";
  const Seen second = run(std::move(two));
  EXPECT_GE(std::stoi(first.out), 200'000) << executor_->isolation_note();
  EXPECT_NE(std::stoi(first.out), std::stoi(second.out));
  EXPECT_NE(first.err.find("Permission denied"), std::string::npos) << first.err;
  EXPECT_NE(first.out.find("NoNewPrivs:\t1"), std::string::npos) << first.out;
  // The number is kept over a restart.
  open({});
  EXPECT_EQ(run(shell("id -u")).out.substr(0, 6), first.out.substr(0, 6));
}

TEST_F(ProcessExecutorTest, RootTasksOnlyByTheFlag) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  open({.allow_root_tasks = true});
  EXPECT_EQ(run(shell("id -u")).out, "0\n");
}

TEST_F(ProcessExecutorTest, ReleaseRemovesTheFolderAndReconcileFindsWhatIsLeft) {
  AttemptSpec spec = command({"true"});
  const std::string folder = data_ + "/tasks/" + spec.key;
  const AttemptKey key = launch(std::move(spec));
  finish(key);
  EXPECT_TRUE(std::filesystem::exists(folder));
  std::vector<std::string> found;
  on_loop([&] { found = executor_->reconcile(); });
  EXPECT_EQ(found, std::vector<std::string>{"identity of " + key});
  EXPECT_FALSE(std::filesystem::exists(folder));
  const AttemptKey second = launch(command({"true"}));
  finish(second);
  on_loop([&] { executor_->release(second); });
  open({});  // joins the disk threads
  EXPECT_TRUE(files_.list(data_ + "/tasks")->empty());
}

TEST_F(ProcessExecutorTest, DrainStopsEverythingThenSaysSo) {
  const AttemptKey key = launch(shell("echo ready; exec sleep 1000"));
  ASSERT_TRUE(wait_output(key, "ready"));
  std::atomic<bool> drained{false};
  on_loop([&] {
    executor_->drain({.grace_ms = 5000, .kind = EndKind::kPreempted, .reason = "shutdown"}, [&] { drained = true; });
  });
  EXPECT_EQ(finish(key).end->kind, EndKind::kPreempted);
  on_loop([] {});
  on_loop([] {});
  EXPECT_TRUE(drained);
}

// A child of this test plays the agent and is killed: its task must die by the kernel's hand.
TEST_F(ProcessExecutorTest, WhenTheAgentDiesItsAttemptsDie) {
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  const pid_t agent = fork();
  if (agent == 0) {
    // Threads of the parent do not exist here: spawn with the part of the executor that matters.
    runtime::SpawnOptions options;
    options.argv = {"sleep", "1000"};
    options.new_session = true;
    options.parent_death_signal = SIGKILL;
    if (geteuid() == 0) options.identity = runtime::ProcessIdentity{.uid = 200'001, .gid = 200'001};
    auto child = runtime::Subprocess::spawn(options);
    const int pid = child ? child->pid() : -1;
    (void)!write(pipe_fds[1], &pid, sizeof pid);
    pause();
  }
  int pid = -1;
  ASSERT_EQ(read(pipe_fds[0], &pid, sizeof pid), static_cast<ssize_t>(sizeof pid));
  ASSERT_GT(pid, 0);
  ASSERT_TRUE(alive(pid));
  kill(agent, SIGKILL);
  waitpid(agent, nullptr, 0);
  EXPECT_TRUE(dies(pid));
  close(pipe_fds[0]);
  close(pipe_fds[1]);
}

TEST_F(ProcessExecutorTest, ManyShortTasks) {
  constexpr size_t kTasks = 3000;
  std::vector<AttemptSpec> specs;
  for (size_t i = 0; i < kTasks; ++i) {
    AttemptSpec spec = command({"true"});
    spec.limits = {.cpu_millis = 1000, .memory_bytes = 256 << 20};
    specs.push_back(std::move(spec));
  }
  const auto begin = std::chrono::steady_clock::now();
  size_t next = 0;
  constexpr size_t kAtOnce = 16;
  for (size_t done = 0; done < kTasks;) {
    std::vector<AttemptSpec> batch;
    while (next < kTasks && next < done + kAtOnce) batch.push_back(std::move(specs[next++]));
    std::vector<AttemptKey> keys;
    for (const auto& spec : batch) keys.push_back(spec.key);
    on_loop([&] { executor_->launch(std::move(batch)); });
    sink_.wait_finished(done = next);
    on_loop([&] {
      for (const auto& key : keys) executor_->release(key);
    });
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("[          ] %zu tasks of /bin/true in %.2f s: %.0f tasks/s\n", kTasks, seconds, kTasks / seconds);
}

}  // namespace
}  // namespace uccp::agent
