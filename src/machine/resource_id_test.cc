#include "machine/resource_id.h"

#include <gtest/gtest.h>

namespace uccp::machine {
namespace {

TEST(ResourceId, HasThePrefixAndSortsByTime) {
  SeededRandom random(1);
  const std::string early = make_id("svc", {1'700'000'000'000'000}, random);
  const std::string late = make_id("svc", {1'700'000'000'001'000}, random);
  EXPECT_EQ(early.size(), 30u);
  EXPECT_EQ(early.substr(0, 14), "svc_01HF7YAT00");
  EXPECT_LT(early, late);
}

TEST(ResourceId, DiffersWithinOneMillisecond) {
  SeededRandom random(1);
  EXPECT_NE(make_id("svc", {0}, random), make_id("svc", {0}, random));
}

}  // namespace
}  // namespace uccp::machine
