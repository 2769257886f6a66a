// Parts of a segment: aligned, apart, joined again.
#include "shm/space.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "shm/layout.h"

namespace uccp::shm {
namespace {

TEST(Space, PartsAreAlignedAndJoinAgain) {
  Space space(1024);
  const auto first = space.take(1), second = space.take(100), third = space.take(64);
  ASSERT_TRUE(first && second && third);
  EXPECT_EQ(*second % kAlignment, 0u);
  EXPECT_EQ(space.taken(), 64u + 128 + 64);
  space.give_back(*first, 1);
  space.give_back(*third, 64);
  space.give_back(*second, 100);
  EXPECT_EQ(space.taken(), 0u);
  EXPECT_EQ(space.largest_free(), 1024u);
  EXPECT_EQ(space.free_parts().size(), 1u);
}

TEST(Space, TheSmallestPartThatFitsIsTaken) {
  Space space(64 * 10);
  std::map<int, uint64_t> taken;
  for (int i = 0; i < 10; ++i) taken[i] = *space.take(64);
  for (const int i : {1, 2, 3, 5, 6, 8}) space.give_back(taken[i], 64);
  EXPECT_EQ(space.take(128), taken[5]);
  EXPECT_EQ(space.take(64), taken[8]);
  EXPECT_EQ(space.take(192), taken[1]);
  EXPECT_FALSE(space.take(64));
}

TEST(Space, PartsNeverOverlap) {
  Space space(1u << 20);
  std::mt19937_64 random(3);
  std::map<uint64_t, uint64_t> parts;
  for (int turn = 0; turn < 20'000; ++turn) {
    if (random() % 2 == 0 || parts.empty()) {
      const uint64_t size = 1 + random() % 5000;
      const auto offset = space.take(size);
      if (!offset) continue;
      const auto after = parts.lower_bound(*offset);
      if (after != parts.end()) ASSERT_GE(after->first, *offset + size);
      if (after != parts.begin()) {
        const auto before = std::prev(after);
        ASSERT_LE(before->first + before->second, *offset);
      }
      parts.emplace(*offset, size);
    } else {
      auto part = parts.lower_bound(random() % (1u << 20));
      if (part == parts.end()) part = parts.begin();
      space.give_back(part->first, part->second);
      parts.erase(part);
    }
  }
  for (const auto& [offset, size] : parts) space.give_back(offset, size);
  EXPECT_EQ(space.largest_free(), 1u << 20);
}

}  // namespace
}  // namespace uccp::shm
