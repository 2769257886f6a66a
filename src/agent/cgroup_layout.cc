// Finds the hierarchies of control groups that the agent may use.
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <sstream>
#include <string>

#include "agent/cgroup.h"
#include "agent/cgroup_files.h"

namespace uccp::agent {
namespace {

struct Hierarchy {
  std::string mount_root;  // the group that is seen at the mount point
  std::string mount_point;
};

// Lines of /proc/self/mountinfo: "36 35 98:0 /root /point options... - type source super-options".
void read_mounts(const std::string& text, std::map<std::string, Hierarchy>& by_controller) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream left(line.substr(0, dash)), right(line.substr(dash + 3));
    std::string skip, root, point, type, source, options;
    left >> skip >> skip >> skip >> root >> point;
    right >> type >> source >> options;
    if (type == "cgroup2") by_controller.try_emplace("", Hierarchy{root, point});
    if (type != "cgroup") continue;
    std::istringstream names(options);
    for (std::string name; std::getline(names, name, ',');) by_controller.try_emplace(name, Hierarchy{root, point});
  }
}

// Lines of /proc/self/cgroup: "4:memory:/path", "0::/path".
std::map<std::string, std::string> read_own_groups(const std::string& text) {
  std::map<std::string, std::string> groups;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string path = line.substr(second + 1);
    std::istringstream names(line.substr(first + 1, second - first - 1));
    std::string name;
    if (second == first + 1) groups[""] = path;
    while (std::getline(names, name, ',')) groups[name] = path;
  }
  return groups;
}

std::string own_directory(const Hierarchy& hierarchy, const std::string& group) {
  std::string relative = group;
  if (hierarchy.mount_root != "/") {
    // In a container without a namespace for groups the mount shows only a part of the tree.
    relative = group.starts_with(hierarchy.mount_root) ? group.substr(hierarchy.mount_root.size()) : "";
  }
  if (relative == "/" || relative.find("/..") != std::string::npos) relative.clear();
  return hierarchy.mount_point + relative;
}

// True when groups can be made in `directory`; makes "uccp" there.
bool try_make(const std::string& directory, const std::string& what, CgroupLayout& layout) {
  const std::string path = directory + "/uccp";
  if (mkdir(path.c_str(), 0755) == 0 || errno == EEXIST) {
    if (access((path + "/cgroup.procs").c_str(), W_OK) == 0) return true;
  }
  layout.problems.push_back(what + " (" + path + ": " + std::strerror(errno) + ")");
  return false;
}

bool lists(const std::string& text, std::string_view word) {
  std::istringstream words(text);
  for (std::string one; words >> one;) {
    if (one == word) return true;
  }
  return false;
}

// Guard and fork server, which were started in the same group.
bool is_child(int pid) {
  const std::string stat = read_control("/proc/" + std::to_string(pid) + "/stat");
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return false;
  std::istringstream fields(stat.substr(name_end + 1));
  std::string state;
  int parent = 0;
  return fields >> state >> parent && parent == getpid();
}

// Hands a controller down from `directory` to its children. The kernel refuses it while a process is in the group
// itself, so the agent moves into a leaf first, with its helpers.
bool delegate(const std::string& directory, const std::string& controller, CgroupLayout& layout) {
  const std::string control = directory + "/cgroup.subtree_control";
  if (lists(read_control(control), controller)) return true;
  Status status = write_control(control, "+" + controller);
  if (!status.is_ok()) {
    const std::string leaf = directory + "/uccp-agent";
    mkdir(leaf.c_str(), 0755);
    for (const int pid : processes_in(directory)) {
      if (is_child(pid)) (void)write_control(leaf + "/cgroup.procs", std::to_string(pid));
    }
    if (write_control(leaf + "/cgroup.procs", "0").is_ok()) status = write_control(control, "+" + controller);
  }
  if (status.is_ok()) status = write_control(directory + "/uccp/cgroup.subtree_control", "+" + controller);
  if (status.is_ok()) return true;
  layout.problems.push_back(controller + " (" + status.message() +
                            "; run the agent in a group of its own, for systemd with Delegate=yes)");
  return false;
}

}  // namespace

CgroupLayout detect_cgroups(const std::string& proc) {
  CgroupLayout layout;
  std::map<std::string, Hierarchy> mounts;
  read_mounts(read_control(proc + "/self/mountinfo"), mounts);
  const auto groups = read_own_groups(read_control(proc + "/self/cgroup"));
  const auto directory_of = [&](const std::string& controller) -> std::string {
    const auto mount = mounts.find(controller);
    const auto group = groups.find(controller);
    return mount == mounts.end() || group == groups.end() ? "" : own_directory(mount->second, group->second);
  };
  for (const auto& [name, slot] : {std::pair<std::string, std::string CgroupLayout::*>{"cpu", &CgroupLayout::cpu},
                                   {"cpuacct", &CgroupLayout::cpuacct},
                                   {"memory", &CgroupLayout::memory},
                                   {"pids", &CgroupLayout::pids}}) {
    const std::string directory = directory_of(name);
    if (!directory.empty() && try_make(directory, name, layout)) layout.*slot = directory;
  }
  const std::string unified = directory_of("");
  if (!unified.empty() && try_make(unified, "unified", layout)) {
    layout.unified = unified;
    const std::string offered = read_control(unified + "/cgroup.controllers");
    layout.unified_cpu = lists(offered, "cpu") && delegate(unified, "cpu", layout);
    layout.unified_memory = lists(offered, "memory") && delegate(unified, "memory", layout);
    layout.unified_pids = lists(offered, "pids") && delegate(unified, "pids", layout);
  }
  if (mounts.empty()) layout.problems.push_back("no control group hierarchy is mounted");
  return layout;
}

}  // namespace uccp::agent
