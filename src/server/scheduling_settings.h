// The settings of the scheduler.
#pragma once

#include "base/status.h"
#include "server/config.h"
#include "services/tasks/scheduler.h"

namespace uccp::server {

// Errors: invalid CONFIG_INVALID naming the setting and what it may be.
Result<tasks::SchedulerPolicy> scheduling_settings(const Config& config);

}  // namespace uccp::server
