// Control groups: limits, use, and a way to kill all processes of an attempt, whatever they did to escape their group.
//
// Three layouts are found in the wild and all are served: v1 (a hierarchy a controller), v2 (one for all), and hybrid
// (v1 controllers and an empty v2 hierarchy, which still can kill). Invariants: groups are made below the agent's own
// group, so that limits on the agent hold for its tasks too; a slot serves one attempt at a time and is empty when it
// is given out; directories are <own group>/uccp/<agent>/<n>, where <agent> names data directory, pid namespace and
// pid, so that those of dead agents can be told and removed. Thread: a pool belongs to one thread. The calls write to
// kernel files; they take microseconds and do not sleep.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agent/executor.h"
#include "base/status.h"

namespace uccp::agent {

// Where groups can be made: directories of the agent's own group in each hierarchy, empty where there is none.
struct CgroupLayout {
  std::string cpu;      // v1
  std::string cpuacct;  // v1
  std::string memory;   // v1
  std::string pids;     // v1
  std::string unified;  // v2
  // The v2 hierarchy has the controllers.
  bool unified_cpu = false, unified_memory = false, unified_pids = false;
  // Why something is missing, one clause each.
  std::vector<std::string> problems;

  bool has_cpu() const { return !cpu.empty() || unified_cpu; }
  bool has_memory() const { return !memory.empty() || unified_memory; }
  bool has_pids() const { return !pids.empty() || unified_pids; }
  bool usable() const { return !unified.empty() || !pids.empty() || !cpu.empty() || !memory.empty(); }
};

// Reads <proc>/self/mountinfo and <proc>/self/cgroup and tries to make a group in each hierarchy. On v2 the agent moves
// itself into a leaf of its own where that is needed to hand the controllers down.
CgroupLayout detect_cgroups(const std::string& proc = "/proc");

// One group of an attempt.
class Cgroup {
 public:
  // The cgroup.procs files that a process enters before it executes.
  const std::vector<std::string>& procs_files() const { return procs_files_; }
  // Kills everything in the group, also what is being forked meanwhile. True when nothing is left alive.
  bool kill_all();
  bool empty() const;
  // Since the slot was given out.
  AttemptUse usage() const;
  // Times that the kernel killed something in it for want of memory since the slot was given out.
  uint64_t oom_kills() const;

 private:
  friend class CgroupPool;
  uint64_t cpu_ns() const;
  uint64_t oom_total() const;

  // Directories of this slot; equal layout as CgroupLayout.
  std::string cpu_, cpuacct_, memory_, pids_, unified_;
  bool unified_cpu_ = false, unified_memory_ = false, unified_pids_ = false;
  std::vector<std::string> procs_files_;
  AttemptLimits limits_;
  bool limits_set_ = false;
  uint64_t cpu_ns_before_ = 0;
  uint64_t oom_before_ = 0;
};

class CgroupPool {
 public:
  // `data_directory` tells agents apart.
  CgroupPool(CgroupLayout layout, const std::string& data_directory);
  // Removes the agent's groups; what is left in them is killed.
  ~CgroupPool();
  CgroupPool(const CgroupPool&) = delete;
  CgroupPool& operator=(const CgroupPool&) = delete;

  // Kills and removes what dead agents left, those of this data directory first of all.
  void remove_stale();
  // An empty group with these limits. Errors: failed_precondition CGROUP_UNAVAILABLE, exhausted CGROUP_EXHAUSTED.
  Result<std::unique_ptr<Cgroup>> acquire(const AttemptLimits& limits);
  // Takes a group back for the next attempt. Requires: empty. One that is not is kept aside and killed again later.
  void release(std::unique_ptr<Cgroup> group);

  const CgroupLayout& layout() const { return layout_; }
  // "limits: cpu, memory, pids" or what is missing and why.
  std::string note() const;
  // Directory names of this agent in each hierarchy, for whoever has to kill them after a crash.
  std::vector<std::string> agent_directories() const;

 private:
  static constexpr size_t kSlotsMax = 10'000;
  Result<std::unique_ptr<Cgroup>> make();
  Status apply(Cgroup& group, const AttemptLimits& limits);
  void remove(Cgroup& group);

  CgroupLayout layout_;
  std::string agent_;
  std::vector<std::unique_ptr<Cgroup>> free_;
  std::vector<std::unique_ptr<Cgroup>> dirty_;
  uint64_t next_slot_ = 0;
  bool roots_made_ = false;
};

// Kills all processes below the directories, repeatedly until there are none, and removes them. For stale groups.
void kill_and_remove_groups(const std::vector<std::string>& directories);

}  // namespace uccp::agent
