#include "agent/process_isolation.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace uccp::agent {
namespace {

// Directories on the way to the mount point are passed by every task user; what is bound there is not theirs to see
// before it is bound.
Status make_mount_point(const std::string& path) {
  for (size_t at = 1; at <= path.size(); ++at) {
    if (at != path.size() && path[at] != '/') continue;
    const std::string part = path.substr(0, at);
    if (mkdir(part.c_str(), 0755) != 0 && errno != EEXIST) {
      return Status(Code::kFailedPrecondition, "MOUNT_POINT_MISSING", "cannot make " + part + ": " + std::strerror(errno));
    }
  }
  return {};
}

}  // namespace

Result<ProcessIsolation> ProcessIsolation::open(FileSystem& files, IsolationOptions options) {
  ProcessIsolation isolation(std::move(options));
  const std::string& data = isolation.options_.data_directory;
  if (geteuid() != 0) {
    isolation.note_ = "tasks run as the agent's user (uid " + std::to_string(geteuid()) + "): the agent is not root, so namespaces are not kept apart";
    return isolation;
  }
  if (isolation.options_.allow_root_tasks) {
    isolation.note_ = "tasks run as root (--allow-root-tasks): namespaces are not kept apart";
    return isolation;
  }
  UCCP_TRY(isolation.uids_, UidMap::open(files, data + "/uids"));
  const Status mounts = isolation.try_mounts();
  isolation.mounts_ = mounts.is_ok();
  isolation.note_ = "an unprivileged user for each namespace, no new privileges";
  if (mounts.is_ok()) {
    isolation.note_ += ", own mount namespace";
    return isolation;
  }
  // The folder has to be reached by its real path: its parents may be passed, not listed.
  isolation.note_ += "; no mount namespace (" + mounts.message() + ")";
  chmod(data.c_str(), 0711);
  chmod((data + "/tasks").c_str(), 0711);
  return isolation;
}

Status ProcessIsolation::try_mounts() {
  UCCP_RETURN_IF_ERROR(make_mount_point(options_.mount_point));
  runtime::SpawnOptions probe;
  probe.argv = {"true"};
  probe.bind_mounts = {{.from = options_.data_directory, .to = options_.mount_point}};
  UCCP_TRY(auto child, runtime::Subprocess::spawn(probe));
  UCCP_RETURN_IF_ERROR(child.wait());
  return {};
}

Result<std::optional<runtime::ProcessIdentity>> ProcessIsolation::identity_of(const AttemptSpec& spec) {
  if (!uids_) return std::nullopt;
  UCCP_TRY(uint32_t uid, uids_->uid_of(spec.tenant, spec.namespace_name));
  return runtime::ProcessIdentity{.uid = uid, .gid = uid};
}

void ProcessIsolation::apply(runtime::SpawnOptions& options, const std::string& folder,
                             const std::optional<runtime::ProcessIdentity>& identity) const {
  options.no_new_privileges = true;
  options.identity = identity;
  if (mounts_) options.bind_mounts.push_back({.from = folder, .to = options_.mount_point});
}

}  // namespace uccp::agent
