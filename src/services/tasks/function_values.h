// Arguments of function tasks that are values of other tasks, put in place when an attempt starts. Pure.
#pragma once

#include "base/status.h"
#include "machine/key_reader.h"
#include "services/tasks/scheduler.h"
#include "uccp/internal/v1/agent.pb.h"

namespace uccp::tasks {

// Replaces each argument of the launch's task that names the value of a task by that value; one that is a blob becomes
// an input too. The other tasks have ended. Errors: failed_precondition INPUT_MISSING.
Status resolve_values(const machine::KeyReader& state, const TaskRef& ref, internal::v1::LaunchAttempt& launch);

}  // namespace uccp::tasks
