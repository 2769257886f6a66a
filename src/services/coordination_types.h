// The vocabulary that locks, elections and barriers share: times, lease ids, default owners.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "call/call.h"
#include "machine/domain.h"

namespace uccp::coordination {

// Time after which a waiter whose node or client went silent leaves its queue. A client that lost its connection can
// attach again for so long, by its request id.
inline constexpr int64_t kWaiterTtlMs = 15'000;

// What proves a hold: the machine's lease, which is no secret, and a random number.
struct LeaseProof {
  machine::LeaseId lease = 0;
  uint64_t secret = 0;
};
inline std::string hex_of(uint64_t value) {
  char text[16];
  return {text, std::to_chars(text, text + sizeof text, value, 16).ptr};
}
inline std::string lease_text(uint64_t lease, uint64_t secret) { return hex_of(lease) + "-" + hex_of(secret); }
// Errors: invalid LEASE_ID_INVALID.
inline Result<LeaseProof> parse_lease(std::string_view text) {
  LeaseProof proof;
  const char* end = text.data() + text.size();
  const auto lease = std::from_chars(text.data(), end, proof.lease, 16);
  if (lease.ec == std::errc() && lease.ptr != end && *lease.ptr == '-') {
    const auto secret = std::from_chars(lease.ptr + 1, end, proof.secret, 16);
    if (secret.ec == std::errc() && secret.ptr == end) return proof;
  }
  return fail(Status(Code::kInvalid, "LEASE_ID_INVALID", "the lease id is not one that this cluster gave out")
                  .with_field("leaseId", "is not a lease id", "the leaseId of the answer to the acquiring call"));
}

// The principal and its connection: two clients with the same credentials are two owners.
inline std::string default_owner(const call::Call& call) {
  return call.credentials.address.empty() ? call.principal.name : call.principal.name + "@" + call.credentials.address;
}
inline machine::Scope scope_of(const call::Call& call) { return {call.principal.tenant, call.name_space}; }

}  // namespace uccp::coordination
