// Anchors that callers name: what is taken means the same when it is written again.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "services/audit/audit_anchor.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp::audit;
  const auto anchor = parse_anchor({reinterpret_cast<const char*>(data), size});
  if (!anchor) return 0;
  const auto again = parse_anchor(to_text(*anchor));
  UCCP_CHECK(again && again->group == anchor->group && again->number == anchor->number && again->hash == anchor->hash,
             "an anchor comes back as it was");
  return 0;
}
