// The files of control groups: reading numbers, writing settings, listing processes.
//
// Callable from any thread. Kernel files are read and written in one call; nothing is buffered or synced.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace uccp::agent {

// The content, empty if it cannot be read.
std::string read_control(const std::string& path);
// 0 if the file is missing or begins with no number.
uint64_t read_number(const std::string& path);
// The number after `key` and a space at the beginning of a line, 0 if there is none.
uint64_t read_keyed(const std::string& path, std::string_view key);
// Errors: failed_precondition CGROUP_WRITE_FAILED with the path, the value and the system's words.
Status write_control(const std::string& path, std::string_view value);
std::vector<int> processes_in(const std::string& group);
std::vector<std::string> child_directories(const std::string& directory);

}  // namespace uccp::agent
