// The write-ahead log on encrypted files: the same rules, also over torn sectors, and nothing to be read on the disk.
#include "base/bytes.h"
#include "storage/encrypted_file_system.h"
#include "storage/memory/memory_log_store.h"
#include "storage/wal/wal_test_support.h"

namespace uccp::storage {
namespace {

KeyRing one_key(char digit) { return KeyRing({{std::string(8, digit), 0, *SecretKey::parse(std::string(64, digit))}}); }

class EncryptedWal {
 public:
  EncryptedWal() { EXPECT_TRUE(disk.make_directories(kTestDirectory).is_ok()); }

  Status open() {
    store.reset();
    auto opened = WalLogStore::open(files, kTestDirectory, kTestIdentity, small_options(), report);
    if (!opened) return opened.error();
    store = std::move(*opened);
    return {};
  }

  sim::SimFileSystem disk;
  KeyRing keys = one_key('1');
  SeededRandom random{1};
  EncryptedFileSystem files{disk, keys, random};
  RecoveryReport report;
  std::unique_ptr<WalLogStore> store;
};

class EncryptedHarness final : public LogStoreHarness {
 public:
  EncryptedHarness() { reopen(); }
  LogStore& store() override { return *wal_.store; }
  void crash() override {
    wal_.disk.crash_losing_unsynced();
    reopen();
  }
  void restart() override {
    ASSERT_TRUE(wal_.store->close().is_ok());
    reopen();
  }

 private:
  void reopen() {
    const Status opened = wal_.open();
    UCCP_CHECK(opened.is_ok(), opened.to_string());
  }
  EncryptedWal wal_;
};

std::unique_ptr<LogStoreHarness> make_harness() { return std::make_unique<EncryptedHarness>(); }

INSTANTIATE_TEST_SUITE_P(EncryptedWal, LogStoreConformance, testing::Values(under_test(&make_harness)));

TEST(EncryptedWal, ACrashThatTearsSectorsLosesNothingThatWasSynced) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    EncryptedWal wal;
    ASSERT_TRUE(wal.open().is_ok());
    MemoryLogStore model;
    SeededRandom random(seed);
    for (int round = 0; round < 4; ++round) {
      for (int step = 0; step < 30; ++step) {
        ASSERT_TRUE(random_operation(random, {&model, wal.store.get()}).is_ok());
        if (random.chance(0.3)) ASSERT_TRUE(model.sync().is_ok() && wal.store->sync().is_ok());
      }
      // The frame of a sync that did not come to its end may be there or not, but nothing else.
      ASSERT_TRUE(wal.store->begin_sync().is_ok());
      const std::string written = dump(model);
      model.crash();
      wal.store.reset();
      wal.disk.crash(random);
      const Status opened = wal.open();
      ASSERT_TRUE(opened.is_ok()) << "seed " << seed << ": " << opened.to_string();
      const std::string found = dump(*wal.store);
      ASSERT_TRUE(found == dump(model) || found == written) << "seed " << seed;
      if (found != dump(model)) break;
    }
  }
}

TEST(EncryptedWal, NothingOfAnEntryIsOnTheDisk) {
  EncryptedWal wal;
  ASSERT_TRUE(wal.open().is_ok());
  Entry entry{Term(1), LogIndex(1), EntryKind::kCommand, "a secret that nobody may read"};
  ASSERT_TRUE(wal.store->append(kTestGroup, {&entry, 1}).is_ok());
  ASSERT_TRUE(wal.store->sync().is_ok());
  const std::string bytes = *read_file(wal.disk, segment_path(1), 1 << 24);
  EXPECT_EQ(bytes.find("secret"), std::string::npos);
  EXPECT_EQ(bytes.find("UCCPWAL"), std::string::npos);
  EXPECT_NE(read_file(wal.files, segment_path(1), 1 << 24)->find("secret"), std::string::npos);
}

TEST(EncryptedWal, AnotherKeyOpensNothingAndAPlainLogGoesOnEncrypted) {
  WalFixture plain;
  plain.open_or_fail();
  plain.append_and_sync(make_entries(1, 3, 1));
  plain.store.reset();
  const KeyRing keys = one_key('1');
  SeededRandom random(2);
  EncryptedFileSystem files(plain.files, keys, random);
  RecoveryReport report;
  {
    auto store = WalLogStore::open(files, kTestDirectory, kTestIdentity, small_options(), report);
    ASSERT_TRUE(store) << store.error().to_string();
    ASSERT_TRUE((*store)->append(kTestGroup, make_entries(4, 40, 1, 1000)).is_ok());
    ASSERT_TRUE((*store)->close().is_ok());
  }
  const KeyRing others = one_key('2');
  EncryptedFileSystem wrong(plain.files, others, random);
  const auto refused = WalLogStore::open(wrong, kTestDirectory, kTestIdentity, small_options(), report);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason(), "DATA_KEY_MISSING");
  // The new key is used for what is new, the old one for what is there.
  const KeyRing both({keys.newest(), others.newest()});
  EncryptedFileSystem rotated(plain.files, both, random);
  auto store = WalLogStore::open(rotated, kTestDirectory, kTestIdentity, small_options(), report);
  ASSERT_TRUE(store);
  EXPECT_EQ((*store)->load(kTestGroup)->last.index, LogIndex(40));
  ASSERT_TRUE((*store)->append(kTestGroup, make_entries(41, 80, 1, 1000)).is_ok());
  ASSERT_TRUE((*store)->close().is_ok());
}

}  // namespace
}  // namespace uccp::storage
