// Permissions as numbers: all that the contract's methods and the services ask for, compiled once.
//
// A grant is `noun.verb`, `noun.*`, `*.verb` or `*`. Immutable; usable from any thread.
#pragma once

#include <bitset>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "call/method.h"

namespace uccp::call {

inline constexpr size_t kPermissionsMax = 256;
using PermissionSet = std::bitset<kPermissionsMax>;
using PermissionId = uint16_t;
inline constexpr PermissionId kNoPermission = 0xffff;

// Held by everybody who is known: asking who one is, changing one's own password, making keys of one's own.
inline constexpr std::string_view kSelfPermission = "self.use";

// True if `grant` covers `permission`. `audit.read` and `identity.read` have to be granted by name, by `*`, or by their
// noun: who did what and who may what is not for everybody who may read.
bool grant_covers(std::string_view grant, std::string_view permission);

class PermissionTable {
 public:
  // That of Contract::get().
  static const PermissionTable& get();

  // kNoPermission if nothing asks for it.
  PermissionId find(std::string_view permission) const;
  // kNoPermission for a public method.
  PermissionId of(const Method& method) const { return by_method_[method.index]; }
  const std::string& name(PermissionId id) const { return names_[id]; }
  size_t size() const { return names_.size(); }
  // Empty if the grant covers nothing: then it is a slip, and nearest() may know what was meant.
  PermissionSet covered(std::string_view grant) const;
  std::string nearest(std::string_view grant) const;
  // What concerns the whole cluster. Only principals of the operators' tenant can have these.
  const PermissionSet& cluster_wide() const { return cluster_wide_; }
  std::vector<std::string> names(const PermissionSet& set) const;

 private:
  PermissionTable();

  std::vector<std::string> names_;  // sorted
  std::map<std::string, PermissionId, std::less<>> ids_;
  std::vector<PermissionId> by_method_;
  PermissionSet cluster_wide_;
};

}  // namespace uccp::call
