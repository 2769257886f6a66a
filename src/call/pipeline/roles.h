// The built-in roles and what they permit.
#pragma once

#include <string_view>

#include "call/principal.h"

namespace uccp::call {

// True if one of the principal's roles grants `permission` ("tasks.write"). Unknown roles grant nothing.
bool permits(const Principal& principal, std::string_view permission);
bool is_known_role(std::string_view role);

}  // namespace uccp::call
