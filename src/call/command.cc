#include "call/command.h"

#include "base/aead.h"
#include "base/bytes.h"
#include "base/hash.h"
#include "call/listing.h"
#include "call/validate.h"

namespace uccp::call {
namespace {

// A plain hash of a secret would let guesses be tested by whoever reads the log: of requests that have one, it needs a
// key.
uint64_t hash_of(const Call& call, std::string_view request) {
  if (!call.method->has_secrets || call.hash_key == nullptr) return hash64(request);
  return ByteReader(hmac_sha256(call.hash_key->bytes(), request)).u64();
}

}  // namespace

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
    envelope.dedup.request_hash = hash_of(call, canonical(*call.method->request, bare).value_or(bare));
    if (call.method->has_secrets) wipe(bare);
  }
  return envelope;
}

}  // namespace uccp::call
