#include "agent/guard.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <sstream>
#include <utility>

#include "agent/cgroup.h"

namespace uccp::agent {
namespace {

// One directory a line; then the end of the pipe. A line "." means that nothing is to be done.
[[noreturn]] void guard_main(int fd) {
  // Ctrl-C and the like are for the agent.
  setsid();
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) signal(number, SIG_IGN);
  prctl(PR_SET_NAME, "uccp-guard");
  std::string text;
  char buffer[4096];
  for (;;) {
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    text.append(buffer, static_cast<size_t>(got));
  }
  std::vector<std::string> directories;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line == ".") _exit(0);
    directories.push_back(line);
  }
  kill_and_remove_groups(directories);
  _exit(0);
}

}  // namespace

Result<Guard> Guard::start() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    return fail(Code::kExhausted, "GUARD_FAILED", std::string("no pipe for the guard: ") + std::strerror(errno));
  const pid_t pid = fork();
  if (pid < 0)
    return fail(Code::kExhausted, "GUARD_FAILED", std::string("cannot fork the guard: ") + std::strerror(errno));
  if (pid == 0) {
    close(ends[1]);
    // Whoever waits for the agent's output to end must not wait for the guard.
    const int null = open("/dev/null", O_RDWR);
    for (const int fd : {0, 1, 2}) dup2(null, fd);
    guard_main(ends[0]);
  }
  close(ends[0]);
  return Guard(ends[1], pid);
}

Guard::Guard(Guard&& other) noexcept : fd_(std::exchange(other.fd_, -1)), pid_(std::exchange(other.pid_, -1)) {}

Status Guard::watch(const std::vector<std::string>& directories) {
  std::string text;
  for (const std::string& directory : directories) text += directory + "\n";
  if (write(fd_, text.data(), text.size()) == static_cast<ssize_t>(text.size())) return {};
  return Status(Code::kUnavailable, "GUARD_FAILED", std::string("cannot reach the guard: ") + std::strerror(errno));
}

Guard::~Guard() {
  if (fd_ < 0) return;
  (void)!write(fd_, ".\n", 2);
  close(fd_);
  waitpid(pid_, nullptr, 0);
}

}  // namespace uccp::agent
