#include "machine/dedup.h"

#include <algorithm>

#include "base/bytes.h"
#include "machine/planted.h"
#include "machine/table.h"

namespace uccp::machine::dedup {
namespace {

constexpr BytesTable kSessions(kSessionTable);
constexpr BytesTable kReplies(kReplyTable);
constexpr BytesTable kReplyAges(kReplyAgeTable);
// Sessions and replies belong to the tenant, whatever namespace their commands are about.
Scope tenant_scope(const Envelope& e) { return {.tenant = e.scope.tenant, .name_space = ""}; }
constexpr size_t kForgottenPerCall = 256;

std::string request_key(const Envelope& e) {
  return ByteWriter().u8(1).key_part(e.principal).key_part(e.method).key_part(e.dedup.request_id).take();
}
std::string session_reply_key(SessionId session, uint64_t sequence) {
  return ByteWriter().u8(2).u64(session.value).u64(sequence).take();
}
std::string session_key(SessionId session) { return ByteWriter().u64(session.value).take(); }
std::string count_key(const Envelope& e) { return ByteWriter().u8(3).key_part(e.principal).take(); }

std::string encode_reply(uint64_t request_hash, const ApplyResult& result) {
  ByteWriter out;
  out.u64(request_hash);
  if (result) return out.u8(0).bytes(*result).take();
  const Status& s = result.error();
  out.u8(static_cast<uint8_t>(s.code())).bytes(s.reason()).bytes(s.message());
  out.bytes(s.detail().resource_type).bytes(s.detail().resource_name).varint(s.detail().fields.size());
  for (const FieldViolation& field : s.detail().fields) {
    out.bytes(field.field).bytes(field.description).bytes(field.example);
  }
  return out.take();
}

ApplyResult decode_reply(ByteReader& in) {
  const uint8_t code = in.u8();
  if (code == 0) return std::string(in.bytes());
  const std::string reason(in.bytes());
  std::string message(in.bytes());
  Status status(static_cast<Code>(code), reason, std::move(message));
  std::string type(in.bytes());
  std::string name(in.bytes());
  if (!type.empty()) status = std::move(status).with_resource(std::move(type), std::move(name));
  const uint64_t fields = in.varint();
  for (uint64_t i = 0; i < fields && in.ok(); ++i) {
    std::string field(in.bytes()), description(in.bytes()), example(in.bytes());
    status = std::move(status).with_field(std::move(field), std::move(description), std::move(example));
  }
  return std::unexpected(std::move(status));
}

ApplyResult replay(const std::string& stored, const Envelope& e, std::string_view id) {
  ByteReader in(stored);
  if (in.u64() != e.dedup.request_hash) {
    return fail(Status(Code::kConflict, "REQUEST_ID_REUSED",
                       "the request id '" + std::string(id) + "' was already used by another request to " + e.method +
                           "; use a new id for a new request")
                    .with_field("requestId", "already used with other content"));
  }
  return decode_reply(in);
}

uint64_t read_count(const KeyReader& state, const Envelope& e) {
  const auto stored = kReplies.get(state, tenant_scope(e), count_key(e));
  return stored ? ByteReader(*stored).u64() : 0;
}

}  // namespace

std::optional<ApplyResult> recall(const Transaction& state, const Envelope& e, const MachineLimits& limits) {
  if (planted_bug("drop_dedup")) return std::nullopt;
  const Scope scope = tenant_scope(e);
  if (e.dedup.session) {
    const auto session = kSessions.get(state, scope, session_key(e.dedup.session));
    if (!session || ByteReader(*session).key_part() != e.principal) {
      return ApplyResult(
          fail(Code::kFailedPrecondition, "SESSION_EXPIRED",
               "the session " + std::to_string(e.dedup.session.value) +
                   " is not open; nothing was executed. Open a new session and ask for the state first"));
    }
    const auto stored = kReplies.get(state, scope, session_reply_key(e.dedup.session, e.dedup.sequence));
    if (stored) return replay(*stored, e, std::to_string(e.dedup.sequence));
    ByteReader in(*session);
    in.key_part();
    if (e.dedup.sequence < in.u64()) {
      return ApplyResult(fail(Code::kConflict, "SEQUENCE_FORGOTTEN",
                              "the reply to sequence " + std::to_string(e.dedup.sequence) +
                                  " was acknowledged by the client and is forgotten"));
    }
    return std::nullopt;
  }
  if (e.dedup.request_id.empty()) return std::nullopt;
  const auto stored = kReplies.get(state, scope, request_key(e));
  if (stored) return replay(*stored, e, e.dedup.request_id);
  if (read_count(state, e) >= limits.request_ids_per_principal_max) {
    return ApplyResult(fail(Code::kExhausted, "REQUEST_IDS_EXHAUSTED",
                            "the principal has " + std::to_string(limits.request_ids_per_principal_max) +
                                " request ids remembered; open a session or wait until old ones expire"));
  }
  return std::nullopt;
}

void remember(Transaction& state, const Envelope& e, LogIndex index, int64_t now_ms, const ApplyResult& result) {
  const Scope scope = tenant_scope(e);
  const std::string reply = encode_reply(e.dedup.request_hash, result);
  if (e.dedup.session) {
    kReplies.put(state, scope, session_reply_key(e.dedup.session, e.dedup.sequence), reply);
    const auto session = kSessions.get(state, scope, session_key(e.dedup.session));
    if (!session) return;
    ByteReader in(*session);
    in.key_part();
    const uint64_t acknowledged = in.u64();
    if (e.dedup.acknowledged_below <= acknowledged) return;
    for (uint64_t s = acknowledged; s < e.dedup.acknowledged_below && s - acknowledged < 1024; ++s) {
      kReplies.erase(state, scope, session_reply_key(e.dedup.session, s));
    }
    kSessions.put(state, scope, session_key(e.dedup.session),
                  ByteWriter().key_part(e.principal).u64(e.dedup.acknowledged_below).take());
    return;
  }
  if (e.dedup.request_id.empty()) return;
  // recall() found no reply, and an age names the log index: both rows are new.
  state.replace(table_key::make(kReplyTable, scope, request_key(e)), std::nullopt, reply);
  kReplies.put(state, scope, count_key(e), ByteWriter().u64(read_count(state, e) + 1).take());
  const std::string age = ByteWriter().u64(static_cast<uint64_t>(now_ms)).u64(index.value).take();
  state.replace(table_key::make(kReplyAgeTable, {}, age), std::nullopt,
                ByteWriter().bytes(e.scope.tenant).bytes(request_key(e)).bytes(count_key(e)).take());
}

int64_t forget_old(Transaction& state, int64_t now_ms, const MachineLimits& limits) {
  struct Old {
    std::string age_key, tenant, reply_key, count_key;
  };
  std::vector<Old> old;
  // What is remembered from now on is no older than this call.
  int64_t next_ms = now_ms + limits.request_id_ttl_ms;
  kReplyAges.scan(state, {}, "", "", [&](std::string_view key, std::string_view value) {
    const int64_t due_ms = static_cast<int64_t>(ByteReader(key).u64()) + limits.request_id_ttl_ms;
    if (due_ms > now_ms) {
      next_ms = std::min(next_ms, due_ms);
      return false;
    }
    ByteReader in(value);
    old.push_back({std::string(key), std::string(in.bytes()), std::string(in.bytes()), std::string(in.bytes())});
    return old.size() < kForgottenPerCall;
  });
  if (old.size() == kForgottenPerCall) next_ms = now_ms;
  for (const Old& o : old) {
    const Scope scope{.tenant = o.tenant, .name_space = ""};
    kReplyAges.erase(state, {}, o.age_key);
    kReplies.erase(state, scope, o.reply_key);
    const auto stored = kReplies.get(state, scope, o.count_key);
    const uint64_t count = stored ? ByteReader(*stored).u64() : 0;
    if (count > 1) {
      kReplies.put(state, scope, o.count_key, ByteWriter().u64(count - 1).take());
    } else {
      kReplies.erase(state, scope, o.count_key);
    }
  }
  return next_ms;
}

ApplyResult open_session(Transaction& state, const Envelope& e, LogIndex index, const MachineLimits& limits) {
  // Counted by scanning keys only up to the limit would cost a scan a command; the count is kept in a row instead.
  const std::string count_row = "sessions";
  const auto stored = kReplies.get(state, {}, count_row);
  const uint64_t count = stored ? ByteReader(*stored).u64() : 0;
  if (count >= limits.sessions_max) {
    return fail(Code::kExhausted, "SESSIONS_EXHAUSTED", std::to_string(count) + " sessions are open; close one first");
  }
  kReplies.put(state, {}, count_row, ByteWriter().u64(count + 1).take());
  kSessions.put(state, tenant_scope(e), session_key(SessionId(index.value)),
                ByteWriter().key_part(e.principal).u64(1).take());
  return ByteWriter().u64(index.value).take();
}

ApplyResult close_session(Transaction& state, const Envelope& e) {
  const Scope scope = tenant_scope(e);
  const SessionId session(ByteReader(e.payload).u64());
  const auto row = kSessions.get(state, scope, session_key(session));
  if (!row || ByteReader(*row).key_part() != e.principal) return std::string();
  std::vector<std::string> replies;
  const std::string prefix = ByteWriter().u8(2).u64(session.value).take();
  kReplies.scan(state, scope, prefix, "", [&](std::string_view key, std::string_view) {
    replies.emplace_back(key);
    return true;
  });
  for (const std::string& key : replies) kReplies.erase(state, scope, key);
  kSessions.erase(state, scope, session_key(session));
  const auto stored = kReplies.get(state, {}, "sessions");
  kReplies.put(state, {}, "sessions", ByteWriter().u64(stored ? ByteReader(*stored).u64() - 1 : 0).take());
  return std::string();
}

}  // namespace uccp::machine::dedup
