// How a process of a task is kept apart from the agent and from other namespaces on this machine.
//
// As root: an unprivileged uid a namespace, no new privileges, a mount namespace in which the attempt's folder is bound
// at one fixed path. Where the kernel refuses mounts (a container without the capability) the folder is reached by its
// real path. Without root, or with root tasks allowed, tasks run as the agent's own user. The note says which it is.
// Thread: one; plan() is pure.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "agent/executor.h"
#include "agent/uid_map.h"
#include "base/file_system.h"
#include "base/status.h"
#include "runtime/subprocess.h"

namespace uccp::agent {

struct IsolationOptions {
  std::string data_directory;
  bool allow_root_tasks = false;
  // Where the folder is bound; made if missing.
  std::string mount_point = "/run/uccp/task";
};

class ProcessIsolation {
 public:
  // Finds out what is possible, by trying it. `files` must outlive the object.
  static Result<ProcessIsolation> open(FileSystem& files, IsolationOptions options);

  // Nothing: tasks run as the agent's user. Errors as UidMap::uid_of().
  Result<std::optional<runtime::ProcessIdentity>> identity_of(const AttemptSpec& spec);
  // Path under which the task sees `folder`.
  std::string seen_as(const std::string& folder) const { return mounts_ ? options_.mount_point : folder; }
  // Adds identity and mounts to `options`.
  void apply(runtime::SpawnOptions& options, const std::string& folder,
             const std::optional<runtime::ProcessIdentity>& identity) const;
  // One sentence for the worker's record.
  const std::string& note() const { return note_; }

 private:
  explicit ProcessIsolation(IsolationOptions options) : options_(std::move(options)) {}
  Status try_mounts();

  IsolationOptions options_;
  std::optional<UidMap> uids_;
  bool mounts_ = false;
  std::string note_;
};

}  // namespace uccp::agent
