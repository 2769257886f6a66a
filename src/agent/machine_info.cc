#include "agent/machine_info.h"

#include <sched.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "agent/cgroup_files.h"

namespace uccp::agent {
namespace {

uint64_t meminfo_bytes(const std::string& text, const std::string& name) {
  const size_t at = text.find(name + ":");
  return at == std::string::npos ? 0 : std::strtoull(text.c_str() + at + name.size() + 1, nullptr, 10) * 1024;
}

// The limit on the agent's own group, in v1 or v2 as containers see it; 0 if there is none.
uint64_t group_memory_limit() {
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    const uint64_t limit = read_number(path);
    if (limit > 0 && limit < (1ull << 60)) return limit;
  }
  return 0;
}

int64_t group_cpu_millis() {
  std::istringstream v2(read_control("/sys/fs/cgroup/cpu.max"));
  int64_t quota = 0, period = 0;
  if (v2 >> quota >> period && period > 0) return quota * 1000 / period;
  std::istringstream v1(read_control("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") + " " +
                        read_control("/sys/fs/cgroup/cpu/cpu.cfs_period_us"));
  if (v1 >> quota >> period && quota > 0 && period > 0) return quota * 1000 / period;
  return 0;
}

}  // namespace

Capacity detect_capacity(const std::string& directory) {
  Capacity capacity;
  cpu_set_t set;
  const bool known = sched_getaffinity(0, sizeof set, &set) == 0;
  capacity.cpu_millis = (known ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN)) * 1000;
  if (const int64_t quota = group_cpu_millis(); quota > 0) capacity.cpu_millis = std::min(capacity.cpu_millis, quota);
  capacity.memory_bytes = meminfo_bytes(read_control("/proc/meminfo"), "MemTotal");
  if (const uint64_t limit = group_memory_limit(); limit > 0)
    capacity.memory_bytes = std::min(capacity.memory_bytes, limit);
  struct statvfs info{};
  if (statvfs(directory.c_str(), &info) == 0)
    capacity.disk_bytes = static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  return capacity;
}

std::string host_name() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 ? name : "worker";
}

MachineLoad LoadSampler::sample() {
  MachineLoad load;
  std::istringstream stat(read_control("/proc/stat"));
  std::string label;
  stat >> label;
  uint64_t total = 0, idle = 0, value = 0;
  for (int column = 0; column < 8 && stat >> value; ++column) {
    total += value;
    if (column == 3 || column == 4) idle += value;  // idle and waiting for disk
  }
  const uint64_t busy = total - idle;
  if (total_ > 0 && total > total_) load.cpu = static_cast<double>(busy - busy_) / static_cast<double>(total - total_);
  busy_ = busy;
  total_ = total;
  const std::string memory = read_control("/proc/meminfo");
  load.memory_used = meminfo_bytes(memory, "MemTotal") - meminfo_bytes(memory, "MemAvailable");
  load.load_average = std::strtod(read_control("/proc/loadavg").c_str(), nullptr);
  return load;
}

}  // namespace uccp::agent
