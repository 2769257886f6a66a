// Origins from arbitrary text: what is taken can stand in a header as it is.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "server/origins.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto origins = uccp::server::parse_origins({reinterpret_cast<const char*>(data), size});
  if (!origins) {
    UCCP_CHECK(origins.error().reason() == "CONFIG_INVALID", "every refusal has one reason");
    return 0;
  }
  for (const std::string& origin : *origins) {
    UCCP_CHECK(origin == "*" || origin.starts_with("http"), "an origin has a scheme");
    for (const char c : origin) UCCP_CHECK(c > ' ' && c != ',' && c < 0x7f, "no origin ends a header");
  }
  return 0;
}
