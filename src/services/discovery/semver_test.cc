#include "services/discovery/semver.h"

#include <gtest/gtest.h>

namespace uccp::discovery {
namespace {

// The order that semver.org gives as its example, item 11.
TEST(SemanticVersion, OrdersAsTheStandardSays) {
  const char* ascending[] = {"1.0.0-alpha",
                             "1.0.0-alpha.1",
                             "1.0.0-alpha.beta",
                             "1.0.0-beta",
                             "1.0.0-beta.2",
                             "1.0.0-beta.11",
                             "1.0.0-rc.1",
                             "1.0.0",
                             "1.0.1",
                             "1.2",
                             "v2",
                             "10.0.0"};
  for (size_t i = 0; i + 1 < std::size(ascending); ++i) {
    EXPECT_LT(*parse_version(ascending[i]), *parse_version(ascending[i + 1])) << ascending[i];
  }
  EXPECT_EQ(*parse_version("1.2.3+build.7"), *parse_version("1.2.3"));
  for (const char* bad : {"", "x", "1.x", "1.2.3.4", "a.b.c", "1..2", "-1", "1.2.3-"})
    EXPECT_FALSE(parse_version(bad)) << bad;
}

struct Case {
  const char* range;
  const char* in;  // space-separated
  const char* out;
};

class RangeTest : public ::testing::TestWithParam<Case> {};

TEST_P(RangeTest, HoldsWhatItSays) {
  const Case& c = GetParam();
  auto range = VersionRange::parse(c.range);
  ASSERT_TRUE(range.has_value()) << c.range;
  for (const bool inside : {true, false}) {
    std::string_view rest = inside ? c.in : c.out;
    while (!rest.empty()) {
      const std::string_view version = rest.substr(0, rest.find(' '));
      EXPECT_EQ(range->matches(version), inside) << c.range << " and " << version;
      rest.remove_prefix(std::min(rest.size(), version.size() + 1));
    }
  }
}

// As node-semver answers.
INSTANTIATE_TEST_SUITE_P(
    Ranges, RangeTest,
    ::testing::Values(Case{"1.2.3", "1.2.3 v1.2.3", "1.2.4 1.2.3-rc.1"},
                      Case{"^1.2", "1.2.0 1.9.9", "1.1.9 2.0.0 2.0.0-rc.1"},
                      Case{"^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2"}, Case{"^0.0.3", "0.0.3", "0.0.4"},
                      Case{"~1.4", "1.4.0 1.4.9", "1.5.0"}, Case{"~1.4.2", "1.4.2 1.4.9", "1.4.1 1.5.0"},
                      Case{"~1", "1.0.0 1.9.0", "2.0.0"}, Case{">=1.2 <2", "1.2.0 1.9.9", "1.1.0 2.0.0 2.0.0-a"},
                      Case{">=1.2,<2", "1.2.0", "2.0.0"}, Case{">1.2", "1.3.0", "1.2.9"},
                      Case{"<=1.2", "1.2.9 0.1.0", "1.3.0"}, Case{">= 1.2 , < 1.4", "1.3.0", "1.4.0"},
                      Case{"1.x", "1.0.0 1.7.3", "2.0.0"}, Case{"1.2.*", "1.2.7", "1.3.0"},
                      Case{"*", "0.0.1 99.0.0", "1.0.0-rc.1"}, Case{"1", "1 1.5.0", "2.0.0"},
                      Case{"1.x || >=2.1 <3", "1.0.0 2.1.0", "2.0.0 3.0.0"},
                      Case{"^1.2.3-rc.1", "1.2.3-rc.2 1.2.3 1.3.0", "1.2.4-rc.1 1.2.3-beta"},
                      Case{"release-7", "release-7", "release-8 7.0.0"}));

TEST(VersionRange, MalformedRangesAreErrors) {
  for (const char* bad : {"^abc", ">=", "1.2 - 2.0", "^1.2.3.4", "1 || nope"}) {
    EXPECT_FALSE(VersionRange::parse(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace uccp::discovery
