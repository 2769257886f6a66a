// Elements of an array as somebody names them, of an array of 1,000: what is taken rises, stays within the array and
// can be written down again.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "services/tasks/task_arrays.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  constexpr uint32_t kElements = 1'000;
  const auto ranges = tasks::parse_ranges({reinterpret_cast<const char*>(data), size}, kElements);
  if (!ranges) {
    UCCP_CHECK(ranges.error().reason() == "FIELD_INVALID", "every refusal has one reason");
    return 0;
  }
  uint32_t next = 0;
  std::string text;
  for (const auto& range : *ranges) {
    UCCP_CHECK(range.first() >= next && range.count() > 0, "ranges rise");
    next = range.first() + range.count();
    UCCP_CHECK(next <= kElements, "no range leaves the array");
    text += (text.empty() ? "" : ",") + std::to_string(range.first()) + "-" + std::to_string(next - 1);
  }
  const auto again = tasks::parse_ranges(text, kElements);
  UCCP_CHECK(again && again->size() == ranges->size(), "what was taken is taken again");
  return 0;
}
