// What the disk is full of goes to a tier and comes back; a tier that fails loses nothing.
#include "agent/object_tiering.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <mutex>
#include <thread>

#include "runtime/posix_file_system.h"

namespace uccp::agent {
namespace {

using namespace std::chrono_literals;

constexpr auto kWait = 60s;
constexpr uint64_t kMiB = 1u << 20;
const ObjectPlace kPlace{"tenant", "space"};

class SteppedClock final : public Clock {
 public:
  BootTime boot() const override { return {now_us}; }
  WallTime wall() const override { return {now_us}; }
  std::atomic<int64_t> now_us = 1'000'000;
};

// A tier in this process.
class FakeTier final : public shm::Tier {
 public:
  const std::string& name() const override { return name_; }
  Status put(const std::string& key, std::string_view content) override {
    const std::lock_guard lock(mutex);
    if (!failure.is_ok()) return failure;
    contents[key] = content;
    return {};
  }
  Result<std::string> get(const std::string& key) override {
    const std::lock_guard lock(mutex);
    if (!failure.is_ok()) return std::unexpected(failure);
    if (const auto found = contents.find(key); found != contents.end()) return found->second;
    return fail(Code::kNotFound, "OBJECT_MISSING", "there is none");
  }
  Status remove(const std::vector<std::string>& keys) override {
    const std::lock_guard lock(mutex);
    if (!failure.is_ok()) return failure;
    for (const std::string& key : keys) contents.erase(key);
    return {};
  }
  Result<std::vector<std::string>> list(const std::string& prefix) override {
    const std::lock_guard lock(mutex);
    if (!failure.is_ok()) return std::unexpected(failure);
    std::vector<std::string> found;
    for (const auto& [key, content] : contents)
      if (key.starts_with(prefix)) found.push_back(key);
    return found;
  }
  void fail_with(Status status) {
    const std::lock_guard lock(mutex);
    failure = std::move(status);
  }
  size_t size() {
    const std::lock_guard lock(mutex);
    return contents.size();
  }

  std::mutex mutex;
  std::map<std::string, std::string> contents;
  Status failure;

 private:
  const std::string name_ = "fake://tier";
};

class ObjectTieringTest : public ::testing::Test {
 protected:
  ObjectTieringTest() {
    std::string name = "/tmp/uccp-tiering-test-XXXXXX";
    directory_ = mkdtemp(name.data());
    tier_->contents["own/left/behind"] = "by an earlier agent";
    tier_->contents["others/key"] = "of another agent";
    stores_[kPlace] = std::move(shm::Store::open(clock_, files_, budget_,
                                                 {.memory_bytes_max = 2 * kMiB,
                                                  .disk_bytes_max = 8 * kMiB,
                                                  .slots = 1024,
                                                  .policy = shm::Policy::kLru,
                                                  .spill_directory = directory_,
                                                  .has_tier = true})
                                    .value());
    client_ = store().attach().value();
    tiering_ = std::make_unique<ObjectTiering>(
        ObjectTieringOptions{.tier = tier_, .prefix = "own/", .compression = shm::Compression::kNone}, clock_,
        reactor_);
    reactor_.start();
  }
  ~ObjectTieringTest() override {
    tiering_->stop();
    reactor_.stop();
    stores_.clear();
    std::filesystem::remove_all(directory_);
  }

  shm::Store& store() { return *stores_.at(kPlace); }
  static shm::ObjectId id(uint8_t number) {
    shm::ObjectId id{};
    id.fill(number);
    return id;
  }
  static std::string content(uint8_t number) { return std::string(kMiB - 100, static_cast<char>(number)); }

  template <typename Work>
  auto on_loop(Work work) {
    using Answer = decltype(work());
    std::promise<Answer> promise;
    reactor_.post([&] { promise.set_value(work()); });
    return promise.get_future().get();
  }
  Status put(uint8_t number) {
    return on_loop([&] { return store().put(client_, id(number), content(number)); });
  }
  shm::StoreStats stats() {
    return on_loop([&] { return store().stats(); });
  }
  Status locate(uint8_t number) {
    return on_loop([&]() -> Status {
      Status status = store().locate(id(number));
      return status.reason() == "OBJECT_ELSEWHERE" ? tiering_->fetch(kPlace, store(), id(number)) : status;
    });
  }
  // Ticks until it is so; each is later than the longest pause between tries.
  template <typename Condition>
  void tick_until(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + kWait;
    while (true) {
      on_loop([&] {
        clock_.now_us += 60'000'000;
        tiering_->tick(stores_);
        return true;
      });
      if (condition()) return;
      ASSERT_LT(std::chrono::steady_clock::now(), end);
      std::this_thread::yield();
    }
  }
  Status fetch(uint8_t number) {
    Status status;
    tick_until([&] {
      status = locate(number);
      return status.reason() != "OBJECT_COMING" && status.reason() != "MEMORY_FULL";
    });
    return status;
  }
  std::string read(uint8_t number) {
    return on_loop([&] {
      const auto reader = store().attach().value();
      std::string found(store().pin(reader, id(number)).value_or("not there"));
      store().detach(reader);
      return found;
    });
  }
  // More than memory and disk hold.
  void put_many(uint8_t count) {
    for (uint8_t number = 1; number <= count; ++number) {
      Status status = put(number);
      tick_until([&] {
        if (status.reason() == "MEMORY_FULL") status = put(number);
        return status.reason() != "MEMORY_FULL";
      });
      ASSERT_TRUE(status.is_ok()) << status.message();
    }
  }

  SteppedClock clock_;
  runtime::PosixFileSystem files_;
  shm::Budget budget_{.bytes_max = 1ull << 30};
  std::string directory_;
  std::shared_ptr<FakeTier> tier_ = std::make_shared<FakeTier>();
  std::map<ObjectPlace, std::unique_ptr<shm::Store>> stores_;
  shm::Store::ClientId client_ = 0;
  Reactor reactor_{clock_};
  std::unique_ptr<ObjectTiering> tiering_;
};

TEST_F(ObjectTieringTest, MoreThanTheDiskHoldsGoesOnAndComesBack) {
  put_many(20);
  EXPECT_GE(stats().demoted, 10u);
  EXPECT_FALSE(tier_->contents.contains("own/left/behind")) << "what was left is removed first";
  EXPECT_TRUE(tier_->contents.contains("others/key"));
  {
    const std::lock_guard lock(tier_->mutex);
    for (const auto& [key, sealed] : tier_->contents)
      EXPECT_EQ(sealed.find(std::string(100, '\1')), std::string::npos) << "nobody reads it there";
  }
  for (uint8_t number = 1; number <= 20; ++number) {
    ASSERT_TRUE(fetch(number).is_ok()) << int{number};
    EXPECT_EQ(read(number), content(number)) << int{number};
  }
}

TEST_F(ObjectTieringTest, WhatNobodyRefersToLeavesTheTier) {
  put_many(20);
  on_loop([&] {
    store().detach(client_);
    return true;
  });
  tick_until([&] { return tier_->size() == 1; });
  EXPECT_TRUE(tier_->contents.contains("others/key"));
  EXPECT_EQ(stats().tier_bytes, 0u);
}

TEST_F(ObjectTieringTest, ATierThatFailsHoldsUpPutsWithItsReasonAndLosesNothing) {
  tier_->fail_with(Status(Code::kPermission, "TIER_REFUSED", "fake://tier: wrong password"));
  uint8_t count = 0;
  Status status;
  tick_until([&] {
    while ((status = put(static_cast<uint8_t>(count + 1))).is_ok()) ++count;
    return status.message().find("wrong password") != std::string::npos;
  });
  EXPECT_EQ(status.reason(), "MEMORY_FULL");
  tier_->fail_with({});
  tick_until([&] { return put(static_cast<uint8_t>(count + 1)).is_ok(); });
  for (uint8_t number = 1; number <= count + 1; ++number) {
    ASSERT_TRUE(fetch(number).is_ok()) << int{number};
    EXPECT_EQ(read(number), content(number));
  }
}

TEST_F(ObjectTieringTest, WhatCannotBeFetchedNowCanBeLater) {
  put_many(20);
  ASSERT_TRUE(on_loop([&] { return store().in_tier(id(1)); }).has_value());
  tier_->fail_with(Status(Code::kUnavailable, "TIER_UNAVAILABLE", "fake://tier: it does not answer"));
  EXPECT_EQ(fetch(1).reason(), "TIER_UNAVAILABLE");
  tier_->fail_with({});
  ASSERT_TRUE(fetch(1).is_ok());
  EXPECT_EQ(read(1), content(1));
}

TEST_F(ObjectTieringTest, WhatIsDamagedOrMissingThereIsTheLossOfItsObjectAlone) {
  put_many(20);
  tick_until([&] { return !on_loop([&] { return tiering_->is_working(); }); });
  {
    const std::lock_guard lock(tier_->mutex);
    for (auto& [key, sealed] : tier_->contents) {
      if (key.find("/01010101010101010101010101010101/") != std::string::npos) sealed[sealed.size() / 2] ^= 1;
    }
    std::erase_if(tier_->contents, [](const auto& one) {
      return one.first.find("/02020202020202020202020202020202/") != std::string::npos;
    });
  }
  for (const uint8_t lost : {1, 2}) {
    const Status status = fetch(lost);
    EXPECT_EQ(status.reason(), "OBJECT_LOST") << int{lost} << status.message();
    EXPECT_NE(status.message().find(lost == 1 ? "fake://tier" : "there is none"), std::string::npos)
        << status.message();
  }
  ASSERT_TRUE(fetch(3).is_ok());
  EXPECT_EQ(read(3), content(3));
  EXPECT_EQ(stats().damaged, 2u);
}

}  // namespace
}  // namespace uccp::agent
