// Files kept from an attempt after it has ended: those in its folder that match the task's output patterns.
//
// Invariants: nothing outside the folder is ever read: patterns and paths with ".." or a leading "/" are refused, and a
// link is followed only if it stays inside (RESOLVE_BENEATH, decided by the kernel at the open). Devices, sockets and
// pipes are no artifacts. What is refused is named, and never makes the attempt fail.
// Callable from any thread; blocks on disk.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/executor.h"

namespace uccp::agent {

struct ArtifactLimits {
  size_t files_max = 1000;
  uint64_t file_bytes_max = 4ull << 30;
  uint64_t total_bytes_max = 16ull << 30;
  size_t entries_max = 200'000;  // looked at in the folder
};

struct ArtifactCollection {
  std::vector<CollectedArtifact> artifacts;  // by path
  // One clause for each thing that was refused, the first ten.
  std::vector<std::string> refused;
};

ArtifactCollection collect_artifacts(const std::string& folder, const std::vector<std::string>& patterns,
                                     const ArtifactLimits& limits = {});

// True if `path` matches: `*` and `?` within one part, `**` any number of parts. A pattern that matches a folder
// matches all that is in it.
bool matches_output(std::string_view pattern, std::string_view path);

}  // namespace uccp::agent
