#include "agent/cgroup.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <set>

#include "agent/cgroup_files.h"
#include "base/hash.h"
#include "base/log.h"

namespace uccp::agent {
namespace {

constexpr int64_t kPeriodUs = 100'000;
// The kernel refuses smaller quotas.
constexpr int64_t kQuotaUsMin = 1'000;
constexpr int kKillRounds = 200;

std::string pid_namespace() {
  struct stat info{};
  return stat("/proc/self/ns/pid", &info) == 0 ? std::to_string(info.st_ino) : "0";
}

std::string data_directory_tag(const std::string& directory) {
  std::error_code error;
  const std::string canonical = std::filesystem::weakly_canonical(directory, error).string();
  char text[17];
  std::snprintf(text, sizeof text, "%016lx", hash64(error ? directory : canonical));
  return text;
}

void add_unique(std::vector<std::string>& list, const std::string& item) {
  if (!item.empty() && std::ranges::find(list, item) == list.end()) list.push_back(item);
}

// Kills what is in the group now; true if there was nothing alive.
bool kill_once(const std::string& group) {
  const std::vector<int> pids = processes_in(group);
  for (const int pid : pids) kill(pid, SIGKILL);
  return pids.empty();
}

}  // namespace

bool Cgroup::empty() const {
  const std::string& any = !unified_.empty() ? unified_ : procs_files_.empty() ? unified_ : procs_files_.front();
  if (any.empty()) return true;
  const std::string directory = unified_.empty() ? any.substr(0, any.rfind('/')) : unified_;
  return read_control(directory + "/cgroup.procs").empty();
}

bool Cgroup::kill_all() {
  if (empty()) return true;
  if (!unified_.empty() && write_control(unified_ + "/cgroup.kill", "1").is_ok()) return empty();
  // Without the kernel's own way: forbid forks, then kill whoever is there until nobody is.
  if (!pids_.empty()) (void)write_control(pids_ + "/pids.max", "0");
  if (unified_pids_) (void)write_control(unified_ + "/pids.max", "0");
  limits_set_ = false;
  for (const std::string& file : procs_files_) kill_once(file.substr(0, file.rfind('/')));
  return empty();
}

uint64_t Cgroup::cpu_ns() const {
  if (!cpuacct_.empty()) return read_number(cpuacct_ + "/cpuacct.usage");
  if (!unified_.empty()) return read_keyed(unified_ + "/cpu.stat", "usage_usec") * 1000;
  return 0;
}

uint64_t Cgroup::oom_total() const {
  if (!memory_.empty()) return read_keyed(memory_ + "/memory.oom_control", "oom_kill");
  if (unified_memory_) return read_keyed(unified_ + "/memory.events", "oom_kill");
  return 0;
}

uint64_t Cgroup::oom_kills() const { return oom_total() - oom_before_; }

AttemptUse Cgroup::usage() const {
  AttemptUse use;
  use.cpu_seconds = static_cast<double>(cpu_ns() - cpu_ns_before_) * 1e-9;
  // Resident memory, without the page cache that the slot may have kept from an attempt before.
  if (!memory_.empty()) use.memory_bytes = read_keyed(memory_ + "/memory.stat", "total_rss");
  if (unified_memory_) use.memory_bytes = read_keyed(unified_ + "/memory.stat", "anon");
  return use;
}

CgroupPool::CgroupPool(CgroupLayout layout, const std::string& data_directory)
    : layout_(std::move(layout)),
      agent_(data_directory_tag(data_directory) + "." + pid_namespace() + "." + std::to_string(getpid())) {}

CgroupPool::~CgroupPool() {
  for (auto& group : dirty_) free_.push_back(std::move(group));
  for (auto& group : free_) {
    group->kill_all();
    remove(*group);
  }
  for (const std::string& directory : agent_directories()) rmdir(directory.c_str());
}

std::vector<std::string> CgroupPool::agent_directories() const {
  std::vector<std::string> directories;
  for (const std::string* base : {&layout_.cpu, &layout_.cpuacct, &layout_.memory, &layout_.pids, &layout_.unified}) {
    if (!base->empty()) add_unique(directories, *base + "/uccp/" + agent_);
  }
  return directories;
}

void CgroupPool::remove_stale() {
  const size_t tag_size = agent_.find('.');
  const std::string own_namespace = pid_namespace();
  std::vector<std::string> stale;
  for (const std::string& own : agent_directories()) {
    const std::string parent = own.substr(0, own.rfind('/'));
    for (const std::string& name : child_directories(parent)) {
      const size_t second = name.find('.', tag_size + 1);
      if (name == agent_ || second == std::string::npos) continue;
      int pid = 0;
      std::from_chars(name.data() + second + 1, name.data() + name.size(), pid);
      const bool same_data = name.compare(0, tag_size, agent_, 0, tag_size) == 0;
      const bool same_namespace = name.substr(tag_size + 1, second - tag_size - 1) == own_namespace;
      const bool dead = same_namespace && pid > 0 && kill(pid, 0) != 0 && errno == ESRCH;
      // The lock on the data directory is held: whoever used it before is dead or has lost it.
      if (same_data || dead) stale.push_back(parent + "/" + name);
    }
  }
  if (!stale.empty()) log::info("removing control groups of dead agents", {{"groups", stale.size()}});
  kill_and_remove_groups(stale);
}

void kill_and_remove_groups(const std::vector<std::string>& directories) {
  std::vector<std::string> groups;
  for (const std::string& directory : directories) {
    for (const std::string& name : child_directories(directory)) groups.push_back(directory + "/" + name);
  }
  for (int round = 0; round < kKillRounds; ++round) {
    bool clean = true;
    for (const std::string& group : groups) {
      if (read_control(group + "/cgroup.procs").empty()) continue;
      clean = false;
      if (!write_control(group + "/cgroup.kill", "1").is_ok()) kill_once(group);
    }
    if (clean) break;
    usleep(5'000);
  }
  for (const std::string& group : groups) rmdir(group.c_str());
  for (const std::string& directory : directories) rmdir(directory.c_str());
}

Result<std::unique_ptr<Cgroup>> CgroupPool::make() {
  if (!layout_.usable()) return fail(Code::kFailedPrecondition, "CGROUP_UNAVAILABLE", note());
  if (next_slot_ >= kSlotsMax) {
    return fail(Code::kExhausted, "CGROUP_EXHAUSTED", std::to_string(kSlotsMax) + " control groups are in use");
  }
  if (!std::exchange(roots_made_, true)) {
    for (const std::string& directory : agent_directories()) mkdir(directory.c_str(), 0755);
    const std::string own = layout_.unified + "/uccp/" + agent_ + "/cgroup.subtree_control";
    if (layout_.unified_cpu) UCCP_RETURN_IF_ERROR(write_control(own, "+cpu"));
    if (layout_.unified_memory) UCCP_RETURN_IF_ERROR(write_control(own, "+memory"));
    if (layout_.unified_pids) UCCP_RETURN_IF_ERROR(write_control(own, "+pids"));
  }
  auto group = std::make_unique<Cgroup>();
  const std::string suffix = "/uccp/" + agent_ + "/" + std::to_string(next_slot_++);
  const auto place = [&](const std::string& base, std::string& slot) -> Status {
    if (base.empty()) return {};
    slot = base + suffix;
    if (mkdir(slot.c_str(), 0755) != 0 && errno != EEXIST) {
      return Status(Code::kFailedPrecondition, "CGROUP_UNAVAILABLE",
                    "cannot make " + slot + ": " + std::strerror(errno));
    }
    add_unique(group->procs_files_, slot + "/cgroup.procs");
    return {};
  };
  UCCP_RETURN_IF_ERROR(place(layout_.cpu, group->cpu_));
  UCCP_RETURN_IF_ERROR(place(layout_.cpuacct, group->cpuacct_));
  UCCP_RETURN_IF_ERROR(place(layout_.memory, group->memory_));
  UCCP_RETURN_IF_ERROR(place(layout_.pids, group->pids_));
  UCCP_RETURN_IF_ERROR(place(layout_.unified, group->unified_));
  group->unified_cpu_ = layout_.unified_cpu;
  group->unified_memory_ = layout_.unified_memory;
  group->unified_pids_ = layout_.unified_pids;
  return group;
}

Status CgroupPool::apply(Cgroup& group, const AttemptLimits& limits) {
  if (group.limits_set_ && group.limits_ == limits) return {};
  const int64_t quota = std::max(limits.cpu_millis * kPeriodUs / 1000, kQuotaUsMin);
  if (!group.cpu_.empty()) {
    UCCP_RETURN_IF_ERROR(
        write_control(group.cpu_ + "/cpu.cfs_quota_us", limits.cpu_millis > 0 ? std::to_string(quota) : "-1"));
  }
  if (group.unified_cpu_) {
    const std::string value = limits.cpu_millis > 0 ? std::to_string(quota) : "max";
    UCCP_RETURN_IF_ERROR(write_control(group.unified_ + "/cpu.max", value + " " + std::to_string(kPeriodUs)));
  }
  if (!group.memory_.empty()) {
    const std::string value = limits.memory_bytes > 0 ? std::to_string(limits.memory_bytes) : "-1";
    const std::string with_swap = group.memory_ + "/memory.memsw.limit_in_bytes";
    const bool swap_counted = access(with_swap.c_str(), W_OK) == 0;
    // The sum with swap may never be below the memory limit, so it steps aside first.
    if (swap_counted) UCCP_RETURN_IF_ERROR(write_control(with_swap, "-1"));
    UCCP_RETURN_IF_ERROR(write_control(group.memory_ + "/memory.limit_in_bytes", value));
    if (swap_counted) UCCP_RETURN_IF_ERROR(write_control(with_swap, value));
  }
  if (group.unified_memory_) {
    const std::string value = limits.memory_bytes > 0 ? std::to_string(limits.memory_bytes) : "max";
    UCCP_RETURN_IF_ERROR(write_control(group.unified_ + "/memory.max", value));
    if (access((group.unified_ + "/memory.swap.max").c_str(), W_OK) == 0) {
      UCCP_RETURN_IF_ERROR(write_control(group.unified_ + "/memory.swap.max", limits.memory_bytes > 0 ? "0" : "max"));
    }
    // All of an attempt or nothing: half of it would only hang.
    (void)write_control(group.unified_ + "/memory.oom.group", "1");
  }
  const std::string pids = limits.pids > 0 ? std::to_string(limits.pids) : "max";
  if (!group.pids_.empty()) UCCP_RETURN_IF_ERROR(write_control(group.pids_ + "/pids.max", pids));
  if (group.unified_pids_) UCCP_RETURN_IF_ERROR(write_control(group.unified_ + "/pids.max", pids));
  group.limits_ = limits;
  group.limits_set_ = true;
  return {};
}

Result<std::unique_ptr<Cgroup>> CgroupPool::acquire(const AttemptLimits& limits) {
  std::erase_if(dirty_, [&](std::unique_ptr<Cgroup>& group) {
    if (!group->kill_all()) return false;
    free_.push_back(std::move(group));
    return true;
  });
  // One that has these limits already, else any: writing limits is cheaper than making groups.
  auto chosen =
      std::ranges::find_if(free_, [&](const auto& group) { return group->limits_set_ && group->limits_ == limits; });
  if (chosen == free_.end() && !free_.empty()) chosen = free_.end() - 1;
  std::unique_ptr<Cgroup> group;
  if (chosen != free_.end()) {
    group = std::move(*chosen);
    free_.erase(chosen);
  } else {
    UCCP_TRY(group, make());
  }
  if (Status status = apply(*group, limits); !status.is_ok()) {
    // Page cache of the attempt before can stand above a lower limit; a fresh group has none.
    remove(*group);
    UCCP_TRY(group, make());
    UCCP_RETURN_IF_ERROR(apply(*group, limits));
  }
  group->cpu_ns_before_ = group->cpu_ns();
  group->oom_before_ = group->oom_total();
  return group;
}

void CgroupPool::release(std::unique_ptr<Cgroup> group) {
  (group->kill_all() ? free_ : dirty_).push_back(std::move(group));
}

void CgroupPool::remove(Cgroup& group) {
  for (const std::string& file : group.procs_files_) rmdir(file.substr(0, file.rfind('/')).c_str());
}

std::string CgroupPool::note() const {
  std::string enforced, missing;
  const auto add = [](std::string& list, std::string_view item) {
    if (!list.empty()) list += ", ";
    list += item;
  };
  add(layout_.has_cpu() ? enforced : missing, "cpu");
  add(layout_.has_memory() ? enforced : missing, "memory");
  add(layout_.has_pids() ? enforced : missing, "pids");
  std::string text = enforced.empty() ? "no limits by control groups" : "limits by control groups: " + enforced;
  if (!missing.empty()) text += "; not enforced: " + missing;
  for (const std::string& problem : layout_.problems) text += "; cannot use " + problem;
  return text;
}

}  // namespace uccp::agent
