// Origins whose pages may call the REST API.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace uccp::server {

// "https://console.example.com,http://localhost:3000", or "*" for any. Errors: invalid CONFIG_INVALID, which names the
// part that is none.
Result<std::vector<std::string>> parse_origins(std::string_view text);

}  // namespace uccp::server
