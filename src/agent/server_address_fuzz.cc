// Any bytes as a context file of an agent: refused for one reason, or servers that are named once each.
#include <cstdint>
#include <set>
#include <string>

#include "agent/server_address.h"
#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto context = uccp::agent::parse_context(std::string(reinterpret_cast<const char*>(data), size));
  if (!context) {
    UCCP_CHECK(context.error().reason() == "CONTEXT_INVALID", "every refusal has one reason");
    return 0;
  }
  std::set<std::string> seen;
  for (const std::string& target : context->targets)
    UCCP_CHECK(!target.empty() && seen.insert(target).second, "a server has an address and is named once");
  return 0;
}
