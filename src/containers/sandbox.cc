#include "containers/sandbox.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "runtime/owned_fd.h"
#include "runtime/subprocess.h"

namespace uccp::containers {
namespace {

using runtime::OwnedFd;

std::string because(const std::string& what) { return "cannot " + what + ": " + std::strerror(errno); }

Status refused(const std::string& what) {
  return Status(Code::kFailedPrecondition, "NAMESPACE_REFUSED", because(what));
}

Status write_text(const char* path, const std::string& text) {
  const OwnedFd file(open(path, O_WRONLY | O_CLOEXEC));
  if (!file || write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return refused(std::string("write to ") + path);
  return {};
}

}  // namespace

Status enter_namespaces() {
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  int death_signal = 0;
  prctl(PR_GET_PDEATHSIG, &death_signal);
  const pid_t parent = getppid();
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return refused("make a user namespace");
  UCCP_RETURN_IF_ERROR(write_text("/proc/self/setgroups", "deny"));
  UCCP_RETURN_IF_ERROR(write_text("/proc/self/uid_map", "0 " + std::to_string(uid) + " 1"));
  UCCP_RETURN_IF_ERROR(write_text("/proc/self/gid_map", "0 " + std::to_string(gid) + " 1"));
  // The kernel forgets it with each gain of privileges.
  if (death_signal != 0 && prctl(PR_SET_PDEATHSIG, death_signal) != 0) return refused("ask to end with the agent");
  if (death_signal != 0 && getppid() != parent) raise(death_signal);
  if (mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) return refused("have mounts of its own");
  return {};
}

Status mount_overlay(const std::string& lower, const std::string& upper, const std::string& work,
                     const std::string& at) {
  const auto failed = [](const std::string& what) {
    return Status(Code::kFailedPrecondition, "OVERLAY_REFUSED", because(what));
  };
  // By descriptors: paths may have commas and colons, which the options cannot.
  OwnedFd fds[3];
  const std::string* const paths[3] = {&lower, &upper, &work};
  std::string options;
  for (int i = 0; i < 3; ++i) {
    fds[i] = OwnedFd(open(paths[i]->c_str(), O_DIRECTORY | O_RDONLY | O_CLOEXEC));
    if (!fds[i]) return failed("open " + *paths[i]);
    constexpr const char* kNames[3] = {"lowerdir=", ",upperdir=", ",workdir="};
    options += kNames[i] + std::string("/proc/self/fd/") + std::to_string(fds[i].get());
  }
  options += ",userxattr";
  if (mount("overlay", at.c_str(), "overlay", MS_NOSUID | MS_NODEV, options.c_str()) != 0)
    return failed("mount the image's file system");
  return {};
}

Status probe(const std::string& runc) {
  runtime::SpawnOptions options;
  options.argv = {runc, "--version"};
  auto process = runtime::Subprocess::spawn(options);
  if (!process) {
    return Status(
        Code::kNotFound, "RUNC_NOT_FOUND",
        "there is no program " + runc + " (Debian: apt-get install runc): " + std::string(process.error().message()));
  }
  UCCP_TRY(const runtime::ExitStatus exit, process->wait());
  if (!exit.succeeded()) return Status(Code::kNotFound, "RUNC_NOT_FOUND", runc + " --version: " + exit.to_string());
  UCCP_RETURN_IF_ERROR(enter_namespaces());
  if (mount("tmpfs", "/tmp", "tmpfs", 0, nullptr) != 0) return refused("mount a file system in memory");
  for (const char* name : {"/tmp/lower", "/tmp/upper", "/tmp/work", "/tmp/at"}) mkdir(name, 0755);
  return mount_overlay("/tmp/lower", "/tmp/upper", "/tmp/work", "/tmp/at");
}

}  // namespace uccp::containers
