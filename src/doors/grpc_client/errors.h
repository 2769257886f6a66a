// What a failed gRPC call means for the caller. Private to the client channel.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace grpc {
class Status;
}

namespace uccp::doors {

// `method` is the gRPC path. The server's own errors are taken as they are; those of the transport are told apart by
// whether the request may have been executed.
Status from_grpc_status(const grpc::Status& status, std::string_view method, std::string_view target);

}  // namespace uccp::doors
