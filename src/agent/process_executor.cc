#include "agent/process_executor.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "agent/process_attempt.h"
#include "agent/task_folder.h"
#include "base/log.h"

namespace uccp::agent {
namespace {

constexpr size_t kReadBytes = 64u << 10;
constexpr uint64_t kDescriptorsMax = 16'384;
constexpr size_t kLaunchesMax = 100'000;

void close_if_open(int& fd) {
  if (fd >= 0) close(fd);
  fd = -1;
}

}  // namespace

Result<std::unique_ptr<ProcessExecutor>> ProcessExecutor::open(Reactor& reactor, const Clock& clock, FileSystem& files,
                                                               ProcessExecutorOptions options, ExecutorSink& sink) {
  UCCP_RETURN_IF_ERROR(files.make_directories(options.data_directory + "/tasks"));
  UCCP_TRY(auto isolation, ProcessIsolation::open(files, {.data_directory = options.data_directory,
                                                          .allow_root_tasks = options.allow_root_tasks,
                                                          .mount_point = options.mount_point,
                                                          .fork_server = options.fork_server}));
  CgroupLayout layout = options.cgroups ? *options.cgroups : detect_cgroups();
  return std::unique_ptr<ProcessExecutor>(
      new ProcessExecutor(reactor, clock, files, std::move(options), sink, std::move(isolation), std::move(layout)));
}

ProcessExecutor::ProcessExecutor(Reactor& reactor, const Clock& clock, FileSystem& files,
                                 ProcessExecutorOptions options, ExecutorSink& sink, ProcessIsolation isolation,
                                 CgroupLayout layout)
    : reactor_(reactor),
      clock_(clock),
      files_(files),
      options_(std::move(options)),
      sink_(sink),
      isolation_(std::move(isolation)),
      groups_(std::move(layout), options_.data_directory),
      read_buffer_(kReadBytes, '\0'),
      spawners_({.name = "spawn", .threads = options_.spawn_threads, .queue_tasks_max = kLaunchesMax}),
      disk_({.name = "agent-disk", .threads = 2, .queue_tasks_max = kLaunchesMax}) {}

ProcessExecutor::~ProcessExecutor() {
  *alive_ = false;
  spawners_.stop();
  disk_.stop();
  for (auto& [key, attempt] : attempts_) {
    if (attempt->process) {
      kill_now(*attempt);
      reactor_.unwatch(attempt->process->pidfd());
    }
    for (const int which : {0, 1}) close_pipe(*attempt, which);
    if (attempt->group) groups_.release(std::move(attempt->group));
  }
}

void ProcessExecutor::launch(std::vector<AttemptSpec> specs) {
  for (AttemptSpec& spec : specs) launch_one(std::move(spec));
}

void ProcessExecutor::launch_one(AttemptSpec spec) {
  const AttemptKey key = spec.key;
  if (attempts_.contains(key)) return;
  auto attempt = std::make_shared<Attempt>();
  attempt->spec = std::make_shared<const AttemptSpec>(std::move(spec));
  attempts_.emplace(key, attempt);
  running_ += 1;
  auto identity = isolation_.identity_of(*attempt->spec);
  if (!identity) return launch_failed(attempt, identity.error());
  attempt->identity = *identity;
  if (groups_.layout().usable()) {
    auto group = groups_.acquire(attempt->spec->limits);
    if (!group) return launch_failed(attempt, group.error());
    attempt->group = std::move(*group);
  }
  Status posted = spawners_.post(
      [this, attempt, options = spawn_options(*attempt), folder = folder_of(key), alive = alive_]() mutable {
        auto spawned = std::make_shared<Spawned>();
        spawn(*attempt, std::move(options), folder, *spawned);
        reactor_.post([this, attempt, spawned, alive] {
          if (*alive) on_spawned(attempt, *spawned);
        });
      });
  if (!posted.is_ok()) launch_failed(attempt, posted);
}

runtime::SpawnOptions ProcessExecutor::spawn_options(const Attempt& attempt) const {
  const AttemptSpec& spec = *attempt.spec;
  const std::string seen = isolation_.seen_as(spec.key);
  runtime::SpawnOptions options;
  options.argv = spec.command;
  options.clear_environment = true;
  options.environment = {{"PATH", options_.path},
                         {"HOME", seen},
                         {"TMPDIR", seen + "/" + std::string(kTemporaryName)},
                         {"LANG", "C.UTF-8"},
                         {"UCCP_TASK_ID", spec.task_id},
                         {"UCCP_ATTEMPT", std::to_string(spec.attempt_number)},
                         {"UCCP_NAMESPACE", spec.namespace_name},
                         {"UCCP_TASK_DIR", seen}};
  for (const auto& [name, value] : spec.env) options.environment.insert_or_assign(name, value);
  // Last: by it processes that escaped are found where there are no control groups.
  options.environment["UCCP_ATTEMPT_KEY"] = spec.key;
  options.working_directory =
      spec.working_dir.empty() || spec.working_dir == "." ? seen : seen + "/" + spec.working_dir;
  if (!spec.stdin_bytes.empty()) options.stdin_bytes = spec.stdin_bytes;
  options.new_session = true;
  options.parent_death_signal = SIGKILL;
  options.umask = 022;
  // The task goes before the agent when the machine runs out of memory.
  options.oom_score_adjust = 500;
  options.limits = {{RLIMIT_CORE, 0, 0}};
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  const uint64_t descriptors = std::min<uint64_t>(files.rlim_max, kDescriptorsMax);
  options.limits.push_back({RLIMIT_NOFILE, descriptors, descriptors});
  if (spec.limits.disk_bytes > 0)
    options.limits.push_back({RLIMIT_FSIZE, spec.limits.disk_bytes, spec.limits.disk_bytes});
  if (attempt.group) options.cgroup_procs = attempt.group->procs_files();
  options.identity = attempt.identity;
  return options;
}

// On a spawner thread. Without a fork server, or when it is gone, this thread forks.
Result<runtime::Subprocess> ProcessExecutor::start_process(runtime::SpawnOptions& options) const {
  if (options_.fork_server != nullptr && options_.fork_server->alive()) {
    options.fork_server = options_.fork_server;
    auto process = runtime::Subprocess::spawn(options);
    if (process || process.error().reason() != "FORK_SERVER_GONE") return process;
    log::error("the fork server is gone; the agent forks by itself, which is slower",
               {{"error", process.error().message()}});
    options.fork_server = nullptr;
  }
  UCCP_RETURN_IF_ERROR(isolation_.enter_thread());
  return runtime::Subprocess::spawn(options);
}

// On a spawner thread.
void ProcessExecutor::spawn(const Attempt& attempt, runtime::SpawnOptions options, const std::string& folder,
                            Spawned& spawned) const {
  std::optional<FolderOwner> owner;
  if (attempt.identity) owner = FolderOwner{attempt.identity->uid, attempt.identity->gid};
  if (!attempt.spec->identity.empty()) {
    spawned.status = write_identity(folder, attempt.spec->identity);
    if (!spawned.status.is_ok()) return;
  }
  spawned.status = make_task_folder(folder, *attempt.spec, owner);
  if (!spawned.status.is_ok()) return;
  int pipes[2][2] = {{-1, -1}, {-1, -1}};
  if (pipe2(pipes[0], O_CLOEXEC | O_NONBLOCK) != 0 || pipe2(pipes[1], O_CLOEXEC | O_NONBLOCK) != 0) {
    spawned.status = Status(Code::kExhausted, "SPAWN_EXHAUSTED", "the agent has no descriptors left for another task");
  } else {
    // Only the agent's ends must not block; the flag belongs to each end.
    for (auto& pipe : pipes) fcntl(pipe[1], F_SETFL, 0);
    options.stdout_fd = pipes[0][1];
    options.stderr_fd = pipes[1][1];
    auto process = start_process(options);
    if (process) {
      spawned.process = std::move(*process);
      spawned.pipes[0] = std::exchange(pipes[0][0], -1);
      spawned.pipes[1] = std::exchange(pipes[1][0], -1);
    } else {
      spawned.status = explain_launch_failure(process.error(), options);
    }
  }
  for (auto& pipe : pipes) {
    close_if_open(pipe[0]);
    close_if_open(pipe[1]);
  }
}

void ProcessExecutor::launch_failed(const std::shared_ptr<Attempt>& attempt, const Status& status) {
  attempt->end.kind = EndKind::kLaunchFailed;
  attempt->end.message = status.message();
  // A missing program is the task's fault; whatever else kept it from starting is not.
  attempt->end.worker_fault = status.reason() != "PROGRAM_NOT_FOUND" && status.reason() != "PROGRAM_PERMISSION" &&
                              status.code() != Code::kInvalid;
  if (attempt->cancel) {
    attempt->end.kind = attempt->cancel->kind;
    attempt->end.message = attempt->cancel->reason;
  }
  // Never from inside launch(): the caller has not written down yet that it launched.
  reactor_.post([this, attempt, alive = alive_] {
    if (*alive) finish(attempt);
  });
}

void ProcessExecutor::on_spawned(const std::shared_ptr<Attempt>& attempt, Spawned& spawned) {
  if (!spawned.status.is_ok()) return launch_failed(attempt, spawned.status);
  attempt->process = std::move(spawned.process);
  attempt->end.start = clock_.wall();
  attempt->pipes[0] = std::exchange(spawned.pipes[0], -1);
  attempt->pipes[1] = std::exchange(spawned.pipes[1], -1);
  sink_.started(attempt->spec->key, attempt->end.start);
  reactor_.watch(attempt->process->pidfd(), [this, attempt] { on_exit(attempt); });
  watch_pipe(attempt, 0);
  watch_pipe(attempt, 1);
  if (attempt->cancel) {
    const CancelOptions wanted = *std::exchange(attempt->cancel, std::nullopt);
    stop(attempt, wanted);
  } else if (attempt->spec->timeout_ms > 0) {
    attempt->timeout = reactor_.post_after(attempt->spec->timeout_ms, [this, attempt, alive = alive_] {
      if (!*alive || attempt->exited || attempt->cancel) return;
      stop(attempt, {.grace_ms = attempt->spec->grace_ms,
                     .kind = EndKind::kTimedOut,
                     .reason = "took longer than its timeout of " + format_ms(attempt->spec->timeout_ms)});
    });
  }
}

void ProcessExecutor::watch_pipe(const std::shared_ptr<Attempt>& attempt, int which) {
  reactor_.watch(attempt->pipes[which], [this, attempt, which] { on_readable(attempt, which); });
}

void ProcessExecutor::on_readable(const std::shared_ptr<Attempt>& attempt, int which) {
  const ssize_t got = read(attempt->pipes[which], read_buffer_.data(), read_buffer_.size());
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    close_pipe(*attempt, which);
    if (attempt->exited) settle(attempt);
    return;
  }
  attempt->uncredited += static_cast<size_t>(got);
  if (attempt->uncredited > kOutputWindowBytes) pause_pipes(*attempt, true);
  sink_.output(attempt->spec->key, which == 0 ? tasks::LogStreamKind::kStdout : tasks::LogStreamKind::kStderr,
               clock_.wall(), std::string_view(read_buffer_).substr(0, static_cast<size_t>(got)));
}

void ProcessExecutor::close_pipe(Attempt& attempt, int which) {
  if (attempt.pipes[which] < 0) return;
  reactor_.unwatch(attempt.pipes[which]);
  close_if_open(attempt.pipes[which]);
}

void ProcessExecutor::pause_pipes(Attempt& attempt, bool paused) {
  if (std::exchange(attempt.paused, paused) == paused) return;
  for (const int fd : attempt.pipes) {
    if (fd >= 0) reactor_.pause(fd, paused);
  }
}

void ProcessExecutor::credit(const AttemptKey& key, size_t bytes) {
  const auto found = attempts_.find(key);
  if (found == attempts_.end()) return;
  Attempt& attempt = *found->second;
  attempt.uncredited -= std::min(attempt.uncredited, bytes);
  if (attempt.uncredited <= kOutputWindowBytes / 2) pause_pipes(attempt, false);
}

void ProcessExecutor::cancel(const AttemptKey& key, const CancelOptions& options) {
  const auto found = attempts_.find(key);
  if (found == attempts_.end() || found->second->exited || found->second->finished) return;
  if (!found->second->process) {
    // It is being started on another thread: stopped as soon as it is there.
    found->second->cancel = options;
    return;
  }
  stop(found->second, options);
}

void ProcessExecutor::stop(const std::shared_ptr<Attempt>& attempt, const CancelOptions& options) {
  const bool first = !attempt->cancel;
  if (first) attempt->cancel = options;
  if (options.grace_ms <= 0) return kill_now(*attempt);
  const BootTime deadline = clock_.boot().plus_ms(options.grace_ms);
  if (!first && attempt->kill_at <= deadline) return;
  attempt->kill_at = deadline;
  if (first) (void)attempt->process->signal_group(SIGTERM);
  reactor_.cancel(attempt->kill);
  attempt->kill = reactor_.post_after(options.grace_ms, [this, attempt, alive = alive_] {
    if (!*alive || attempt->exited) return;
    attempt->forced = true;
    kill_now(*attempt);
  });
}

void ProcessExecutor::kill_now(Attempt& attempt) {
  (void)attempt.process->signal_group(SIGKILL);
  if (attempt.group) attempt.group->kill_all();
}

void ProcessExecutor::materialize(AttemptSpec spec, std::move_only_function<void(Status)> done) {
  auto identity = isolation_.identity_of(spec);
  if (!identity) return done(identity.error());
  std::optional<FolderOwner> owner;
  if (*identity) owner = FolderOwner{(*identity)->uid, (*identity)->gid};
  auto shared = std::make_shared<std::move_only_function<void(Status)>>(std::move(done));
  Status posted = disk_.post([this, spec = std::move(spec), owner, shared, folder = folder_of(spec.key)] {
    Status status = make_task_folder(folder, spec, owner);
    reactor_.post([shared, status = std::move(status)] { (*shared)(status); });
  });
  if (!posted.is_ok()) (*shared)(posted);
}

AttemptUse ProcessExecutor::usage(const AttemptKey& key) const {
  const auto found = attempts_.find(key);
  if (found == attempts_.end()) return {};
  Attempt& attempt = *found->second;
  if (attempt.finished || !attempt.group) return attempt.end.usage;
  AttemptUse use = attempt.group->usage();
  attempt.memory_peak = std::max(attempt.memory_peak, use.memory_bytes);
  use.memory_peak_bytes = attempt.memory_peak;
  return use;
}

void ProcessExecutor::release(const AttemptKey& key) {
  const auto found = attempts_.find(key);
  if (found == attempts_.end() || !found->second->finished) return;
  attempts_.erase(found);
  Status posted = disk_.post([folder = folder_of(key)] {
    Status removed = remove_task_folder(folder);
    if (!removed.is_ok()) log::warn("a task folder stays behind", {{"error", removed.message()}});
    unlink(identity_path(folder).c_str());
  });
  if (!posted.is_ok()) log::warn("a task folder stays behind", {{"error", posted.message()}});
}

Result<std::string> ProcessExecutor::shared_folder(const AttemptSpec& spec, const std::string& name) {
  UCCP_TRY(const auto identity, isolation_.identity_of(spec));
  // No attempt has such a key: those begin with the id of a task.
  const std::string folder = "." + name + (identity ? "-" + std::to_string(identity->uid) : "");
  const std::string path = folder_of(folder);
  if (mkdir(path.c_str(), 0700) == 0) {
    if (identity && chown(path.c_str(), identity->uid, identity->gid) != 0)
      return fail(Code::kUnavailable, "IO_ERROR", "cannot hand over " + path + ": " + std::strerror(errno));
  } else if (errno != EEXIST) {
    return fail(Code::kUnavailable, "IO_ERROR", "cannot make " + path + ": " + std::strerror(errno));
  }
  return isolation_.seen_as(folder);
}

std::vector<std::string> ProcessExecutor::reconcile() {
  groups_.remove_stale();
  std::vector<std::string> identities;
  const std::string tasks = options_.data_directory + "/tasks";
  const auto names = files_.list(tasks);
  if (!names) return identities;
  for (const std::string& name : *names) {
    const std::string path = tasks + "/" + name;
    if (!name.ends_with(kIdentitySuffix)) {
      if (!groups_.layout().usable()) kill_by_environment(name);
      (void)remove_task_folder(path);
      continue;
    }
    if (auto text = read_file(files_, path, 64u << 10)) identities.push_back(std::move(*text));
    (void)files_.remove(path);
  }
  return identities;
}

void ProcessExecutor::drain(const CancelOptions& options, std::move_only_function<void()> drained) {
  draining_ = true;
  drained_ = std::move(drained);
  std::vector<AttemptKey> keys;
  for (const auto& [key, attempt] : attempts_) keys.push_back(key);
  for (const AttemptKey& key : keys) cancel(key, options);
  check_drained();
}

void ProcessExecutor::check_drained() {
  if (!draining_ || running_ > 0 || !drained_) return;
  reactor_.post(std::exchange(drained_, nullptr));
}

}  // namespace uccp::agent
