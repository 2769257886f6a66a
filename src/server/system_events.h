// What the server itself has to tell, as events on the bus.
#pragma once

#include <string>

#include "base/clock.h"
#include "call/handler.h"
#include "machine/envelope.h"
#include "uccp/v1/events.pb.h"

namespace uccp::server {

// Publishes the event on a topic of the scope, if somebody has made that topic; source and time are filled in.
// `handlers` are those of this node, and outlive the answer. Callable from any thread.
void publish_event(const call::HandlerTable& handlers, const Clock& clock, const machine::Scope& scope,
                   const std::string& topic, v1::Event event);

}  // namespace uccp::server
