// How a process of a task is kept apart from the agent and from other namespaces on this machine.
//
// As root: an unprivileged uid a namespace, no new privileges, and a mount namespace in which the folders of attempts
// are bound at a fixed place, so that the data directory can stay closed (0700). The mount namespace belongs to the
// fork server (or the threads that start tasks), and tasks inherit it: one for each task costs milliseconds of RCU
// waiting at its end, and would keep apart only tasks of one namespace, which share a uid anyway; those of others find
// folders that they may not enter. Where the kernel refuses mounts (a container without the capability) folders are
// reached by their real path. Without root, or with root tasks allowed, tasks run as the agent's own user. The note
// says which it is. Thread: one, but enter_thread() and seen_as() on any.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "agent/executor.h"
#include "agent/uid_map.h"
#include "base/file_system.h"
#include "base/status.h"
#include "runtime/fork_server.h"
#include "runtime/subprocess.h"

namespace uccp::agent {

struct IsolationOptions {
  std::string data_directory;
  bool allow_root_tasks = false;
  // Where <data>/tasks is bound for tasks; made if missing.
  std::string mount_point = "/run/uccp/tasks";
  // Gets the mounts as well, for the tasks that it forks. May be null.
  runtime::ForkServer* fork_server = nullptr;
};

class ProcessIsolation {
 public:
  // Finds out what is possible, by trying it. `files` must outlive the object.
  static Result<ProcessIsolation> open(FileSystem& files, IsolationOptions options);

  // Nothing: tasks run as the agent's user. Errors as UidMap::uid_of().
  Result<std::optional<runtime::ProcessIdentity>> identity_of(const AttemptSpec& spec);
  // Path under which the task sees the folder <data>/tasks/<name>.
  std::string seen_as(const std::string& name) const;
  // Takes the calling thread into the mount namespace, if there is to be one. To be called, before it starts tasks, on
  // each thread that does; it must be a thread that does nothing else. Later calls on a thread do nothing.
  Status enter_thread() const;
  // One sentence for the worker's record.
  const std::string& note() const { return note_; }

 private:
  explicit ProcessIsolation(IsolationOptions options) : options_(std::move(options)) {}
  Status bind_folders() const;

  IsolationOptions options_;
  std::optional<UidMap> uids_;
  bool mounts_ = false;
  std::string note_;
};

}  // namespace uccp::agent
