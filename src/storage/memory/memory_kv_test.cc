#include "storage/memory/memory_kv.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "sim/sim_file_system.h"
#include "storage/conformance/kv_conformance.h"

namespace uccp::storage {
namespace {

class MemoryHarness final : public KvHarness {
 public:
  Kv& kv() override { return kv_; }
  void crash() override { kv_.crash(); }
  std::string new_directory() override { return "/checkpoint" + std::to_string(++directories_); }
  Result<std::unique_ptr<Kv>> open_checkpoint(const std::string& directory) override {
    return MemoryKv::open(files_, directory);
  }

 private:
  sim::SimFileSystem files_;
  MemoryKv kv_{&files_};
  int directories_ = 0;
};

std::unique_ptr<KvHarness> make_harness() { return std::make_unique<MemoryHarness>(); }

INSTANTIATE_TEST_SUITE_P(Memory, KvConformance, testing::Values(under_test(&make_harness)));

KvBatch put(const std::string& key, const std::string& value) {
  KvBatch batch;
  batch.put(key, value);
  return batch;
}

TEST(MemoryKv, ACrashRevertsExactlyToTheLastFlush) {
  MemoryKv kv;
  ASSERT_TRUE(kv.write(put("a", "1")).is_ok());
  ASSERT_TRUE(kv.flush().is_ok());
  ASSERT_TRUE(kv.write(put("a", "2")).is_ok());
  auto seen = kv.view();
  kv.crash();
  EXPECT_EQ(**kv.view()->get("a"), "1");
  EXPECT_EQ(**seen->get("a"), "2");
  EXPECT_EQ(kv.size_bytes(), 2u);
}

TEST(MemoryKv, ACheckpointIsDurableAsAWhole) {
  sim::SimFileSystem files;
  MemoryKv kv(&files);
  ASSERT_TRUE(kv.write(put("a", "1")).is_ok());
  ASSERT_TRUE(kv.checkpoint("/copy").is_ok());
  files.crash_losing_unsynced();
  auto copy = MemoryKv::open(files, "/copy");
  ASSERT_TRUE(copy);
  EXPECT_EQ(**(*copy)->view()->get("a"), "1");
}

TEST(MemoryKv, ADamagedCheckpointIsRefused) {
  sim::SimFileSystem files;
  MemoryKv kv(&files);
  ASSERT_TRUE(kv.write(put("a", "1")).is_ok());
  ASSERT_TRUE(kv.checkpoint("/copy").is_ok());
  const uint64_t size = read_file(files, "/copy/memory.kv", 1000)->size();
  for (uint64_t at = 0; at < size; ++at) {
    files.flip_bit("/copy/memory.kv", at);
    EXPECT_EQ(MemoryKv::open(files, "/copy").error().code(), Code::kCorruption) << at;
    files.flip_bit("/copy/memory.kv", at);
  }
}

TEST(MemoryKv, TheCheckpointFormatStaysAsItWasReleased) {
  sim::SimFileSystem files;
  MemoryKv kv(&files);
  ASSERT_TRUE(kv.write(put("a", "1")).is_ok());
  ASSERT_TRUE(kv.write(put("bc", "")).is_ok());
  ASSERT_TRUE(kv.checkpoint("/copy").is_ok());
  EXPECT_EQ(to_hex(*read_file(files, "/copy/memory.kv", 1000)),
            "554343504d4b560a"
            "00000001"
            "0000000000000002"
            "01610131"
            "02626300"
            "e1f898f0");
}

TEST(MemoryKv, WithoutFilesThereAreNoCheckpoints) {
  MemoryKv kv;
  EXPECT_EQ(kv.checkpoint("/copy").code(), Code::kUnimplemented);
}

}  // namespace
}  // namespace uccp::storage
