// What this program was built from. The commit is that of the configured tree.
#pragma once

#include <string_view>

namespace uccp::admin {

std::string_view program_version();  // "1.0.0"
std::string_view program_commit();   // 12 hex digits, or "unknown"
std::string_view program_build();    // compiler and target

}  // namespace uccp::admin
