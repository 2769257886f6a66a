// Settings of the REST door.
#pragma once

#include "base/status.h"
#include "doors/rest/rest_door.h"
#include "server/config.h"

namespace uccp::server {

// The key cors_origins. Errors: invalid CONFIG_INVALID for what is no origin.
Result<doors::RestDoorOptions> rest_options_of(const Config& config);

}  // namespace uccp::server
