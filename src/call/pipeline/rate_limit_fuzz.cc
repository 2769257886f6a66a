// Rate limits from arbitrary text: what is taken can be enforced, and never lets more through than may come at once.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "call/contract.h"
#include "call/pipeline/rate_limit.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto rules = call::parse_rate_rules(text);
  if (!rules) {
    UCCP_CHECK(rules.error().reason() == "RATE_LIMIT_INVALID", "every refusal has one reason");
    return 0;
  }
  for (const auto& rule : *rules) UCCP_CHECK(rule.per_second > 0 && rule.burst > 0, "a rule lets something through");
  call::RateLimiter limiter(*rules);
  for (const call::Method& method : call::Contract::get().methods()) {
    call::RateState state;
    const Status taken = limiter.take({.tenant = "t",
                                       .principal = "p",
                                       .known = true,
                                       .address = "[::1]:5",
                                       .method = method,
                                       .now = BootTime{1'000'000}},
                                      state);
    UCCP_CHECK(taken.is_ok() || taken.reason() == "RATE_LIMITED", "a call is taken, or told to slow down");
    UCCP_CHECK(state.remaining >= 0 && state.limit >= 0, "what is left is no debt");
  }
  return 0;
}
