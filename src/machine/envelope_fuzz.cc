// Envelopes of commands: any bytes are one or are refused, and one that is read is written as it was meant.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "machine/envelope.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto envelope = uccp::machine::decode_envelope({reinterpret_cast<const char*>(data), size});
  if (!envelope) return 0;
  const auto again = uccp::machine::decode_envelope(uccp::machine::encode_envelope(*envelope));
  UCCP_CHECK(again && *again == *envelope, "an envelope that was read can be written");
  return 0;
}
