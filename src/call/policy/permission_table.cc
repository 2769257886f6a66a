#include "call/policy/permission_table.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/check.h"
#include "call/contract.h"
#include "call/policy/words.h"

namespace uccp::call {
namespace {

// Asked for by services beside what their methods need.
constexpr auto kFurther = std::to_array<std::string_view>({"agent.multiplex", "elections.admin", "locks.break"});

bool concerns_cluster(std::string_view permission) {
  const std::string_view noun = permission.substr(0, permission.find('.'));
  return noun == "admin" || noun == "tenants" || noun == "agent" || noun == "node" || permission == "cluster.write" ||
         permission == "workers.write";
}

}  // namespace

bool grant_covers(std::string_view grant, std::string_view permission) {
  if (grant == "*" || grant == permission) return true;
  const size_t dot = permission.find('.');
  if (grant.ends_with(".*")) return permission.substr(0, dot) == grant.substr(0, grant.size() - 2);
  if (permission == "audit.read" || permission == "identity.read") return false;
  return grant.starts_with("*.") && permission.substr(dot) == grant.substr(1);
}

const PermissionTable& PermissionTable::get() {
  static const PermissionTable table;
  return table;
}

PermissionTable::PermissionTable() {
  std::set<std::string, std::less<>> all(kFurther.begin(), kFurther.end());
  for (const Method& method : Contract::get().methods()) {
    if (!method.is_public) all.insert(method.permission);
  }
  UCCP_CHECK(all.size() <= kPermissionsMax, "the permissions fit into a set");
  for (const std::string& name : all) {
    ids_[name] = static_cast<PermissionId>(names_.size());
    names_.push_back(name);
  }
  for (const Method& method : Contract::get().methods()) {
    by_method_.push_back(method.is_public ? kNoPermission : find(method.permission));
  }
  for (size_t i = 0; i < names_.size(); ++i) cluster_wide_[i] = concerns_cluster(names_[i]);
}

PermissionId PermissionTable::find(std::string_view permission) const {
  const auto it = ids_.find(permission);
  return it == ids_.end() ? kNoPermission : it->second;
}

PermissionSet PermissionTable::covered(std::string_view grant) const {
  PermissionSet set;
  for (size_t i = 0; i < names_.size(); ++i) set[i] = grant_covers(grant, names_[i]);
  return set;
}

std::string PermissionTable::nearest(std::string_view grant) const { return nearest_word(grant, names_); }

std::vector<std::string> PermissionTable::names(const PermissionSet& set) const {
  std::vector<std::string> out;
  for (size_t i = 0; i < names_.size(); ++i) {
    if (set[i]) out.push_back(names_[i]);
  }
  return out;
}

}  // namespace uccp::call
