#include "base/huge_allocator.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <vector>

namespace uccp {
namespace {

template <typename T>
bool begins_a_huge_page(const std::vector<T, HugeAllocator<T>>& values) {
  return reinterpret_cast<uintptr_t>(values.data()) % kHugePageBytes == 0;
}

TEST(HugeAllocator, LargeMemoryBeginsWithAHugePageAndIsMemoryAsAnyOther) {
  std::vector<uint64_t, HugeAllocator<uint64_t>> values;
  constexpr uint64_t kCount = 1'000'000;  // 8 MB: from the heap at first, then in huge pages
  for (uint64_t i = 0; i < kCount; ++i) values.push_back(i);
  EXPECT_TRUE(begins_a_huge_page(values));
  EXPECT_EQ(std::accumulate(values.begin(), values.end(), uint64_t{0}), kCount * (kCount - 1) / 2);
}

TEST(HugeAllocator, NearlyAHugePageIsMadeOne) {
  struct Record {
    char bytes[88];
  };
  std::vector<Record, HugeAllocator<Record>> records(kHugePageBytes / sizeof(Record));
  EXPECT_TRUE(begins_a_huge_page(records));
  records.back().bytes[87] = 'x';
}

}  // namespace
}  // namespace uccp
