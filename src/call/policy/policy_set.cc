// Deciding. policy_compile.cc makes the tables.
#include "call/policy/policy_set.h"

#include <algorithm>

#include "call/policy/words.h"

namespace uccp::call {

// One question on its way through the rules.
class PolicySet::Asking {
 public:
  Asking(const PolicySet& set, const AccessQuery& query, std::vector<RuleTrace>* trace)
      : set_(set), q_(query), tenant_(set.find(query.principal.tenant)), trace_(trace) {}

  Decision run() {
    using enum Decision::Reason;
    if (q_.permission == kNoPermission && q_.method != nullptr && q_.method->is_public)
      return granted("built-in", "public");
    if (q_.permission == kNoPermission) return {};
    const PermissionTable& table = PermissionTable::get();
    const std::string& tenant = q_.principal.tenant;
    if (table.cluster_wide()[q_.permission] && tenant != kOperatorsTenant && tenant != kSystemTenant) {
      note("built-in", "operators-only", "forbid",
           table.name(q_.permission) + " concerns the whole cluster: only the tenant 'default' can have it", true);
      return {.reason = kOperatorsOnly};
    }
    if (tenant_ != nullptr && q_.method != nullptr && !breaks_glass()) {
      if (const Rule* rule = first(tenant_->forbids, "forbid")) {
        return {.reason = kForbidden, .rule = &rule->policy, .line = rule->statement.line};
      }
    }
    if (const Decision decision = check_namespace(); decision.reason != kNoGrant) return decision;
    if (table.name(q_.permission) == kSelfPermission && q_.principal.kind != Principal::Kind::kNode) {
      return granted("built-in", "self");
    }
    if (by_credential()) return {.reason = kGranted};
    if (const Grant* grant = by_binding()) return {.reason = kGranted, .rule = &grant->spec.id};
    if (tenant_ != nullptr && q_.method != nullptr) {
      if (const Rule* rule = first(tenant_->permits, "permit")) {
        return {.reason = kGranted, .rule = &rule->policy, .line = rule->statement.line};
      }
    }
    return {};
  }

 private:
  Decision granted(std::string_view kind, std::string_view name) {
    note(kind, std::string(name), "permit", "everybody may", true);
    return {.reason = Decision::Reason::kGranted};
  }

  void note(std::string_view kind, std::string name, std::string_view effect, std::string detail, bool decided) {
    if (trace_ == nullptr) return;
    trace_->push_back({std::string(kind), std::move(name), std::string(effect), std::move(detail), decided});
  }

  // --- policies ---

  bool breaks_glass() const {
    return q_.principal.credential == Principal::Credential::kCertificate && q_.principal.tenant == kOperatorsTenant &&
           std::ranges::find(q_.principal.roles, "admin") != q_.principal.roles.end();
  }

  const Rule* first(const RulesOfEffect& rules, std::string_view effect) {
    if (const Rule* rule = first_of(rules.every_method, effect)) return rule;
    const auto it = rules.by_method.find(q_.method->index);
    return it == rules.by_method.end() ? nullptr : first_of(it->second, effect);
  }
  const Rule* first_of(const Rules& rules, std::string_view effect) {
    if (const Rule* rule = first_in(rules.any, effect)) return rule;
    if (const auto it = rules.by_principal.find(q_.principal.name); it != rules.by_principal.end()) {
      if (const Rule* rule = first_in(it->second, effect)) return rule;
    }
    if (rules.by_group.empty()) return nullptr;
    for (const std::string& group : q_.principal.groups) {
      const auto it = rules.by_group.find(group);
      if (it == rules.by_group.end()) continue;
      if (const Rule* rule = first_in(it->second, effect)) return rule;
    }
    return nullptr;
  }
  const Rule* first_in(const std::vector<const Rule*>& rules, std::string_view effect) {
    for (const Rule* rule : rules) {
      const std::string_view obstacle = rule->statement.obstacle(q_);
      if (trace_ != nullptr) {
        note("policy", rule->policy + ":" + std::to_string(rule->statement.line), obstacle.empty() ? effect : "none",
             obstacle.empty() ? "who, what, where and condition hold" : std::string(obstacle), obstacle.empty());
      }
      if (obstacle.empty()) return rule;
    }
    return nullptr;
  }

  // --- namespaces ---

  Decision check_namespace() {
    // What belongs to the cluster and to no namespace is a matter of the permission alone.
    if (q_.method == nullptr || q_.method->name_space.empty()) return {};
    const auto& allowed = q_.principal.namespaces;
    if (!allowed.empty() && std::ranges::find(allowed, q_.name_space) == allowed.end()) {
      note("credential", "namespaces", "forbid", "the credential is not good for the namespace", true);
      return {.reason = Decision::Reason::kNamespace};
    }
    if (tenant_ == nullptr || !tenant_->spec.declared_namespaces_only) return {};
    if (q_.name_space == "default" || q_.name_space == "-" || tenant_->spec.namespaces.contains(q_.name_space))
      return {};
    note("namespace", std::string(q_.name_space), "forbid", "the tenant takes declared namespaces only", true);
    return {.reason = Decision::Reason::kUndeclared};
  }

  // --- roles ---

  bool by_credential() {
    for (const std::string& role : q_.principal.roles) {
      const bool grants = set_.role_set(tenant_, role)[q_.permission];
      note("credential", role, grants ? "permit" : "none",
           grants ? "the credential has this role" : "this role of the credential does not grant the permission",
           grants);
      if (grants) return true;
    }
    return false;
  }

  const Grant* by_binding() {
    if (tenant_ == nullptr) return nullptr;
    if (const Grant* grant = of_subject(q_.principal.name)) return grant;
    for (const std::string& group : q_.principal.groups) {
      if (const Grant* grant = of_subject("group:" + group)) return grant;
    }
    return nullptr;
  }

  const Grant* of_subject(std::string_view name) {
    const auto it = tenant_->subjects.find(name);
    if (it == tenant_->subjects.end()) return nullptr;
    const Subject& subject = it->second;
    for (const Grant* grant : subject.grants) {
      const std::string_view obstacle = obstacle_of(*grant);
      if (trace_ != nullptr) {
        note("binding", grant->spec.id, obstacle.empty() ? "permit" : "none",
             "role " + grant->spec.role + " of " + std::string(name) + (obstacle.empty() ? "" : ": ") +
                 std::string(obstacle),
             obstacle.empty());
      }
      if (obstacle.empty()) return grant;
    }
    return nullptr;
  }

  std::string_view obstacle_of(const Grant& grant) const {
    if (!grant.permissions[q_.permission]) return "the role does not grant the permission";
    const auto& namespaces = grant.spec.namespaces;
    if (!namespaces.empty() && std::ranges::find(namespaces, q_.name_space) == namespaces.end()) {
      return "it holds in other namespaces";
    }
    // The namespace of a call without one is no more than a default.
    if (!namespaces.empty() && q_.method != nullptr && q_.method->name_space.empty())
      return "it holds in namespaces only";
    const auto& resources = grant.spec.resources;
    if (!resources.empty() &&
        std::ranges::none_of(resources, [&](const std::string& p) { return glob_matches(p, q_.resource); })) {
      return "it holds for other resources";
    }
    return {};
  }

  const PolicySet& set_;
  const AccessQuery& q_;
  const Tenant* tenant_;
  std::vector<RuleTrace>* trace_;
};

Decision PolicySet::decide(const AccessQuery& query, std::vector<RuleTrace>* trace) const {
  const Decision decision = Asking(*this, query, trace).run();
  if (trace != nullptr) {
    const auto decided = std::ranges::find(*trace, true, &RuleTrace::decided);
    if (decided != trace->end()) std::rotate(trace->begin(), decided, decided + 1);
  }
  return decision;
}

Status PolicySet::denial(const AccessQuery& q, const Decision& decision) const {
  const std::string& who = q.principal.name;
  const std::string permission =
      q.permission == kNoPermission ? std::string("(unknown)") : PermissionTable::get().name(q.permission);
  switch (decision.reason) {
    case Decision::Reason::kForbidden:
      return Status(Code::kPermission, "POLICY_FORBIDS",
                    "the policy '" + *decision.rule + "' forbids this to " + who + " (line " +
                        std::to_string(decision.line) + ")")
          .with_help("policies.md");
    case Decision::Reason::kNamespace:
      return Status(Code::kPermission, "NAMESPACE_DENIED",
                    who + " has no access to the namespace '" + std::string(q.name_space) + "'")
          .with_help("security.md#namespaces");
    case Decision::Reason::kUndeclared:
      return Status(Code::kPermission, "NAMESPACE_UNDECLARED",
                    "the namespace '" + std::string(q.name_space) + "' is not declared, and the tenant " +
                        q.principal.tenant + " takes declared ones only; see: uccp-cli namespace create")
          .with_help("security.md#namespaces");
    case Decision::Reason::kOperatorsOnly:
      return Status(Code::kPermission, "PERMISSION_DENIED",
                    who + " lacks the permission " + permission +
                        ": it concerns the whole cluster, and only the tenant '" + std::string(kOperatorsTenant) +
                        "' can have it")
          .with_help("security.md#tenants");
    default: break;
  }
  std::string roles;
  for (const std::string& role : q.principal.roles) roles.append(roles.empty() ? "" : ", ").append(role);
  for (const BindingSpec* binding : bindings_of(q.principal))
    roles.append(roles.empty() ? "" : ", ").append(binding->role);
  return Status(Code::kPermission, "PERMISSION_DENIED",
                who + " lacks the permission " + permission + " (roles: " + (roles.empty() ? "none" : roles) +
                    "); see: uccp-cli auth explain" + (q.method == nullptr ? "" : " " + q.method->name))
      .with_help("security.md#roles");
}

const PolicySet::Tenant* PolicySet::find(std::string_view tenant) const {
  const auto it = tenants_.find(tenant);
  return it == tenants_.end() ? nullptr : &it->second;
}

const TenantSpec* PolicySet::tenant(std::string_view name) const {
  const Tenant* found = find(name);
  return found != nullptr && found->stored ? &found->spec : nullptr;
}

const UserSpec* PolicySet::user(std::string_view tenant, std::string_view name) const {
  const Tenant* found = find(tenant);
  if (found == nullptr) return nullptr;
  const auto it = found->users.find(name);
  return it == found->users.end() ? nullptr : &it->second;
}

PermissionSet PolicySet::role_set(const Tenant* tenant, std::string_view role) const {
  if (const auto it = built_in_.find(role); it != built_in_.end()) return it->second;
  if (tenant == nullptr) return {};
  const auto it = tenant->roles.find(role);
  return it == tenant->roles.end() ? PermissionSet() : it->second;
}

std::optional<PermissionSet> PolicySet::role(std::string_view tenant, std::string_view name) const {
  const Tenant* found = find(tenant);
  if (!built_in_.contains(name) && (found == nullptr || !found->roles.contains(name))) return std::nullopt;
  return role_set(found, name);
}

std::vector<const BindingSpec*> PolicySet::bindings_of(const Principal& principal) const {
  std::vector<const BindingSpec*> out;
  const Tenant* tenant = find(principal.tenant);
  if (tenant == nullptr) return out;
  const auto add = [&](std::string_view name) {
    const auto it = tenant->subjects.find(name);
    if (it == tenant->subjects.end()) return;
    for (const Grant* grant : it->second.grants) {
      if (std::ranges::find(out, &grant->spec) == out.end()) out.push_back(&grant->spec);
    }
  };
  add(principal.name);
  for (const std::string& group : principal.groups) add("group:" + group);
  return out;
}

PermissionSet PolicySet::authority(const Principal& principal, std::string_view name_space) const {
  PermissionSet all;
  const Tenant* tenant = find(principal.tenant);
  const auto& limits = principal.namespaces;
  // A credential for some namespaces has no authority beyond them.
  if (!limits.empty() && std::ranges::find(limits, name_space) == limits.end()) return all;
  for (const std::string& role : principal.roles) all |= role_set(tenant, role);
  for (const BindingSpec* binding : bindings_of(principal)) {
    if (!binding->resources.empty()) continue;
    if (!binding->namespaces.empty() && std::ranges::find(binding->namespaces, name_space) == binding->namespaces.end())
      continue;
    all |= role_set(tenant, binding->role);
  }
  if (principal.tenant != kOperatorsTenant && principal.tenant != kSystemTenant)
    all &= ~PermissionTable::get().cluster_wide();
  return all;
}

bool PolicySet::permits(const Principal& principal, std::string_view permission, std::string_view name_space) const {
  const PermissionId id = PermissionTable::get().find(permission);
  if (id == kNoPermission) return false;
  return decide({.principal = principal, .permission = id, .name_space = name_space}).allowed();
}

}  // namespace uccp::call
