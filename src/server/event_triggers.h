// Streams of events for tasks that events trigger.
#pragma once

#include <string>

#include "base/clock.h"
#include "call/handler.h"
#include "call/policy/policy_set.h"
#include "services/tasks/task_makers.h"

namespace uccp::server {

// Opens streams of Subscribe on this node, for those who have submitted the tasks: whether they may is asked when they
// submit. `handlers` are those of this node and outlive the streams.
tasks::TaskMakers::OpenEvents open_events(const call::HandlerTable& handlers, const Clock& clock);

// Whether the caller may subscribe to the topic in its namespace. Errors: the denial.
Status may_subscribe(const call::PolicySet& policies, const Clock& clock, const call::Call& call,
                     const std::string& topic);

}  // namespace uccp::server
