// Autoscaling as configured: which groups there are, and what starts their workers on this machine.
#pragma once

#include <memory>
#include <string>

#include "call/handler.h"
#include "server/config.h"
#include "server/local_workers.h"
#include "server/server.h"
#include "services/tasks/scaling.h"

namespace uccp::server {

struct ScalingSettings {
  tasks::ScalingOptions options;              // without groups: nothing is scaled
  std::map<std::string, LocalGroup> workers;  // by name of the group
  std::string context_file;
};

// Errors: invalid CONFIG_INVALID, which names the key; those of parse_scaling_groups.
Result<ScalingSettings> scaling_settings(const Config& config, const ServerOptions& server, FileSystem& files);

// nullptr if nothing is scaled.
Result<std::unique_ptr<LocalWorkers>> open_local_workers(const ScalingSettings& settings, const ServerOptions& server,
                                                         FileSystem& files, const Clock& clock);

// A decision as an event: on the topic uccp.scaling of the namespace default, if somebody has made it.
void publish_scaling(const call::HandlerTable& handlers, const Clock& clock, const tasks::ScalingDecision& decision);

}  // namespace uccp::server
