#include "runtime/subprocess.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mutex>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "runtime/child_setup.h"
#include "runtime/fork_server.h"
#include "runtime/real_clock.h"

namespace uccp::runtime {
namespace {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  void reset() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

std::string error_text(int error_number) { return std::system_category().message(error_number); }

bool is_exhaustion(int e) { return e == EAGAIN || e == ENOMEM || e == EMFILE || e == ENFILE || e == ENOSPC; }

Status spawn_error(const std::string& program, std::string_view step, int error_number) {
  const std::string message =
      "cannot start " + program + ", failed in " + std::string(step) + ": " + error_text(error_number);
  if (is_exhaustion(error_number)) return Status(Code::kExhausted, "SPAWN_EXHAUSTED", message + "; retry later");
  return Status(Code::kFailedPrecondition, "SPAWN_FAILED", message);
}

Status failure_status(const ChildFailure& failure, const SpawnOptions& options, const std::string& program) {
  const auto item = static_cast<size_t>(failure.item);
  std::string step = child_step_name(failure.step);
  switch (failure.step) {
    case ChildStep::kCgroup: step += " (" + options.cgroup_procs[item] + ")"; break;
    case ChildStep::kBindMount:
      step += " (" + options.bind_mounts[item].from + " at " + options.bind_mounts[item].to + ")";
      break;
    case ChildStep::kHide: step += " (" + options.hidden_directories[item] + ")"; break;
    case ChildStep::kLimit: step += " (number " + std::to_string(options.limits[item].resource) + ")"; break;
    case ChildStep::kDirectory: step += " (" + options.working_directory + ")"; break;
    case ChildStep::kExecute:
      if (failure.error_number == ENOENT) {
        return Status(Code::kNotFound, "PROGRAM_NOT_FOUND",
                      "cannot start " + program + ": there is no such program, or not its interpreter");
      }
      if (failure.error_number == EACCES) {
        return Status(Code::kPermission, "PROGRAM_PERMISSION",
                      "cannot start " + program + ": it is not executable for this user");
      }
      break;
    default: break;
  }
  return spawn_error(program, step, failure.error_number);
}

std::map<std::string, std::string> environment_of(const SpawnOptions& options) {
  std::map<std::string, std::string> environment;
  if (!options.clear_environment) {
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
      const std::string_view text = *entry;
      const size_t equals = text.find('=');
      if (equals != text.npos) environment.emplace(text.substr(0, equals), text.substr(equals + 1));
    }
  }
  for (const auto& [name, value] : options.environment) environment.insert_or_assign(name, value);
  return environment;
}

// Empty if there is none. The search sees the caller's files, so programs inside the child's mounts need a path.
std::string find_program(const std::string& name, const std::map<std::string, std::string>& environment) {
  if (name.find('/') != name.npos) return name;
  const auto path = environment.find("PATH");
  const std::string directories = path == environment.end() ? "/usr/local/bin:/usr/bin:/bin" : path->second;
  for (size_t begin = 0; begin <= directories.size();) {
    const size_t end = std::min(directories.find(':', begin), directories.size());
    const std::string candidate = directories.substr(begin, end - begin) + "/" + name;
    if (end > begin && ::access(candidate.c_str(), X_OK) == 0) return candidate;
    begin = end + 1;
  }
  return {};
}

Status validate(const SpawnOptions& options) {
  const auto invalid = [](std::string message) {
    return Status(Code::kInvalid, "SPAWN_OPTIONS_INVALID", std::move(message));
  };
  if (options.argv.empty() || options.argv.front().empty()) return invalid("a program to start has to be named");
  if (options.fork_server != nullptr &&
      (options.unshare_mount || !options.bind_mounts.empty() || !options.hidden_directories.empty())) {
    return invalid("a child of the fork server has the server's mounts");
  }
  for (const std::string& argument : options.argv) {
    if (argument.find('\0') != argument.npos) return invalid("an argument contains a zero byte");
  }
  for (const auto& [name, value] : options.environment) {
    if (name.empty() || name.find('=') != name.npos || (name + value).find('\0') != name.npos) {
      return invalid("'" + name + "' is no environment variable");
    }
  }
  return Status::ok();
}

// A file in memory, so that no thread is needed to feed a pipe.
Result<Descriptor> memory_file(const std::string& bytes) {
  Descriptor file(::memfd_create("stdin", MFD_CLOEXEC));
  if (file.get() < 0) return fail(spawn_error("a program", "making its input", errno));
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t put = ::write(file.get(), bytes.data() + done, bytes.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return fail(spawn_error("a program", "writing its input", errno));
    done += static_cast<size_t>(put);
  }
  if (::lseek(file.get(), 0, SEEK_SET) != 0) return fail(spawn_error("a program", "making its input", errno));
  return file;
}

// Everything that a ChildPlan points to.
struct PlanStorage {
  std::string program;
  std::vector<std::string> environment_texts;
  std::vector<char*> argv;
  std::vector<char*> environment;
  std::vector<int> descriptors;
  std::vector<int> scratch;
  std::vector<const char*> cgroups;
  std::vector<const char*> hidden;
  std::vector<ChildMount> mounts;
  std::vector<ChildLimit> limits;
  std::string oom_score_adjust;
  Descriptor null_device;
  Descriptor input;
  ChildPlan plan{};
};

Status add_descriptors(const SpawnOptions& options, PlanStorage& storage) {
  storage.null_device = Descriptor(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (storage.null_device.get() < 0) return spawn_error(options.argv.front(), "opening /dev/null", errno);
  int input = options.stdin_fd;
  if (options.stdin_bytes) {
    UCCP_TRY(storage.input, memory_file(*options.stdin_bytes));
    input = storage.input.get();
  }
  for (const int fd : {input, options.stdout_fd, options.stderr_fd}) {
    storage.descriptors.push_back(fd >= 0 ? fd : storage.null_device.get());
  }
  storage.descriptors.insert(storage.descriptors.end(), options.extra_fds.begin(), options.extra_fds.end());
  storage.scratch.resize(storage.descriptors.size());
  return Status::ok();
}

void add_arrays(const SpawnOptions& options, const std::map<std::string, std::string>& environment,
                PlanStorage& storage) {
  for (const std::string& argument : options.argv) storage.argv.push_back(const_cast<char*>(argument.c_str()));
  storage.argv.push_back(nullptr);
  for (const auto& [name, value] : environment) storage.environment_texts.push_back(name + "=" + value);
  for (std::string& text : storage.environment_texts) storage.environment.push_back(text.data());
  storage.environment.push_back(nullptr);
  for (const std::string& path : options.cgroup_procs) storage.cgroups.push_back(path.c_str());
  for (const std::string& path : options.hidden_directories) storage.hidden.push_back(path.c_str());
  for (const BindMount& m : options.bind_mounts) {
    storage.mounts.push_back({m.from.c_str(), m.to.c_str(), m.read_only});
  }
  for (const ResourceLimit& l : options.limits) storage.limits.push_back({l.resource, {l.soft, l.hard}});
  if (options.oom_score_adjust) storage.oom_score_adjust = std::to_string(*options.oom_score_adjust);
}

Status prepare(const SpawnOptions& options, int report_fd, PlanStorage& storage) {
  const std::map<std::string, std::string> environment = environment_of(options);
  storage.program = find_program(options.argv.front(), environment);
  if (storage.program.empty()) {
    return Status(Code::kNotFound, "PROGRAM_NOT_FOUND", "cannot start " + options.argv.front() + ": not found in PATH");
  }
  UCCP_RETURN_IF_ERROR(add_descriptors(options, storage));
  add_arrays(options, environment, storage);

  ChildPlan& plan = storage.plan;
  plan.program = storage.program.c_str();
  plan.argv = storage.argv.data();
  plan.environment = storage.environment.data();
  plan.directory = options.working_directory.empty() ? nullptr : options.working_directory.c_str();
  plan.descriptors = storage.descriptors.data();
  plan.descriptor_count = storage.descriptors.size();
  plan.scratch = storage.scratch.data();
  plan.report_fd = report_fd;
  plan.new_session = options.new_session;
  plan.new_group = options.new_process_group;
  plan.death_signal = options.parent_death_signal;
  plan.parent = ::getpid();
  plan.cgroups = storage.cgroups.data();
  plan.cgroup_count = storage.cgroups.size();
  plan.unshare_mount = options.unshare_mount || !storage.mounts.empty() || !storage.hidden.empty();
  plan.mounts = storage.mounts.data();
  plan.mount_count = storage.mounts.size();
  plan.hidden = storage.hidden.data();
  plan.hidden_count = storage.hidden.size();
  plan.limits = storage.limits.data();
  plan.limit_count = storage.limits.size();
  plan.nice = options.nice ? &*options.nice : nullptr;
  plan.oom_score_adjust = options.oom_score_adjust ? storage.oom_score_adjust.c_str() : nullptr;
  plan.umask = options.umask ? &*options.umask : nullptr;
  plan.no_new_privileges = options.no_new_privileges;
  if (options.identity) {
    plan.change_identity = true;
    plan.uid = options.identity->uid;
    plan.gid = options.identity->gid;
    plan.groups = options.identity->supplementary_groups.data();
    plan.group_count = options.identity->supplementary_groups.size();
  }
  return Status::ok();
}

// With all signals blocked, so that no handler of ours runs in the child; it unblocks them itself. Not vfork: after it
// has changed its user, a child can be stopped by other processes of that user, and a sharing parent would stand still
// with it. A pipe can be waited for with a time limit.
pid_t fork_child(const ChildPlan& plan) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = ::_Fork();
  if (pid == 0) run_child(plan);
  const int error_number = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error_number;
  return pid;
}

// The child, with its pidfd; without one if that cannot be had, and then errno says why.
Result<pid_t> make_child(const SpawnOptions& options, const PlanStorage& storage, Descriptor& pidfd) {
  if (options.fork_server != nullptr) {
    UCCP_TRY(const ForkedChild child, options.fork_server->fork(storage.plan));
    pidfd = Descriptor(child.pidfd);
    return child.pid;
  }
  const pid_t pid = fork_child(storage.plan);
  if (pid < 0) return fail(spawn_error(storage.program, "forking", errno));
  // No race: the number stays the child's until it is reaped.
  pidfd = Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  return pid;
}

// poll() of one descriptor that goes on after signals. False if the time is over. -1 waits without limit.
bool poll_readable(int fd, int64_t timeout_ms) {
  const RealClock clock;
  const BootTime deadline = clock.boot().plus_ms(timeout_ms);
  pollfd polled{fd, POLLIN, 0};
  while (true) {
    const int64_t left_ms = timeout_ms < 0 ? -1 : std::max<int64_t>(0, deadline.ms_since(clock.boot()));
    const int ready = ::poll(&polled, 1, static_cast<int>(std::min<int64_t>(left_ms, 3600'000)));
    if (ready > 0) return true;
    if (ready == 0 && left_ms == 0) return false;
  }
}

ExitStatus to_exit_status(int status, const rusage& usage) {
  const auto us = [](const timeval& time) { return int64_t{time.tv_sec} * 1'000'000 + time.tv_usec; };
  ExitStatus exit;
  if (WIFEXITED(status)) exit.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) {
    exit.signal = WTERMSIG(status);
    exit.core_dumped = WCOREDUMP(status);
  }
  exit.usage = {.user_cpu_us = us(usage.ru_utime),
                .system_cpu_us = us(usage.ru_stime),
                .memory_bytes_max = int64_t{usage.ru_maxrss} * 1024,
                .major_faults = usage.ru_majflt,
                .blocks_read = usage.ru_inblock,
                .blocks_written = usage.ru_oublock};
  return exit;
}

}  // namespace

std::string ExitStatus::to_string() const {
  if (signal == 0) return "exit code " + std::to_string(exit_code);
  const char* words = ::sigdescr_np(signal);
  return "signal " + std::to_string(signal) + " (" + (words == nullptr ? "unknown" : words) + ")";
}

struct Subprocess::State {
  pid_t pid = -1;
  bool own_group = false;
  bool kill_group_on_exit = false;
  Descriptor pidfd;

  std::mutex mutex;  // of `exit`; held while signalling, so that a reaped pid is never signalled
  std::optional<ExitStatus> exit;

  Status signal(pid_t target, int number) {
    std::lock_guard lock(mutex);
    if (!exit && ::kill(target, number) == 0) return Status::ok();
    if (exit || errno == ESRCH) {
      return Status(Code::kNotFound, "PROCESS_GONE", "process " + std::to_string(pid) + " has exited");
    }
    return Status(Code::kPermission, "SIGNAL_FAILED",
                  "cannot signal process " + std::to_string(pid) + ": " + error_text(errno));
  }

  Result<std::optional<ExitStatus>> reap(int64_t timeout_ms) {
    {
      std::lock_guard lock(mutex);
      if (exit) return exit;
    }
    if (!poll_readable(pidfd.get(), timeout_ms)) return std::optional<ExitStatus>();
    std::lock_guard lock(mutex);
    if (exit) return exit;
    // While the zombie holds the number, the group's number cannot be anybody else's.
    if (own_group && kill_group_on_exit) ::kill(-pid, SIGKILL);
    int status = 0;
    rusage usage{};
    pid_t reaped = -1;
    do {
      reaped = ::wait4(pid, &status, 0, &usage);
    } while (reaped < 0 && errno == EINTR);
    if (reaped < 0) {
      return fail(Code::kInternal, "WAIT_FAILED",
                  "somebody else has waited for process " + std::to_string(pid) + ": " + error_text(errno));
    }
    exit = to_exit_status(status, usage);
    return exit;
  }
};

Subprocess::Subprocess(std::unique_ptr<State> state) : state_(std::move(state)) {}
Subprocess::Subprocess(Subprocess&&) noexcept = default;
Subprocess& Subprocess::operator=(Subprocess&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

Subprocess::~Subprocess() {
  if (!state_) return;
  if (signal_group(SIGKILL).is_ok()) (void)state_->reap(-1);
}

void Subprocess::detach() { state_.reset(); }

Result<Subprocess> Subprocess::spawn(const SpawnOptions& options) {
  UCCP_RETURN_IF_ERROR(validate(options));
  int report[2];
  if (::pipe2(report, O_CLOEXEC) != 0) return fail(spawn_error(options.argv.front(), "making a pipe", errno));
  const Descriptor report_read(report[0]);
  Descriptor report_write(report[1]);
  PlanStorage storage;
  UCCP_RETURN_IF_ERROR(prepare(options, report_write.get(), storage));

  auto state = std::make_unique<State>();
  state->own_group = options.new_process_group || options.new_session;
  state->kill_group_on_exit = options.kill_group_on_exit;
  UCCP_TRY(state->pid, make_child(options, storage, state->pidfd));
  const int pidfd_error = errno;
  const auto abandon = [&] {
    ::kill(state->pid, SIGKILL);
    while (::wait4(state->pid, nullptr, 0, nullptr) < 0 && errno == EINTR) {}
  };
  if (state->pidfd.get() < 0) {
    abandon();
    return fail(spawn_error(storage.program, "watching it", pidfd_error));
  }

  report_write.reset();  // so that the pipe ends when the child's end does
  if (!poll_readable(report_read.get(), options.start_timeout_ms)) {
    abandon();
    return fail(Code::kDeadline, "SPAWN_TIMEOUT",
                "cannot start " + storage.program + " within " + std::to_string(options.start_timeout_ms) + " ms");
  }
  ChildFailure failure{};
  ssize_t got = -1;
  do {
    got = ::read(report_read.get(), &failure, sizeof failure);
  } while (got < 0 && errno == EINTR);
  if (got == static_cast<ssize_t>(sizeof failure)) {
    abandon();
    return fail(failure_status(failure, options, storage.program));
  }
  return Subprocess(std::move(state));
}

pid_t Subprocess::pid() const { return state_->pid; }
int Subprocess::pidfd() const { return state_->pidfd.get(); }

Status Subprocess::signal(int number) { return state_->signal(state_->pid, number); }

Status Subprocess::signal_group(int number) {
  return state_->signal(state_->own_group ? -state_->pid : state_->pid, number);
}

Result<ExitStatus> Subprocess::wait() {
  UCCP_TRY(const std::optional<ExitStatus> exit, state_->reap(-1));
  UCCP_CHECK(exit.has_value(), "a wait without limit ends with the child");
  return *exit;
}

Result<std::optional<ExitStatus>> Subprocess::wait_for(int64_t timeout_ms) {
  return state_->reap(std::max<int64_t>(0, timeout_ms));
}

}  // namespace uccp::runtime
