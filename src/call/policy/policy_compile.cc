// Making a PolicySet from what is stored.
#include <algorithm>
#include <functional>
#include <utility>

#include "call/contract.h"
#include "call/policy/policy_set.h"
#include "call/policy/roles.h"

namespace uccp::call {

std::shared_ptr<const PolicySet> PolicySet::built_in() {
  static const std::shared_ptr<const PolicySet> set = compile({});
  return set;
}

std::shared_ptr<const PolicySet> PolicySet::compile(PolicyInput input, std::vector<std::string>* broken) {
  auto set = std::make_shared<PolicySet>();
  set->revision_ = input.revision;
  for (const BuiltInRole& role : built_in_roles()) {
    PermissionSet permissions;
    for (const std::string_view grant : role.grants) permissions |= PermissionTable::get().covered(grant);
    set->built_in_.emplace(role.name, permissions);
  }
  for (TenantSpec& spec : input.tenants) {
    Tenant& tenant = set->tenants_[spec.name];
    tenant.spec = std::move(spec);
    tenant.stored = true;
  }
  for (UserSpec& user : input.users) {
    auto& users = set->tenants_[user.tenant].users;
    const std::string name = user.name;
    users[name] = std::move(user);
  }
  set->add_roles(std::move(input.roles));
  set->add_bindings(std::move(input.bindings));
  set->add_policies(input.policies, broken);
  return set;
}

void PolicySet::add_roles(std::vector<RoleSpec> roles) {
  std::map<std::pair<std::string, std::string>, const RoleSpec*> specs;
  for (const RoleSpec& role : roles) specs[{role.tenant, role.name}] = &role;
  // Circles cannot be stored; should there be one all the same, it ends where it began.
  std::set<const RoleSpec*> open;
  const std::function<PermissionSet(const RoleSpec&)> resolve = [&](const RoleSpec& role) {
    auto& known = tenants_[role.tenant].roles;
    if (const auto it = known.find(role.name); it != known.end()) return it->second;
    PermissionSet all;
    if (!open.insert(&role).second) return all;
    for (const std::string& grant : role.permissions) all |= PermissionTable::get().covered(grant);
    for (const std::string& inherited : role.inherits) {
      if (const auto built_in = built_in_.find(inherited); built_in != built_in_.end()) {
        all |= built_in->second;
      } else if (const auto it = specs.find({role.tenant, inherited}); it != specs.end()) {
        all |= resolve(*it->second);
      }
    }
    open.erase(&role);
    known[role.name] = all;
    return all;
  };
  for (const RoleSpec& role : roles) resolve(role);
}

void PolicySet::add_bindings(std::vector<BindingSpec> bindings) {
  for (BindingSpec& spec : bindings) {
    Tenant& tenant = tenants_[spec.tenant];
    auto grant = std::make_unique<Grant>();
    grant->permissions = role_set(&tenant, spec.role);
    grant->spec = std::move(spec);
    for (const std::string& member : grant->spec.members) {
      Subject& subject = tenant.subjects[member];
      subject.grants.push_back(grant.get());
    }
    tenant.grants.push_back(std::move(grant));
  }
}

void PolicySet::add_policies(const std::vector<PolicySpec>& policies, std::vector<std::string>* broken) {
  for (const PolicySpec& spec : policies) {
    Tenant& tenant = tenants_[spec.tenant];
    auto statements = compile_policy(spec.text);
    if (!statements) {
      if (broken != nullptr) broken->push_back(spec.tenant + "/" + spec.name + ": " + statements.error().message());
      // Whether it would forbid cannot be known.
      statements = compile_policy("forbid (principal, action, resource);");
    }
    for (Statement& statement : *statements) {
      tenant.rules.push_back(std::make_unique<Rule>(Rule{std::move(statement), spec.name}));
      index(tenant, *tenant.rules.back());
    }
  }
}

void PolicySet::index(Tenant& tenant, const Rule& rule) {
  const Statement& s = rule.statement;
  RulesOfEffect& effect = s.effect == Effect::kForbid ? tenant.forbids : tenant.permits;
  const auto add = [&](Rules& rules) {
    if (!s.principal.empty()) rules.by_principal[s.principal].push_back(&rule);
    else if (!s.group.empty()) rules.by_group[s.group].push_back(&rule);
    else rules.any.push_back(&rule);
  };
  if (s.methods.empty()) return add(effect.every_method);
  for (size_t i = 0; i < s.methods.size(); ++i) {
    if (s.methods[i]) add(effect.by_method[static_cast<uint16_t>(i)]);
  }
}

}  // namespace uccp::call
