#include "node/disk.h"

#include <gtest/gtest.h>

#include "sim/sim_clock.h"
#include "sim/sim_executor.h"
#include "sim/sim_file_system.h"
#include "storage/memory/memory_kv.h"
#include "storage/wal/wal_log_store.h"

namespace uccp::node {
namespace {

constexpr GroupId kGroup{1};

struct Setting {
  std::unique_ptr<storage::WalLogStore> open() {
    EXPECT_TRUE(files.make_directories("/log").is_ok());
    storage::RecoveryReport report;
    return std::move(
        *storage::WalLogStore::open(files, "/log", {"c", NodeId(1), Incarnation(2)}, {.segment_bytes = 4096}, report));
  }
  Entry entry(uint64_t index) { return {Term(1), LogIndex(index), EntryKind::kCommand, std::string(500, 'x')}; }

  sim::SimScheduler scheduler;
  sim::SimClock clock{scheduler.time(), {1'000'000}};
  sim::SimExecutor loop{scheduler}, io{scheduler};
  sim::SimFileSystem files;
  std::unique_ptr<storage::WalLogStore> log = open();
  storage::MemoryKv kv;
  MetricsRegistry metrics;
  Status fatal;
  Disk disk{loop, io, io, *log, kv, clock, metrics, [this](Status why) { fatal = std::move(why); }};
};

// Dropping entries takes a frame of the log, for which there is no room: it waits for the next one.
TEST(Disk, AFlushOnAFullDiskDoesNotEndTheNode) {
  Setting s;
  uint64_t last = 0;
  s.files.set_capacity(s.files.used_bytes());
  Status written;
  while (written.is_ok()) {
    const Entry entry = s.entry(++last);
    ASSERT_TRUE(s.log->append(kGroup, {&entry, 1}).is_ok());
    written = s.log->sync();
    ASSERT_LT(last, 100u);
  }
  ASSERT_EQ(written.reason(), "NO_SPACE");
  bool done = false;
  s.disk.flush_and_compact(kGroup, {Term(1), LogIndex(last - 1)}, [&] { done = true; });
  s.scheduler.run_for_ms(100);
  EXPECT_TRUE(done);
  EXPECT_TRUE(s.fatal.is_ok()) << s.fatal.to_string();
  s.files.set_capacity(0);
  EXPECT_TRUE(s.log->sync().is_ok());
  EXPECT_EQ(s.log->load(kGroup)->start.index, LogIndex(last - 1));
}

TEST(Disk, AnyOtherErrorOfAFlushEndsIt) {
  Setting s;
  const Entry entry = s.entry(1);
  ASSERT_TRUE(s.log->append(kGroup, {&entry, 1}).is_ok());
  ASSERT_TRUE(s.log->sync().is_ok());
  s.files.fail_next_sync("/log");
  bool done = false;
  s.disk.flush_and_compact(kGroup, {Term(1), LogIndex(1)}, [&] { done = true; });
  s.scheduler.run_for_ms(100);
  EXPECT_FALSE(done);
  EXPECT_FALSE(s.fatal.is_ok());
}

}  // namespace
}  // namespace uccp::node
