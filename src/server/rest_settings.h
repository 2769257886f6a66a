// Settings of the REST door.
#pragma once

#include "base/status.h"
#include "doors/rest/rest_door.h"
#include "server/config.h"

namespace uccp::server {

inline constexpr int64_t kConnectionsMost = 1'000'000;

// The keys cors_origins and http_connections_max. Errors: invalid CONFIG_INVALID for what is no origin or no such
// number.
Result<doors::RestDoorOptions> rest_options_of(const Config& config);

}  // namespace uccp::server
