#include "storage/rocksdb/rocks_kv.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "storage/conformance/kv_conformance.h"

namespace uccp::storage {
namespace {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = testing::TempDir() + "/uccp_rocks_XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

RocksKv::Options losing() {
  RocksKv::Options options;
  options.on_close = RocksKv::Options::OnClose::kLose;
  return options;
}

class RocksHarness final : public KvHarness {
 public:
  RocksHarness() { open(); }
  Kv& kv() override { return *kv_; }
  void crash() override {
    kv_.reset();
    open();
  }
  std::string new_directory() override { return directory_.path() + "/checkpoint" + std::to_string(++directories_); }
  Result<std::unique_ptr<Kv>> open_checkpoint(const std::string& directory) override {
    return RocksKv::open(directory, losing());
  }

 private:
  void open() {
    auto kv = RocksKv::open(directory_.path() + "/kv", losing());
    ASSERT_TRUE(kv) << kv.error().to_string();
    kv_ = std::move(*kv);
  }

  TemporaryDirectory directory_;
  std::unique_ptr<RocksKv> kv_;
  int directories_ = 0;
};

std::unique_ptr<KvHarness> make_harness() { return std::make_unique<RocksHarness>(); }

INSTANTIATE_TEST_SUITE_P(Rocks, KvConformance, testing::Values(under_test(&make_harness)));

TEST(RocksKv, ClosingFlushesByDefault) {
  TemporaryDirectory directory;
  {
    auto kv = RocksKv::open(directory.path() + "/kv", {});
    ASSERT_TRUE(kv);
    KvBatch batch;
    batch.put("a", "1");
    ASSERT_TRUE((*kv)->write(batch).is_ok());
  }
  auto kv = RocksKv::open(directory.path() + "/kv", {});
  ASSERT_TRUE(kv);
  EXPECT_EQ(**(*kv)->view()->get("a"), "1");
}

TEST(RocksKv, NothingIsWrittenToItsOwnLog) {
  TemporaryDirectory directory;
  auto kv = RocksKv::open(directory.path() + "/kv", losing());
  ASSERT_TRUE(kv);
  KvBatch batch;
  batch.put("a", std::string(100'000, 'x'));
  ASSERT_TRUE((*kv)->write(batch).is_ok());
  ASSERT_TRUE((*kv)->erase_range("b", "c").is_ok());
  for (const auto& file : std::filesystem::directory_iterator(directory.path() + "/kv")) {
    if (file.path().extension() == ".log") EXPECT_EQ(file.file_size(), 0u) << file.path();
  }
}

TEST(RocksKv, RowsOfTheTableWithRangesAreWrittenAndErasedInTurn) {
  TemporaryDirectory directory;
  auto kv = RocksKv::open(directory.path() + "/kv", {});
  ASSERT_TRUE(kv);
  const auto key = [](char group, int number) {
    return std::string(7, '\0') + group + std::string("\0\x09", 2) + std::to_string(100 + number);
  };
  // All in one memtable, where keys and erased ranges are in lists of their own.
  for (int round = 0; round < 20; ++round) {
    for (const char group : {'a', 'b'}) {
      KvBatch batch;
      for (int number = 0; number < 50; ++number) batch.put(key(group, number), std::to_string(round));
      ASSERT_TRUE((*kv)->write(batch).is_ok());
      ASSERT_TRUE((*kv)->erase_range(key(group, 10), key(group, 40)).is_ok());
      ASSERT_TRUE((*kv)->erase_range(key(group, 0), key(group, 5)).is_ok());
    }
  }
  for (const char group : {'a', 'b'}) {
    for (int number = 0; number < 50; ++number) {
      const bool erased = number < 5 || (number >= 10 && number < 40);
      EXPECT_EQ((*kv)->view()->get(key(group, number))->has_value(), !erased) << number;
    }
  }
}

TEST(RocksKv, ASecondOpenIsRefused) {
  TemporaryDirectory directory;
  auto first = RocksKv::open(directory.path() + "/kv", {});
  ASSERT_TRUE(first);
  auto second = RocksKv::open(directory.path() + "/kv", {});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), Code::kUnavailable);
}

TEST(RocksKv, ADamagedFileIsReportedAsCorruption) {
  TemporaryDirectory directory;
  {
    auto kv = RocksKv::open(directory.path() + "/kv", {});
    ASSERT_TRUE(kv);
    KvBatch batch;
    for (int i = 0; i < 1000; ++i) batch.put("key" + std::to_string(i), std::string(100, 'x'));
    ASSERT_TRUE((*kv)->write(batch).is_ok());
  }
  for (const auto& file : std::filesystem::directory_iterator(directory.path() + "/kv")) {
    if (file.path().extension() != ".sst") continue;
    std::fstream stream(file.path(), std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(100);
    stream.write("damage", 6);
  }
  auto kv = RocksKv::open(directory.path() + "/kv", {});
  Status status;
  if (!kv) {
    status = kv.error();
  } else {
    auto value = (*kv)->view()->get("key0");
    ASSERT_FALSE(value);
    status = value.error();
  }
  EXPECT_EQ(status.code(), Code::kCorruption) << status.to_string();
  EXPECT_EQ(status.reason(), "KV_DAMAGED");
}

TEST(RocksKv, AnIdleDatabaseStaysSmallInMemory) {
  TemporaryDirectory directory;
  auto kv = RocksKv::open(directory.path() + "/kv", {});
  ASSERT_TRUE(kv);
  for (int round = 0; round < 200; ++round) {
    KvBatch batch;
    for (int i = 0; i < 500; ++i) batch.put(std::to_string(round * 500 + i), std::string(1000, 'x'));
    ASSERT_TRUE((*kv)->write(batch).is_ok());
  }
  ASSERT_TRUE((*kv)->flush().is_ok());
  std::ifstream statm("/proc/self/statm");
  uint64_t total = 0;
  uint64_t resident = 0;
  statm >> total >> resident;
  RecordProperty("resident_mb", static_cast<int>(resident * 4096 >> 20));
#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)
  EXPECT_LT(resident * 4096, 150u << 20);
#endif
}

}  // namespace
}  // namespace uccp::storage
