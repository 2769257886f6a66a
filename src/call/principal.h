// Who calls, as far as the pipeline established it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace uccp::call {

struct Principal {
  enum class Kind : uint8_t { kAnonymous, kUser, kService, kAgent, kNode };

  Kind kind = Kind::kAnonymous;
  std::string tenant;
  std::string name;
  std::vector<std::string> roles;
  // Namespaces the roles hold in; empty: all namespaces of the tenant.
  std::vector<std::string> namespaces;
  // Wall time in microseconds after which the credentials are void; 0: never.
  int64_t expires_us = 0;
};

}  // namespace uccp::call
