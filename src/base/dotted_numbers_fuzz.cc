// Cursors that strangers send: what is taken is the same when it is written and read again, and nothing else is taken.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "base/dotted_numbers.h"
#include "base/dotted_version.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::array<uint64_t, 5> places{};
  size_t taken = 0;
  for (size_t count = 1; count <= places.size(); ++count) {
    const std::span<uint64_t> numbers(places.data(), count);
    if (!parse_dotted_numbers(text, numbers)) continue;
    ++taken;
    const std::string again = dotted_numbers(numbers);
    UCCP_CHECK(again.size() <= text.size(), "a number is written without what adds nothing");
    std::array<uint64_t, 5> second{};
    UCCP_CHECK(parse_dotted_numbers(again, std::span(second.data(), count)) &&
                   std::equal(numbers.begin(), numbers.end(), second.begin()),
               "numbers that were read can be written");
  }
  UCCP_CHECK(taken <= 1, "a text has one count of numbers");
  (void)dotted_version(text);
  return 0;
}
