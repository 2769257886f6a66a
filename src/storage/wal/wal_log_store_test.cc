#include "storage/wal/wal_log_store.h"

#include "storage/planted.h"
#include "storage/wal/wal_test_support.h"

namespace uccp::storage {
namespace {

class WalHarness final : public LogStoreHarness {
 public:
  explicit WalHarness(WalLogStore::Options options) : wal_(options) { wal_.open_or_fail(); }
  LogStore& store() override { return *wal_.store; }
  void crash() override {
    wal_.store.reset();
    wal_.files.crash_losing_unsynced();
    wal_.open_or_fail();
  }
  void restart() override {
    EXPECT_TRUE(wal_.store->close().is_ok());
    wal_.open_or_fail();
  }

 private:
  WalFixture wal_;
};

// Nothing but the size of a segment differs from a real node; simulated disks copy segments a lot.
std::unique_ptr<LogStoreHarness> make_harness() {
  WalLogStore::Options options;
  options.segment_bytes = 4 << 20;
  return std::make_unique<WalHarness>(options);
}
std::unique_ptr<LogStoreHarness> make_small_harness() { return std::make_unique<WalHarness>(small_options()); }

INSTANTIATE_TEST_SUITE_P(Wal, LogStoreConformance,
                         testing::Values(under_test(&make_harness), under_test(&make_small_harness)));

TEST(WalLogStore, SegmentsAreDroppedOnceNoGroupNeedsThem) {
  WalFixture wal;
  wal.open_or_fail();
  ASSERT_TRUE(wal.store->set_hard_state(GroupId(9), {Term(7), NodeId(2), LogIndex(0)}).is_ok());
  for (uint64_t i = 1; i <= 500; ++i) {
    wal.append_and_sync(make_entries(i, i, 1, 200));
    if (i > 10) ASSERT_TRUE(wal.store->truncate_before(kTestGroup, {Term(1), LogIndex(i - 10)}).is_ok());
  }
  EXPECT_LE(wal.store->segment_count(), 3u);
  EXPECT_EQ(wal.files.list(kTestDirectory)->size(), wal.store->segment_count());
  wal.files.crash_losing_unsynced();
  wal.open_or_fail();
  EXPECT_EQ(wal.store->load(GroupId(9))->hard_state.term, Term(7));
  EXPECT_EQ(wal.store->load(kTestGroup)->last.index, LogIndex(500));
}

TEST(WalLogStore, ALogBeginsSmallAndItsSegmentsGrow) {
  WalFixture wal;
  wal.options.segment_bytes = 64 << 10;
  wal.options.first_segment_bytes = 4 << 10;
  wal.open_or_fail();
  EXPECT_LE(wal.store->size_bytes(), 5u << 10);
  for (uint64_t i = 1; i <= 1000; ++i) wal.append_and_sync(make_entries(i, i, 1, 200));
  // 4, 32 and then 64 KiB for what is more than 200 KiB.
  EXPECT_LE(wal.store->segment_count(), 7u);
  EXPECT_GE(wal.store->size_bytes(), uint64_t{(4 + 32 + 3 * 64)} << 10);
  const uint64_t size = wal.store->size_bytes();
  wal.files.crash_losing_unsynced();
  wal.open_or_fail();
  EXPECT_LE(wal.store->size_bytes(), size) << "the last segment has the size that it had";
  EXPECT_EQ(wal.store->load(kTestGroup)->last.index, LogIndex(1000));
}

TEST(WalLogStore, ANearlyFullDiskGetsSmallSegmentsAndTheLogGoesOn) {
  WalFixture wal;
  wal.options.segment_bytes = 64 << 10;
  wal.options.first_segment_bytes = 4 << 10;
  wal.open_or_fail();
  // Room for two small segments and not for one of 32 KiB.
  wal.files.set_capacity(wal.files.used_bytes() + (9 << 10));
  for (uint64_t i = 1; i <= 36; ++i) wal.append_and_sync(make_entries(i, i, 1, 200));
  EXPECT_GE(wal.store->segment_count(), 3u);
  wal.files.set_capacity(0);
  for (uint64_t i = 37; i <= 200; ++i) wal.append_and_sync(make_entries(i, i, 1, 200));
  EXPECT_GE(wal.store->size_bytes(), uint64_t{4 + 4 + 4 + 32} << 10) << "they grow again";
  wal.files.crash_losing_unsynced();
  wal.open_or_fail();
  EXPECT_EQ(wal.store->load(kTestGroup)->last.index, LogIndex(200));
}

TEST(WalLogStore, FewEntriesOfAQuietGroupDoNotPinOldSegments) {
  WalFixture wal;
  wal.open_or_fail();
  const GroupId quiet{5};
  wal.append_and_sync(make_entries(1, 3, 1), quiet);
  for (uint64_t i = 1; i <= 500; ++i) {
    wal.append_and_sync(make_entries(i, i, 1, 200));
    if (i == 60 || i == 300) wal.append_and_sync(make_entries(i == 60 ? 4 : 6, i == 60 ? 5 : 6, 2), quiet);
    if (i > 10) ASSERT_TRUE(wal.store->truncate_before(kTestGroup, {Term(1), LogIndex(i - 10)}).is_ok());
    if (i % 97 == 0) {
      const std::string before = dump(*wal.store);
      ASSERT_TRUE(wal.store->sync().is_ok());
      wal.files.crash_losing_unsynced();
      wal.open_or_fail();
      EXPECT_EQ(dump(*wal.store), before);
    }
  }
  EXPECT_LE(wal.store->segment_count(), wal.options.segments_before_moving + 1);
  EXPECT_EQ(*wal.store->read(quiet, LogIndex(1), LogIndex(4), 1000), make_entries(1, 3, 1));
  EXPECT_EQ(*wal.store->read(quiet, LogIndex(4), LogIndex(6), 1000), make_entries(4, 5, 2));
}

TEST(WalLogStore, MovedEntriesDoNotBringReplacedOnesBack) {
  WalFixture wal;
  wal.open_or_fail();
  const GroupId quiet{5};
  wal.append_and_sync(make_entries(1, 6, 1), quiet);
  wal.append_and_sync(make_entries(4, 5, 2), quiet);
  for (uint64_t i = 1; i <= 500; ++i) {
    wal.append_and_sync(make_entries(i, i, 1, 200));
    ASSERT_TRUE(wal.store->truncate_before(kTestGroup, {Term(1), LogIndex(i)}).is_ok());
    if (i == 250) wal.append_and_sync(make_entries(3, 3, 3), quiet);
  }
  ASSERT_TRUE(wal.store->sync().is_ok());
  wal.files.crash_losing_unsynced();
  wal.open_or_fail();
  EXPECT_EQ(wal.store->load(quiet)->last, (LogPosition{Term(3), LogIndex(3)}));
  EXPECT_EQ(*wal.store->read(quiet, LogIndex(1), LogIndex(3), 1000), make_entries(1, 2, 1));
}

TEST(WalLogStore, TheCacheStaysWithinItsLimitAndOldEntriesComeFromTheDisk) {
  WalFixture wal;
  wal.open_or_fail();
  const GroupId other{5};
  for (uint64_t i = 1; i <= 100; ++i) {
    ASSERT_TRUE(wal.store->append(other, make_entries(i, i, 1, 30)).is_ok());
    wal.append_and_sync(make_entries(i, i, 1, 100));
    ASSERT_LE(wal.store->cached_bytes(), wal.options.cache_bytes_max);
  }
  EXPECT_GT(wal.store->cached_bytes(), 0u);
  EXPECT_EQ(*wal.store->read(kTestGroup, LogIndex(1), LogIndex(101), UINT64_MAX), make_entries(1, 100, 1, 100));
  EXPECT_EQ(*wal.store->read(other, LogIndex(1), LogIndex(101), UINT64_MAX), make_entries(1, 100, 1, 30));
}

TEST(WalLogStore, EntriesLargerThanASegmentGetOneOfTheirOwn) {
  WalFixture wal;
  wal.open_or_fail();
  wal.append_and_sync(make_entries(1, 1, 1, 100'000));
  wal.append_and_sync(make_entries(2, 2, 1, 100'000));
  wal.append_and_sync(make_entries(3, 3, 1, 10));
  wal.open_or_fail();
  EXPECT_EQ(*wal.store->read(kTestGroup, LogIndex(1), LogIndex(4), UINT64_MAX).value().begin(),
            make_entries(1, 1, 1, 100'000).front());
  EXPECT_EQ(wal.store->load(kTestGroup)->last.index, LogIndex(3));
}

TEST(WalLogStore, ABufferOverItsLimitIsSynced) {
  WalFixture wal;
  wal.options.buffer_bytes_max = 1000;
  wal.open_or_fail();
  const uint64_t before = wal.store->sync_count();
  ASSERT_TRUE(wal.store->append(kTestGroup, make_entries(1, 20, 1, 100)).is_ok());
  EXPECT_GT(wal.store->sync_count(), before);
  wal.files.crash_losing_unsynced();
  wal.open_or_fail();
  EXPECT_EQ(wal.store->load(kTestGroup)->last.index, LogIndex(20));
}

TEST(WalLogStore, FilesOfAnotherNodeClusterOrIncarnationAreRefused) {
  WalFixture wal;
  wal.open_or_fail();
  wal.append_and_sync(make_entries(1, 1, 1));
  StoreIdentity cluster = kTestIdentity;
  cluster.cluster_id = "other";
  StoreIdentity node = kTestIdentity;
  node.node = NodeId(4);
  StoreIdentity incarnation = kTestIdentity;
  incarnation.incarnation = Incarnation(1);
  for (const StoreIdentity& identity : {cluster, node, incarnation}) {
    auto opened = WalLogStore::open(wal.files, kTestDirectory, identity, wal.options, wal.report);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().reason(), "WAL_OF_ANOTHER_NODE");
  }
  wal.open_or_fail();
}

TEST(WalLogStore, AFailedSyncPoisonsTheStore) {
  WalFixture wal;
  wal.open_or_fail();
  wal.append_and_sync(make_entries(1, 1, 1));
  ASSERT_TRUE(wal.store->append(kTestGroup, make_entries(2, 2, 1)).is_ok());
  wal.files.fail_next_sync();
  EXPECT_FALSE(wal.store->sync().is_ok());
  EXPECT_EQ(wal.store->sync().reason(), "LOG_STORE_FAILED");
  EXPECT_EQ(wal.store->append(kTestGroup, make_entries(2, 2, 1)).reason(), "LOG_STORE_FAILED");
  EXPECT_EQ(wal.store->set_hard_state(kTestGroup, {}).reason(), "LOG_STORE_FAILED");
  EXPECT_EQ(wal.store->load(kTestGroup).error().reason(), "LOG_STORE_FAILED");
  wal.files.crash_losing_unsynced();
  wal.open_or_fail();
  EXPECT_EQ(wal.store->load(kTestGroup)->last.index, LogIndex(1));
}

TEST(WalLogStore, AShortWritePoisonsTheStoreAndIsCutOff) {
  WalFixture wal;
  wal.open_or_fail();
  wal.append_and_sync(make_entries(1, 1, 1));
  ASSERT_TRUE(wal.store->append(kTestGroup, make_entries(2, 5, 1)).is_ok());
  wal.files.short_write(50);
  EXPECT_FALSE(wal.store->sync().is_ok());
  EXPECT_EQ(wal.store->sync().reason(), "LOG_STORE_FAILED");
  wal.files.crash_keeping_all();
  wal.open_or_fail();
  EXPECT_EQ(wal.report.torn_file, segment_path(1));
  EXPECT_GT(wal.report.torn_bytes, 0u);
  EXPECT_LE(wal.report.torn_bytes, 50u);
  EXPECT_EQ(wal.store->load(kTestGroup)->last.index, LogIndex(1));
  wal.append_and_sync(make_entries(2, 3, 2));
  wal.open_or_fail();
  EXPECT_EQ(wal.report.torn_file, "");
  EXPECT_EQ(wal.store->load(kTestGroup)->last.index, LogIndex(3));
}

TEST(WalLogStore, AFullDiskRefusesTheSyncAndLaterItWorks) {
  WalFixture wal;
  wal.open_or_fail();
  wal.files.set_capacity(wal.files.used_bytes() + 100);
  uint64_t next = 1;
  Status synced;
  for (; synced.is_ok(); ++next) {
    ASSERT_TRUE(wal.store->append(kTestGroup, make_entries(next, next, 1, 500)).is_ok());
    synced = wal.store->sync();
    ASSERT_LT(next, 100u);
  }
  EXPECT_EQ(synced.code(), Code::kExhausted);
  EXPECT_EQ(synced.reason(), "NO_SPACE");
  EXPECT_EQ(wal.store->sync().reason(), "NO_SPACE");
  EXPECT_EQ(wal.files.list(kTestDirectory)->size(), 1u);
  const std::string written = dump(*wal.store);
  wal.files.set_capacity(0);
  ASSERT_TRUE(wal.store->sync().is_ok());
  wal.files.crash_losing_unsynced();
  wal.open_or_fail();
  EXPECT_EQ(dump(*wal.store), written);
}

TEST(WalLogStore, BlocksAreWrittenAheadOnlyOfManySmallFramesInARow) {
  WalFixture wal{WalLogStore::Options{}};
  wal.open_or_fail();
  uint64_t next = 1;
  const auto append = [&](size_t frames, size_t bytes) {
    for (size_t i = 0; i < frames; ++i, ++next) wal.append_and_sync(make_entries(next, next, 1, bytes));
  };
  // Where small ones come beside large ones, zeros would cost more bytes than they save syncs.
  for (int i = 0; i < 20; ++i) {
    append(3, 500);
    append(1, 20'000);
  }
  EXPECT_EQ(wal.files.prepared_bytes(), 0u);
  append(40, 500);
  EXPECT_EQ(wal.files.prepared_bytes(), 64u << 10) << "40 of them fit into what one of them has prepared";
  append(200, 500);
  EXPECT_LE(wal.files.prepared_bytes(), 240 * 600 + (128u << 10));
  EXPECT_GE(wal.files.prepared_bytes(), 128u << 10);
}

TEST(WalLogStore, AFullDiskAtTheStartIsAnErrorAndNothingIsLeft) {
  WalFixture wal;
  wal.files.set_capacity(1000);
  EXPECT_EQ(wal.open().reason(), "NO_SPACE");
  EXPECT_TRUE(wal.files.list(kTestDirectory)->empty());
}

TEST(WalLogStore, ADamagedEntryIsNoticedWhenItIsReadBack) {
  WalFixture wal;
  wal.options.cache_bytes_max = 0;
  wal.open_or_fail();
  wal.append_and_sync(make_entries(1, 1, 1, 100));
  wal.files.flip_bit(segment_path(1), wal::kSegmentHeaderBytes + wal::kFrameHeaderBytes + 60);
  const auto entries = wal.store->read(kTestGroup, LogIndex(1), LogIndex(2), 1000);
  ASSERT_FALSE(entries);
  EXPECT_EQ(entries.error().reason(), "WAL_DAMAGED");
  EXPECT_EQ(wal.store->sync().reason(), "LOG_STORE_FAILED");
}

TEST(WalLogStore, OptionsOutOfBoundsAreRefused) {
  WalFixture wal;
  wal.options.segment_bytes = 100;
  EXPECT_EQ(wal.open().reason(), "WAL_OPTIONS");
  wal.options.segment_bytes = uint64_t{2} << 30;
  EXPECT_EQ(wal.open().reason(), "WAL_OPTIONS");
}

#ifdef UCCP_PLANTED_BUGS
TEST(WalLogStore, ThePlantedBugSkipFsyncLosesWhatWasSynced) {
  WalFixture wal;
  wal.open_or_fail();
  plant_bug("skip_fsync");
  wal.append_and_sync(make_entries(1, 1, 1));
  clear_planted_bugs();
  wal.files.crash_losing_unsynced();
  wal.open_or_fail();
  EXPECT_EQ(wal.store->load(kTestGroup)->last.index, LogIndex(0));
}
#endif

}  // namespace
}  // namespace uccp::storage
