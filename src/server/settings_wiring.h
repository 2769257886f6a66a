// What a change of the configuration reaches while the node runs.
#pragma once

#include <vector>

#include "call/pipeline/pipeline.h"
#include "server/certificate_side.h"
#include "server/identity_side.h"
#include "server/live_settings.h"

namespace uccp::server {

// All that limits rates. Errors: invalid RATE_LIMIT_INVALID.
Result<std::vector<call::RateRule>> rate_rules(const Config& config);

// How many calls are taken at a time.
call::Pipeline::Limits call_limits(const Config& config);

// Must outlive the settings.
struct SettingUsers {
  call::Pipeline& pipeline;
  IdentitySide& identity;
  CertificateSide& certificates;
};
void follow_settings(LiveSettings& settings, SettingUsers users);

}  // namespace uccp::server
