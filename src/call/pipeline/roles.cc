#include "call/pipeline/roles.h"

#include <algorithm>
#include <array>
#include <span>

namespace uccp::call {
namespace {

struct Role {
  std::string_view name;
  std::span<const std::string_view> grants;  // "noun.verb", "noun.*", "*.verb" or "*"
};

constexpr auto kAdmin = std::to_array<std::string_view>({"*"});
constexpr auto kOperator = std::to_array<std::string_view>(
    {"*.read", "services.*", "tasks.*", "workers.*", "quotas.*", "topics.*", "locks.*", "elections.*", "admin.write",
     "audit.read"});
constexpr auto kDeveloper = std::to_array<std::string_view>(
    {"*.read", "services.*", "tasks.*", "locks.write", "elections.write", "semaphores.*", "barriers.*", "latches.*",
     "events.*", "topics.*", "groups.*", "functions.*", "objects.*", "kv.*"});
constexpr auto kViewer = std::to_array<std::string_view>({"*.read"});
constexpr auto kAgent = std::to_array<std::string_view>({"agent.*", "workers.read"});

constexpr auto kNode = std::to_array<std::string_view>({"node.*"});

constexpr std::array<Role, 6> kRoles = {{{"admin", kAdmin},
                                         {"operator", kOperator},
                                         {"developer", kDeveloper},
                                         {"viewer", kViewer},
                                         {"agent", kAgent},
                                         {"node", kNode}}};

bool matches(std::string_view grant, std::string_view permission) {
  if (grant == "*" || grant == permission) return true;
  // Who did what is not for everybody who may read: it has to be granted by name.
  if (permission == "audit.read") return false;
  const size_t dot = permission.find('.');
  if (grant.ends_with(".*")) return permission.substr(0, dot) == grant.substr(0, grant.size() - 2);
  if (grant.starts_with("*.")) return permission.substr(dot) == grant.substr(1);
  return false;
}

const Role* find(std::string_view name) {
  const auto it = std::ranges::find(kRoles, name, &Role::name);
  return it == kRoles.end() ? nullptr : &*it;
}

}  // namespace

bool is_known_role(std::string_view role) { return find(role) != nullptr; }

bool permits(const Principal& principal, std::string_view permission) {
  return std::ranges::any_of(principal.roles, [&](const std::string& name) {
    const Role* role = find(name);
    return role != nullptr &&
           std::ranges::any_of(role->grants, [&](std::string_view grant) { return matches(grant, permission); });
  });
}

}  // namespace uccp::call
