// What both halves share: counting, announcing, removing keys and sessions. identity_rows.cc has what is configured,
// identity_credentials.cc what is proven and revoked.
#include "services/identity/identity_state.h"

#include <algorithm>
#include <cctype>

#include "base/bytes.h"
#include "services/identity/identity_apply.h"

namespace uccp::identity {

using internal::v1::ApiKeyRow;
using internal::v1::IdentityKind;
using internal::v1::SessionRow;
using machine::ApplyContext;

namespace {

struct KindRule {
  IdentityKind kind;
  std::string_view word;    // as in reasons
  std::string_view people;  // as in messages
  size_t max;
};
constexpr KindRule kKinds[] = {
    {internal::v1::IDENTITY_KIND_TENANT, "TENANT_NOT_FOUND", "tenant", kTenantsMax},
    {internal::v1::IDENTITY_KIND_NAMESPACE, "NAMESPACE_NOT_FOUND", "namespace", kNamespacesMax},
    {internal::v1::IDENTITY_KIND_USER, "USER_NOT_FOUND", "user", kUsersMax},
    {internal::v1::IDENTITY_KIND_ROLE, "ROLE_NOT_FOUND", "role", kRolesMax},
    {internal::v1::IDENTITY_KIND_BINDING, "BINDING_NOT_FOUND", "binding", kBindingsMax},
    {internal::v1::IDENTITY_KIND_POLICY, "POLICY_NOT_FOUND", "policy", kPoliciesMax},
    {internal::v1::IDENTITY_KIND_API_KEY, "API_KEY_NOT_FOUND", "API key", kUsersMax* kApiKeysOfUserMax},
};

const KindRule& rule_of(IdentityKind kind) {
  for (const KindRule& rule : kKinds) {
    if (rule.kind == kind) return rule;
  }
  return kKinds[0];
}

std::vector<std::string> ids_of(const machine::KeyReader& state, const machine::BytesTable& table,
                                std::string_view tenant, std::string_view user) {
  std::vector<std::string> ids;
  const std::string prefix = ByteWriter().key_part(user).take();
  table.scan(state, tenant_scope(tenant), prefix, "", [&](std::string_view key, std::string_view) {
    ids.emplace_back(key.substr(prefix.size()));
    return true;
  });
  return ids;
}

}  // namespace

std::string canonical_serial(std::string serial) {
  std::ranges::transform(serial, serial.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  serial.erase(0, std::min(serial.find_first_not_of('0'), serial.size() - 1));
  return serial;
}

machine::Scope tenant_scope(std::string_view tenant) { return {std::string(tenant), ""}; }
std::string token_revocation_key(std::string_view token_id) { return "t" + std::string(token_id); }
std::string certificate_revocation_key(std::string_view serial) { return "c" + std::string(serial); }
std::string user_revocation_key(std::string_view user) { return "u" + std::string(user); }
std::string owned_key(std::string_view user, std::string_view id) { return ByteWriter().key_part(user).raw(id).take(); }

void announce(ApplyContext& c, std::string_view tenant, std::string_view key, ChangeKind kind) {
  if (kind == ChangeKind::kAuthority) kAuthority.put(c.state(), kNoScope, "", ByteWriter().u64(c.index().value).take());
  c.emit_in(tenant_scope(tenant), kTopic, key, static_cast<uint8_t>(kind), "");
}

Status count(ApplyContext& c, std::string_view tenant, IdentityKind kind, int change) {
  const std::string key = ByteWriter().u8(static_cast<uint8_t>(kind)).take();
  const auto stored = kCounts.get(c.state(), tenant_scope(tenant), key);
  const uint64_t present = stored ? ByteReader(*stored).u64() : 0;
  const KindRule& rule = rule_of(kind);
  if (change > 0 && present >= rule.max) {
    return Status(Code::kExhausted, "IDENTITY_LIMIT",
                  "there are " + std::to_string(rule.max) + " of the kind '" + std::string(rule.people) +
                      "' already; remove some that are not needed");
  }
  kCounts.put(c.state(), tenant_scope(tenant), key, ByteWriter().u64(present + static_cast<uint64_t>(change)).take());
  return Status::ok();
}

Status not_found(IdentityKind kind, const std::string& name) {
  const KindRule& rule = rule_of(kind);
  return Status(Code::kNotFound, rule.word, "there is no " + std::string(rule.people) + " '" + name + "'")
      .with_resource(std::string(rule.people), name);
}

void erase_api_key(ApplyContext& c, const ApiKeyRow& row) {
  const machine::Scope scope = tenant_scope(row.tenant());
  kApiKeys.erase(c.state(), kNoScope, row.key().id());
  kApiKeysOfUser.erase(c.state(), scope, owned_key(row.key().principal(), row.key().id()));
  auto user = kUsers.get(c.state(), scope, row.key().principal());
  if (!user || user->api_keys() == 0) return;
  user->set_api_keys(user->api_keys() - 1);
  kUsers.put(c.state(), scope, row.key().principal(), *user);
}

void erase_session(ApplyContext& c, const SessionRow& row, bool lease_is_over) {
  kSessions.erase(c.state(), kNoScope, row.id());
  kSessionsOfUser.erase(c.state(), tenant_scope(row.tenant()), owned_key(row.principal(), row.id()));
  if (lease_is_over) return;
  if (row.lease() != 0) c.delete_lease(row.lease());
  // Its access tokens are still good by themselves.
  put_revocation(c, row.tenant(), token_revocation_key(row.id()), "session ended", kSessionEndKeptMs);
}

void put_revocation(ApplyContext& c, std::string_view tenant, const std::string& key, const std::string& reason,
                    int64_t ttl_ms) {
  internal::v1::RevocationRow row;
  row.set_revoke_us(c.envelope().wall.us);
  row.set_reason(reason);
  if (ttl_ms > 0) {
    row.set_lease(c.create_lease(kDomain, ByteWriter().u8('r').key_part(tenant).raw(key).take(), ttl_ms));
  }
  kRevocations.put(c.state(), tenant_scope(tenant), key, row);
  announce(c, tenant, key, ChangeKind::kCredential);
}

void erase_api_keys(ApplyContext& c, std::string_view tenant, std::string_view user) {
  for (const std::string& id : ids_of(c.state(), kApiKeysOfUser, tenant, user)) {
    if (const auto row = kApiKeys.get(c.state(), kNoScope, id)) erase_api_key(c, *row);
  }
}

void erase_sessions(ApplyContext& c, std::string_view tenant, std::string_view user) {
  for (const std::string& id : ids_of(c.state(), kSessionsOfUser, tenant, user)) {
    if (const auto row = kSessions.get(c.state(), kNoScope, id)) erase_session(c, *row);
  }
}

std::map<std::string, machine::ApplyFunction, std::less<>> IdentityState::commands() {
  return {{"put", apply_put},         {"delete", apply_delete},
          {"sweep", apply_sweep},     {"set_secret", apply_set_secret},
          {"sign_in", apply_sign_in}, {"rotate_session", apply_rotate_session},
          {"revoke", apply_revoke},   {"add_signing_key", apply_add_signing_key}};
}

void IdentityState::on_lease_expired(ApplyContext& c, machine::LeaseId lease, std::string_view key) {
  ByteReader in(key);
  const uint8_t what = in.u8();
  if (what == 's') {
    const auto row = kSessions.get(c.state(), kNoScope, in.rest());
    if (row && row->lease() == lease) erase_session(c, *row, true);
  } else if (what == 'r') {
    // What it is about has ended by itself by now; a later revocation of the same has a lease of its own.
    const std::string tenant = in.key_part();
    const auto row = kRevocations.get(c.state(), tenant_scope(tenant), in.rest());
    if (row && row->lease() == lease) kRevocations.erase(c.state(), tenant_scope(tenant), in.rest());
  }
}

}  // namespace uccp::identity
