// Tasks of one request that depend on each other: their order, and the cycle if they have none. Pure.
#pragma once

#include <vector>

#include "base/status.h"
#include "uccp/v1/tasks.pb.h"

namespace uccp::tasks {

// Places of the tasks in the request, each behind those that it depends on; among those that could come next the first
// of the request. Errors: invalid GRAPH_KEY_TAKEN, GRAPH_KEY_UNKNOWN, DEPENDENCY_CYCLE with the way around it.
Result<std::vector<int>> order_of(const v1::ScheduleTaskGraphRequest& request);

}  // namespace uccp::tasks
