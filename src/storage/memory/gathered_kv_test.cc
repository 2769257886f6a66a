#include "storage/gathered_kv.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>

#include "base/random.h"
#include "sim/sim_file_system.h"
#include "storage/conformance/kv_conformance.h"
#include "storage/memory/memory_kv.h"

namespace uccp::storage {
namespace {

class GatheredHarness final : public KvHarness {
 public:
  GatheredHarness() { gather(); }
  Kv& kv() override { return *kv_; }
  void crash() override {
    kv_.reset();
    below_.crash();
    gather();
  }
  std::string new_directory() override { return "/checkpoint" + std::to_string(++directories_); }
  Result<std::unique_ptr<Kv>> open_checkpoint(const std::string& directory) override {
    return MemoryKv::open(files_, directory);
  }

 private:
  void gather() { kv_.emplace(below_, GatheredKv::Options{.batches_max = 3}); }

  sim::SimFileSystem files_;
  MemoryKv below_{&files_};
  std::optional<GatheredKv> kv_;
  int directories_ = 0;
};

std::unique_ptr<KvHarness> make_harness() { return std::make_unique<GatheredHarness>(); }

INSTANTIATE_TEST_SUITE_P(Gathered, KvConformance, testing::Values(under_test(&make_harness)));

// Counts what it is given.
class CountingKv final : public Kv {
 public:
  Status write(const KvBatch& batch) override {
    if (refusing) return Status(Code::kUnavailable, "IO_ERROR", "the disk is gone");
    ++batches;
    changes += batch.changes().size();
    return kv_.write(batch);
  }
  Status erase_range(std::string_view from, std::string_view to) override { return kv_.erase_range(from, to); }
  std::shared_ptr<const KvView> view() override { return kv_.view(); }
  Status flush() override { return kv_.flush(); }
  Status checkpoint(const std::string& directory) override { return kv_.checkpoint(directory); }
  uint64_t size_bytes() override { return kv_.size_bytes(); }

  size_t batches = 0;
  size_t changes = 0;
  bool refusing = false;

 private:
  MemoryKv kv_;
};

KvBatch put(const std::string& key, const std::string& value) {
  KvBatch batch;
  batch.put(key, value);
  return batch;
}

TEST(GatheredKv, WhatIsWrittenAgainSoonGoesBelowOnce) {
  CountingKv below;
  GatheredKv kv(below, {.batches_max = 4});
  for (int i = 1; i <= 3; ++i) ASSERT_TRUE(kv.write(put("hot", std::to_string(i))).is_ok());
  EXPECT_EQ(below.batches, 0u);
  EXPECT_EQ(**kv.view()->get("hot"), "3");
  ASSERT_TRUE(kv.write(put("other", "1")).is_ok());
  EXPECT_EQ(below.batches, 1u);
  EXPECT_EQ(below.changes, 2u);
  EXPECT_EQ(**below.view()->get("hot"), "3");
}

TEST(GatheredKv, ManyBytesGoBelowAtOnce) {
  CountingKv below;
  GatheredKv kv(below, {.bytes_max = 1000});
  ASSERT_TRUE(kv.write(put("a", std::string(500, 'x'))).is_ok());
  EXPECT_EQ(below.batches, 0u);
  ASSERT_TRUE(kv.write(put("b", std::string(500, 'x'))).is_ok());
  EXPECT_EQ(below.batches, 1u);
}

TEST(GatheredKv, AFlushTakesAllWithIt) {
  MemoryKv below;
  {
    GatheredKv kv(below);
    ASSERT_TRUE(kv.write(put("a", "1")).is_ok());
    ASSERT_TRUE(kv.flush().is_ok());
    ASSERT_TRUE(kv.write(put("b", "1")).is_ok());
  }
  below.crash();
  EXPECT_EQ(**below.view()->get("a"), "1");
  EXPECT_EQ(*below.view()->get("b"), std::nullopt);
}

TEST(GatheredKv, AnErrorBelowIsToldAndNothingIsLost) {
  CountingKv below;
  GatheredKv kv(below, {.batches_max = 2});
  ASSERT_TRUE(kv.write(put("a", "1")).is_ok());
  below.refusing = true;
  EXPECT_EQ(kv.write(put("b", "1")).reason(), "IO_ERROR");
  EXPECT_EQ(kv.flush().reason(), "IO_ERROR");
  below.refusing = false;
  ASSERT_TRUE(kv.flush().is_ok());
  EXPECT_EQ(**below.view()->get("a"), "1");
  EXPECT_EQ(**below.view()->get("b"), "1");
}

// Against a map, while keys come and go in all layers and below them.
TEST(GatheredKv, AnyWalkSeesWhatAMapWouldHave) {
  SeededRandom random(7);
  for (int round = 0; round < 50; ++round) {
    MemoryKv below;
    GatheredKv kv(below, {.batches_max = 6});
    std::map<std::string, std::string> expected;
    for (uint64_t batches = random.below(20); batches > 0; --batches) {
      KvBatch batch;
      for (uint64_t changes = random.below(6); changes > 0; --changes) {
        const std::string key(1, static_cast<char>('a' + random.below(20)));
        if (random.below(2) == 0) {
          batch.erase(key);
          expected.erase(key);
        } else {
          expected[key] = std::to_string(random.below(1000));
          batch.put(key, expected[key]);
        }
      }
      ASSERT_TRUE(kv.write(batch).is_ok());
    }
    const auto view = kv.view();
    const auto it = view->iterate();
    auto at = expected.end();
    for (int step = 0; step < 200; ++step) {
      const std::string key(1, static_cast<char>('a' + random.below(21)));
      const bool anywhere = at == expected.end();
      switch (anywhere ? random.below(2) : random.below(8)) {
        case 0:
          it->seek(key);
          at = expected.lower_bound(key);
          break;
        case 1:
          it->seek_before(key);
          at = expected.lower_bound(key);
          at = at == expected.begin() ? expected.end() : std::prev(at);
          break;
        case 2:
        case 3:
        case 4:
          it->next();
          ++at;
          break;
        default: it->previous(); at = at == expected.begin() ? expected.end() : std::prev(at);
      }
      ASSERT_EQ(it->valid(), at != expected.end());
      const auto looked = expected.find(key);
      ASSERT_EQ(*view->get(key), looked == expected.end() ? std::nullopt : std::optional(looked->second));
      if (!it->valid()) continue;
      ASSERT_EQ(it->key(), at->first);
      ASSERT_EQ(it->value(), at->second);
    }
  }
}

}  // namespace
}  // namespace uccp::storage
