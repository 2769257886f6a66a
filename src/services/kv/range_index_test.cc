#include "services/kv/range_index.h"

#include <gtest/gtest.h>

#include <set>

#include "base/random.h"

namespace uccp::kv {
namespace {

std::set<int> find(const RangeIndex<int>& index, std::string_view key) {
  std::set<int> found;
  index.find(key, [&](int value) { EXPECT_TRUE(found.insert(value).second) << "each value once"; });
  return found;
}

TEST(RangeIndex, FindsWhatANaiveSearchFinds) {
  SeededRandom random(7);
  RangeIndex<int> index;
  std::map<int, KeyRange> naive;
  const auto key = [&] {
    std::string text;
    for (uint64_t n = random.below(4); n > 0; --n) text.push_back(static_cast<char>('a' + random.below(3)));
    return text;
  };
  for (int step = 0; step < 5'000; ++step) {
    if (random.chance(0.45) && !naive.empty()) {
      const auto it = std::next(naive.begin(), static_cast<ptrdiff_t>(random.below(naive.size())));
      index.remove(it->second, it->first);
      naive.erase(it);
    } else {
      KeyRange range{.from = key(), .to = random.chance(0.2) ? "" : key(), .single = random.chance(0.3)};
      index.add(range, step);
      naive[step] = range;
    }
    const std::string asked = std::string(1, static_cast<char>('a' + random.below(3))) + key();
    std::set<int> expected;
    for (const auto& [value, range] : naive) {
      if (range.contains(asked)) expected.insert(value);
    }
    ASSERT_EQ(find(index, asked), expected) << "step " << step << ", key " << asked;
  }
}

TEST(RangeIndex, IsEmptyWhenAllIsRemoved) {
  RangeIndex<int> index;
  const KeyRange single{.from = "a", .to = "", .single = true}, all;
  index.add(single, 1);
  index.add(all, 2);
  index.add(all, 3);
  EXPECT_EQ(find(index, "a"), (std::set<int>{1, 2, 3}));
  index.remove(single, 1);
  index.remove(all, 2);
  EXPECT_EQ(find(index, "b"), (std::set<int>{3}));
  index.remove(all, 3);
  EXPECT_TRUE(index.empty());
}

}  // namespace
}  // namespace uccp::kv
