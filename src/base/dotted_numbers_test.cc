#include "base/dotted_numbers.h"

#include <gtest/gtest.h>

#include <array>

namespace uccp {
namespace {

TEST(DottedNumbers, OnlyAsManyNumbersAsAreAskedForAreTaken) {
  std::array<uint64_t, 3> numbers{};
  EXPECT_TRUE(parse_dotted_numbers("16.18446744073709551615.0", numbers));
  EXPECT_EQ(numbers, (std::array<uint64_t, 3>{16, UINT64_MAX, 0}));
  EXPECT_EQ(dotted_numbers(numbers), "16.18446744073709551615.0");
  for (const std::string_view wrong : {"", "1", "1.2", "1.2.", "1.2.3.4", "1..3", ".1.2", "1.2.3 ", " 1.2.3", "1.-2.3",
                                       "+1.2.3", "1,2,3", "1.2.18446744073709551616", "1.2.0x3"}) {
    EXPECT_FALSE(parse_dotted_numbers(wrong, numbers)) << wrong;
  }
}

}  // namespace
}  // namespace uccp
