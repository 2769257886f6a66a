// What a forked child does between fork and exec, with nothing but async-signal-safe calls. Internal to subprocess.
//
// Invariants: a ChildPlan is complete before the fork; run_child() neither allocates nor locks nor returns. Pointers in
// the plan belong to the caller and outlive the fork.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace uccp::runtime {

// Where a start failed. Order is the order of the work.
enum class ChildStep : int32_t {
  kGroup,
  kCgroup,
  kUnshare,
  kBindMount,
  kHide,
  kDescriptors,
  kPriority,
  kLimit,
  kIdentity,
  kPrivileges,
  kDeathSignal,
  kDirectory,
  kExecute,
};
const char* child_step_name(ChildStep step);

// Written to the report pipe by a child that could not execute its program.
struct ChildFailure {
  ChildStep step;
  int32_t error_number;
  int32_t item;  // which of several limits, mounts or control groups
};

struct ChildLimit {
  int resource;
  rlimit value;
};

struct ChildMount {
  const char* from;
  const char* to;
  bool read_only;
};

struct ChildPlan {
  const char* program;
  char* const* argv;
  char* const* environment;
  const char* directory;  // null: stay

  const int* descriptors;  // become 0, 1, 2, ...
  size_t descriptor_count;
  int* scratch;  // room for descriptor_count numbers
  int report_fd;

  bool new_session;
  bool new_group;
  int death_signal;
  pid_t parent;

  const char* const* cgroups;
  size_t cgroup_count;

  bool unshare_mount;
  const ChildMount* mounts;
  size_t mount_count;
  const char* const* hidden;
  size_t hidden_count;

  const ChildLimit* limits;
  size_t limit_count;
  const int* nice;               // null: unchanged
  const char* oom_score_adjust;  // null: unchanged
  const mode_t* umask;           // null: unchanged

  bool change_identity;
  uid_t uid;
  gid_t gid;
  const gid_t* groups;
  size_t group_count;
  bool no_new_privileges;
};

[[noreturn]] void run_child(const ChildPlan& plan);

}  // namespace uccp::runtime
