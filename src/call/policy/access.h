// The question that every authorization asks.
#pragma once

#include <string_view>

#include "base/clock.h"
#include "call/method.h"
#include "call/policy/permission_table.h"
#include "call/principal.h"

namespace uccp::call {

struct AccessQuery {
  const Principal& principal;
  const Method* method = nullptr;  // null: only the permission is asked for
  PermissionId permission = kNoPermission;
  std::string_view name_space;
  std::string_view resource;
  std::string_view request;  // serialized; empty: that of the method without any field
  std::string_view address;
  std::string_view door;
  WallTime wall;
};

std::string_view kind_name(Principal::Kind kind);             // "user"
std::string_view credential_name(Principal::Credential how);  // "apikey"

}  // namespace uccp::call
