// Children: start a program with limits, identity, mounts and control groups, signal it, wait for it.
//
// Invariants: everything that allocates happens before the fork, the child makes only async-signal-safe calls; a
// program that could not be started is an error of spawn() that names the step, never a child that exits oddly; no
// descriptor but those asked for reaches the program; a child is reaped exactly once, by its Subprocess, and never
// signalled after.
// Thread: spawn() from any thread; of a Subprocess, signal(), signal_group() and the waits are callable from any
// thread. parent_death_signal fires when the *thread* that called spawn() ends, so spawn such children from a lasting
// thread; with a fork server it is the thread that started the server.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"

namespace uccp::runtime {

class ForkServer;

// One resource of setrlimit(2): RLIMIT_NOFILE and the like.
struct ResourceLimit {
  int resource = 0;
  uint64_t soft = 0;
  uint64_t hard = 0;
};

struct BindMount {
  std::string from;
  std::string to;  // must exist, a directory or a file as `from` is
  bool read_only = false;
};

struct ProcessIdentity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> supplementary_groups;
};

struct SpawnOptions {
  // argv[0] with a slash is the program's path as the child sees it; without one it is looked up in the child's PATH.
  std::vector<std::string> argv;
  // The environment is the caller's with these set, or only these if `clear_environment`.
  std::map<std::string, std::string> environment;
  bool clear_environment = false;
  // Entered as the child's identity and inside its mounts. Empty: the caller's.
  std::string working_directory;

  // -1 is /dev/null. They stay open in the caller. `stdin_bytes`, if set, is the whole input instead of `stdin_fd`.
  int stdin_fd = -1;
  int stdout_fd = -1;
  int stderr_fd = -1;
  std::optional<std::string> stdin_bytes;
  // Become descriptors 3, 4, ... of the program.
  std::vector<int> extra_fds;

  bool new_process_group = true;
  bool new_session = false;  // implies a new process group
  // When the child is reaped, what is left of its process group is killed first. Only with a group of its own.
  bool kill_group_on_exit = true;
  int parent_death_signal = 0;  // 0: none
  std::vector<ResourceLimit> limits;
  std::optional<int> nice;
  std::optional<int> oom_score_adjust;
  std::optional<mode_t> umask;
  bool no_new_privileges = true;
  // Requires root.
  std::optional<ProcessIdentity> identity;

  // Files named cgroup.procs that the child enters before it executes.
  std::vector<std::string> cgroup_procs;

  // A mount namespace of its own, implied by the lists below. Requires root. Mounts are made in order; then each hidden
  // directory is covered by an empty file system that the program cannot read.
  bool unshare_mount = false;
  std::vector<BindMount> bind_mounts;
  std::vector<std::string> hidden_directories;

  // Forks for this process, which has threads; see fork_server.h. Not with mounts of the child's own: those that the
  // server has are inherited.
  ForkServer* fork_server = nullptr;

  // How long the child may take from fork to exec before it is killed.
  int64_t start_timeout_ms = 30'000;
};

struct ProcessUsage {
  int64_t user_cpu_us = 0;
  int64_t system_cpu_us = 0;
  int64_t memory_bytes_max = 0;  // largest resident set
  int64_t major_faults = 0;
  int64_t blocks_read = 0;     // of 512 bytes
  int64_t blocks_written = 0;  // of 512 bytes
};

struct ExitStatus {
  int exit_code = 0;  // of a program that exited
  int signal = 0;     // that ended it, or 0
  bool core_dumped = false;
  ProcessUsage usage;

  bool succeeded() const { return exit_code == 0 && signal == 0; }
  // "exit code 3", "signal 9 (Killed)".
  std::string to_string() const;
};

class Subprocess {
 public:
  // Returns when the program is executing. Blocks for the start. Errors: invalid SPAWN_OPTIONS_INVALID, not_found
  // PROGRAM_NOT_FOUND, permission PROGRAM_PERMISSION, exhausted SPAWN_EXHAUSTED (processes, memory, descriptors),
  // failed_precondition SPAWN_FAILED for any other step, deadline SPAWN_TIMEOUT, unavailable FORK_SERVER_GONE.
  static Result<Subprocess> spawn(const SpawnOptions& options);

  // Kills (the group) and reaps a child that was not waited for.
  ~Subprocess();
  Subprocess(Subprocess&&) noexcept;
  Subprocess& operator=(Subprocess&&) noexcept;

  // Lets the child go on by itself: this object has none any more, and who is its parent then reaps it.
  void detach();

  pid_t pid() const;
  // Readable when the child has exited. Owned by this object. For poll loops; then call try_wait().
  int pidfd() const;

  // Signals the child. Errors: not_found PROCESS_GONE once it has been reaped.
  Status signal(int number);
  // Signals the child's process group, or the child if it has none of its own. Errors as signal().
  Status signal_group(int number);

  // Blocks until the child has exited and returns how. The result is kept: later calls return it again.
  Result<ExitStatus> wait();
  // Like wait(), at most `timeout_ms`. Nothing if the child still runs.
  Result<std::optional<ExitStatus>> wait_for(int64_t timeout_ms);
  Result<std::optional<ExitStatus>> try_wait() { return wait_for(0); }

 private:
  struct State;
  explicit Subprocess(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace uccp::runtime
