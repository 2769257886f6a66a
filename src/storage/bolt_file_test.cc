#include "storage/bolt_file.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace uccp::storage {
namespace {

BoltBucket read_all(const std::string& file, std::string_view bucket, Status& status) {
  BoltBucket out;
  status = read_bolt(file, bucket, [&](std::string_view key, std::string_view value) {
    EXPECT_TRUE(out.empty() || out.rbegin()->first < key) << "in order";
    out.emplace(key, value);
    return true;
  });
  return out;
}

TEST(BoltFile, WhatIsWrittenIsRead) {
  SeededRandom random(1);
  BoltBuckets buckets{{"empty", {}}, {"one", {{"k", "v"}}}};
  for (int i = 0; i < 30'000; ++i) {
    buckets["many"]["key/" + std::to_string(i)] = std::string(random.below(120), static_cast<char>('a' + i % 26));
  }
  buckets["large"]["big"] = std::string(3 << 20, 'x');
  buckets["large"]["next"] = "small";
  const std::string file = write_bolt(buckets);
  EXPECT_EQ(file.size() % kBoltPageBytes, 0u);
  for (const auto& [name, pairs] : buckets) {
    Status status;
    EXPECT_EQ(read_all(file, name, status), pairs) << name;
    EXPECT_TRUE(status.is_ok()) << status.to_string();
  }
  Status status;
  EXPECT_TRUE(read_all(file, "absent", status).empty());
  EXPECT_TRUE(status.is_ok());
  int seen = 0;
  EXPECT_TRUE(read_bolt(file, "many", [&](auto, auto) { return ++seen < 10; }).is_ok());
  EXPECT_EQ(seen, 10);
}

TEST(BoltFile, DamageIsAnErrorOrChangesValuesOnly) {
  BoltBuckets buckets;
  for (int i = 0; i < 500; ++i) buckets["key"]["k" + std::to_string(i)] = std::string(40, 'v');
  const std::string file = write_bolt(buckets);
  SeededRandom random(7);
  for (int trial = 0; trial < 3000; ++trial) {
    std::string damaged = file;
    for (uint64_t i = 0; i <= random.below(4); ++i)
      damaged[random.below(damaged.size())] = static_cast<char>(random.next());
    if (random.below(4) == 0) damaged.resize(random.below(damaged.size()));
    int seen = 0;
    const Status status = read_bolt(damaged, "key", [&](auto, auto) { return ++seen < 100'000; });
    EXPECT_TRUE(status.is_ok() || status.reason() == "BOLT_INVALID");
  }
  // One meta page is enough.
  std::string half = file;
  half[kBoltPageBytes + 20] ^= 1;
  Status status;
  EXPECT_EQ(read_all(half, "key", status).size(), 500u);
  half[20] ^= 1;
  EXPECT_EQ(read_bolt(half, "key", [](auto, auto) { return true; }).reason(), "BOLT_INVALID");
  EXPECT_EQ(read_bolt("", "key", [](auto, auto) { return true; }).reason(), "BOLT_INVALID");
}

}  // namespace
}  // namespace uccp::storage
