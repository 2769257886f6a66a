// Pins from arbitrary text: each that is taken is the hash of a key.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/peer_trust.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto pins = uccp::parse_pins({reinterpret_cast<const char*>(data), size});
  if (!pins) {
    UCCP_CHECK(pins.error().reason() == "PIN_INVALID", "every refusal has one reason");
    return 0;
  }
  for (const std::string& pin : *pins) UCCP_CHECK(pin.size() == 32, "a pin is a SHA-256");
  return 0;
}
