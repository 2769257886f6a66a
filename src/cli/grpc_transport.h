// The Transport over gRPC: one channel to the node in use, made when it is first needed.
#pragma once

#include <memory>

#include "base/status.h"
#include "cli/transport.h"

namespace uccp::cli {

// Never blocks. Errors: invalid CHANNEL_OPTIONS_INVALID.
Result<std::unique_ptr<Transport>> connect_grpc(const Context& context);

}  // namespace uccp::cli
