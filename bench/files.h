// The files of a server, read past the page cache or out of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace uccp::bench {

// Those of at least 1 MiB below the directory, in order.
std::vector<std::string> large_files(const std::string& directory);
// Bytes of the files; leaves nothing of them in memory, or reads all of them.
uint64_t go_through(const std::vector<std::string>& files, bool read_them);

}  // namespace uccp::bench
