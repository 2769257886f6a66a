#include "runtime/child_setup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// Instrumented code of a sanitizer may allocate or lock, which a child of a process with threads must not. For the same
// reason the calls that sanitizers intercept are made by number.
#define UCCP_IN_CHILD __attribute__((disable_sanitizer_instrumentation))

namespace uccp::runtime {
namespace {

[[noreturn]] UCCP_IN_CHILD void give_up(const ChildPlan& plan, ChildStep step, size_t item = 0) {
  const ChildFailure failure{step, errno, static_cast<int32_t>(item)};
  // One write of this size to a pipe is atomic. If it fails the parent sees a child that exited with 127.
  [[maybe_unused]] const long written = ::syscall(SYS_write, plan.report_fd, &failure, sizeof failure);
  ::_exit(127);
}

UCCP_IN_CHILD int duplicate_above(int descriptor, int lowest) {
  return static_cast<int>(::syscall(SYS_fcntl, descriptor, F_DUPFD_CLOEXEC, lowest));
}

// Leaves the descriptor open: it is closed at exec.
UCCP_IN_CHILD bool write_file(const char* path, const char* text) {
  size_t size = 0;
  while (text[size] != '\0') ++size;
  const long descriptor = ::syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC);
  return descriptor >= 0 && ::syscall(SYS_write, descriptor, text, size) >= 0;
}

UCCP_IN_CHILD void enter_groups(const ChildPlan& plan) {
  if (plan.new_session) {
    if (::setsid() < 0) give_up(plan, ChildStep::kGroup);
  } else if (plan.new_group && ::setpgid(0, 0) != 0) {
    give_up(plan, ChildStep::kGroup);
  }
  for (size_t i = 0; i < plan.cgroup_count; ++i) {
    if (!write_file(plan.cgroups[i], "0")) give_up(plan, ChildStep::kCgroup, i);
  }
}

UCCP_IN_CHILD void make_mounts(const ChildPlan& plan) {
  if (!plan.unshare_mount) return;
  if (::unshare(CLONE_NEWNS) != 0) give_up(plan, ChildStep::kUnshare);
  // Otherwise the mounts below would appear in the caller's namespace where "/" is shared.
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) give_up(plan, ChildStep::kUnshare);
  for (size_t i = 0; i < plan.mount_count; ++i) {
    const ChildMount& m = plan.mounts[i];
    if (::mount(m.from, m.to, nullptr, MS_BIND | MS_REC, nullptr) != 0) give_up(plan, ChildStep::kBindMount, i);
    // The kernel ignores MS_RDONLY in the call that binds.
    constexpr unsigned long kReadOnly = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV;
    if (m.read_only && ::mount(nullptr, m.to, nullptr, kReadOnly, nullptr) != 0) {
      give_up(plan, ChildStep::kBindMount, i);
    }
  }
  for (size_t i = 0; i < plan.hidden_count; ++i) {
    constexpr unsigned long kFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY;
    if (::mount("hidden", plan.hidden[i], "tmpfs", kFlags, "mode=0,size=4k") != 0) {
      give_up(plan, ChildStep::kHide, i);
    }
  }
}

UCCP_IN_CHILD void set_limits(const ChildPlan& plan) {
  if (plan.oom_score_adjust != nullptr && !write_file("/proc/self/oom_score_adj", plan.oom_score_adjust)) {
    give_up(plan, ChildStep::kPriority);
  }
  if (plan.nice != nullptr && ::setpriority(PRIO_PROCESS, 0, *plan.nice) != 0) give_up(plan, ChildStep::kPriority);
  if (plan.umask != nullptr) ::umask(*plan.umask);
  for (size_t i = 0; i < plan.limit_count; ++i) {
    // prlimit64 by number: the wrapper's first argument is an enum in C++.
    if (::syscall(SYS_prlimit64, 0, plan.limits[i].resource, &plan.limits[i].value, nullptr) != 0) {
      give_up(plan, ChildStep::kLimit, i);
    }
  }
}

UCCP_IN_CHILD void place_descriptors(ChildPlan& plan) {
  const int count = static_cast<int>(plan.descriptor_count);
  // First above all targets, so that no dup2 below overwrites a source that is still needed.
  if (plan.report_fd < count) {
    plan.report_fd = duplicate_above(plan.report_fd, count);
    if (plan.report_fd < 0) ::_exit(127);
  }
  for (int i = 0; i < count; ++i) {
    plan.scratch[i] = duplicate_above(plan.descriptors[i], count);
    if (plan.scratch[i] < 0) give_up(plan, ChildStep::kDescriptors, static_cast<size_t>(i));
  }
  for (int i = 0; i < count; ++i) {
    if (::syscall(SYS_dup3, plan.scratch[i], i, 0) < 0) give_up(plan, ChildStep::kDescriptors, static_cast<size_t>(i));
  }
  // Marked rather than closed: the report pipe has to last until exec.
  if (::syscall(SYS_close_range, static_cast<unsigned>(count), ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
    give_up(plan, ChildStep::kDescriptors);
  }
}

// System calls by number: glibc's setuid family synchronizes threads, which do not exist in the child.
UCCP_IN_CHILD void become(const ChildPlan& plan) {
  if (plan.change_identity) {
    if (::syscall(SYS_setgroups, plan.group_count, plan.groups) != 0 ||
        ::syscall(SYS_setresgid, plan.gid, plan.gid, plan.gid) != 0 ||
        ::syscall(SYS_setresuid, plan.uid, plan.uid, plan.uid) != 0) {
      give_up(plan, ChildStep::kIdentity);
    }
  }
  if (plan.no_new_privileges && ::syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    give_up(plan, ChildStep::kPrivileges);
  if (plan.death_signal != 0) {
    // After the change of identity, which resets it.
    if (::syscall(SYS_prctl, PR_SET_PDEATHSIG, plan.death_signal, 0, 0, 0) != 0) give_up(plan, ChildStep::kDeathSignal);
    // The parent may have died before the call: nobody would send the signal any more.
    if (::getppid() != plan.parent) ::_exit(127);
  }
  if (plan.directory != nullptr && ::chdir(plan.directory) != 0) give_up(plan, ChildStep::kDirectory);
}

// Handlers go away at exec, but ignored signals and the mask are inherited.
UCCP_IN_CHILD void reset_signals() {
  // The kernel's own structures: all zeros are SIG_DFL with no flags, and the empty set.
  constexpr size_t kKernelSetBytes = _NSIG / 8;
  const uint64_t default_action[4] = {};
  const uint64_t no_signals[kKernelSetBytes / sizeof(uint64_t)] = {};
  for (int number = 1; number < _NSIG; ++number) {
    ::syscall(SYS_rt_sigaction, number, default_action, nullptr, kKernelSetBytes);
  }
  ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, no_signals, nullptr, kKernelSetBytes);
}

}  // namespace

const char* child_step_name(ChildStep step) {
  switch (step) {
    case ChildStep::kGroup: return "making a process group";
    case ChildStep::kCgroup: return "entering a control group";
    case ChildStep::kUnshare: return "making a mount namespace";
    case ChildStep::kBindMount: return "mounting";
    case ChildStep::kHide: return "hiding a directory";
    case ChildStep::kLimit: return "setting a resource limit";
    case ChildStep::kPriority: return "setting its priority";
    case ChildStep::kDescriptors: return "placing its descriptors";
    case ChildStep::kIdentity: return "changing user and groups";
    case ChildStep::kPrivileges: return "giving up privileges";
    case ChildStep::kDeathSignal: return "asking for the parent's death signal";
    case ChildStep::kDirectory: return "entering its working directory";
    case ChildStep::kExecute: return "executing it";
  }
  return "starting";
}

UCCP_IN_CHILD void run_child(const ChildPlan& given) {
  ChildPlan plan = given;
  enter_groups(plan);
  make_mounts(plan);
  // Before the limits: a low limit of descriptors would leave no room to move them.
  place_descriptors(plan);
  set_limits(plan);
  become(plan);
  reset_signals();
  ::execve(plan.program, plan.argv, plan.environment);
  give_up(plan, ChildStep::kExecute);
}

}  // namespace uccp::runtime
