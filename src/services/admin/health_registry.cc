#include "services/admin/health_registry.h"

#include <algorithm>

#include "base/check.h"

namespace uccp::admin {

void HealthRegistry::add(std::string name, ComponentRole role, Probe probe) {
  UCCP_CHECK(std::ranges::none_of(parts_, [&](const Part& part) { return part.name == name; }),
             "a part of the node is registered once");
  parts_.push_back({std::move(name), role, std::move(probe)});
}

HealthRegistry::Report HealthRegistry::report() const {
  Report report;
  for (const Part& part : parts_) {
    ComponentState state = part.probe();
    const bool failed = state.status != v1::HEALTH_STATUS_HEALTHY && state.status != v1::HEALTH_STATUS_DEGRADED;
    const bool counts = part.role.needed_to_be_ready || part.role.needed_to_live;
    if (failed && part.role.needed_to_be_ready) report.ready = false;
    if (failed && part.role.needed_to_live) report.ready = report.live = false;
    // What is not needed can only degrade the whole.
    v1::HealthStatus status = failed ? v1::HEALTH_STATUS_UNHEALTHY : state.status;
    if (!counts && failed) status = v1::HEALTH_STATUS_DEGRADED;
    if (status > report.status) {
      report.status = status;
      report.reason = part.name + ": " + (state.reason.empty() ? "does not work" : state.reason);
    }
    report.components.push_back({part.name, std::move(state)});
  }
  return report;
}

}  // namespace uccp::admin
