// Alerts of quotas as events on the bus.
#pragma once

#include <compare>

#include "base/clock.h"
#include "call/handler.h"
#include "services/tasks/quota_budgets.h"

namespace uccp::server {

// Publishes the alert on the topic uccp.quota of the quota's namespace, if somebody has made that topic. `handlers` are
// those of this node, and outlive the answer. Callable from any thread.
void publish_alert(const call::HandlerTable& handlers, const Clock& clock, const tasks::QuotaAlert& alert);

}  // namespace uccp::server
