#include "services/objects/collected_blobs.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <set>

#include "runtime/posix_file_system.h"

namespace uccp::objects {
namespace {

struct ManualClock final : Clock {
  BootTime boot() const override { return {now_ms * 1000}; }
  WallTime wall() const override { return {now_ms * 1000}; }
  int64_t now_ms = 1;
};

class CollectedBlobsTest : public testing::Test {
 protected:
  static constexpr int64_t kGraceMs = 1000;

  CollectedBlobsTest() {
    std::string name = testing::TempDir() + "uccp_collect_XXXXXX";
    directory_ = mkdtemp(name.data());
    open();
  }
  ~CollectedBlobsTest() override { std::filesystem::remove_all(directory_); }

  // Also what a restart does: the ages are forgotten.
  void open() {
    collected_.reset();
    store_ = std::move(*DirectoryBlobStore::open(files_, directory_));
    collected_ = std::make_unique<CollectedBlobs>(*store_, clock_, kGraceMs);
  }
  std::string put(const std::string& content) { return collected_->put(content)->sha256; }
  size_t collect() {
    auto done = collected_->collect([this](std::string_view id) { return referenced_.contains(std::string(id)); });
    EXPECT_TRUE(done);
    return done->removed;
  }
  size_t collect_after(int64_t ms) {
    clock_.now_ms += ms;
    return collect();
  }
  bool there(const std::string& id) { return *store_->exists(id); }

  ManualClock clock_;
  runtime::PosixFileSystem files_;
  std::string directory_;
  std::unique_ptr<DirectoryBlobStore> store_;
  std::unique_ptr<CollectedBlobs> collected_;
  std::set<std::string> referenced_;
};

TEST_F(CollectedBlobsTest, WhatNothingRefersToGoesAfterItsGrace) {
  const std::string a = put("a"), b = put("b");
  referenced_ = {b};
  EXPECT_EQ(collect(), 0u);
  EXPECT_EQ(collect_after(kGraceMs - 1), 0u);
  EXPECT_TRUE(there(a));
  EXPECT_EQ(collect_after(1), 1u);
  EXPECT_FALSE(there(a));
  EXPECT_TRUE(there(b));
  EXPECT_EQ(collect_after(100 * kGraceMs), 0u);
  EXPECT_TRUE(there(b));
}

TEST_F(CollectedBlobsTest, AReferenceInBetweenBeginsTheGraceAnew) {
  const std::string a = put("a");
  EXPECT_EQ(collect(), 0u);
  referenced_ = {a};
  EXPECT_EQ(collect_after(kGraceMs), 0u);
  referenced_.clear();
  EXPECT_EQ(collect_after(kGraceMs), 0u);
  EXPECT_EQ(collect_after(kGraceMs - 1), 0u);
  EXPECT_EQ(collect_after(1), 1u);
}

TEST_F(CollectedBlobsTest, WhoeverAsksForABlobHasTheWholeGrace) {
  const std::string a = put("a");
  for (int round = 0; round < 4; ++round) {
    EXPECT_EQ(collect(), 0u);
    clock_.now_ms += kGraceMs;
    switch (round) {
      case 0: EXPECT_TRUE(*collected_->exists(a)); break;
      case 1: EXPECT_TRUE(collected_->stat(a)); break;
      case 2: EXPECT_TRUE(collected_->read(a, 0, 1)); break;
      case 3: EXPECT_EQ(put("a"), a); break;
    }
    EXPECT_EQ(collect(), 0u) << round;
    EXPECT_TRUE(there(a));
  }
  auto writer = collected_->begin_put();
  ASSERT_TRUE((*writer)->append("a").is_ok());
  clock_.now_ms += kGraceMs;
  ASSERT_TRUE((*writer)->finish(a));
  EXPECT_EQ(collect(), 0u);
}

TEST_F(CollectedBlobsTest, ARestartForgetsTheAges) {
  const std::string a = put("a");
  EXPECT_EQ(collect(), 0u);
  clock_.now_ms += kGraceMs;
  open();
  EXPECT_EQ(collect(), 0u);
  EXPECT_TRUE(there(a));
  EXPECT_EQ(collect_after(kGraceMs), 1u);
}

TEST_F(CollectedBlobsTest, ManyBlobsAreAllLookedAt) {
  for (int i = 0; i < 2500; ++i) {
    const std::string id = put(std::to_string(i));
    if (i % 5 == 0) referenced_.insert(id);
  }
  EXPECT_EQ(collect(), 0u);
  EXPECT_EQ(collect_after(kGraceMs), 2000u);
  const auto left = collected_->collect([](std::string_view) { return true; });
  EXPECT_EQ(left->stored, 500u);
}

}  // namespace
}  // namespace uccp::objects
