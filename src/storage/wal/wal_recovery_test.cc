// What a crash or a damaged disk leaves, and what opening the log makes of it.
#include <cstdlib>
#include <fstream>

#include "base/bytes.h"
#include "storage/memory/memory_log_store.h"
#include "storage/wal/wal_test_support.h"

namespace uccp::storage {
namespace {

// A run of random operations that is the same for each seed, against the log and a model of it.
class CrashRun {
 public:
  explicit CrashRun(uint64_t seed, WalLogStore::Options options) : wal(options), random_(seed) {}

  // Opens the log and works, until everything is done (true) or the disk fails.
  bool work(int operations) {
    // What an earlier call left in the buffer is lost.
    model.crash();
    if (!wal.open().is_ok()) return false;
    for (int i = 0; i < operations; ++i) {
      if (!work_once()) return false;
    }
    return true;
  }

  // The log's content has to be what it was at the last sync, or, if a sync was interrupted, what that one wrote.
  void check_after_crash() {
    const std::string found = dump(*wal.store);
    const std::string before = dump(model);
    model.crash();
    const std::string synced = dump(model);
    EXPECT_TRUE(found == synced || (syncing_ && found == before)) << "found:\n"
                                                                  << found << "synced:\n"
                                                                  << synced << "interrupted:\n"
                                                                  << (syncing_ ? before : "");
  }

  WalFixture wal;
  MemoryLogStore model;

 private:
  bool work_once() {
    if (!random_operation(random_, {&model, wal.store.get()}).is_ok()) return false;
    if (!random_.chance(0.3)) return true;
    syncing_ = true;
    if (!wal.store->sync().is_ok()) return false;
    syncing_ = false;
    return model.sync().is_ok();
  }

  SeededRandom random_;
  bool syncing_ = false;
};

WalLogStore::Options tiny_options() {
  WalLogStore::Options options = small_options();
  options.segment_bytes = 3 << 10;
  options.cache_bytes_max = 1 << 10;
  return options;
}

enum class After { kLosing, kTearing, kKeeping };

// Crashes at every operation on the disk in turn, and then works on.
void crash_everywhere(uint64_t seed, After after, int operations) {
  for (uint64_t point = 0;; ++point) {
    CrashRun run(seed, tiny_options());
    SeededRandom random(seed * 1000 + point);
    run.wal.files.fail_after(point);
    const bool done = run.work(operations);
    run.wal.store.reset();
    if (after == After::kLosing) run.wal.files.crash_losing_unsynced();
    if (after == After::kTearing) run.wal.files.crash(random);
    if (after == After::kKeeping) run.wal.files.crash_keeping_all();
    const Status opened = run.wal.open();
    ASSERT_TRUE(opened.is_ok()) << "seed " << seed << " point " << point << ": " << opened.to_string();
    run.check_after_crash();
    // What was repaired is usable, and stays what it is.
    const LogIndex last = run.wal.store->load(kTestGroup)->last.index;
    run.wal.append_and_sync(make_entries(last.value + 1, last.value + 2, 1000));
    const std::string extended = dump(*run.wal.store);
    run.wal.files.crash_losing_unsynced();
    run.wal.open_or_fail();
    EXPECT_EQ(run.wal.report.torn_file, "");
    EXPECT_EQ(dump(*run.wal.store), extended);
    if (testing::Test::HasFailure()) FAIL() << "seed " << seed << " point " << point;
    if (done) return;
  }
}

TEST(WalRecovery, NothingSyncedIsLostAtAnyCrashPointIfUnsyncedDataIsLost) {
  for (uint64_t seed = 1; seed <= 3; ++seed) crash_everywhere(seed, After::kLosing, 150);
}

TEST(WalRecovery, NothingSyncedIsLostAtAnyCrashPointIfUnsyncedDataIsTorn) {
  for (uint64_t seed = 11; seed <= 16; ++seed) crash_everywhere(seed, After::kTearing, 150);
}

TEST(WalRecovery, NothingSyncedIsLostAtAnyCrashPointIfUnsyncedDataIsKept) {
  for (uint64_t seed = 21; seed <= 23; ++seed) crash_everywhere(seed, After::kKeeping, 150);
}

TEST(WalRecovery, ACrashWhileRepairingIsRepairedToo) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    CrashRun run(seed, tiny_options());
    SeededRandom random(seed);
    run.wal.files.fail_after(40 + random.below(100));
    run.work(500);
    run.wal.store.reset();
    run.wal.files.crash(random);
    while (true) {
      run.wal.files.fail_after(random.below(8));
      if (run.wal.open().is_ok()) break;
      run.wal.files.crash(random);
    }
    run.check_after_crash();
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
  }
}

TEST(WalRecovery, ManyCrashesInARowLeaveWhatWasSynced) {
  for (uint64_t seed = 100; seed < 130; ++seed) {
    CrashRun run(seed, tiny_options());
    SeededRandom random(seed);
    ASSERT_TRUE(run.work(20));
    for (int crash = 0; crash < 20; ++crash) {
      run.wal.files.fail_after(random.below(60));
      run.work(200);
      run.wal.store.reset();
      run.wal.files.crash(random);
      run.wal.open_or_fail();
      const std::string found = dump(*run.wal.store);
      run.check_after_crash();
      // From here on the model is what was found: an interrupted sync may have taken.
      run.model = MemoryLogStore();
      for (const GroupId id : run.wal.store->groups()) {
        const GroupLog log = *run.wal.store->load(id);
        ASSERT_TRUE(run.model.set_hard_state(id, log.hard_state).is_ok());
        ASSERT_TRUE(run.model.truncate_before(id, log.start).is_ok());
        const auto entries = run.wal.store->read(id, log.start.index.next(), log.last.index.next(), UINT64_MAX);
        ASSERT_TRUE(run.model.append(id, *entries).is_ok());
      }
      ASSERT_TRUE(run.model.sync().is_ok());
      ASSERT_EQ(dump(run.model), found);
      ASSERT_FALSE(HasFailure()) << "seed " << seed << " crash " << crash;
    }
  }
}

// Three segments with a few frames each; the second one is the oldest that may be damaged in the middle.
class Damage : public testing::Test {
 protected:
  void SetUp() override {
    wal_.open_or_fail();
    for (uint64_t i = 1; wal_.store->segment_count() < 3 || i % 4 != 0; ++i) {
      wal_.append_and_sync(make_entries(i, i, 1, 900));
      ends_.push_back(end_of_data(wal_.store->segment_count()));
    }
    content_ = dump(*wal_.store);
    wal_.store.reset();
  }

  uint64_t end_of_data(uint64_t sequence) {
    return read_file(wal_.files, segment_path(sequence), 1 << 20)->find_last_not_of('\0') + 1;
  }

  void expect_refused(const std::string& path, std::string_view text) {
    const Status opened = wal_.open();
    EXPECT_EQ(opened.code(), Code::kCorruption) << text;
    EXPECT_EQ(opened.reason(), "WAL_DAMAGED");
    EXPECT_NE(opened.message().find(path), std::string::npos) << opened.message();
    EXPECT_NE(opened.message().find(text), std::string::npos) << opened.message();
  }

  WalFixture wal_;
  std::vector<uint64_t> ends_;  // of the data in the head, after each frame
  std::string content_;
};

TEST_F(Damage, AFlippedBitInAnEarlierSegmentIsRefused) {
  for (const uint64_t sequence : {1, 2}) {
    for (const uint64_t offset : {0, 9, 12, 127, 128, 140, 147, 148, 160, 900}) {
      wal_.files.flip_bit(segment_path(sequence), offset);
      EXPECT_EQ(wal_.open().code(), Code::kCorruption) << sequence << " " << offset;
      wal_.files.flip_bit(segment_path(sequence), offset);
    }
  }
  wal_.open_or_fail();
  EXPECT_EQ(dump(*wal_.store), content_);
}

TEST_F(Damage, AFlippedBitBeforeAnotherFrameIsRefusedWithFileAndOffset) {
  const uint64_t last_begin = ends_[ends_.size() - 2];
  for (uint64_t offset = wal::kSegmentHeaderBytes; offset < last_begin; offset += 7) {
    wal_.files.flip_bit(segment_path(3), offset, static_cast<int>(offset % 8));
    expect_refused(segment_path(3), "is damaged at byte");
    wal_.files.flip_bit(segment_path(3), offset, static_cast<int>(offset % 8));
  }
  wal_.files.flip_bit(segment_path(3), wal::kSegmentHeaderBytes + 30);
  expect_refused(segment_path(3), "damaged at byte 128");
}

TEST_F(Damage, AFlippedBitInTheLastFrameIsTakenForATornTail) {
  const uint64_t last_begin = ends_[ends_.size() - 2];
  wal_.files.flip_bit(segment_path(3), last_begin + 100);
  wal_.open_or_fail();
  EXPECT_EQ(wal_.report.torn_file, segment_path(3));
  EXPECT_EQ(wal_.report.torn_offset, last_begin);
  EXPECT_NE(wal_.report.to_string().find("cut off"), std::string::npos);
}

TEST_F(Damage, AfterACloseAFlippedBitInTheLastFrameIsRefused) {
  wal_.open_or_fail();
  ASSERT_TRUE(wal_.store->close().is_ok());
  EXPECT_EQ(wal_.store->append(kTestGroup, make_entries(1, 1, 1)).reason(), "LOG_STORE_FAILED");
  wal_.files.flip_bit(segment_path(3), ends_[ends_.size() - 2] + 100);
  expect_refused(segment_path(3), "another one begins");
}

TEST_F(Damage, AFrameThatLaterReadsAsZerosIsRefused) {
  auto file = wal_.files.open(segment_path(3), OpenMode::kReadWrite);
  ASSERT_TRUE(file);
  const uint64_t begin = ends_[ends_.size() - 3];
  const uint64_t end = ends_[ends_.size() - 2];
  ASSERT_TRUE((*file)->write_at(begin, std::string(end - begin, '\0')).is_ok());
  expect_refused(segment_path(3), "another one begins");
}

TEST_F(Damage, AMissingSegmentIsRefused) {
  ASSERT_TRUE(wal_.files.remove(segment_path(2)).is_ok());
  expect_refused(segment_path(2), "missing");
}

TEST_F(Damage, AMissingFirstSegmentIsRefusedWhileItsEntriesAreNeeded) {
  ASSERT_TRUE(wal_.files.remove(segment_path(1)).is_ok());
  expect_refused(kTestDirectory, "entry 1 of group 1 is missing");
}

TEST_F(Damage, ALoneLastSegmentWithoutItsBeginningIsRefused) {
  ASSERT_TRUE(wal_.files.remove(segment_path(1)).is_ok());
  ASSERT_TRUE(wal_.files.remove(segment_path(2)).is_ok());
  auto file = wal_.files.open(segment_path(3), OpenMode::kReadWrite);
  ASSERT_TRUE((*file)->truncate(wal::kSegmentHeaderBytes).is_ok());
  expect_refused(segment_path(3), "the first frame is bad");
  ASSERT_TRUE((*file)->truncate(0).is_ok());
  expect_refused(segment_path(3), "no header");
}

TEST_F(Damage, ASegmentCutAtAFrameIsRefusedIfALaterOneFollows) {
  auto file = wal_.files.open(segment_path(2), OpenMode::kReadWrite);
  ASSERT_TRUE((*file)->truncate(wal::kSegmentHeaderBytes).is_ok());
  expect_refused(segment_path(3), "it begins with frame");
}

TEST_F(Damage, ASegmentUnderAnotherNameIsRefused) {
  ASSERT_TRUE(wal_.files.rename(segment_path(3), segment_path(1)).is_ok());
  expect_refused(segment_path(1), "under another name");
}

TEST_F(Damage, AnUnfinishedLastSegmentIsRemoved) {
  auto file = wal_.files.open(segment_path(4), OpenMode::kCreate);
  ASSERT_TRUE(file);
  ASSERT_TRUE((*file)->allocate(4096).is_ok());
  wal_.open_or_fail();
  EXPECT_EQ(wal_.report.removed_file, segment_path(4));
  EXPECT_EQ(dump(*wal_.store), content_);
  EXPECT_FALSE(*wal_.files.exists(segment_path(4)));
}

TEST_F(Damage, FilesThatAreNoSegmentsAreLeftAlone) {
  ASSERT_TRUE(write_file_atomically(wal_.files, kTestDirectory + "/README", "hello").is_ok());
  wal_.open_or_fail();
  EXPECT_EQ(dump(*wal_.store), content_);
}

TEST(WalRecovery, AFrameInsideTheDataOfATornEntryIsNotTakenForAnAcknowledgedOne) {
  WalFixture wal;
  wal.open_or_fail();
  wal.append_and_sync(make_entries(1, 1, 1));
  // The content of a log, stored as data in the log.
  std::vector<Entry> entries = make_entries(2, 2, 1);
  entries[0].data = *read_file(wal.files, segment_path(1), 1 << 20);
  ASSERT_TRUE(wal.store->append(kTestGroup, entries).is_ok());
  wal.files.short_write(3000);
  EXPECT_FALSE(wal.store->sync().is_ok());
  wal.files.crash_keeping_all();
  wal.open_or_fail();
  EXPECT_EQ(wal.store->load(kTestGroup)->last.index, LogIndex(1));
}

TEST(WalRecovery, ANewerFormatVersionIsRefusedByName) {
  WalFixture wal;
  wal.open_or_fail();
  wal.store.reset();
  auto file = wal.files.open(segment_path(1), OpenMode::kReadWrite);
  std::string header;
  ASSERT_TRUE((*file)->read_at(0, wal::kSegmentHeaderBytes, header).is_ok());
  header.replace(8, 4, ByteWriter().u32(wal::kFormatVersion + 1).data());
  header.replace(124, 4, ByteWriter().u32(crc32c(header.substr(0, 124))).data());
  ASSERT_TRUE((*file)->write_at(0, header).is_ok());
  const Status opened = wal.open();
  EXPECT_EQ(opened.reason(), "WAL_VERSION_UNSUPPORTED");
  EXPECT_NE(opened.message().find("version " + std::to_string(wal::kFormatVersion + 1)), std::string::npos);
}

}  // namespace
}  // namespace uccp::storage
