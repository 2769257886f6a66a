#include "base/dotted_version.h"

#include <gtest/gtest.h>

namespace uccp {
namespace {

TEST(DottedVersion, ComparesNumbersAndNotLetters) {
  EXPECT_LT(dotted_version("535.9"), dotted_version("535.104.05"));
  EXPECT_EQ(dotted_version("535"), dotted_version("535.0.0.0"));
  EXPECT_EQ(dotted_version("535.104-server"), dotted_version("535.104"));
  EXPECT_EQ(dotted_version(""), dotted_version("0"));
  EXPECT_LT(dotted_version("1.2.3.4"), dotted_version("1.2.3.5"));
}

}  // namespace
}  // namespace uccp
