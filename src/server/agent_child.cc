#include "server/agent_child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>

#include "base/log.h"
#include "runtime/subprocess.h"

namespace uccp::server {
namespace {

constexpr int kRestartPauseMs = 500;
constexpr int kSpawnPauseMs = 2'000;
constexpr int kStopGraceMs = 8'000;

pid_t read_pid(const std::string& directory) {
  std::ifstream file(directory + "/agent.pid");
  pid_t pid = 0;
  file >> pid;
  return pid;
}

int open_pidfd(pid_t pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }

// True if the process is an agent: a pid file may outlive its process and name another one.
bool is_agent(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/comm");
  std::string name;
  std::getline(file, name);
  return name.starts_with("uccp-agent");
}

}  // namespace

void AgentChild::start() {
  wake_fd_ = ::eventfd(0, EFD_CLOEXEC);
  thread_ = std::thread([this] { keep_running(); });
}

void AgentChild::keep_running() {
  while (!stopping_.load()) {
    const int log_fd = ::open(options_.log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    runtime::SpawnOptions spawn;
    spawn.argv = {options_.program, "--data-dir", options_.data_dir, "--context-file", options_.context_file};
    if (!options_.ray_address.empty()) spawn.environment["RAY_ADDRESS"] = options_.ray_address;
    spawn.stdout_fd = log_fd;
    spawn.stderr_fd = log_fd;
    spawn.new_process_group = true;
    spawn.kill_group_on_exit = false;
    spawn.no_new_privileges = false;
    auto child = runtime::Subprocess::spawn(spawn);
    if (log_fd >= 0) ::close(log_fd);
    if (!child) {
      log::error("the agent could not be started; trying again", {{"reason", child.error().message()}});
      pollfd pause{wake_fd_.load(), POLLIN, 0};
      ::poll(&pause, 1, kSpawnPauseMs);
      continue;
    }
    pollfd waits[2] = {{child->pidfd(), POLLIN, 0}, {wake_fd_.load(), POLLIN, 0}};
    ::poll(waits, 2, -1);
    if (stopping_.load()) {
      (void)child->signal(SIGTERM);
      (void)child->wait_for(kStopGraceMs);
      return;
    }
    (void)child->wait();
    // It may have left because an agent of an earlier server holds the directory: then that one is waited for.
    const pid_t other = read_pid(options_.data_dir);
    const int pidfd = other > 0 && is_agent(other) ? open_pidfd(other) : -1;
    pollfd next[2] = {{pidfd, POLLIN, 0}, {wake_fd_.load(), POLLIN, 0}};
    if (pidfd >= 0) log::info("working with the agent that is running already", {{"pid", other}});
    else log::warn("the agent ended; starting it again", {});
    ::poll(next, 2, pidfd >= 0 ? -1 : kRestartPauseMs);
    if (pidfd >= 0) ::close(pidfd);
  }
}

void AgentChild::stop() {
  if (!thread_.joinable()) return;
  stopping_.store(true);
  ::eventfd_write(wake_fd_.load(), 1);
  thread_.join();
  stop_process();
  ::close(wake_fd_.load());
}

void AgentChild::stop_process() {
  const pid_t pid = read_pid(options_.data_dir);
  const int pidfd = pid > 0 && is_agent(pid) ? open_pidfd(pid) : -1;
  if (pidfd < 0) return;
  ::kill(pid, SIGTERM);
  pollfd wait{pidfd, POLLIN, 0};
  if (::poll(&wait, 1, kStopGraceMs) == 0) ::kill(pid, SIGKILL);
  ::close(pidfd);
}

}  // namespace uccp::server
