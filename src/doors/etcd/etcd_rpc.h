// How one message of an rpc reaches its code. Private to the etcd door.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "doors/foreign_api.h"

namespace uccp::doors {

inline Status unreadable() { return {Code::kInvalid, "WIRE_INVALID", "the message cannot be parsed"}; }

// An rpc with one request: `run(call, request)`.
template <typename Request, typename Run>
ForeignHandler unary(Run run) {
  return [run = std::move(run)](const call::CallPtr& call) {
    const auto got = std::make_shared<bool>(false);
    call->on_message([raw = call.get(), run, got](std::string bytes) {
      if (std::exchange(*got, true)) return;
      const call::CallPtr self = raw->shared_from_this();
      Request request;
      if (!request.ParseFromString(bytes)) return self->finish(unreadable());
      run(self, std::move(request));
    });
    call->on_half_close([raw = call.get(), got] {
      if (!*got) raw->finish(Status(Code::kInvalid, "REQUEST_MISSING", "the client sent no request message"));
    });
  };
}

}  // namespace uccp::doors
