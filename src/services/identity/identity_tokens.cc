// What is proven and handed out: passwords, second factors, API keys, sessions, tokens, and their end.
#include <algorithm>

#include "base/bytes.h"
#include "base/log.h"
#include "call/command.h"
#include "call/policy/roles.h"
#include "services/identity/identity_apply.h"
#include "services/identity/identity_service.h"
#include "services/message_types.h"

namespace uccp::identity {

using call::CallPtr;
using machine::GroupView;
using services::parse;
using services::set_wall;
using namespace internal::v1;  // NOLINT(google-build-using-namespace): rows and commands of this domain

namespace {

constexpr int64_t kIssuedTtlDefaultMs = 3600 * 1000;
constexpr int64_t kOverlapDefaultMs = 24 * 3600 * 1000;
constexpr size_t kSecretBytes = 32;
constexpr size_t kTotpSecretBytes = 20;
constexpr int64_t kTotpStepS = 30;

std::string method_name(std::string_view rpc) { return "uccp.v1.Identity/" + std::string(rpc); }
std::string key_context(const std::string& key_id) { return "signing key " + key_id; }
std::string totp_context(const std::string& tenant, const std::string& user) { return "totp " + tenant + "/" + user; }

// RFC 4648, without padding: what authenticator apps take.
std::string base32(std::string_view bytes) {
  static constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  std::string out;
  uint32_t buffer = 0;
  int bits = 0;
  for (const char c : bytes) {
    buffer = buffer << 8 | static_cast<unsigned char>(c);
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      out.push_back(kAlphabet[buffer >> bits & 31]);
    }
  }
  if (bits > 0) out.push_back(kAlphabet[buffer << (5 - bits) & 31]);
  return out;
}

// The step whose code this is, now or one before or after; 0: none.
uint64_t step_of(IdentityCrypto& crypto, const std::string& secret, std::string_view code, WallTime now) {
  const auto present = static_cast<uint64_t>(now.us / 1'000'000 / kTotpStepS);
  for (const uint64_t step : {present, present - 1, present + 1}) {
    if (same_secret(crypto.totp(secret, step), code)) return step;
  }
  return 0;
}

Status sign_in_refused() {
  // The same words whatever was wrong: nobody learns here which names exist.
  return Status(Code::kUnauthenticated, "SIGN_IN_REFUSED", "the name, the password or the code is wrong")
      .with_help("security.md#sign-in");
}

Status too_many_attempts(int64_t wait_ms) {
  return Status(Code::kExhausted, "SIGN_IN_THROTTLED", "too many wrong attempts to sign in; wait before the next one")
      .with_retry_after_ms(static_cast<uint32_t>(std::clamp<int64_t>(wait_ms, 1, 3'600'000)));
}

std::string host_of(const std::string& address) {
  const size_t colon = address.rfind(':');
  return colon == std::string::npos || address.ends_with(']') ? address : address.substr(0, colon);
}

std::vector<std::string> texts(const google::protobuf::RepeatedPtrField<std::string>& field) {
  return {field.begin(), field.end()};
}

// A credential that is limited to namespaces hands on no more than these.
Result<std::vector<std::string>> narrowed(const call::Principal& caller, std::vector<std::string> wanted) {
  if (caller.namespaces.empty()) return wanted;
  if (wanted.empty()) return caller.namespaces;
  for (const std::string& name : wanted) {
    if (std::ranges::find(caller.namespaces, name) != caller.namespaces.end()) continue;
    return fail(
        Status(Code::kPermission, "NAMESPACE_DENIED", caller.name + " has no access to the namespace '" + name + "'")
            .with_help("security.md#namespaces"));
  }
  return wanted;
}

}  // namespace

void IdentityService::add_tokens(call::HandlerTable& handlers) {
  handlers.add_parsed<v1::SetPasswordRequest>(
      method_name("SetPassword"),
      [this](const CallPtr& call, const v1::SetPasswordRequest& r) { set_password(call, r); });
  handlers.add(method_name("EnrollMfa"),
               [this](const CallPtr& call, const std::string& bytes) { enroll_mfa(call, bytes); });
  handlers.add_parsed<v1::ConfirmMfaRequest>(
      method_name("ConfirmMfa"), [this](const CallPtr& call, const v1::ConfirmMfaRequest& r) { confirm_mfa(call, r); });
  handlers.add_parsed<v1::RemoveMfaRequest>(
      method_name("RemoveMfa"), [this](const CallPtr& call, const v1::RemoveMfaRequest& r) {
        auto tenant = target_tenant(*call, r.tenant());
        if (!tenant) return call->finish(std::move(tenant.error()));
        Status allowed = may_act_for(*call, *tenant, r.name(), {});
        if (!allowed.is_ok()) return call->finish(std::move(allowed));
        SetUserSecretCommand command;
        command.set_tenant(*tenant);
        command.set_name(r.name());
        command.set_totp_remove(true);
        propose(call, "", "set_secret", command, [call](const machine::Applied&) { call->reply(""); });
      });
  handlers.add(method_name("CreateApiKey"),
               [this](const CallPtr& call, const std::string& bytes) { create_api_key(call, bytes); });
  handlers.add_parsed<v1::SignInRequest>(
      method_name("SignIn"), [this](const CallPtr& call, v1::SignInRequest r) { sign_in(call, std::move(r)); });
  handlers.add(method_name("SignOut"), [this](const CallPtr& call, const std::string&) { sign_out(call); });
  handlers.add_parsed<v1::ExchangeTokenRequest>(
      method_name("ExchangeToken"),
      [this](const CallPtr& call, const v1::ExchangeTokenRequest& r) { exchange(call, r); });
  handlers.add_parsed<v1::IssueTokenRequest>(
      method_name("IssueToken"), [this](const CallPtr& call, const v1::IssueTokenRequest& r) { issue_token(call, r); });
  handlers.add(method_name("RotateSigningKeys"),
               [this](const CallPtr& call, const std::string& bytes) { rotate_keys(call, bytes); });
  handlers.add("uccp.v1.Administration/RevokeCertificate",
               [this](const CallPtr& call, const std::string& bytes) { revoke_certificate(call, bytes); });
  handlers.add("uccp.v1.Administration/RevokeToken",
               [this](const CallPtr& call, const std::string& bytes) { revoke(call, bytes); });
}

// --- passwords and second factors -----------------------------------------------------------------------------------

void IdentityService::set_password(const CallPtr& call, const v1::SetPasswordRequest& request) {
  auto tenant = target_tenant(*call, request.tenant());
  if (!tenant) return call->finish(std::move(tenant.error()));
  const bool self = *tenant == call->principal.tenant && request.name() == call->principal.name;
  Status good = check_password_strength(request.password(), request.name());
  if (good.is_ok() && !self) good = may_act_for(*call, *tenant, request.name(), {});
  if (!good.is_ok()) return call->finish(std::move(good));
  env_.reader.read(
      kCoreGroup, machine::ReadLevel::linearizable(),
      [this, call, request, self, tenant = *tenant](Result<GroupView> view) {
        if (!view) return call->finish(std::move(view.error()));
        auto row = kUsers.get(*view, tenant_scope(tenant), request.name());
        if (!row) return call->finish(not_found(IDENTITY_KIND_USER, request.name()));
        if (row->user().kind() == v1::USER_KIND_SERVICE_ACCOUNT) {
          return call->finish(
              Status(Code::kFailedPrecondition, "SERVICE_ACCOUNT",
                     "the service account '" + request.name() + "' has no password; make an API key for it"));
        }
        env_.passwords.post([this, call, request, self, tenant, old_hash = row->password_hash()] {
          if (self && !old_hash.empty() && !env_.crypto.check_password(old_hash, request.old_password())) {
            throttle_.failed(host_of(call->credentials.address), env_.clock.boot());
            return call->finish(Status(Code::kPermission, "OLD_PASSWORD_WRONG", "the present password is wrong")
                                    .with_field("oldPassword", "is not the present password"));
          }
          auto hash = env_.crypto.hash_password(request.password());
          if (!hash) return call->finish(std::move(hash.error()));
          SetUserSecretCommand command;
          command.set_tenant(tenant);
          command.set_name(request.name());
          command.set_password_hash(std::move(*hash));
          propose(call, "", "set_secret", command, [call](const machine::Applied&) { call->reply(""); });
        });
      });
}

void IdentityService::enroll_mfa(const CallPtr& call, const std::string& bytes) {
  const std::string& tenant = call->principal.tenant;
  const std::string& name = call->principal.name;
  const std::string secret = env_.crypto.random_bytes(kTotpSecretBytes);
  SetUserSecretCommand command;
  command.set_tenant(tenant);
  command.set_name(name);
  command.set_totp_sealed(env_.crypto.seal(secret, totp_context(tenant, name)));
  propose(call, bytes, "set_secret", command, [this, call, secret](const machine::Applied&) {
    v1::EnrollMfaResponse out;
    out.set_secret(base32(secret));
    out.set_uri("otpauth://totp/" + env_.issuer + ":" + call->principal.name + "@" + call->principal.tenant +
                "?secret=" + out.secret() + "&issuer=" + env_.issuer + "&algorithm=SHA1&digits=6&period=30");
    call->reply(out.SerializeAsString());
  });
}

void IdentityService::confirm_mfa(const CallPtr& call, const v1::ConfirmMfaRequest& request) {
  const std::string& tenant = call->principal.tenant;
  const std::string& name = call->principal.name;
  if (const int64_t wait = throttle_.wait_ms("mfa " + tenant + "/" + name, env_.clock.boot()); wait > 0) {
    return call->finish(too_many_attempts(wait));
  }
  env_.reader.read(
      kCoreGroup, machine::ReadLevel::linearizable(), [this, call, request, tenant, name](Result<GroupView> view) {
        if (!view) return call->finish(std::move(view.error()));
        const auto row = kUsers.get(*view, tenant_scope(tenant), name);
        if (!row || row->totp_sealed().empty()) {
          return call->finish(Status(Code::kFailedPrecondition, "MFA_NOT_ENROLLED",
                                     "there is no second factor to confirm; enroll one first"));
        }
        const auto secret = env_.crypto.open(row->totp_sealed(), totp_context(tenant, name));
        if (!secret) return call->finish(secret.error());
        const uint64_t step = step_of(env_.crypto, *secret, request.code(), env_.clock.wall());
        if (step == 0) {
          throttle_.failed("mfa " + tenant + "/" + name, env_.clock.boot());
          return call->finish(
              Status(Code::kPermission, "MFA_CODE_WRONG", "the code is wrong; compare the clock of the device"));
        }
        if (row->totp_confirmed()) return call->reply("");
        SetUserSecretCommand command;
        command.set_tenant(tenant);
        command.set_name(name);
        command.set_totp_confirm(true);
        command.set_totp_step(step);
        propose(call, "", "set_secret", command, [call](const machine::Applied&) { call->reply(""); });
      });
}

// --- API keys -------------------------------------------------------------------------------------------------------

void IdentityService::create_api_key(const CallPtr& call, const std::string& bytes) {
  const auto request = parse<v1::CreateApiKeyRequest>(bytes);
  auto tenant = target_tenant(*call, request.tenant());
  if (!tenant) return call->finish(std::move(tenant.error()));
  PutIdentityCommand command;
  command.set_tenant(*tenant);
  command.set_create(true);
  v1::ApiKey& key = *command.mutable_api_key()->mutable_key();
  key = request.api_key();
  if (key.principal().empty()) key.set_principal(call->principal.name);
  Status allowed = may_act_for(*call, *tenant, key.principal(), {});
  auto namespaces = narrowed(call->principal, texts(key.namespaces()));
  if (allowed.is_ok() && !namespaces) allowed = namespaces.error();
  if (!allowed.is_ok()) return call->finish(std::move(allowed));
  key.mutable_namespaces()->Assign(namespaces->begin(), namespaces->end());
  key.set_id(make_id("key"));
  if (request.has_ttl()) {
    set_wall(key.mutable_expire_time(), {env_.clock.wall().us + services::ms_of(request.ttl()) * 1000});
  }
  const std::string secret = to_base64url(env_.crypto.random_bytes(kSecretBytes));
  auto stored = env_.key_secrets.stored(secret, env_.feature_level());
  if (!stored) return call->finish(std::move(stored.error()));
  command.mutable_api_key()->set_secret_hash(*stored);
  propose(call, bytes, "put", command, [call, secret, hash = *stored](const machine::Applied& applied) {
    const auto row = parse<ApiKeyRow>(applied.response);
    v1::CreateApiKeyResponse out;
    *out.mutable_api_key() = row.key();
    // A repeat made another secret, which is worthless: the first one was shown once.
    if (same_secret(row.secret_hash(), hash)) out.set_key(std::string(kApiKeyPrefix) + row.key().id() + "_" + secret);
    call->reply(out.SerializeAsString());
  });
}

// --- sessions -------------------------------------------------------------------------------------------------------

void IdentityService::sign_in(const CallPtr& call, v1::SignInRequest request) {
  if (request.tenant().empty()) request.set_tenant(std::string(call::kOperatorsTenant));
  const int64_t wait = throttle_.wait_ms(host_of(call->credentials.address), env_.clock.boot());
  if (wait > 0) return call->finish(too_many_attempts(wait));
  env_.reader.read(kCoreGroup, machine::ReadLevel::linearizable(), [this, call, request](Result<GroupView> view) {
    if (!view) return call->finish(std::move(view.error()));
    check_sign_in(call, request, *view);
  });
}

void IdentityService::check_sign_in(const CallPtr& call, const v1::SignInRequest& request, const GroupView& view) {
  auto row = kUsers.get(view, tenant_scope(request.tenant()), request.name());
  if (row && row->locked_until_ms() > view.machine_time_ms()) {
    return call->finish(too_many_attempts(row->locked_until_ms() - view.machine_time_ms()));
  }
  if (!begin_hash()) {
    return call->finish(Status(Code::kExhausted, "SIGN_IN_BUSY", "too many attempts to sign in at the same time; retry")
                            .with_retry_after_ms(1000));
  }
  env_.passwords.post([this, call, request, row = std::move(row)] {
    end_hash();
    if (call->finished()) return;
    const std::string& hash = row && !row->password_hash().empty() ? row->password_hash() : dummy_hash_;
    const bool right = env_.crypto.check_password(hash, request.password()) && row && !row->password_hash().empty();
    const bool active = env_.directory.check_principal(request.tenant(), request.name()).is_ok();
    if (!right || !active) return refuse_sign_in(call, request, row.has_value());
    SignInCommand command;
    if (row->totp_confirmed()) {
      if (request.code().empty()) {
        return call->finish(
            Status(Code::kUnauthenticated, "MFA_REQUIRED", "the code of the authenticator app is needed too")
                .with_field("code", "is missing", "123456")
                .with_help("security.md#sign-in"));
      }
      const auto secret = env_.crypto.open(row->totp_sealed(), totp_context(request.tenant(), request.name()));
      if (!secret) return call->finish(secret.error());
      command.set_totp_step(step_of(env_.crypto, *secret, request.code(), env_.clock.wall()));
      if (command.totp_step() == 0) return refuse_sign_in(call, request, true);
    }
    command.set_tenant(request.tenant());
    command.set_name(request.name());
    command.set_accepted(true);
    command.set_password_hash(row->password_hash());
    const int64_t session_ttl_ms = env_.session_ttl_ms();
    command.set_session_ttl_ms(session_ttl_ms);
    SessionRow& session = *command.mutable_session();
    session.set_id(make_id("ses"));
    session.set_tenant(request.tenant());
    session.set_principal(request.name());
    session.set_expire_us(env_.clock.wall().us + session_ttl_ms * 1000);
    const std::string refresh = to_base64url(env_.crypto.random_bytes(kSecretBytes));
    session.set_secret_hash(hash_secret(refresh));
    propose_sign_in(call, command, [this, call, refresh](const machine::Applied& applied) {
      answer_tokens(call, parse<SessionRow>(applied.response), refresh);
    });
  });
}

bool IdentityService::begin_hash() {
  std::lock_guard lock(mutex_);
  if (hashes_waiting_ >= kHashesWaitingMax) return false;
  ++hashes_waiting_;
  return true;
}

void IdentityService::end_hash() {
  std::lock_guard lock(mutex_);
  --hashes_waiting_;
}

void IdentityService::refuse_sign_in(const CallPtr& call, const v1::SignInRequest& request, bool known) {
  throttle_.failed(host_of(call->credentials.address), env_.clock.boot());
  env_.metrics.counter("uccp_sign_in_failures_total", "Attempts to sign in that were refused").add();
  log::write({.level = log::Level::kWarn,
              .message = "sign-in refused",
              .fields = {{"principal", request.name()},
                         {"tenant", request.tenant()},
                         {"address", call->credentials.address},
                         {"call_id", call->call_id}},
              .category = log::Category::kSecurity});
  if (!known) return call->finish(sign_in_refused());
  SignInCommand command;
  command.set_tenant(request.tenant());
  command.set_name(request.name());
  // Answered when it is counted: attempts cannot overtake their count.
  propose_sign_in(call, command, [call](const machine::Applied&) { call->finish(sign_in_refused()); });
}

// The caller is nobody yet: the trail has who signed in, in the tenant of that user.
void IdentityService::propose_sign_in(const CallPtr& call, const SignInCommand& command,
                                      std::function<void(machine::Applied)> done) {
  machine::Envelope envelope;
  envelope.scope = tenant_scope(command.tenant());
  envelope.principal = command.name();
  envelope.method = call->method->full_name;
  envelope.command = std::string(kDomain) + ".sign_in";
  envelope.resource = command.name();
  envelope.traceparent = call->traceparent;
  // A refused attempt changes a counter and nothing else; the log has it with its address.
  envelope.audited = command.accepted();
  envelope.payload = command.SerializeAsString();
  env_.proposer.propose(kCoreGroup, std::move(envelope),
                        [call, done = std::move(done)](Result<machine::Applied> applied) {
                          if (!applied) return call->finish(std::move(applied.error()));
                          done(std::move(*applied));
                        });
}

void IdentityService::answer_tokens(const CallPtr& call, const SessionRow& session, const std::string& refresh) {
  AccessTokenClaims claims;
  claims.token_id = make_id("tok");
  claims.tenant = session.tenant();
  claims.principal = session.principal();
  claims.session = session.id();
  claims.issued_s = env_.clock.wall().us / 1'000'000;
  claims.expires_s = std::min(claims.issued_s + kAccessTtlMs / 1000, session.expire_us() / 1'000'000);
  sign(call, claims, [call, claims, session, refresh](std::string token) {
    v1::Tokens out;
    out.set_access_token(std::move(token));
    set_wall(out.mutable_expire_time(), {claims.expires_s * 1'000'000});
    out.set_refresh_token(std::string(kRefreshPrefix) + session.id() + "_" + refresh);
    set_wall(out.mutable_session_expire_time(), {session.expire_us()});
    out.set_token_id(claims.token_id);
    out.set_principal(session.principal());
    out.set_tenant(session.tenant());
    call->reply(out.SerializeAsString());
  });
}

void IdentityService::exchange(const CallPtr& call, const v1::ExchangeTokenRequest& request) {
  const Status refused(Code::kUnauthenticated, "REFRESH_REFUSED",
                       "the refresh token is unknown, used, or its session is over; sign in");
  SecretParts parts;
  if (!split_secret(request.refresh_token(), kRefreshPrefix, parts)) return call->finish(refused);
  env_.reader.read(
      kCoreGroup, machine::ReadLevel::linearizable(), [this, call, parts, refused](Result<GroupView> view) {
        if (!view) return call->finish(std::move(view.error()));
        const auto session = kSessions.get(*view, kNoScope, parts.id);
        if (!session || session->expire_us() <= env_.clock.wall().us) return call->finish(refused);
        Status active = env_.directory.check_principal(session->tenant(), session->principal());
        if (!active.is_ok()) return call->finish(std::move(active));
        const std::string next = to_base64url(env_.crypto.random_bytes(kSecretBytes));
        RotateSessionCommand command;
        command.set_id(parts.id);
        command.set_presented_hash(hash_secret(parts.secret));
        command.set_next_hash(hash_secret(next));
        propose(
            call, "", "rotate_session", command, [this, call, next, id = parts.id](const machine::Applied& applied) {
              if (!applied.response.empty()) return answer_tokens(call, parse<SessionRow>(applied.response), next);
              log::write({.level = log::Level::kWarn,
                          .message = "a refresh token was used twice: its session was ended",
                          .fields = {{"session", id}, {"address", call->credentials.address}},
                          .category = log::Category::kSecurity});
              call->finish(
                  Status(
                      Code::kUnauthenticated, "REFRESH_REUSED",
                      "the refresh token was used before, so somebody else may have it: the session was ended; sign in")
                      .with_help("security.md#sign-in"));
            });
      });
}

void IdentityService::sign_out(const CallPtr& call) {
  if (call->principal.session.empty()) {
    return call->finish(
        Status(Code::kFailedPrecondition, "NO_SESSION",
               "the credential is not the token of a session; tokens and keys are ended by RevokeToken"));
  }
  RevokeCommand command;
  command.set_tenant(call->principal.tenant);
  command.set_token_id(call->principal.session);
  command.set_reason("signed out");
  propose(call, "", "revoke", command, [call](const machine::Applied&) { call->reply(""); });
}

// --- tokens and keys that sign them ---------------------------------------------------------------------------------

void IdentityService::issue_token(const CallPtr& call, const v1::IssueTokenRequest& request) {
  auto tenant = target_tenant(*call, request.tenant());
  if (!tenant) return call->finish(std::move(tenant.error()));
  const std::string name = request.principal().empty() ? call->principal.name : request.principal();
  const bool self = *tenant == call->principal.tenant && name == call->principal.name;
  Status allowed = may_act_for(*call, *tenant, name, {});
  auto namespaces = narrowed(call->principal, texts(request.namespaces()));
  if (allowed.is_ok() && !namespaces) allowed = namespaces.error();
  if (allowed.is_ok() && env_.directory.newest()->user(*tenant, name) == nullptr) {
    allowed = self
                  ? Status(Code::kFailedPrecondition, "USER_NOT_STORED",
                           name + " is known by its credential only; make a user of this name first, and give it roles")
                  : not_found(IDENTITY_KIND_USER, name);
  }
  if (!allowed.is_ok()) return call->finish(std::move(allowed));
  AccessTokenClaims claims;
  claims.token_id = make_id("tok");
  claims.tenant = *tenant;
  claims.principal = name;
  claims.namespaces = *namespaces;
  claims.issued_s = env_.clock.wall().us / 1'000'000;
  claims.expires_s =
      claims.issued_s + (request.has_ttl() ? services::ms_of(request.ttl()) : kIssuedTtlDefaultMs) / 1000;
  // Who has a token cannot make one that lives longer.
  if (self && call->principal.expires_us > 0)
    claims.expires_s = std::min(claims.expires_s, call->principal.expires_us / 1'000'000);
  sign(call, claims, [call, claims](std::string token) {
    v1::Tokens out;
    out.set_access_token(std::move(token));
    set_wall(out.mutable_expire_time(), {claims.expires_s * 1'000'000});
    out.set_token_id(claims.token_id);
    out.set_principal(claims.principal);
    out.set_tenant(claims.tenant);
    call->reply(out.SerializeAsString());
  });
}

void IdentityService::sign(const CallPtr& call, AccessTokenClaims claims, std::function<void(std::string)> done) {
  env_.reader.read(kCoreGroup, machine::ReadLevel::linearizable(), [this, call, claims, done](Result<GroupView> view) {
    if (!view) return call->finish(std::move(view.error()));
    std::optional<SigningKeyRow> present;
    kSigningKeys.scan(*view, kNoScope, "", "", [&](std::string_view, SigningKeyRow row) {
      if (row.retire_us() == 0) present = std::move(row);
      return !present.has_value();
    });
    if (present) {
      const auto pem = env_.crypto.open(present->private_sealed(), key_context(present->key_id()));
      if (!pem) return call->finish(pem.error());
      auto token = env_.crypto.sign(*pem, claims);
      if (!token) return call->finish(std::move(token.error()));
      return done(std::move(*token));
    }
    const auto pair = env_.crypto.make_signing_key();
    if (!pair) return call->finish(pair.error());
    AddSigningKeyCommand command;
    command.set_first(true);
    command.mutable_key()->set_key_id(pair->key_id);
    command.mutable_key()->set_public_pem(pair->public_pem);
    command.mutable_key()->set_private_sealed(env_.crypto.seal(pair->private_pem, key_context(pair->key_id)));
    propose(call, "", "add_signing_key", command,
            [this, call, claims, done](const machine::Applied&) { sign(call, claims, done); });
  });
}

void IdentityService::rotate_keys(const CallPtr& call, const std::string& bytes) {
  const auto request = parse<v1::RotateSigningKeysRequest>(bytes);
  const auto pair = env_.crypto.make_signing_key();
  if (!pair) return call->finish(pair.error());
  AddSigningKeyCommand command;
  command.set_overlap_ms(request.has_overlap() ? services::ms_of(request.overlap()) : kOverlapDefaultMs);
  command.mutable_key()->set_key_id(pair->key_id);
  command.mutable_key()->set_public_pem(pair->public_pem);
  command.mutable_key()->set_private_sealed(env_.crypto.seal(pair->private_pem, key_context(pair->key_id)));
  propose(call, bytes, "add_signing_key", command, [this, call](const machine::Applied&) { signing_keys(call); });
}

void IdentityService::revoke_certificate(const CallPtr& call, const std::string& bytes) {
  const auto request = parse<v1::RevokeCertificateRequest>(bytes);
  RevokeCommand command;
  command.set_tenant(call->principal.tenant);
  command.set_any_tenant(operates_tenants(*call));
  command.set_reason(request.reason());
  command.set_serial(canonical_serial(request.serial()));
  propose(call, bytes, "revoke", command, [this, call](const machine::Applied&) {
    v1::RevokeCertificateResponse out;
    set_wall(out.mutable_revoke_time(), env_.clock.wall());
    call->reply(out.SerializeAsString());
  });
}

void IdentityService::revoke(const CallPtr& call, const std::string& bytes) {
  const auto request = parse<v1::RevokeTokenRequest>(bytes);
  RevokeCommand command;
  command.set_tenant(call->principal.tenant);
  command.set_any_tenant(operates_tenants(*call));
  command.set_reason(request.reason());
  switch (request.target_case()) {
    case v1::RevokeTokenRequest::kTokenId: command.set_token_id(request.token_id()); break;
    case v1::RevokeTokenRequest::kPrincipal: command.set_principal(request.principal()); break;
    case v1::RevokeTokenRequest::kCertificateSerial:
      command.set_serial(canonical_serial(request.certificate_serial()));
      break;
    case v1::RevokeTokenRequest::kToken: {
      const std::string& token = request.token();
      SecretParts parts;
      const bool secret = split_secret(token, kApiKeyPrefix, parts) || split_secret(token, kRefreshPrefix, parts);
      if (secret) command.set_token_id(parts.id);
      else command.set_token_id(env_.crypto.token_id(token).first);
      break;
    }
    default: break;
  }
  if (command.token_id().empty() && command.principal().empty() && command.serial().empty()) {
    return call->finish(
        Status(Code::kInvalid, "FIELD_INVALID", "say what is to be revoked")
            .with_field("tokenId", "one of tokenId, token, principal, certificateSerial is needed", "tok_01J8ZQ4V5K"));
  }
  propose(call, bytes, "revoke", command, [this, call](const machine::Applied&) {
    v1::RevokeTokenResponse out;
    set_wall(out.mutable_revoke_time(), env_.clock.wall());
    call->reply(out.SerializeAsString());
  });
}

}  // namespace uccp::identity
