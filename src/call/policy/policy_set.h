// PolicySet: who may what, compiled from all tenants, users, roles, bindings and policies at one revision.
//
// A decision looks at, in this order: what only operators may; policies that forbid; the namespaces of the credential;
// declared namespaces; what everybody may; roles of the credential; bindings; policies that permit. What none of them
// allows is denied. The operators' own admin certificate is not bound by policies: so a policy that shuts everybody out
// can be mended. decide() and its explanation run the same code. Cost: a few lookups and the rules that are about
// this principal and this method, not all rules. Immutable; usable from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "call/policy/access.h"
#include "call/policy/policy_language.h"

namespace uccp::call {

// The tenant of those who run the cluster. It always exists.
inline constexpr std::string_view kOperatorsTenant = "default";
// That of nodes.
inline constexpr std::string_view kSystemTenant = "system";

struct TenantSpec {
  std::string name;
  bool suspended = false;
  bool deleted = false;
  bool declared_namespaces_only = false;
  std::set<std::string, std::less<>> namespaces;
};

struct UserSpec {
  std::string tenant, name;
  bool service = false;
  bool disabled = false;
  std::vector<std::string> groups;
};

struct RoleSpec {
  std::string tenant, name;
  std::vector<std::string> permissions, inherits;
};

struct BindingSpec {
  std::string tenant, id, role;
  std::vector<std::string> members;     // "ana", "group:devs"
  std::vector<std::string> namespaces;  // empty: the whole tenant
  std::vector<std::string> resources;   // patterns; empty: all
};

struct PolicySpec {
  std::string tenant, name, text;
};

struct PolicyInput {
  uint64_t revision = 0;
  std::vector<TenantSpec> tenants;
  std::vector<UserSpec> users;
  std::vector<RoleSpec> roles;
  std::vector<BindingSpec> bindings;
  std::vector<PolicySpec> policies;
};

// What decided.
struct Decision {
  enum class Reason : uint8_t { kGranted, kNoGrant, kForbidden, kNamespace, kUndeclared, kOperatorsOnly };
  Reason reason = Reason::kNoGrant;
  const std::string* rule = nullptr;  // name of the policy or id of the binding
  int line = 0;                       // within a policy

  bool allowed() const { return reason == Reason::kGranted; }
};

// One rule that was looked at, for people.
struct RuleTrace {
  std::string kind;  // "policy", "binding", "credential", "namespace", "built-in"
  std::string name;
  std::string effect;  // "permit", "forbid", "none"
  std::string detail;
  bool decided = false;
};

class PolicySet {
 public:
  // That of a cluster in which nobody stored anything: built-in roles of credentials.
  static std::shared_ptr<const PolicySet> built_in();
  // Policies that do not compile with this version's contract forbid everything that they could be about, and are named
  // in `broken`: a rule must not vanish silently. Inherited roles that are missing grant nothing.
  static std::shared_ptr<const PolicySet> compile(PolicyInput input, std::vector<std::string>* broken = nullptr);

  Decision decide(const AccessQuery& query, std::vector<RuleTrace>* trace = nullptr) const;
  // The error of a denied call.
  Status denial(const AccessQuery& query, const Decision& decision) const;

  // What roles and bindings give the principal in a namespace; empty: in the whole tenant. Policies are not counted.
  PermissionSet authority(const Principal& principal, std::string_view name_space) const;
  // Whether the principal has a permission that is more than its method needs. Policies are not counted.
  bool permits(const Principal& principal, std::string_view permission, std::string_view name_space) const;

  // Null if it is not stored.
  const TenantSpec* tenant(std::string_view name) const;
  const UserSpec* user(std::string_view tenant, std::string_view name) const;
  // Nothing if there is no such role.
  std::optional<PermissionSet> role(std::string_view tenant, std::string_view name) const;
  // Of the principal and its groups.
  std::vector<const BindingSpec*> bindings_of(const Principal& principal) const;
  uint64_t revision() const { return revision_; }

 private:
  struct Grant {
    PermissionSet permissions;
    BindingSpec spec;
  };
  struct Subject {
    std::vector<const Grant*> grants;
  };
  struct Rule {
    Statement statement;
    std::string policy;
  };
  // Rules about one method, or about all.
  struct Rules {
    std::vector<const Rule*> any;
    std::map<std::string, std::vector<const Rule*>, std::less<>> by_principal, by_group;
  };
  struct RulesOfEffect {
    Rules every_method;
    std::map<uint16_t, Rules> by_method;
  };
  struct Tenant {
    TenantSpec spec;
    bool stored = false;
    std::map<std::string, UserSpec, std::less<>> users;
    std::map<std::string, PermissionSet, std::less<>> roles;
    std::map<std::string, Subject, std::less<>> subjects;  // "ana", "group:devs"
    std::vector<std::unique_ptr<Grant>> grants;
    std::vector<std::unique_ptr<Rule>> rules;
    RulesOfEffect forbids, permits;
  };
  class Asking;

  const Tenant* find(std::string_view tenant) const;
  void add_roles(std::vector<RoleSpec> roles);
  void add_bindings(std::vector<BindingSpec> bindings);
  void add_policies(const std::vector<PolicySpec>& policies, std::vector<std::string>* broken);
  static void index(Tenant& tenant, const Rule& rule);
  PermissionSet role_set(const Tenant* tenant, std::string_view role) const;

  uint64_t revision_ = 0;
  std::map<std::string, Tenant, std::less<>> tenants_;
  std::map<std::string, PermissionSet, std::less<>> built_in_;
};

}  // namespace uccp::call
