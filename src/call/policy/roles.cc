#include "call/policy/roles.h"

#include <algorithm>
#include <array>

namespace uccp::call {
namespace {

constexpr auto kAdmin = std::to_array<std::string_view>({"*"});
constexpr auto kOperator =
    std::to_array<std::string_view>({"*.read", "services.*", "tasks.*", "workers.*", "quotas.*", "topics.*", "locks.*",
                                     "elections.*", "namespaces.*", "admin.write", "audit.read", "identity.read"});
constexpr auto kDeveloper = std::to_array<std::string_view>(
    {"*.read", "services.*", "tasks.*", "locks.write", "elections.write", "semaphores.*", "barriers.*", "latches.*",
     "events.*", "topics.*", "groups.*", "functions.*", "objects.*", "kv.*"});
constexpr auto kViewer = std::to_array<std::string_view>({"*.read"});
constexpr auto kAgent = std::to_array<std::string_view>({"agent.connect", "workers.read"});
constexpr auto kNode = std::to_array<std::string_view>({"node.*"});

constexpr std::array<BuiltInRole, 6> kRoles = {{
    {"admin", kAdmin, "Everything in the tenant; in the operators' tenant also the cluster"},
    {"operator", kOperator, "Reads everything and runs what others made"},
    {"developer", kDeveloper, "Reads everything and makes services, tasks and what they need"},
    {"viewer", kViewer, "Reads everything but the audit trail and who may what"},
    {"agent", kAgent, "The connection of agents"},
    {"node", kNode, "The connection between nodes"},
}};

}  // namespace

std::span<const BuiltInRole> built_in_roles() { return kRoles; }

const BuiltInRole* find_built_in_role(std::string_view name) {
  const auto it = std::ranges::find(kRoles, name, &BuiltInRole::name);
  return it == kRoles.end() ? nullptr : &*it;
}

}  // namespace uccp::call
