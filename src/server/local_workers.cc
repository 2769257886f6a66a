#include "server/local_workers.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/log.h"

namespace uccp::server {
namespace {

constexpr int64_t kTendMs = 250;
// An agent gives what it runs 5 s and waits for its reports.
constexpr int64_t kStopGraceMs = 15'000;

std::string group_of(const std::string& instance) {
  const size_t first = instance.find('-'), last = instance.rfind('-');
  return first == last ? "" : instance.substr(first + 1, last - first - 1);
}

bool has_registered(const std::string& directory) {
  std::error_code error;
  return std::filesystem::exists(directory + "/worker", error);
}

// The agent of a directory holds its lock, in which its pid is; 0 if none does. A process of that number that holds no
// lock is none of ours, whatever it is.
pid_t holder_of(const std::string& directory) {
  const int fd = ::open((directory + "/agent.lock").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  pid_t pid = 0;
  if (::flock(fd, LOCK_SH | LOCK_NB) != 0) {
    std::ifstream file(directory + "/agent.lock");
    file >> pid;
  }
  ::close(fd);
  return pid;
}

}  // namespace

LocalWorkers::LocalWorkers(LocalWorkersOptions options, FileSystem& files, const Clock& clock)
    : options_(std::move(options)), files_(files), clock_(clock), loop_(clock, {.stall_ms = 60'000}) {}

Result<std::unique_ptr<LocalWorkers>> LocalWorkers::open(LocalWorkersOptions options, FileSystem& files,
                                                         const Clock& clock) {
  std::unique_ptr<LocalWorkers> self(new LocalWorkers(std::move(options), files, clock));
  UCCP_RETURN_IF_ERROR(self->files_.make_directories(self->options_.directory));
  UCCP_RETURN_IF_ERROR(self->find_instances());
  self->loop_.start("uccp-scaling");
  return self;
}

LocalWorkers::~LocalWorkers() {
  loop_.stop();
  for (auto& [id, instance] : instances_) {
    if (instance.child) instance.child->detach();
  }
}

Status LocalWorkers::find_instances() {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(options_.directory, error)) {
    const std::string id = entry.path().filename();
    if (!entry.is_directory() || group_of(id).empty()) continue;
    instances_[id] = {.group = group_of(id), .child = {}, .started = clock_.boot()};
  }
  if (!error) return Status::ok();
  return Status(Code::kUnavailable, "SCALING_DIRECTORY", "cannot list " + options_.directory + ": " + error.message());
}

Status LocalWorkers::spawn(const std::string& id, Instance& instance) {
  const auto group = options_.groups.find(instance.group);
  if (group == options_.groups.end()) {
    return Status(Code::kNotFound, "GROUP_NOT_FOUND",
                  "the configuration has no scaling group " + instance.group + " any more");
  }
  const std::string directory = path_of(id);
  UCCP_RETURN_IF_ERROR(files_.make_directories(directory));
  runtime::SpawnOptions spawn;
  spawn.argv = {options_.program, "--data-dir", directory, "--context-file", options_.context_file, "--name", id};
  spawn.argv.insert(spawn.argv.end(), group->second.flags.begin(), group->second.flags.end());
  for (const auto& [name, value] :
       {std::pair{tasks::kScalingGroupLabel, instance.group}, std::pair{tasks::kScalingInstanceLabel, id}}) {
    spawn.argv.push_back("--label");
    spawn.argv.push_back(std::string(name) + "=" + value);
  }
  if (!group->second.inventory.empty()) {
    const std::string path = directory + "/inventory.json";
    UCCP_RETURN_IF_ERROR(write_file_atomically(files_, path, group->second.inventory));
    spawn.argv.insert(spawn.argv.end(), {"--inventory", path});
  }
  const int log_fd = ::open((directory + "/agent.log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  spawn.stdout_fd = spawn.stderr_fd = log_fd;
  spawn.new_process_group = true;
  spawn.kill_group_on_exit = false;
  spawn.no_new_privileges = false;
  auto child = runtime::Subprocess::spawn(spawn);
  if (log_fd >= 0) ::close(log_fd);
  if (!child) return child.error();
  instance.child.emplace(std::move(*child));
  instance.started = clock_.boot();
  return Status::ok();
}

bool LocalWorkers::alive(const std::string& id, Instance& instance) {
  if (instance.child) {
    const auto ended = instance.child->try_wait();
    if (ended && !*ended) return true;
    instance.child.reset();
  }
  // Ours may have left because one of an earlier server holds the directory.
  return holder_of(path_of(id)) > 0;
}

void LocalWorkers::signal(const std::string& id, Instance& instance, int number) {
  if (instance.child) {
    (void)instance.child->signal(number);
    return;
  }
  const pid_t pid = holder_of(path_of(id));
  const int pidfd = pid > 0 ? static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)) : -1;
  if (pidfd < 0) return;
  // Still the holder: then the descriptor is of no other process.
  if (holder_of(path_of(id)) == pid) (void)::syscall(SYS_pidfd_send_signal, pidfd, number, nullptr, 0);
  ::close(pidfd);
}

void LocalWorkers::start(const std::string& group, const std::string& instance, Done done) {
  loop_.post([this, group, instance, done = std::move(done)] {
    if (closed_) return done(Status(Code::kUnavailable, "SERVER_STOPPING", "the server stops; nothing is started"));
    Instance& one = instances_[instance];
    one.group = group;
    if (one.stopping || alive(instance, one)) return done(Status::ok());
    Status status = spawn(instance, one);
    // What was there before may have run tasks, and is tried again.
    if (!status.is_ok() && !has_registered(path_of(instance))) {
      std::error_code ignored;
      std::filesystem::remove_all(path_of(instance), ignored);
      instances_.erase(instance);
    }
    done(std::move(status));
  });
}

void LocalWorkers::stop(const std::string& instance) {
  loop_.post([this, instance] {
    const auto found = instances_.find(instance);
    if (found == instances_.end() || found->second.stopping) return;
    ask_to_stop(instance, found->second);
    if (!tending_) keep_tending();
  });
}

void LocalWorkers::ask_to_stop(const std::string& id, Instance& instance) {
  instance.stopping = true;
  instance.stop_asked = clock_.boot();
  if (alive(id, instance)) signal(id, instance, SIGTERM);
}

// Kills what takes too long, forgets what has ended. False if nothing is to stop.
bool LocalWorkers::tend() {
  bool any = false;
  for (auto it = instances_.begin(); it != instances_.end();) {
    auto& [id, instance] = *it;
    if (!instance.stopping) {
      ++it;
      continue;
    }
    if (!alive(id, instance)) {
      if (!closed_) {
        std::error_code error;
        std::filesystem::remove_all(path_of(id), error);
        if (error)
          log::warn("the directory of a worker was not removed", {{"instance", id}, {"reason", error.message()}});
      }
      it = instances_.erase(it);
      continue;
    }
    any = true;
    if (!instance.killed && clock_.boot().ms_since(instance.stop_asked) >= kStopGraceMs) {
      log::warn("an agent did not end and is killed", {{"instance", id}});
      signal(id, instance, SIGKILL);
      instance.killed = true;
    }
    ++it;
  }
  return any;
}

void LocalWorkers::keep_tending() {
  tending_ = tend();
  if (tending_) loop_.post_after(kTendMs, [this] { keep_tending(); });
}

void LocalWorkers::list(Listed listed) {
  loop_.post([this, listed = std::move(listed)] {
    std::vector<tasks::ScalingInstance> all;
    for (auto& [id, instance] : instances_) {
      all.push_back({.id = id,
                     .group = instance.group,
                     .alive = alive(id, instance),
                     .stopping = instance.stopping,
                     .registered = has_registered(path_of(id)),
                     .age_ms = clock_.boot().ms_since(instance.started)});
    }
    listed(std::move(all));
  });
}

// Until tend() finds nothing; the grace of agents bounds that.
void LocalWorkers::keep_stopping(const std::shared_ptr<std::promise<void>>& ended) {
  if (!tend()) return ended->set_value();
  loop_.post_after(kTendMs, [this, ended] { keep_stopping(ended); });
}

void LocalWorkers::stop_all() {
  const auto ended = std::make_shared<std::promise<void>>();
  loop_.post([this, ended] {
    closed_ = true;
    for (auto& [id, instance] : instances_) {
      if (!instance.stopping) ask_to_stop(id, instance);
    }
    keep_stopping(ended);
  });
  ended->get_future().wait();
}

}  // namespace uccp::server
