#include "machine/recent_rows.h"

#include <gtest/gtest.h>

#include <map>

#include "base/random.h"

namespace uccp::machine {
namespace {

using Row = std::optional<std::string>;

TEST(RecentRows, KnowsWhatWasReadAlsoThatItIsNotThere) {
  RecentRows rows;
  EXPECT_EQ(rows.find("a"), nullptr);
  rows.add("a", "1");
  rows.add("none", std::nullopt);
  ASSERT_NE(rows.find("a"), nullptr);
  EXPECT_EQ(*rows.find("a"), Row("1"));
  ASSERT_NE(rows.find("none"), nullptr);
  EXPECT_EQ(*rows.find("none"), Row());
}

TEST(RecentRows, FollowsChangesOfWhatItKnowsAndOfNothingElse) {
  RecentRows rows;
  rows.add("a", "1");
  rows.update("a", "2");
  EXPECT_EQ(*rows.find("a"), Row("2"));
  rows.update("a", std::nullopt);
  EXPECT_EQ(*rows.find("a"), Row());
  rows.update("b", "written, never read");
  EXPECT_EQ(rows.find("b"), nullptr);
}

TEST(RecentRows, LargeRowsAreForgotten) {
  RecentRows rows;
  const std::string large(RecentRows::kRowBytesMax + 1, 'x');
  rows.add("large", large);
  EXPECT_EQ(rows.find("large"), nullptr);
  rows.add("grows", "1");
  rows.update("grows", large);
  EXPECT_EQ(rows.find("grows"), nullptr);
}

TEST(RecentRows, KeepsNoMoreThanItsBytesAndWhatIsUsed) {
  constexpr size_t kBytes = 64u << 10;
  RecentRows rows(kBytes);
  rows.add("used", "1");
  for (int i = 0; i < 10'000; ++i) {
    rows.add("key" + std::to_string(i), "value");
    ASSERT_NE(rows.find("used"), nullptr) << i;
  }
  EXPECT_LT(rows.size() * sizeof("key0000value"), kBytes);
  EXPECT_EQ(rows.find("key0"), nullptr);
  rows.clear();
  EXPECT_EQ(rows.size(), 0u);
}

// Whatever is read, changed and forgotten: what it answers is what the state has.
TEST(RecentRows, NeverDiffersFromTheState) {
  SeededRandom random(7);
  RecentRows rows(8u << 10);
  std::map<std::string, std::string> state;
  size_t known = 0;
  for (int i = 0; i < 50'000; ++i) {
    const std::string key = "k" + std::to_string(random.below(200));
    const auto stored = state.find(key);
    const Row value = stored == state.end() ? Row() : Row(stored->second);
    if (const Row* kept = rows.find(key)) {
      ++known;
      ASSERT_EQ(*kept, value) << key;
    } else {
      rows.add(key, value);
    }
    const std::string written = "k" + std::to_string(random.below(200));
    Row next;
    if (random.below(3) > 0) next = std::string(random.below(200) == 0 ? 5000 : random.below(100), 'v');
    if (next) state[written] = *next;
    else state.erase(written);
    rows.update(written, next);
  }
  EXPECT_GT(known, 1000u);
}

}  // namespace
}  // namespace uccp::machine
