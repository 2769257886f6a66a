#include "agent/process_isolation.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>

namespace uccp::agent {
namespace {

// Directories on the way to the mount point are passed by every task user; what is bound there is not theirs to see
// before it is bound.
Status make_mount_point(const std::string& path) {
  for (size_t at = 1; at <= path.size(); ++at) {
    if (at != path.size() && path[at] != '/') continue;
    const std::string part = path.substr(0, at);
    if (mkdir(part.c_str(), 0755) != 0 && errno != EEXIST) {
      return Status(Code::kFailedPrecondition, "MOUNT_POINT_MISSING",
                    "cannot make " + part + ": " + std::strerror(errno));
    }
  }
  return {};
}

}  // namespace

Result<ProcessIsolation> ProcessIsolation::open(FileSystem& files, IsolationOptions options) {
  ProcessIsolation isolation(std::move(options));
  const std::string& data = isolation.options_.data_directory;
  if (geteuid() != 0) {
    isolation.note_ = "tasks run as the agent's user (uid " + std::to_string(geteuid()) +
                      "): the agent is not root, so namespaces are not kept apart";
    return isolation;
  }
  if (isolation.options_.allow_root_tasks) {
    isolation.note_ = "tasks run as root (--allow-root-tasks): namespaces are not kept apart";
    return isolation;
  }
  UCCP_TRY(isolation.uids_, UidMap::open(files, data + "/uids"));
  // Tried on a thread that ends: the namespace goes with it.
  Status mounts;
  std::thread([&] { mounts = isolation.bind_folders(); }).join();
  if (mounts.is_ok() && isolation.options_.fork_server != nullptr) {
    mounts = isolation.options_.fork_server->bind(data + "/tasks", isolation.options_.mount_point);
  }
  isolation.mounts_ = mounts.is_ok();
  isolation.note_ = "an unprivileged user for each namespace, no new privileges";
  // Folders are passed through by their owners, but nobody lists them.
  chmod((data + "/tasks").c_str(), 0711);
  if (mounts.is_ok()) {
    isolation.note_ += ", the agent's files out of reach";
    return isolation;
  }
  isolation.note_ += "; no mount namespace (" + mounts.message() + ")";
  chmod(data.c_str(), 0711);
  return isolation;
}

Status ProcessIsolation::bind_folders() const {
  UCCP_RETURN_IF_ERROR(make_mount_point(options_.mount_point));
  const std::string folders = options_.data_directory + "/tasks";
  const char* failed = nullptr;
  if (unshare(CLONE_NEWNS) != 0) {
    failed = "unshare";
  } else if (mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) {
    failed = "make mounts private";
  } else if (mount(folders.c_str(), options_.mount_point.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    failed = "bind";
  }
  if (failed == nullptr) return {};
  return Status(
      Code::kFailedPrecondition, "MOUNT_NAMESPACE_FAILED",
      std::string("cannot ") + failed + " " + folders + " at " + options_.mount_point + ": " + std::strerror(errno));
}

Status ProcessIsolation::enter_thread() const {
  thread_local bool entered = false;
  if (!mounts_ || entered) return {};
  UCCP_RETURN_IF_ERROR(bind_folders());
  entered = true;
  return {};
}

std::string ProcessIsolation::seen_as(const std::string& name) const {
  return (mounts_ ? options_.mount_point : options_.data_directory + "/tasks") + "/" + name;
}

Result<std::optional<runtime::ProcessIdentity>> ProcessIsolation::identity_of(const AttemptSpec& spec) {
  if (!uids_) return std::nullopt;
  UCCP_TRY(uint32_t uid, uids_->uid_of(spec.tenant, spec.namespace_name));
  return runtime::ProcessIdentity{.uid = uid, .gid = uid};
}

}  // namespace uccp::agent
