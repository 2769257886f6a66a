// From a call to the command that carries it through the log.
#pragma once

#include <string>
#include <string_view>

#include "call/call.h"
#include "call/method.h"
#include "machine/envelope.h"

namespace uccp::call {

// The envelope of a mutation: scope, principal, method, deduplication and audit as the call and its method say.
// `request` is the validated request; its hash, without the request id, tells a repeat from a reuse of the id. If it
// has secret fields, the hash is made with the call's key.
machine::Envelope make_envelope(const Call& call, std::string_view request, std::string command, std::string payload);

// The serialized message `payload` parsed into a protobuf message, which validate() has accepted already.
template <typename Message>
Result<Message> parse_request(std::string_view bytes) {
  Message message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return fail(Code::kInvalid, "WIRE_INVALID", "the request is not a message of type " + message.GetTypeName());
  }
  return message;
}

}  // namespace uccp::call
