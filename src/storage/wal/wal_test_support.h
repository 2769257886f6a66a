// What the tests of the write-ahead log share.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/check.h"
#include "sim/sim_file_system.h"
#include "storage/conformance/log_store_conformance.h"
#include "storage/wal/wal_log_store.h"

namespace uccp::storage {

inline const StoreIdentity kTestIdentity{"test-cluster", NodeId(3), Incarnation(0x0123456789abcdef)};
inline const std::string kTestDirectory = "/wal";
inline constexpr GroupId kTestGroup{1};

// Segments so small that every test fills several.
inline WalLogStore::Options small_options() {
  WalLogStore::Options options;
  options.segment_bytes = 8 << 10;
  options.cache_bytes_max = 4 << 10;
  options.moved_bytes_max = 2 << 10;
  options.read_bytes = 1 << 10;
  return options;
}

inline std::string segment_path(uint64_t sequence) { return kTestDirectory + "/" + wal::segment_name(sequence); }

// A write-ahead log on a simulated disk.
class WalFixture {
 public:
  explicit WalFixture(WalLogStore::Options options = small_options()) : options(options) {
    EXPECT_TRUE(files.make_directories(kTestDirectory).is_ok());
  }

  Status open() {
    store.reset();
    auto opened = WalLogStore::open(files, kTestDirectory, kTestIdentity, options, report);
    if (!opened) return opened.error();
    store = std::move(*opened);
    return {};
  }
  void open_or_fail() {
    const Status opened = open();
    // A test without its log cannot even fail in good order.
    UCCP_CHECK(opened.is_ok(), opened.to_string());
  }
  void append_and_sync(const std::vector<Entry>& entries, GroupId group = kTestGroup) {
    ASSERT_TRUE(store->append(group, entries).is_ok());
    const Status synced = store->sync();
    ASSERT_TRUE(synced.is_ok()) << synced.to_string();
  }

  sim::SimFileSystem files;
  WalLogStore::Options options;
  RecoveryReport report;
  std::unique_ptr<WalLogStore> store;
};

}  // namespace uccp::storage
