// Levels of reads and tokens of sessions, which clients send: what is taken is written as it was meant.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "machine/read_level.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp::machine;
  const auto level = parse_read_level({reinterpret_cast<const char*>(data), size});
  if (!level) {
    UCCP_CHECK(level.error().reason() == "CONSISTENCY_INVALID", "every refusal has one reason");
    return 0;
  }
  if (level->kind == ReadLevel::Kind::kBounded) UCCP_CHECK(level->bound_ms >= 0, "a bound is no time to come");
  if (level->kind != ReadLevel::Kind::kSession || level->token.empty()) return 0;
  const auto again = parse_read_level(session_token(level->token));
  UCCP_CHECK(again && again->token == level->token, "a token comes back as it was");
  return 0;
}
