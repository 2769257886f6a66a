// The built-in roles and what they grant. The same in every tenant.
#pragma once

#include <span>
#include <string_view>

namespace uccp::call {

struct BuiltInRole {
  std::string_view name;
  std::span<const std::string_view> grants;
  std::string_view description;
};

std::span<const BuiltInRole> built_in_roles();
// Null if there is none.
const BuiltInRole* find_built_in_role(std::string_view name);

}  // namespace uccp::call
