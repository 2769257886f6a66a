// ClientStream over BidiCall. Private to the client channel.
#pragma once

#include <memory>
#include <string>

#include "doors/grpc_client/bidi_call.h"

namespace uccp::doors {

std::unique_ptr<ClientStream> open_blocking_stream(grpc::GenericStub& stub, std::string method, std::string target,
                                                   const CallOptions& options, const std::string& bearer_token);

}  // namespace uccp::doors
