#include "agent/process_attempt.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "agent/cgroup_files.h"
#include "base/log.h"

namespace uccp::agent {
namespace {

// How often and how long the end of a killed group, and of pipes that somebody else may hold, is waited for.
constexpr int64_t kSettleRetryMs = 2;
constexpr int64_t kGroupDeathMs = 10'000;
constexpr int64_t kPipeEndMs = 2'000;

}  // namespace

ProcessExecutor::Spawned::~Spawned() {
  for (const int fd : pipes) {
    if (fd >= 0) close(fd);
  }
}

void ProcessExecutor::on_exit(const std::shared_ptr<Attempt>& attempt) {
  auto exit = attempt->process->try_wait();
  if (exit && !*exit) return;
  reactor_.unwatch(attempt->process->pidfd());
  reactor_.cancel(attempt->timeout);
  reactor_.cancel(attempt->kill);
  attempt->exited = true;
  attempt->exit_time = clock_.boot();
  attempt->end.end = clock_.wall();
  if (exit) {
    attempt->exit = **exit;
  } else {
    log::error("an attempt could not be waited for",
               {{"attempt", attempt->spec->key}, {"error", exit.error().message()}});
  }
  settle(attempt);
}

// The command has exited: everything else of the attempt dies now, then the pipes end.
void ProcessExecutor::settle(const std::shared_ptr<Attempt>& attempt) {
  if (attempt->settled) return;
  const int64_t waited_ms = clock_.boot().ms_since(attempt->exit_time);
  bool dead = attempt->group ? attempt->group->kill_all() : kill_by_environment(attempt->spec->key);
  if (!dead && waited_ms > kGroupDeathMs) {
    // In an uninterruptible call of the kernel. It cannot do harm through us any more: its group is kept aside.
    log::error("processes of an attempt survive SIGKILL", {{"attempt", attempt->spec->key}});
    dead = true;
  }
  const bool open = attempt->pipes[0] >= 0 || attempt->pipes[1] >= 0;
  if (dead && open && waited_ms > kPipeEndMs && !attempt->paused) {
    // Handed to a process outside the group.
    close_pipe(*attempt, 0);
    close_pipe(*attempt, 1);
  } else if (!dead || open) {
    if (!std::exchange(attempt->settle_waits, true)) {
      reactor_.post_after(kSettleRetryMs, [this, attempt, alive = alive_] {
        attempt->settle_waits = false;
        if (*alive) settle(attempt);
      });
    }
    return;
  }
  attempt->settled = true;
  collect(attempt);
}

void ProcessExecutor::collect(const std::shared_ptr<Attempt>& attempt) {
  describe_end(*attempt);
  if (attempt->group) groups_.release(std::move(attempt->group));
  if (attempt->spec->outputs.empty()) return finish(attempt);
  Status posted = disk_.post([this, attempt, folder = folder_of(attempt->spec->key), alive = alive_] {
    auto collection = std::make_shared<ArtifactCollection>(
        collect_artifacts(folder, attempt->spec->outputs, options_.artifact_limits));
    reactor_.post([this, attempt, collection, alive] {
      if (!*alive) return;
      attempt->end.artifacts = std::move(collection->artifacts);
      for (const std::string& refused : collection->refused) attempt->end.message += "; artifact refused: " + refused;
      finish(attempt);
    });
  });
  if (posted.is_ok()) return;
  attempt->end.message += "; artifacts not collected: " + posted.message();
  finish(attempt);
}

void ProcessExecutor::finish(const std::shared_ptr<Attempt>& attempt) {
  if (attempt->group) groups_.release(std::move(attempt->group));
  if (attempt->end.end.us == 0) attempt->end.end = clock_.wall();
  attempt->finished = true;
  running_ -= 1;
  sink_.finished(attempt->spec->key, std::move(attempt->end));
  check_drained();
}

void ProcessExecutor::describe_end(Attempt& attempt) const {
  AttemptEnd& end = attempt.end;
  const runtime::ExitStatus& exit = attempt.exit;
  end.usage.cpu_seconds = static_cast<double>(exit.usage.user_cpu_us + exit.usage.system_cpu_us) * 1e-6;
  end.usage.disk_read_bytes = static_cast<uint64_t>(exit.usage.blocks_read) * 512;
  end.usage.disk_write_bytes = static_cast<uint64_t>(exit.usage.blocks_written) * 512;
  end.usage.memory_peak_bytes = std::max(attempt.memory_peak, static_cast<uint64_t>(exit.usage.memory_bytes_max));
  uint64_t oom_kills = 0;
  if (attempt.group) {
    const double cpu_seconds = attempt.group->usage().cpu_seconds;
    if (cpu_seconds > 0) end.usage.cpu_seconds = cpu_seconds;
    oom_kills = attempt.group->oom_kills();
  }
  end.signal = exit.signal;
  if (exit.signal == 0) end.exit_code = exit.exit_code;
  const std::string memory_limit = format_bytes(attempt.spec->limits.memory_bytes);
  if (attempt.cancel) {
    end.kind = attempt.cancel->kind;
    end.message = attempt.cancel->reason;
    if (attempt.forced) {
      end.message += (end.message.empty() ? "" : "; ") + std::string("killed because it had not stopped after SIGTERM");
    }
    return;
  }
  end.kind = exit.signal == 0 ? EndKind::kExited : EndKind::kSignalled;
  if (exit.signal == SIGKILL && oom_kills > 0) {
    end.message = "out of memory: killed by the kernel at its limit of " + memory_limit + "; ask for more memory";
    return;
  }
  end.message = exit.to_string();
  if (oom_kills > 0) {
    end.message += "; out of memory: the kernel killed " + std::to_string(oom_kills) +
                   " of its processes at its limit of " + memory_limit;
  }
}

bool kill_by_environment(const AttemptKey& key) {
  const std::string wanted = "UCCP_ATTEMPT_KEY=" + key;
  bool none = true;
  DIR* const proc = opendir("/proc");
  if (proc == nullptr) return true;
  while (const dirent* entry = readdir(proc)) {
    const std::string_view name = entry->d_name;
    int pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc() || end != name.data() + name.size() || pid == getpid()) continue;
    const std::string environment = read_control("/proc/" + std::string(name) + "/environ");
    const size_t at = environment.find(wanted);
    const bool begins = at == 0 || (at != std::string::npos && environment[at - 1] == '\0');
    if (!begins || (at + wanted.size() < environment.size() && environment[at + wanted.size()] != '\0')) continue;
    if (kill(pid, SIGKILL) == 0) none = false;
  }
  closedir(proc);
  return none;
}

std::string identity_path(const std::string& folder) { return folder + std::string(kIdentitySuffix); }

Status write_identity(const std::string& folder, const std::string& identity) {
  const std::string path = identity_path(folder);
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  const bool written = fd >= 0 && write(fd, identity.data(), identity.size()) == static_cast<ssize_t>(identity.size());
  const int error = errno;
  if (fd >= 0) close(fd);
  if (written) return {};
  return Status(Code::kUnavailable, "IO_ERROR", "cannot write " + path + ": " + std::strerror(error));
}

Status explain_launch_failure(const Status& status, const runtime::SpawnOptions& options) {
  if (status.reason() != "PROGRAM_NOT_FOUND" || options.argv.empty()) return status;
  const std::string& program = options.argv.front();
  const std::string where =
      program.find('/') == std::string::npos
          ? "it is in none of the folders of PATH (" + options.environment.at("PATH") + ") on this worker"
          : "there is no such file, or its interpreter is missing, seen from " + options.working_directory;
  return Status(status.code(), status.reason(), "command not found: \"" + program + "\": " + where);
}

std::string format_ms(int64_t ms) {
  if (ms % 1000 == 0) return std::to_string(ms / 1000) + " s";
  return std::to_string(ms) + " ms";
}

std::string format_bytes(uint64_t bytes) {
  constexpr std::pair<int, const char*> kUnits[] = {{30, " GiB"}, {20, " MiB"}, {10, " KiB"}};
  for (const auto& [shift, unit] : kUnits) {
    if (bytes >> shift != 0 && bytes % (1ull << shift) == 0) return std::to_string(bytes >> shift) + unit;
  }
  return std::to_string(bytes) + " bytes";
}

}  // namespace uccp::agent
