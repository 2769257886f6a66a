// The order in which objects leave, by policy.
#include "shm/eviction.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

namespace uccp::shm {
namespace {

using Keys = std::vector<Eviction::Key>;

void add(Eviction& eviction, uint32_t key, int64_t time = 0) {
  eviction.added({.key = key, .fingerprint = key, .size = 1, .time = {time}});
}

TEST(Eviction, NamesOfPolicies) {
  EXPECT_EQ(parse_policy("s3-fifo"), Policy::kS3Fifo);
  EXPECT_EQ(parse_policy("lru"), Policy::kLru);
  EXPECT_EQ(parse_policy("lfu"), Policy::kLfu);
  EXPECT_EQ(parse_policy("ttl"), Policy::kTtl);
  EXPECT_FALSE(parse_policy("random"));
}

TEST(Eviction, LeastRecentlyUsedFirst) {
  const auto eviction = Eviction::make(Policy::kLru);
  for (uint32_t key = 0; key < 4; ++key) add(*eviction, key);
  eviction->used(0, 1);
  EXPECT_EQ(eviction->victims(2), (Keys{1, 2}));
  EXPECT_EQ(eviction->victims(100), (Keys{1, 2, 3, 0}));
  eviction->removed(2);
  EXPECT_EQ(eviction->victims(100), (Keys{1, 3, 0}));
}

TEST(Eviction, LeastOftenUsedFirstAndFameFades) {
  const auto eviction = Eviction::make(Policy::kLfu);
  for (uint32_t key = 0; key < 3; ++key) add(*eviction, key);
  eviction->used(0, 4);
  eviction->used(1, 2);
  EXPECT_EQ(eviction->victims(100), (Keys{2, 1, 0}));
  for (int i = 0; i < 20; ++i) eviction->used(2, 20);
  EXPECT_EQ(eviction->victims(100), (Keys{0, 1, 2})) << "both had faded to one use, the older goes first";
}

TEST(Eviction, ByAgeWhateverIsUsed) {
  const auto eviction = Eviction::make(Policy::kTtl);
  for (uint32_t key = 0; key < 3; ++key) add(*eviction, key, key * 10);
  eviction->used(0, 9);
  EXPECT_EQ(eviction->victims(2), (Keys{0, 1}));
  EXPECT_EQ(eviction->older_than({20}), (Keys{0, 1}));
  EXPECT_TRUE(Eviction::make(Policy::kLru)->older_than({20}).empty());
}

TEST(Eviction, S3FifoLetsGoWhatWasUsedOnceAndKeepsWhatCameBack) {
  const auto eviction = Eviction::make(Policy::kS3Fifo);
  for (uint32_t key = 0; key < 20; ++key) add(*eviction, key);
  eviction->used(0, 2);
  EXPECT_EQ(eviction->victims(2), (Keys{1, 2}));
  eviction->removed(1);
  add(*eviction, 1);  // it is remembered, and goes where used objects are
  for (uint32_t key = 20; key < 40; ++key) add(*eviction, key);
  const Keys next = eviction->victims(30);
  EXPECT_EQ(std::ranges::count(next, 0u) + std::ranges::count(next, 1u), 0);
}

// Requests by a Zipf law with scans between them: the share that is found in memory.
double hit_ratio(Policy policy) {
  constexpr uint32_t kObjects = 5000, kPlaces = 500;
  std::mt19937 random(7);
  std::vector<double> weights;
  for (uint32_t rank = 1; rank <= kObjects; ++rank) weights.push_back(1 / std::pow(rank, 0.9));
  std::discrete_distribution<uint32_t> zipf(weights.begin(), weights.end());
  const auto eviction = Eviction::make(policy);
  std::map<uint32_t, bool> here;
  uint32_t scanned = kObjects;
  int hits = 0, requests = 0;
  for (int i = 0; i < 100'000; ++i) {
    const bool scan = i % 5 == 4;
    const uint32_t key = scan ? scanned++ : zipf(random);
    if (!scan) requests += 1;
    if (here.contains(key)) {
      hits += 1;
      eviction->used(key, 1);
      continue;
    }
    while (here.size() >= kPlaces) {
      for (const auto victim : eviction->victims(1)) {
        eviction->removed(victim);
        here.erase(victim);
      }
    }
    add(*eviction, key);
    here[key] = true;
  }
  return static_cast<double>(hits) / requests;
}

TEST(Eviction, S3FifoFindsMoreThanLeastRecentlyUsed) {
  const double lru = hit_ratio(Policy::kLru), s3 = hit_ratio(Policy::kS3Fifo);
  EXPECT_GE(s3, 1.05 * lru) << s3 << " and " << lru;
}

}  // namespace
}  // namespace uccp::shm
