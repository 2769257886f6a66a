// Rules that many methods share: whose tenant, and that nobody gives away more than it has.
#include <algorithm>

#include "call/contract.h"
#include "call/policy/policy_language.h"
#include "machine/resource_id.h"
#include "services/identity/identity_service.h"

namespace uccp::identity {
namespace {

Status escalation(const call::Call& call, const call::PermissionSet& missing, const std::string& where) {
  std::string names;
  size_t shown = 0;
  for (const std::string& name : call::PermissionTable::get().names(missing)) {
    if (++shown > 5) {
      names += ", ...";
      break;
    }
    names += (names.empty() ? "" : ", ") + name;
  }
  return Status(Code::kPermission, "PRIVILEGE_ESCALATION",
                call.principal.name + " cannot give away what it has not itself: " + names + where)
      .with_help("security.md#giving-roles");
}

}  // namespace

bool IdentityService::operates_tenants(const call::Call& call) const {
  return env_.directory.newest()->permits(call.principal, "tenants.write", "");
}

Result<std::string> IdentityService::target_tenant(const call::Call& call, const std::string& named) const {
  if (named.empty() || named == call.principal.tenant) return call.principal.tenant;
  if (operates_tenants(call)) return named;
  return fail(Status(Code::kPermission, "TENANT_DENIED",
                     call.principal.name + " belongs to the tenant '" + call.principal.tenant +
                         "' and reaches no other; that takes the permission tenants.write")
                  .with_help("security.md#tenants"));
}

Status IdentityService::may_give(const call::Call& call, const std::string& tenant,
                                 const call::PermissionSet& permissions,
                                 const std::vector<std::string>& namespaces) const {
  const auto set = env_.directory.newest();
  // What concerns the cluster has no effect in other tenants, and operators set these up.
  call::PermissionSet wanted = permissions;
  if (tenant != call::kOperatorsTenant) wanted &= ~call::PermissionTable::get().cluster_wide();
  if (tenant != call.principal.tenant) return Status::ok();
  if (namespaces.empty()) {
    const call::PermissionSet missing = wanted & ~set->authority(call.principal, "");
    return missing.none() ? Status::ok() : escalation(call, missing, "");
  }
  for (const std::string& name_space : namespaces) {
    const call::PermissionSet missing = wanted & ~set->authority(call.principal, name_space);
    if (missing.any()) return escalation(call, missing, " in the namespace " + name_space);
  }
  return Status::ok();
}

Status IdentityService::may_act_for(const call::Call& call, const std::string& tenant, const std::string& name,
                                    const std::vector<std::string>& groups) const {
  const auto set = env_.directory.newest();
  const bool self = tenant == call.principal.tenant && name == call.principal.name;
  if (self && groups.empty()) return Status::ok();
  if (tenant == call.principal.tenant && !set->permits(call.principal, "identity.write", "")) {
    return Status(Code::kPermission, "PERMISSION_DENIED",
                  call.principal.name + " may do this for itself only; for " + name + " it lacks identity.write")
        .with_help("security.md#roles");
  }
  call::Principal other;
  other.kind = call::Principal::Kind::kUser;
  other.tenant = tenant;
  other.name = name;
  other.groups = groups;
  env_.directory.complete(other);
  for (const call::BindingSpec* binding : set->bindings_of(other)) {
    const auto permissions = set->role(tenant, binding->role);
    if (permissions) UCCP_RETURN_IF_ERROR(may_give(call, tenant, *permissions, binding->namespaces));
  }
  return Status::ok();
}

Result<call::PermissionSet> IdentityService::permissions_of(const std::string& tenant, const v1::Role& role) const {
  const call::PermissionTable& table = call::PermissionTable::get();
  call::PermissionSet all;
  for (const std::string& grant : role.permissions()) {
    const call::PermissionSet covered = table.covered(grant);
    if (covered.none()) {
      const std::string near = table.nearest(grant);
      const std::string what =
          "no method needs the permission '" + grant + "'" + (near.empty() ? "" : "; did you mean '" + near + "'?");
      return fail(
          Status(Code::kInvalid, "PERMISSION_UNKNOWN", what).with_field("role.permissions", what, "tasks.write"));
    }
    all |= covered;
  }
  for (const std::string& inherited : role.inherits()) {
    // Whether it exists is decided where it is stored.
    if (const auto permissions = env_.directory.newest()->role(tenant, inherited)) all |= *permissions;
  }
  return all;
}

Status IdentityService::check_statements(const call::Call& call, const std::string& tenant,
                                         const std::string& text) const {
  UCCP_TRY(const std::vector<call::Statement> statements, call::compile_policy(text));
  for (const call::Statement& statement : statements) {
    if (statement.effect != call::Effect::kPermit) continue;
    call::PermissionSet permitted;
    for (const call::Method& method : call::Contract::get().methods()) {
      const call::PermissionId id = call::PermissionTable::get().of(method);
      if (id != call::kNoPermission && statement.covers(method)) permitted.set(id);
    }
    const call::PermissionId self = call::PermissionTable::get().find(call::kSelfPermission);
    if (self != call::kNoPermission) permitted.reset(self);
    std::vector<std::string> namespaces;
    if (!statement.name_space.empty()) namespaces = {statement.name_space};
    UCCP_RETURN_IF_ERROR(may_give(call, tenant, permitted, namespaces));
  }
  return Status::ok();
}

std::string IdentityService::make_id(std::string_view prefix) {
  std::lock_guard lock(mutex_);
  return machine::make_id(prefix, env_.clock.wall(), env_.random);
}

Status check_password_strength(std::string_view password, std::string_view user) {
  constexpr size_t kLeast = 12;
  const auto weak = [](const std::string& why) {
    return Status(Code::kInvalid, "PASSWORD_WEAK", "the password is too weak: " + why)
        .with_field("password", why, "a sentence of several words");
  };
  if (password.size() < kLeast) return weak("it has fewer than " + std::to_string(kLeast) + " bytes");
  std::string distinct(password);
  std::ranges::sort(distinct);
  const auto [first, last] = std::ranges::unique(distinct);
  distinct.erase(first, last);
  if (distinct.size() < 5) return weak("it has fewer than 5 different characters");
  if (!user.empty() && password.find(user) != std::string_view::npos && user.size() > 3)
    return weak("it contains the user's name");
  return Status::ok();
}

}  // namespace uccp::identity
