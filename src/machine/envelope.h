// The command envelope, version 1: what every entry of kind kCommand carries around its payload.
//
// Everything that apply may depend on is in here or in the state: no clock, no randomness, no node-local setting.
// The format is fixed; docs/formats/envelope.md describes it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/ids.h"
#include "base/status.h"

namespace uccp::machine {

// Where a key, a change or an audit record belongs.
struct Scope {
  std::string tenant;
  std::string name_space;

  auto operator<=>(const Scope&) const = default;
};

// How a repeated command is recognised: by a session and its sequence number, or by a request id.
struct DedupKey {
  SessionId session;
  uint64_t sequence = 0;
  // Replies of this session below this sequence number were received and can be forgotten.
  uint64_t acknowledged_below = 0;
  std::string request_id;     // with session 0; empty: no deduplication
  uint64_t request_hash = 0;  // of the canonical request: the same id with another request is a conflict

  bool operator==(const DedupKey&) const = default;
};

struct Envelope {
  uint32_t feature_level = 1;
  Scope scope;
  std::string principal;
  std::string method;    // the rpc, for audit and deduplication; empty for commands of the system itself
  std::string command;   // "domain.verb": selects the apply function
  std::string resource;  // for audit
  DedupKey dedup;
  std::string traceparent;
  uint64_t policy_revision = 0;
  bool audited = false;
  BootTime boot;  // of the leader, stamped when proposed
  WallTime wall;
  std::string payload;

  bool operator==(const Envelope&) const = default;
};

std::string encode_envelope(const Envelope& envelope);
// Errors: corruption ENVELOPE_INVALID; unimplemented ENVELOPE_VERSION for a later format.
Result<Envelope> decode_envelope(std::string_view data);
// The same without a copy of the payload: `payload` is a view of `data`, and that of the result is empty.
Result<Envelope> decode_envelope(std::string_view data, std::string_view& payload);

}  // namespace uccp::machine
