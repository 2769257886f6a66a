#include "storage/rocksdb/rocks_log_table.h"

#include "storage/conformance/log_store_conformance.h"
#include "storage/table_log_store.h"
#include "storage/test_directory.h"

namespace uccp::storage {
namespace {

const StoreIdentity kIdentity{"test", NodeId(3), Incarnation(7)};

Result<std::unique_ptr<TableLogStore>> open_log(const std::string& directory,
                                                const StoreIdentity& identity = kIdentity) {
  UCCP_TRY(auto table, RocksLogTable::open(directory, {}));
  return TableLogStore::open(std::move(table), directory, identity, {});
}

class RocksLogHarness final : public LogStoreHarness {
 public:
  RocksLogHarness() { reopen(); }
  LogStore& store() override { return *store_; }
  void crash() override { reopen(); }
  void restart() override {
    ASSERT_TRUE(store_->close().is_ok());
    reopen();
  }

 private:
  void reopen() {
    store_.reset();
    auto store = open_log(directory_.path() + "/log");
    ASSERT_TRUE(store) << store.error().to_string();
    store_ = std::move(*store);
  }

  TestDirectory directory_;
  std::unique_ptr<TableLogStore> store_;
};

std::unique_ptr<LogStoreHarness> make_harness() { return std::make_unique<RocksLogHarness>(); }

INSTANTIATE_TEST_SUITE_P(RocksLog, LogStoreConformance, testing::Values(under_test(&make_harness)));

// Writes synced entries one at a time and leaves them in RocksDB's log. Returns that file.
std::filesystem::path write_entries(const std::string& directory) {
  auto store = open_log(directory);
  EXPECT_TRUE(store) << store.error().to_string();
  for (const Entry& entry : make_entries(1, 50, 1)) {
    EXPECT_TRUE((*store)->append(GroupId(1), {&entry, 1}).is_ok());
    EXPECT_TRUE((*store)->sync().is_ok());
  }
  for (const auto& file : std::filesystem::directory_iterator(directory)) {
    if (file.path().extension() == ".log") return file.path();
  }
  ADD_FAILURE() << "RocksDB has no log";
  return {};
}

TEST(RocksLog, ABatchThatACrashCutOffIsDroppedAndTheRestIsKept) {
  TestDirectory directory;
  const auto log = write_entries(directory.path() + "/log");
  std::filesystem::resize_file(log, std::filesystem::file_size(log) - 3);
  auto store = open_log(directory.path() + "/log");
  ASSERT_TRUE(store) << store.error().to_string();
  EXPECT_EQ((*store)->load(GroupId(1))->last.index, LogIndex(49));
}

TEST(RocksLog, DamageBeforeAcknowledgedEntriesIsRefused) {
  TestDirectory directory;
  ASSERT_TRUE(damage_file(write_entries(directory.path() + "/log"), "20@1"));
  auto store = open_log(directory.path() + "/log");
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().reason(), "LOG_DAMAGED") << store.error().to_string();
}

TEST(RocksLog, ALogOfAnotherNodeIsRefused) {
  TestDirectory directory;
  write_entries(directory.path() + "/log");
  for (const StoreIdentity& other :
       {StoreIdentity{"test", NodeId(4), Incarnation(7)}, StoreIdentity{"test", NodeId(3), Incarnation(8)},
        StoreIdentity{"prod", NodeId(3), Incarnation(7)}}) {
    auto store = open_log(directory.path() + "/log", other);
    ASSERT_FALSE(store);
    EXPECT_EQ(store.error().reason(), "LOG_OF_ANOTHER_NODE");
  }
}

}  // namespace
}  // namespace uccp::storage
