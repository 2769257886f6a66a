// What the leader keeps for autoscaling between its steps: the deciding core, since when workers are idle, what is
// under way. Loop thread only; a new leader begins with an empty one.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "services/tasks/autoscaler.h"

namespace uccp::tasks {

struct ScalingOptions {
  AutoscalerOptions limits;
  std::vector<ScalingGroup> groups;  // none: nothing is scaled
  std::string node;                  // part of the names of what it starts
  int64_t drain_ms = 60'000;         // what begins to run on a worker just as it is drained may go on for so long
};

struct Scaling {
  Scaling(const AutoscalerOptions& limits, std::vector<ScalingGroup> groups) : core(limits, std::move(groups)) {}

  Autoscaler core;
  std::map<std::string, BootTime> idle_since;  // by worker
  std::set<std::string> under_way;             // workers for which a command is
  std::map<uint64_t, std::string> notes;       // of the last step
  bool asked = false;                          // the provisioner for its list
};

}  // namespace uccp::tasks
