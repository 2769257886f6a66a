#include "agent/artifacts.h"

#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "agent/task_folder.h"
#include "base/bytes.h"
#include "base/hash.h"

namespace uccp::agent {
namespace {

constexpr size_t kRefusalsMax = 10;
constexpr int kDepthMax = 64;

std::vector<std::string> parts_of(std::string_view path) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < path.size();) {
    const size_t slash = std::min(path.find('/', at), path.size());
    if (slash > at && path.substr(at, slash - at) != ".") parts.emplace_back(path.substr(at, slash - at));
    at = slash + 1;
  }
  return parts;
}

bool match_parts(const std::vector<std::string>& pattern, size_t p, const std::vector<std::string>& path, size_t s) {
  // Parts of the path that are left when the pattern is used up lie in a folder that matched.
  if (p == pattern.size()) return true;
  if (pattern[p] == "**") {
    for (size_t skip = s; skip <= path.size(); ++skip) {
      if (match_parts(pattern, p + 1, path, skip)) return s < path.size();
    }
    return false;
  }
  return s < path.size() && fnmatch(pattern[p].c_str(), path[s].c_str(), 0) == 0 &&
         match_parts(pattern, p + 1, path, s + 1);
}

class Collector {
 public:
  Collector(const std::string& folder, const ArtifactLimits& limits, ArtifactCollection& out)
      : limits_(limits), out_(out), root_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (root_ < 0) refuse(folder, std::strerror(errno));
  }
  ~Collector() {
    if (root_ >= 0) close(root_);
  }

  void run(const std::vector<std::string>& patterns) {
    for (const std::string& pattern : patterns) {
      const std::vector<std::string> parts = parts_of(pattern);
      if (pattern.starts_with('/') || parts.empty() || std::ranges::find(parts, "..") != parts.end()) {
        refuse(pattern, "patterns are relative to the task's folder and have no \"..\"");
        continue;
      }
      patterns_.push_back(parts);
    }
    if (root_ >= 0 && !patterns_.empty()) walk("", 0);
    std::ranges::sort(out_.artifacts, {}, &CollectedArtifact::path);
  }

 private:
  void refuse(const std::string& path, std::string_view why) {
    if (out_.refused.size() < kRefusalsMax) out_.refused.push_back(path + ": " + std::string(why));
  }

  int open_inside(const std::string& path, uint64_t flags) const {
    open_how how{};
    how.flags = flags | O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
    return static_cast<int>(syscall(SYS_openat2, root_, path.c_str(), &how, sizeof how));
  }

  void walk(const std::string& directory, int depth) {
    const int fd = open_inside(directory.empty() ? "." : directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    DIR* const entries = fd < 0 ? nullptr : fdopendir(fd);
    if (entries == nullptr) {
      refuse(directory, std::strerror(errno));
      if (fd >= 0) close(fd);
      return;
    }
    std::vector<std::pair<std::string, unsigned char>> names;
    while (const dirent* entry = readdir(entries)) {
      const std::string_view name = entry->d_name;
      if (name == "." || name == ".." || (depth == 0 && name == kTemporaryName)) continue;
      if (++entries_ > limits_.entries_max) {
        refuse(directory, "the folder has more than " + std::to_string(limits_.entries_max) + " entries");
        break;
      }
      names.emplace_back(name, entry->d_type);
    }
    closedir(entries);
    for (const auto& [name, type] : names) {
      const std::string path = directory.empty() ? name : directory + "/" + name;
      if (type == DT_DIR) {
        if (depth + 1 < kDepthMax) walk(path, depth + 1);
      } else {
        visit(path);
      }
    }
  }

  void visit(const std::string& path) {
    const std::vector<std::string> parts = parts_of(path);
    if (std::ranges::none_of(patterns_, [&](const auto& pattern) { return match_parts(pattern, 0, parts, 0); })) return;
    if (!is_utf8(path) || path.size() > 1024)
      return refuse(to_hex(path).substr(0, 40), "the name is not UTF-8 or too long");
    if (out_.artifacts.size() >= limits_.files_max) {
      return refuse(path, "more than " + std::to_string(limits_.files_max) + " files match");
    }
    const int fd = open_inside(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0) {
      const bool outside = errno == EXDEV;
      return refuse(path, outside ? "the link leads outside the task's folder" : std::strerror(errno));
    }
    add(path, fd);
    close(fd);
  }

  void add(const std::string& path, int fd) {
    struct stat info{};
    if (fstat(fd, &info) != 0) return refuse(path, std::strerror(errno));
    if (!S_ISREG(info.st_mode)) return refuse(path, "it is no regular file");
    const auto size = static_cast<uint64_t>(info.st_size);
    if (size > limits_.file_bytes_max || total_ + size > limits_.total_bytes_max) {
      return refuse(path, "its " + std::to_string(size) + " bytes are over the limit for artifacts");
    }
    Sha256 hash;
    uint64_t seen = 0;
    std::string buffer(256u << 10, '\0');
    for (ssize_t got; (got = read(fd, buffer.data(), buffer.size())) > 0; seen += static_cast<uint64_t>(got)) {
      hash.update(std::string_view(buffer).substr(0, static_cast<size_t>(got)));
    }
    if (seen != size) return refuse(path, "it could not be read to its end");
    // The file itself, not the link to it: what is uploaded is what was hashed.
    char real[PATH_MAX];
    const ssize_t length = readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), real, sizeof real);
    if (length <= 0) return refuse(path, std::strerror(errno));
    total_ += size;
    out_.artifacts.push_back({.path = path,
                              .size = size,
                              .sha256 = to_hex(hash.finish()),
                              .mode = static_cast<int>(info.st_mode & 0777),
                              .file = std::string(real, static_cast<size_t>(length))});
  }

  const ArtifactLimits& limits_;
  ArtifactCollection& out_;
  const int root_;
  std::vector<std::vector<std::string>> patterns_;
  size_t entries_ = 0;
  uint64_t total_ = 0;
};

}  // namespace

bool matches_output(std::string_view pattern, std::string_view path) {
  const auto parts = parts_of(pattern);
  return !parts.empty() && match_parts(parts, 0, parts_of(path), 0);
}

ArtifactCollection collect_artifacts(const std::string& folder, const std::vector<std::string>& patterns,
                                     const ArtifactLimits& limits) {
  ArtifactCollection collection;
  Collector(folder, limits, collection).run(patterns);
  return collection;
}

}  // namespace uccp::agent
