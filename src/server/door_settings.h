// Settings of the doors.
#pragma once

#include <string_view>
#include <vector>

#include "base/status.h"
#include "doors/grpc/grpc_door.h"
#include "doors/rest/rest_door.h"
#include "server/config.h"
#include "server/origins.h"

namespace uccp::server {

// The keys cors_origins and http_connections_max. Errors: invalid CONFIG_INVALID for what is no origin or no such
// number.
Result<doors::RestDoorOptions> rest_options_of(const Config& config);
// The keys grpc_connections_max and grpc_streams_max, or, with the prefix "etcd", those of the door for etcd's clients.
// Errors: invalid CONFIG_INVALID.
Result<doors::GrpcDoorOptions> grpc_options_of(const Config& config, std::string_view prefix = "grpc");

}  // namespace uccp::server
