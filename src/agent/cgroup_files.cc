#include "agent/cgroup_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

namespace uccp::agent {

std::string read_control(const std::string& path) {
  std::string content;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return content;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) content.append(buffer, static_cast<size_t>(n));
  close(fd);
  return content;
}

uint64_t read_number(const std::string& path) {
  const std::string content = read_control(path);
  uint64_t value = 0;
  std::from_chars(content.data(), content.data() + content.size(), value);
  return value;
}

uint64_t read_keyed(const std::string& path, std::string_view key) {
  const std::string content = read_control(path);
  for (size_t at = 0; at < content.size();) {
    const size_t end = std::min(content.find('\n', at), content.size());
    const std::string_view line(content.data() + at, end - at);
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ' ') {
      uint64_t value = 0;
      std::from_chars(line.data() + key.size() + 1, line.data() + line.size(), value);
      return value;
    }
    at = end + 1;
  }
  return 0;
}

Status write_control(const std::string& path, std::string_view value) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  const ssize_t written = fd < 0 ? -1 : write(fd, value.data(), value.size());
  const int error = errno;
  if (fd >= 0) close(fd);
  if (written == static_cast<ssize_t>(value.size())) return {};
  return Status(Code::kFailedPrecondition, "CGROUP_WRITE_FAILED",
                "cannot write \"" + std::string(value) + "\" to " + path + ": " + std::strerror(error));
}

std::vector<int> processes_in(const std::string& group) {
  std::vector<int> pids;
  const std::string content = read_control(group + "/cgroup.procs");
  const char* at = content.data();
  const char* const end = at + content.size();
  while (at < end) {
    int pid = 0;
    const auto [next, error] = std::from_chars(at, end, pid);
    if (error != std::errc()) break;
    // 0 stands for processes of another pid namespace, which cannot be named from here.
    if (pid > 0) pids.push_back(pid);
    at = next + 1;
  }
  return pids;
}

std::vector<std::string> child_directories(const std::string& directory) {
  std::vector<std::string> names;
  DIR* open_directory = opendir(directory.c_str());
  if (open_directory == nullptr) return names;
  while (const dirent* entry = readdir(open_directory)) {
    const std::string_view name = entry->d_name;
    if (entry->d_type == DT_DIR && name != "." && name != "..") names.emplace_back(name);
  }
  closedir(open_directory);
  return names;
}

}  // namespace uccp::agent
