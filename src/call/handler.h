// Handlers: what services register for their methods.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/check.h"
#include "call/call.h"
#include "call/contract.h"

namespace uccp::call {

// Runs on a door's thread after all stages passed. `request` is validated bytes; empty for client streams, whose
// messages come through Call::on_message. Must end the call with reply() or finish(), at once or later.
using Handler = std::function<void(const CallPtr& call, std::string request)>;

// The handlers of a node. Filled before the doors open, then read only. A method without one is unimplemented.
class HandlerTable {
 public:
  // Aborts if the method is not in the contract or has a handler already.
  void add(std::string_view method, Handler handler) {
    const Method* found = Contract::get().find(method);
    UCCP_CHECK(found != nullptr, std::string("no such method: ") + std::string(method));
    UCCP_CHECK(handlers_.emplace(found, std::move(handler)).second, "a method has one handler");
  }
  // A handler that takes the parsed request.
  template <typename Request>
  void add_parsed(std::string_view method, std::function<void(const CallPtr&, Request)> handler) {
    add(method, [handler = std::move(handler)](const CallPtr& call, std::string bytes) {
      Request request;
      if (!request.ParseFromString(bytes)) {
        return call->finish(Status(Code::kInvalid, "WIRE_INVALID", "the request cannot be parsed"));
      }
      handler(call, std::move(request));
    });
  }
  // What answers dry runs of a method whose answer depends on the state, and that has no `validate_only`.
  void add_dry(std::string_view method, Handler handler) {
    const Method* found = Contract::get().find(method);
    UCCP_CHECK(found != nullptr, std::string("no such method: ") + std::string(method));
    UCCP_CHECK(dry_.emplace(found, std::move(handler)).second, "a method has one handler");
  }
  const Handler* find(const Method* method) const { return find_in(handlers_, method); }
  const Handler* find_dry(const Method* method) const { return find_in(dry_, method); }

 private:
  using Map = std::map<const Method*, Handler>;
  static const Handler* find_in(const Map& map, const Method* method) {
    const auto it = map.find(method);
    return it == map.end() ? nullptr : &it->second;
  }

  Map handlers_;
  Map dry_;
};

}  // namespace uccp::call
