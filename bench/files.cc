#include "bench/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

namespace uccp::bench {

std::vector<std::string> large_files(const std::string& directory) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (entry.is_regular_file() && entry.file_size() >= (1u << 20)) files.push_back(entry.path().string());
  }
  std::ranges::sort(files);
  return files;
}

uint64_t go_through(const std::vector<std::string>& files, bool read_them) {
  uint64_t bytes = 0;
  std::vector<char> buffer(1u << 20);
  for (const std::string& file : files) {
    const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    if (!read_them) {
      (void)fdatasync(fd);
      (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    }
    ssize_t got = 0;
    while (read_them && (got = read(fd, buffer.data(), buffer.size())) > 0) bytes += static_cast<uint64_t>(got);
    close(fd);
  }
  return bytes;
}

}  // namespace uccp::bench
