// Applying: passwords, second factors, sessions, revocations and signing keys.
#include <algorithm>

#include "base/bytes.h"
#include "machine/stable_bytes.h"
#include "services/identity/identity_apply.h"
#include "services/message_types.h"

namespace uccp::identity {
namespace {

using machine::ApplyContext;
using machine::ApplyResult;
using services::parse;
using services::set_wall;
using namespace internal::v1;  // NOLINT(google-build-using-namespace): rows and kinds of this domain

Status code_used() {
  return Status(Code::kUnauthenticated, "MFA_CODE_USED", "this code was used already; wait for the next one");
}

// The oldest session makes room for one more.
void end_oldest_session(ApplyContext& c, const std::string& tenant, const std::string& user) {
  std::vector<std::string> ids;
  const std::string prefix = ByteWriter().key_part(user).take();
  kSessionsOfUser.scan(c.state(), tenant_scope(tenant), prefix, "", [&](std::string_view key, std::string_view) {
    ids.emplace_back(key.substr(prefix.size()));
    return true;
  });
  // Ids begin with the time at which they were made.
  if (ids.size() < kSessionsOfUserMax) return;
  if (const auto row = kSessions.get(c.state(), kNoScope, ids.front())) erase_session(c, *row);
}

int64_t lock_ms(uint32_t failures) {
  if (failures < kFreeFailures) return 0;
  const uint32_t doublings = std::min<uint32_t>(failures - kFreeFailures, 20);
  return std::min(kLockMaxMs, kLockMinMs << doublings);
}

}  // namespace

ApplyResult apply_set_secret(ApplyContext& c, std::string_view payload) {
  const auto command = parse<SetUserSecretCommand>(payload);
  const machine::Scope scope = tenant_scope(command.tenant());
  auto row = kUsers.get(c.state(), scope, command.name());
  if (!row) return fail(not_found(IDENTITY_KIND_USER, command.name()));
  if (!command.password_hash().empty()) {
    row->set_password_hash(command.password_hash());
    row->mutable_user()->set_has_password(true);
    row->set_failures(0);
    row->set_locked_until_ms(0);
  }
  if (!command.totp_sealed().empty()) {
    if (row->totp_confirmed()) {
      return fail(Code::kFailedPrecondition, "MFA_ENABLED", "there is a second factor already; have it removed first");
    }
    row->set_totp_sealed(command.totp_sealed());
  }
  if (command.totp_confirm()) {
    if (row->totp_sealed().empty()) {
      return fail(Code::kFailedPrecondition, "MFA_NOT_ENROLLED",
                  "there is no second factor to confirm; enroll one first");
    }
    if (command.totp_step() <= row->totp_last_step()) return fail(code_used());
    row->set_totp_confirmed(true);
    row->set_totp_last_step(command.totp_step());
  }
  if (command.totp_remove()) {
    row->clear_totp_sealed();
    row->set_totp_confirmed(false);
    row->set_totp_last_step(0);
  }
  row->mutable_user()->set_mfa_enabled(row->totp_confirmed());
  set_wall(row->mutable_user()->mutable_update_time(), c.envelope().wall);
  kUsers.put(c.state(), scope, command.name(), *row);
  announce(c, command.tenant(), command.name(), ChangeKind::kOther);
  return std::string();
}

ApplyResult apply_sign_in(ApplyContext& c, std::string_view payload) {
  auto command = parse<SignInCommand>(payload);
  const machine::Scope scope = tenant_scope(command.tenant());
  auto row = kUsers.get(c.state(), scope, command.name());
  if (!row) return fail(not_found(IDENTITY_KIND_USER, command.name()));
  if (!command.accepted()) {
    row->set_failures(row->failures() + 1);
    row->set_locked_until_ms(c.now_ms() + lock_ms(row->failures()));
    kUsers.put(c.state(), scope, command.name(), *row);
    return std::string();
  }
  if (row->password_hash() != command.password_hash() || row->user().disabled()) {
    return fail(Code::kUnauthenticated, "SIGN_IN_REFUSED", "the password was changed while it was checked; try again");
  }
  if (row->totp_confirmed()) {
    if (command.totp_step() <= row->totp_last_step()) return fail(code_used());
    row->set_totp_last_step(command.totp_step());
  }
  row->set_failures(0);
  row->set_locked_until_ms(0);
  set_wall(row->mutable_user()->mutable_last_sign_in_time(), c.envelope().wall);
  kUsers.put(c.state(), scope, command.name(), *row);
  end_oldest_session(c, command.tenant(), command.name());
  SessionRow& session = *command.mutable_session();
  session.set_lease(c.create_lease(kDomain, ByteWriter().u8('s').raw(session.id()).take(), command.session_ttl_ms()));
  kSessions.put(c.state(), kNoScope, session.id(), session);
  kSessionsOfUser.put(c.state(), scope, owned_key(session.principal(), session.id()), "");
  return machine::stable_bytes(session);
}

ApplyResult apply_rotate_session(ApplyContext& c, std::string_view payload) {
  const auto command = parse<RotateSessionCommand>(payload);
  auto row = kSessions.get(c.state(), kNoScope, command.id());
  if (!row)
    return fail(Code::kUnauthenticated, "REFRESH_REFUSED",
                "the refresh token is unknown, used, or its session is over; sign in");
  if (row->secret_hash() != command.presented_hash()) {
    // A token that was exchanged before: one of both users has stolen it. Its end is kept, so it cannot be an error.
    if (row->previous_hash() != command.presented_hash()) {
      return fail(Code::kUnauthenticated, "REFRESH_REFUSED",
                  "the refresh token is unknown, used, or its session is over; sign in");
    }
    erase_session(c, *row);
    return std::string();
  }
  row->set_previous_hash(row->secret_hash());
  row->set_secret_hash(command.next_hash());
  kSessions.put(c.state(), kNoScope, command.id(), *row);
  return machine::stable_bytes(*row);
}

ApplyResult apply_revoke(ApplyContext& c, std::string_view payload) {
  const auto command = parse<RevokeCommand>(payload);
  const std::string& tenant = command.tenant();
  if (!command.principal().empty()) {
    // It need not be stored: certificates and outside issuers have principals of their own.
    erase_api_keys(c, tenant, command.principal());
    erase_sessions(c, tenant, command.principal());
    put_revocation(c, tenant, user_revocation_key(command.principal()), command.reason(), kTokenTtlMaxMs);
    return std::string();
  }
  if (!command.serial().empty()) {
    // For ever: certificates may be good for long, and their end is not known here.
    put_revocation(c, tenant, certificate_revocation_key(command.serial()), command.reason(), 0);
    return std::string();
  }
  const auto owned = [&](const std::string& owner) { return owner == tenant || command.any_tenant(); };
  if (const auto row = kApiKeys.get(c.state(), kNoScope, command.token_id()); row && owned(row->tenant())) {
    erase_api_key(c, *row);
  }
  if (const auto row = kSessions.get(c.state(), kNoScope, command.token_id()); row && owned(row->tenant())) {
    erase_session(c, *row);
  }
  put_revocation(c, tenant, token_revocation_key(command.token_id()), command.reason(), kTokenTtlMaxMs);
  return std::string();
}

ApplyResult apply_add_signing_key(ApplyContext& c, std::string_view payload) {
  const auto command = parse<AddSigningKeyCommand>(payload);
  std::vector<SigningKeyRow> rows;
  kSigningKeys.scan(c.state(), kNoScope, "", "", [&](std::string_view, SigningKeyRow row) {
    rows.push_back(std::move(row));
    return true;
  });
  const int64_t now_us = c.envelope().wall.us;
  // Two nodes may have wanted the first key at the same time: one is enough.
  if (command.first() && !rows.empty()) return std::string();
  size_t verifying = 0;
  for (SigningKeyRow& row : rows) {
    if (row.retire_us() != 0 && row.retire_us() <= now_us) {
      kSigningKeys.erase(c.state(), kNoScope, row.key_id());
      continue;
    }
    ++verifying;
    if (row.retire_us() != 0) continue;
    row.set_retire_us(now_us + std::max<int64_t>(1, command.overlap_ms() * 1000));
    row.clear_private_sealed();
    kSigningKeys.put(c.state(), kNoScope, row.key_id(), row);
  }
  if (verifying >= kSigningKeysMax) {
    return fail(Code::kExhausted, "SIGNING_KEYS_EXHAUSTED",
                std::to_string(kSigningKeysMax) + " keys verify tokens already; wait until the overlap of one is over");
  }
  SigningKeyRow fresh = command.key();
  fresh.set_create_us(now_us);
  kSigningKeys.put(c.state(), kNoScope, fresh.key_id(), fresh);
  announce(c, "", fresh.key_id(), ChangeKind::kCredential);
  return std::string();
}

}  // namespace uccp::identity
