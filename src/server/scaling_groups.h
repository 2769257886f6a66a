// The groups of workers that may be started, from their file.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "server/local_workers.h"
#include "services/tasks/autoscaler.h"

namespace uccp::server {

inline constexpr int64_t kScalingWorkersMax = 10'000;  // of a group, and of all

struct ScalingGroups {
  std::vector<tasks::ScalingGroup> groups;
  std::map<std::string, LocalGroup> workers;  // by name of the group
};

// `path` is for what errors say. `slots`: most attempts at a time on a worker. Errors: invalid SCALING_GROUPS_INVALID,
// which says what of the file.
Result<ScalingGroups> parse_scaling_groups(const std::string& path, const std::string& json, size_t slots);

}  // namespace uccp::server
