// The setting `backfill` from arbitrary text: what is taken names queues that there can be.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "server/backfill_choice.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto choice = uccp::server::parse_backfill({reinterpret_cast<const char*>(data), size});
  if (!choice) {
    UCCP_CHECK(choice.error().reason() == "CONFIG_INVALID", "every refusal has one reason");
    return 0;
  }
  for (const auto& rule : choice->rules) {
    for (const std::string& name : {rule.name_space, rule.queue}) {
      UCCP_CHECK(!name.empty(), "each exception names a namespace and a queue");
      UCCP_CHECK(name.find_first_of(" ,:/") == std::string::npos, "a name has none of the marks between names");
    }
  }
  return 0;
}
