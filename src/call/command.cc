#include "call/command.h"

#include "base/hash.h"
#include "call/validate.h"

namespace uccp::call {

machine::Envelope make_envelope(const Call& call, std::string_view request, std::string command, std::string payload) {
  machine::Envelope envelope;
  envelope.scope = {call.principal.tenant, call.name_space};
  envelope.principal = call.principal.name;
  envelope.method = call.method->full_name;
  envelope.command = std::move(command);
  envelope.resource = call.resource;
  envelope.traceparent = call.traceparent;
  envelope.audited = call.method->audit != AuditLevel::kNone;
  envelope.payload = std::move(payload);
  if (!call.request_id.empty()) {
    envelope.dedup.request_id = call.request_id;
    std::string bare(request);
    if (!call.method->request_id.empty()) set_string(call.method->request_id, bare, "");
    envelope.dedup.request_hash = hash64(canonical(*call.method->request, bare).value_or(bare));
  }
  return envelope;
}

}  // namespace uccp::call
