// A gRPC API that is not the contract's own, spoken by a door of its own: handlers by path, and how failures are told.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "call/call.h"

namespace uccp::doors {

// Takes a call that has credentials and deadline, and whose messages then come to its on_message(). Ends it.
using ForeignHandler = std::function<void(const call::CallPtr& call)>;

struct ForeignApi {
  std::map<std::string, ForeignHandler, std::less<>> handlers;  // by ":path"
  // gRPC's code and text for a failure; the API's clients may depend on both.
  struct Error {
    int grpc_code = 0;
    std::string text;
  };
  std::function<Error(const Status&)> error;
};

}  // namespace uccp::doors
