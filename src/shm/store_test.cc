// The store with readers beside it: what they see, what stays, what leaves and comes back, and what ends.
#include "shm/store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "runtime/posix_file_system.h"
#include "shm/reader.h"

namespace uccp::shm {
namespace {

constexpr uint64_t kMiB = 1u << 20;

class SteppedClock final : public Clock {
 public:
  BootTime boot() const override { return {now_us}; }
  WallTime wall() const override { return {now_us}; }
  int64_t now_us = 1'000'000;
};

ObjectId id_of(uint64_t number) {
  ObjectId id{};
  const uint64_t mixed = number * 0x9e3779b97f4a7c15;
  std::memcpy(id.data(), &mixed, sizeof mixed);
  std::memcpy(id.data() + 8, &number, sizeof number);
  return id;
}

// Content that says whose it is in all of its bytes.
std::string content_of(uint64_t number, size_t size) {
  std::string content(size, '\0');
  for (size_t i = 0; i < size; ++i) content[i] = static_cast<char>((number * 31 + i * 7) & 0xff);
  return content;
}

class StoreTest : public ::testing::Test {
 protected:
  StoreTest() {
    std::string name = "/tmp/uccp-store-test-XXXXXX";
    directory_ = mkdtemp(name.data());
  }
  ~StoreTest() override {
    store_.reset();
    std::filesystem::remove_all(directory_);
  }

  void open(StoreOptions options) {
    options.spill_directory = directory_;
    auto opened = Store::open(clock_, files_, budget_, std::move(options));
    ASSERT_TRUE(opened.has_value()) << opened.error().message();
    store_ = std::move(*opened);
    client_ = attach();
  }
  void open(uint64_t memory, Policy policy = Policy::kLru) {
    open({.memory_bytes_max = memory, .slots = 1024, .policy = policy});
  }
  Store::ClientId attach() { return store_->attach().value(); }
  Reader reader(Store::ClientId client) {
    return std::move(Reader::open(store_->index_fd(), store_->segment_fd(), store_->page_fd(client)).value());
  }
  Status put(uint64_t number, size_t size) { return store_->put(client_, id_of(number), content_of(number, size)); }
  bool in_memory(Reader& reader, uint64_t number) {
    std::string content;
    return reader.copy(id_of(number), content);
  }
  std::vector<std::filesystem::path> spill_files() const {
    std::vector<std::filesystem::path> found;
    for (const auto& one : std::filesystem::directory_iterator(directory_)) found.push_back(one.path());
    return found;
  }

  SteppedClock clock_;
  runtime::PosixFileSystem files_;
  Budget budget_{.bytes_max = 1ull << 30};
  std::string directory_;
  std::unique_ptr<Store> store_;
  Store::ClientId client_ = 0;
};

TEST_F(StoreTest, WhatIsSealedIsReadByOthersWithoutAsking) {
  open(16 * kMiB);
  Reader other = reader(attach());
  const std::string content = content_of(1, 3000);
  ASSERT_TRUE(put(1, 3000).is_ok());
  std::string read;
  ASSERT_TRUE(other.copy(id_of(1), read));
  EXPECT_EQ(read, content);
  const auto pinned = other.pin(id_of(1));
  ASSERT_TRUE(pinned);
  EXPECT_EQ(pinned->content, content);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(pinned->content.data()) % kAlignment, 0u);
  EXPECT_FALSE(other.copy(id_of(2), read));
  EXPECT_EQ(store_->locate(id_of(2)).reason(), "OBJECT_UNKNOWN");
}

TEST_F(StoreTest, WhatIsNotSealedIsNotSeenAndEndsWithItsProcess) {
  open(16 * kMiB);
  const auto dying = attach();
  Reader other = reader(client_);
  ASSERT_TRUE(store_->create(dying, id_of(1), 8 * kMiB).has_value());
  EXPECT_FALSE(in_memory(other, 1));
  EXPECT_EQ(store_->locate(id_of(1)).reason(), "OBJECT_UNSEALED");
  store_->detach(dying);
  EXPECT_EQ(store_->locate(id_of(1)).reason(), "OBJECT_UNKNOWN");
  EXPECT_EQ(store_->stats().memory_bytes, 0u);
  EXPECT_TRUE(put(2, 16 * kMiB).is_ok()) << "all of its space is free again";
}

TEST_F(StoreTest, AnObjectLivesAsLongAsItsReferences) {
  open(16 * kMiB);
  const auto second = attach();
  Reader other = reader(second);
  ASSERT_TRUE(put(1, 100).is_ok());
  ASSERT_TRUE(store_->retain(second, id_of(1)).is_ok());
  store_->release(client_, id_of(1));
  EXPECT_TRUE(in_memory(other, 1));
  store_->release(client_, id_of(1));  // not its own to give back
  EXPECT_TRUE(in_memory(other, 1));
  store_->detach(second);
  EXPECT_FALSE(in_memory(other, 1));
  EXPECT_EQ(store_->stats().objects, 0u);
}

TEST_F(StoreTest, WhatIsHandedOverWaitsForItsReceiverForATime) {
  open(16 * kMiB);
  const auto receiver = attach();
  for (const uint64_t number : {1, 2}) {
    ASSERT_TRUE(put(number, 100).is_ok());
    ASSERT_TRUE(store_->hand_over(client_, id_of(number)).is_ok());
  }
  store_->detach(client_);
  ASSERT_TRUE(store_->retain(receiver, id_of(1)).is_ok());
  clock_.now_us += 59'000'000;
  store_->tick();
  EXPECT_TRUE(store_->locate(id_of(2)).is_ok());
  clock_.now_us += 2'000'000;
  store_->tick();
  EXPECT_EQ(store_->locate(id_of(2)).reason(), "OBJECT_UNKNOWN");
  EXPECT_TRUE(store_->locate(id_of(1)).is_ok());
}

TEST_F(StoreTest, AFullMemorySpillsAndBringsBackTheSameBytes) {
  open(8 * kMiB);
  Reader other = reader(client_);
  for (uint64_t number = 0; number < 40; ++number) ASSERT_TRUE(put(number, kMiB - 100).is_ok()) << number;
  EXPECT_GE(store_->stats().spilled, 32u);
  for (uint64_t number = 0; number < 40; ++number) {
    ASSERT_TRUE(store_->locate(id_of(number)).is_ok()) << number;
    std::string content;
    ASSERT_TRUE(other.copy(id_of(number), content));
    ASSERT_EQ(content, content_of(number, kMiB - 100));
  }
  for (uint64_t number = 0; number < 40; ++number) store_->release(client_, id_of(number));
  EXPECT_EQ(store_->stats().disk_bytes, 0u);
  EXPECT_TRUE(spill_files().empty());
}

TEST_F(StoreTest, WhatIsPinnedNeverLeavesAndTheErrorSaysSo) {
  open(8 * kMiB, Policy::kTtl);
  Reader holding = reader(client_);
  for (uint64_t number = 0; number < 7; ++number) ASSERT_TRUE(put(number, kMiB).is_ok());
  const auto pinned = holding.pin(id_of(0));
  ASSERT_TRUE(pinned);
  // The oldest, which would go first, is pinned.
  for (uint64_t number = 7; number < 30; ++number) ASSERT_TRUE(put(number, kMiB).is_ok());
  EXPECT_EQ(pinned->content, content_of(0, kMiB));
  const Status refused = put(100, 8 * kMiB);
  EXPECT_EQ(refused.reason(), "MEMORY_FULL");
  EXPECT_NE(refused.message().find(std::to_string(kMiB) + " of them by values that processes hold"), std::string::npos)
      << refused.message();
  store_->release(client_, id_of(0));
  EXPECT_EQ(pinned->content, content_of(0, kMiB)) << "a value that is held outlives its references";
  holding.unpin(pinned->slot);
  EXPECT_TRUE(put(100, 8 * kMiB).is_ok());
}

TEST_F(StoreTest, PinsOfADeadProcessEnd) {
  open(4 * kMiB);
  const auto dying = attach();
  {
    Reader reading = reader(dying);
    ASSERT_TRUE(put(1, 3 * kMiB).is_ok());
    ASSERT_TRUE(reading.pin(id_of(1)));
    EXPECT_EQ(put(2, 3 * kMiB).reason(), "MEMORY_FULL");
  }
  store_->detach(dying);
  EXPECT_TRUE(put(2, 3 * kMiB).is_ok());
}

TEST_F(StoreTest, ADamagedFileIsALostObjectAndHarmsNoOther) {
  open(2 * kMiB);
  Reader other = reader(client_);
  ASSERT_TRUE(put(1, kMiB).is_ok());
  ASSERT_TRUE(put(2, 2 * kMiB).is_ok());
  const auto files = spill_files();
  ASSERT_EQ(files.size(), 1u);
  std::fstream file(files[0], std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(5000);
  file.put('!').put('?');
  file.close();
  const Status lost = store_->locate(id_of(1));
  EXPECT_EQ(lost.reason(), "OBJECT_LOST");
  EXPECT_NE(lost.message().find("not as it was written"), std::string::npos) << lost.message();
  EXPECT_EQ(store_->locate(id_of(1)).reason(), "OBJECT_LOST") << "also the next time";
  ASSERT_TRUE(store_->locate(id_of(2)).is_ok());
  std::string content;
  ASSERT_TRUE(other.copy(id_of(2), content));
  EXPECT_EQ(content, content_of(2, 2 * kMiB));
  EXPECT_EQ(store_->stats().damaged, 1u);
  store_->release(client_, id_of(1));
  EXPECT_TRUE(put(3, 100).is_ok());
}

TEST_F(StoreTest, WhatIsElsewhereArrivesOnceAndStaysForAWhile) {
  std::vector<ObjectId> forgotten;
  open({.memory_bytes_max = 4 * kMiB, .slots = 1024, .policy = Policy::kLru, .on_forgotten = [&](const ObjectId& id) {
          forgotten.push_back(id);
        }});
  Reader other = reader(client_);
  EXPECT_TRUE(store_->refer(client_, id_of(1)).value());
  EXPECT_FALSE(store_->refer(client_, id_of(1)).value()) << "it is known";
  EXPECT_EQ(store_->locate(id_of(1)).reason(), "OBJECT_ELSEWHERE");
  const std::string content = content_of(1, 1000);
  auto place = store_->begin_arrival(id_of(1), content.size());
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(store_->begin_arrival(id_of(1), content.size()).error().reason(), "OBJECT_COMING");
  EXPECT_EQ(store_->locate(id_of(1)).reason(), "OBJECT_COMING");
  EXPECT_FALSE(in_memory(other, 1));
  store_->end_arrival(id_of(1), false);
  EXPECT_EQ(store_->locate(id_of(1)).reason(), "OBJECT_ELSEWHERE");
  place = store_->begin_arrival(id_of(1), content.size());
  std::ranges::copy(content, place->begin());
  // Nobody wants it any more while it is written: it has to stay for the writer.
  store_->release(client_, id_of(1));
  store_->release(client_, id_of(1));
  ASSERT_TRUE(put(2, 2 * kMiB).is_ok());
  store_->end_arrival(id_of(1), true);
  std::string read;
  ASSERT_TRUE(other.copy(id_of(1), read));
  EXPECT_EQ(read, content);
  EXPECT_EQ(store_->stats().fetched_bytes, content.size());
  EXPECT_TRUE(forgotten.empty());
  clock_.now_us += 61'000'000;
  store_->tick();
  EXPECT_EQ(store_->locate(id_of(1)).reason(), "OBJECT_UNKNOWN");
  EXPECT_EQ(forgotten, std::vector<ObjectId>{id_of(1)});
}

TEST_F(StoreTest, MemoryIsMadeReadyForWhatComes) {
  open(64 * kMiB);
  const uint64_t before = store_->stats().resident_bytes;
  while (store_->prepare(8 * kMiB)) continue;
  const uint64_t ready = store_->stats().resident_bytes;
  EXPECT_GE(ready, 8 * kMiB);
  EXPECT_LE(ready, before + 11 * kMiB);
  ASSERT_TRUE(put(1, 8 * kMiB - 100).is_ok());
  EXPECT_EQ(store_->stats().resident_bytes, ready) << "it goes where memory is";
  EXPECT_TRUE(store_->prepare(8 * kMiB));
  budget_.bytes_max = budget_.bytes;
  EXPECT_FALSE(store_->prepare(60 * kMiB)) << "not beyond what all may have";
}

TEST_F(StoreTest, WhatNeverArrivesEndsWithItsReferences) {
  std::vector<ObjectId> forgotten;
  open({.memory_bytes_max = 4 * kMiB, .slots = 1024, .on_forgotten = [&](const ObjectId& id) {
          forgotten.push_back(id);
        }});
  const auto second = attach();
  ASSERT_TRUE(store_->refer(second, id_of(1)).value());
  store_->detach(second);
  EXPECT_EQ(store_->stats().objects, 0u);
  EXPECT_EQ(forgotten.size(), 1u);
  ASSERT_TRUE(store_->refer(client_, id_of(2)).value());
  EXPECT_EQ(store_->begin_arrival(id_of(2), 5 * kMiB).error().reason(), "OBJECT_TOO_LARGE");
  EXPECT_EQ(store_->locate(id_of(2)).reason(), "OBJECT_ELSEWHERE");
}

TEST_F(StoreTest, AFullDiskKeepsWhatIsInMemory) {
  open({.memory_bytes_max = 4 * kMiB, .disk_bytes_max = 2 * kMiB, .slots = 1024, .policy = Policy::kLru});
  Reader other = reader(client_);
  uint64_t number = 0;
  Status status;
  while (number < 20 && (status = put(number, kMiB - 100)).is_ok()) ++number;
  EXPECT_EQ(status.reason(), "MEMORY_FULL");
  EXPECT_NE(status.message().find("--objects-disk"), std::string::npos) << status.message();
  EXPECT_GE(number, 4u);
  for (uint64_t one = number - 3; one < number; ++one) EXPECT_TRUE(in_memory(other, one)) << one;
}

TEST_F(StoreTest, LimitsAreSaidByName) {
  open({.memory_bytes_max = kMiB, .slots = 64, .objects_max = 2, .clients_max = 1});
  EXPECT_EQ(store_->attach().error().reason(), "CLIENTS_TOO_MANY");
  EXPECT_EQ(put(1, kMiB + 1).reason(), "OBJECT_TOO_LARGE");
  EXPECT_EQ(put(1, 0).reason(), "OBJECT_TOO_LARGE");
  for (const uint64_t endless : {UINT64_MAX, UINT64_MAX - 63, uint64_t{1} << 63})
    EXPECT_EQ(store_->create(client_, id_of(1), endless).error().reason(), "OBJECT_TOO_LARGE");
  ASSERT_TRUE(put(1, 1).is_ok());
  EXPECT_EQ(put(1, 1).reason(), "OBJECT_EXISTS");
  ASSERT_TRUE(put(2, 1).is_ok());
  EXPECT_EQ(put(3, 1).reason(), "OBJECTS_TOO_MANY");
}

TEST_F(StoreTest, AnIndexWithoutPlaceSpills) {
  open({.memory_bytes_max = 4 * kMiB, .slots = 16});
  Reader other = reader(client_);
  for (uint64_t number = 0; number < 200; ++number) ASSERT_TRUE(put(number, 50).is_ok()) << number;
  for (uint64_t number = 0; number < 200; ++number) {
    ASSERT_TRUE(store_->locate(id_of(number)).is_ok());
    std::string content;
    ASSERT_TRUE(other.copy(id_of(number), content));
    ASSERT_EQ(content, content_of(number, 50));
  }
}

TEST_F(StoreTest, NamespacesShareTheMemoryOfTheMachine) {
  budget_.bytes_max = 4 * kMiB;
  open(4 * kMiB);
  StoreOptions options{.memory_bytes_max = 4 * kMiB, .slots = 64, .spill_directory = directory_ + "/second"};
  auto second = Store::open(clock_, files_, budget_, options).value();
  ASSERT_TRUE(put(1, 3 * kMiB).is_ok());
  store_->release(client_, id_of(1));
  const auto client = second->attach().value();
  EXPECT_EQ(second->put(client, id_of(2), content_of(2, 3 * kMiB)).reason(), "MEMORY_FULL");
  store_->trim();
  EXPECT_TRUE(second->put(client, id_of(2), content_of(2, 3 * kMiB)).is_ok());
  second.reset();
  EXPECT_EQ(budget_.bytes, 0u);
}

// Whatever the page of a process says, it harms nobody but that process.
TEST_F(StoreTest, NonsenseOnAPageIsIgnored) {
  open(4 * kMiB);
  const auto wicked = attach();
  auto page = Mapping::of(store_->page_fd(wicked), page_bytes(1024), Access::kWrite).value();
  std::memset(page.data(), 0xff, page.size());
  EXPECT_NE(ftruncate(store_->page_fd(wicked), 0), 0);
  EXPECT_FALSE(Mapping::of(store_->index_fd(), index_bytes(1024), Access::kWrite).has_value());
  for (uint64_t number = 0; number < 20; ++number) ASSERT_TRUE(put(number, kMiB).is_ok()) << number;
  EXPECT_EQ(store_->stats().pinned_bytes, 0u);
}

// Readers beside a store that puts, evicts and frees: each copy and each pinned view is of the object asked for.
TEST_F(StoreTest, ReadersNeverSeeAnythingElse) {
  constexpr uint64_t kObjects = 64;
  constexpr size_t kSize = 100'000;
  open(2 * kMiB, Policy::kS3Fifo);
  std::vector<std::string> contents;
  for (uint64_t number = 0; number < kObjects; ++number) {
    contents.push_back(content_of(number, kSize));
    ASSERT_TRUE(put(number, kSize).is_ok());
  }
  std::atomic<bool> over = false;
  std::atomic<uint64_t> copies = 0, pins = 0, wrong = 0;
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < 2; ++thread) {
    threads.emplace_back([&, mine = attach(), thread]() mutable {
      Reader own = std::move(Reader::open(store_->index_fd(), store_->segment_fd(), store_->page_fd(mine)).value());
      std::string content;
      for (uint64_t turn = thread; !over; ++turn) {
        const uint64_t number = turn * 7 % kObjects;
        if (own.copy(id_of(number), content)) {
          copies += 1;
          wrong += content != contents[number];
        }
        if (const auto pinned = own.pin(id_of(number))) {
          pins += 1;
          wrong += pinned->content != contents[number];
          own.unpin(pinned->slot);
        }
      }
    });
  }
  for (uint64_t turn = 0; turn < 2000 || copies < 1000 || pins < 1000; ++turn) {
    (void)store_->locate(id_of(turn * 13 % kObjects));
    if (turn % 5 == 0) {
      const uint64_t number = turn % kObjects;
      store_->release(client_, id_of(number));
      (void)put(number, kSize);
    }
  }
  over = true;
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0u);
  EXPECT_GE(copies, 1000u);
  EXPECT_GE(pins, 1000u);
}

}  // namespace
}  // namespace uccp::shm
