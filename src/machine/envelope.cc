#include "machine/envelope.h"

#include "base/bytes.h"

namespace uccp::machine {
namespace {

constexpr uint8_t kVersion = 1;
constexpr uint8_t kAudited = 1;

}  // namespace

std::string encode_envelope(const Envelope& e) {
  ByteWriter out;
  out.u8(kVersion).varint(e.feature_level).u8(e.audited ? kAudited : 0);
  out.bytes(e.scope.tenant).bytes(e.scope.name_space).bytes(e.principal);
  out.bytes(e.method).bytes(e.command).bytes(e.resource);
  out.varint(e.dedup.session.value).varint(e.dedup.sequence).varint(e.dedup.acknowledged_below);
  out.bytes(e.dedup.request_id).u64(e.dedup.request_hash);
  out.bytes(e.traceparent).varint(e.policy_revision);
  out.u64(static_cast<uint64_t>(e.boot.us)).u64(static_cast<uint64_t>(e.wall.us));
  out.bytes(e.payload);
  return out.take();
}

Result<Envelope> decode_envelope(std::string_view data) {
  std::string_view payload;
  UCCP_TRY(Envelope envelope, decode_envelope(data, payload));
  envelope.payload = payload;
  return envelope;
}

Result<Envelope> decode_envelope(std::string_view data, std::string_view& payload) {
  ByteReader in(data);
  const uint8_t version = in.u8();
  if (in.ok() && version != kVersion) {
    return fail(Code::kUnimplemented, "ENVELOPE_VERSION",
                "the log holds a command of format " + std::to_string(version) + "; this program knows format 1");
  }
  Envelope e;
  e.feature_level = static_cast<uint32_t>(in.varint());
  e.audited = (in.u8() & kAudited) != 0;
  e.scope.tenant = in.bytes();
  e.scope.name_space = in.bytes();
  e.principal = in.bytes();
  e.method = in.bytes();
  e.command = in.bytes();
  e.resource = in.bytes();
  e.dedup.session = SessionId(in.varint());
  e.dedup.sequence = in.varint();
  e.dedup.acknowledged_below = in.varint();
  e.dedup.request_id = in.bytes();
  e.dedup.request_hash = in.u64();
  e.traceparent = in.bytes();
  e.policy_revision = in.varint();
  e.boot.us = static_cast<int64_t>(in.u64());
  e.wall.us = static_cast<int64_t>(in.u64());
  payload = in.bytes();
  if (!in.at_end()) return fail(Code::kCorruption, "ENVELOPE_INVALID", "a command envelope is cut off or too long");
  return e;
}

}  // namespace uccp::machine
