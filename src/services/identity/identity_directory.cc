#include "services/identity/identity_directory.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/log.h"
#include "services/message_types.h"

namespace uccp::identity {
namespace {

using internal::v1::ApiKeyRow;
using internal::v1::UserRow;

std::unexpected<Status> refused(std::string_view reason, std::string message) {
  return fail(Status(Code::kUnauthenticated, reason, std::move(message)).with_help("security.md#credentials"));
}

Status unknown_api_key() { return refused("API_KEY_INVALID", "the API key is unknown, wrong, or was deleted").error(); }

template <typename Field>
std::vector<std::string> texts(const Field& field) {
  return {field.begin(), field.end()};
}

}  // namespace

call::PolicyInput read_policy_input(const machine::KeyReader& state, uint64_t revision) {
  call::PolicyInput in;
  in.revision = revision;
  kTenants.scan(state, kNoScope, "", "", [&](std::string_view, const v1::Tenant& row) {
    in.tenants.push_back({.name = row.name(),
                          .suspended = row.status() == v1::TENANT_STATUS_SUSPENDED,
                          .deleted = row.status() == v1::TENANT_STATUS_DELETED,
                          .declared_namespaces_only = row.declared_namespaces_only(),
                          .namespaces = {}});
    return true;
  });
  kNamespaces.scan_all(state, [&](const machine::Scope& scope, std::string_view name, const v1::Namespace&) {
    const auto tenant = std::ranges::find(in.tenants, scope.tenant, &call::TenantSpec::name);
    if (tenant != in.tenants.end()) tenant->namespaces.emplace(name);
    return true;
  });
  kUsers.scan_all(state, [&](const machine::Scope& scope, std::string_view name, const UserRow& row) {
    in.users.push_back({.tenant = scope.tenant,
                        .name = std::string(name),
                        .service = row.user().kind() == v1::USER_KIND_SERVICE_ACCOUNT,
                        .disabled = row.user().disabled(),
                        .groups = texts(row.user().groups())});
    return true;
  });
  kRoles.scan_all(state, [&](const machine::Scope& scope, std::string_view name, const v1::Role& row) {
    in.roles.push_back({scope.tenant, std::string(name), texts(row.permissions()), texts(row.inherits())});
    return true;
  });
  kBindings.scan_all(state, [&](const machine::Scope& scope, std::string_view id, const v1::Binding& row) {
    in.bindings.push_back({scope.tenant, std::string(id), row.role(), texts(row.members()), texts(row.namespaces()),
                           texts(row.resources())});
    return true;
  });
  kPolicies.scan_all(state, [&](const machine::Scope& scope, std::string_view name, const v1::Policy& row) {
    if (!row.disabled()) in.policies.push_back({scope.tenant, std::string(name), row.text()});
    return true;
  });
  return in;
}

// --- following the state --------------------------------------------------------------------------------------------

void IdentityDirectory::on_change(std::function<void()> callback) {
  std::lock_guard lock(mutex_);
  on_change_ = std::move(callback);
}

void IdentityDirectory::start() {
  // First the position, then the state: what comes in between is compiled twice, never missed.
  follow(env_.view().applied());
  compile();
}

void IdentityDirectory::follow(LogIndex since) {
  const std::weak_ptr<IdentityDirectory> self = weak_from_this();
  auto watch = env_.watcher.watch(
      {.group = kCoreGroup, .topic = std::string(kTopic), .tenant = "", .name_space = ""}, since,
      [self](const machine::Change& change) {
        if (const auto directory = self.lock()) directory->changed(change);
        return true;
      },
      [self](const Status& status) {
        const auto directory = self.lock();
        if (!directory || status.reason() == "SHUTTING_DOWN") return;
        // Changes were missed, or a snapshot took their place: the whole state is read again.
        directory->env_.work.post([directory] {
          {
            std::lock_guard lock(directory->mutex_);
            if (directory->stopped_) return;
            ++directory->revision_;
          }
          directory->follow(directory->env_.view().applied());
          directory->compile();
        });
      });
  std::lock_guard lock(mutex_);
  if (!stopped_) watch_ = std::move(watch);
}

void IdentityDirectory::stop() {
  std::shared_ptr<machine::Watch> watch;
  std::lock_guard lock(mutex_);
  stopped_ = true;
  watch.swap(watch_);
}

void IdentityDirectory::changed(const machine::Change& change) {
  const auto kind = static_cast<ChangeKind>(change.kind);
  if (kind == ChangeKind::kOther) return;
  {
    std::lock_guard lock(mutex_);
    ++revision_;
    if (compiling_) {
      again_ = true;
      return;
    }
    compiling_ = true;
  }
  env_.work.post([self = shared_from_this()] { self->compile(); });
}

void IdentityDirectory::compile() {
  for (;;) {
    {
      std::lock_guard lock(mutex_);
      if (stopped_) return;
      again_ = false;
      compiling_ = true;
    }
    const machine::GroupView view = env_.view();
    std::vector<std::string> broken;
    auto set = call::PolicySet::compile(read_policy_input(view, view.applied().value), &broken);
    for (const std::string& policy : broken) {
      log::error("a policy cannot be used and forbids everything to its tenant", {{"policy", policy}});
    }
    env_.metrics.gauge("uccp_policy_revision", "Position in the log of the policies in force")
        .set(static_cast<double>(set->revision()));
    bool again = false;
    std::function<void()> on_change;
    {
      std::lock_guard lock(mutex_);
      policies_ = std::move(set);
      ++revision_;
      again = again_;
      compiling_ = again;
      on_change = on_change_;
    }
    if (on_change) on_change();
    if (!again) return;
  }
}

std::shared_ptr<const call::PolicySet> IdentityDirectory::policies() const {
  std::lock_guard lock(mutex_);
  return policies_;
}

std::shared_ptr<const call::PolicySet> IdentityDirectory::newest() const {
  auto set = policies();
  const machine::GroupView view = env_.view();
  const auto changed = kAuthority.get(view, kNoScope, "");
  if (!changed || ByteReader(*changed).u64() <= set->revision()) return set;
  return call::PolicySet::compile(read_policy_input(view, view.applied().value));
}

uint64_t IdentityDirectory::revision() const {
  std::lock_guard lock(mutex_);
  return revision_;
}

// --- questions of authentication ------------------------------------------------------------------------------------

Status IdentityDirectory::check_principal(std::string_view tenant, std::string_view name) const {
  const auto set = policies();
  if (const call::TenantSpec* spec = set->tenant(tenant)) {
    if (spec->deleted) return refused("TENANT_DELETED", "the tenant '" + std::string(tenant) + "' was removed").error();
    if (spec->suspended) {
      return refused("TENANT_SUSPENDED", "the tenant '" + std::string(tenant) + "' is suspended; ask its operators")
          .error();
    }
  }
  const call::UserSpec* user = set->user(tenant, name);
  if (user != nullptr && user->disabled) {
    return refused("USER_DISABLED", "the user '" + std::string(name) + "' is disabled").error();
  }
  return Status::ok();
}

void IdentityDirectory::complete(call::Principal& principal) const {
  principal.credential_groups = principal.groups.size();
  const auto set = policies();
  const call::UserSpec* user = set->user(principal.tenant, principal.name);
  if (user == nullptr) return;
  for (const std::string& group : user->groups) {
    if (std::ranges::find(principal.groups, group) == principal.groups.end()) principal.groups.push_back(group);
  }
  if (user->service && principal.kind == call::Principal::Kind::kUser) principal.kind = call::Principal::Kind::kService;
}

Status IdentityDirectory::check_token(std::string_view tenant, std::string_view principal, std::string_view token_id,
                                      std::string_view session, int64_t issued_us) const {
  const machine::GroupView view = env_.view();
  const auto revoked = [&](std::string_view id) {
    const std::string key = token_revocation_key(id);
    // What operators revoke is revoked in every tenant.
    return !id.empty() && (kRevocations.contains(view, tenant_scope(tenant), key) ||
                           kRevocations.contains(view, tenant_scope(call::kOperatorsTenant), key));
  };
  const Status gone =
      Status(Code::kUnauthenticated, "TOKEN_REVOKED", "access token refused: it was revoked; sign in again")
          .with_help("security.md#revocation");
  // A session that is not there is no reason: this node may not have heard of it yet.
  if (revoked(token_id) || revoked(session)) return gone;
  const auto all = kRevocations.get(view, tenant_scope(tenant), user_revocation_key(principal));
  // Seconds are all that a token tells: one of the very second of the revocation is refused too.
  return all && issued_us <= all->revoke_us() ? gone : Status::ok();
}

Status IdentityDirectory::check_certificate(std::string_view tenant, std::string_view serial) const {
  const machine::GroupView view = env_.view();
  const std::string key = certificate_revocation_key(canonical_serial(std::string(serial)));
  if (!kRevocations.contains(view, tenant_scope(tenant), key) &&
      !kRevocations.contains(view, tenant_scope(call::kOperatorsTenant), key)) {
    return Status::ok();
  }
  return Status(Code::kUnauthenticated, "CERTIFICATE_REVOKED",
                "the client certificate with the serial number " + std::string(serial) + " was revoked")
      .with_help("security.md#revocation");
}

Status IdentityDirectory::check_api_key(std::string_view id) const {
  return kApiKeys.contains(env_.view(), kNoScope, id) ? Status::ok() : unknown_api_key();
}

Result<ApiKeyRow> IdentityDirectory::find_api_key(std::string_view key) const {
  SecretParts parts;
  const auto invalid = [] { return std::unexpected(unknown_api_key()); };
  if (!split_secret(key, kApiKeyPrefix, parts)) return invalid();
  auto row = kApiKeys.get(env_.view(), kNoScope, parts.id);
  if (!row || !env_.key_secrets.is_right(row->secret_hash(), parts.secret)) return invalid();
  if (row->key().has_expire_time() && services::us_of(row->key().expire_time()) <= env_.clock.wall().us) {
    return refused("API_KEY_EXPIRED", "the API key " + parts.id + " has expired; make another one");
  }
  return std::move(*row);
}

std::optional<std::string> IdentityDirectory::signing_key(std::string_view key_id) const {
  const auto row = kSigningKeys.get(env_.view(), kNoScope, key_id);
  if (!row || (row->retire_us() != 0 && row->retire_us() <= env_.clock.wall().us)) return std::nullopt;
  return row->public_pem();
}

bool split_secret(std::string_view text, std::string_view prefix, SecretParts& out) {
  if (!text.starts_with(prefix) || text.size() > 512) return false;
  text.remove_prefix(prefix.size());
  // Ids contain one '_' themselves: key_01J8...; secrets are base64url, in which '_' may be too.
  const size_t first = text.find('_');
  const size_t second = first == std::string_view::npos ? first : text.find('_', first + 1);
  if (second == std::string_view::npos || second + 1 == text.size()) return false;
  out.id = text.substr(0, second);
  out.secret = text.substr(second + 1);
  return true;
}

std::string hash_secret(std::string_view secret) { return sha256(secret); }

bool same_secret(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

}  // namespace uccp::identity
