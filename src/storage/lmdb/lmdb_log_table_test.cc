#include "storage/lmdb/lmdb_log_table.h"

#include "storage/conformance/log_store_conformance.h"
#include "storage/table_log_store.h"
#include "storage/test_directory.h"

namespace uccp::storage {
namespace {

const StoreIdentity kIdentity{"test", NodeId(3), Incarnation(7)};

Result<std::unique_ptr<TableLogStore>> open_log(const std::string& directory, LmdbLogTable::Options options = {},
                                                const StoreIdentity& identity = kIdentity) {
  UCCP_TRY(auto table, LmdbLogTable::open(directory, options));
  return TableLogStore::open(std::move(table), directory, identity, {});
}

class LmdbLogHarness final : public LogStoreHarness {
 public:
  LmdbLogHarness() { reopen(); }
  LogStore& store() override { return *store_; }
  void crash() override { reopen(); }
  void restart() override {
    ASSERT_TRUE(store_->close().is_ok());
    reopen();
  }

 private:
  void reopen() {
    store_.reset();
    auto store = open_log(directory_.path());
    ASSERT_TRUE(store) << store.error().to_string();
    store_ = std::move(*store);
  }

  TestDirectory directory_;
  std::unique_ptr<TableLogStore> store_;
};

std::unique_ptr<LogStoreHarness> make_harness() { return std::make_unique<LmdbLogHarness>(); }

INSTANTIATE_TEST_SUITE_P(LmdbLog, LogStoreConformance, testing::Values(under_test(&make_harness)));

void write_entries(const std::string& directory) {
  auto store = open_log(directory);
  ASSERT_TRUE(store) << store.error().to_string();
  ASSERT_TRUE((*store)->append(GroupId(1), make_entries(1, 50, 1)).is_ok());
  ASSERT_TRUE((*store)->close().is_ok());
}

TEST(LmdbLog, ADamagedEntryIsRefused) {
  TestDirectory directory;
  write_entries(directory.path());
  ASSERT_TRUE(damage_file(directory.path() + "/data.mdb", "20@1"));
  auto store = open_log(directory.path());
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().reason(), "LOG_DAMAGED") << store.error().to_string();
  EXPECT_NE(store.error().message().find("entry 20 of group 1"), std::string::npos) << store.error().to_string();
}

TEST(LmdbLog, AFileThatIsNoTableIsRefused) {
  TestDirectory directory;
  std::ofstream(directory.path() + "/data.mdb") << std::string(10'000, 'x');
  auto store = open_log(directory.path());
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().reason(), "LOG_DAMAGED") << store.error().to_string();
}

TEST(LmdbLog, ALogOfAnotherNodeIsRefused) {
  TestDirectory directory;
  write_entries(directory.path());
  auto store = open_log(directory.path(), {}, {"test", NodeId(3), Incarnation(8)});
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().reason(), "LOG_OF_ANOTHER_NODE");
}

TEST(LmdbLog, AFullTableRefusesASyncAndStaysUsable) {
  TestDirectory directory;
  auto opened = open_log(directory.path(), {.map_bytes = 256 << 10});
  ASSERT_TRUE(opened);
  LogStore& store = **opened;
  ASSERT_TRUE(store.append(GroupId(1), make_entries(1, 10, 1, 2000)).is_ok());
  ASSERT_TRUE(store.sync().is_ok());
  ASSERT_TRUE(store.append(GroupId(1), make_entries(11, 200, 1, 2000)).is_ok());
  EXPECT_EQ(store.sync().reason(), "NO_SPACE");
  // Whoever frees space goes on.
  ASSERT_TRUE(store.truncate_before(GroupId(1), {Term(1), LogIndex(190)}).is_ok());
  const Status synced = store.sync();
  ASSERT_TRUE(synced.is_ok()) << synced.to_string();
  EXPECT_EQ(*store.read(GroupId(1), LogIndex(191), LogIndex(201), UINT64_MAX), make_entries(191, 200, 1, 2000));
}

}  // namespace
}  // namespace uccp::storage
