// The rules that every LogStore keeps, as tests. A test program of an implementation writes
//
//   INSTANTIATE_TEST_SUITE_P(Memory, LogStoreConformance, testing::Values(under_test(&make_harness)));
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "storage/log_store.h"

namespace uccp::storage {

// One LogStore under test, with what the tests need to do to it from outside.
class LogStoreHarness {
 public:
  virtual ~LogStoreHarness() = default;
  virtual LogStore& store() = 0;
  // Loses everything that was not synced, and opens the store again.
  virtual void crash() = 0;
  // Stops in an orderly way after a sync, and opens the store again.
  virtual void restart() = 0;
};

using LogStoreHarnessFactory = std::unique_ptr<LogStoreHarness> (*)();

// Returns its argument. Naming it makes the linker take the tests out of the library.
LogStoreHarnessFactory under_test(LogStoreHarnessFactory factory);

class LogStoreConformance : public testing::TestWithParam<LogStoreHarnessFactory> {
 protected:
  void SetUp() override;
  LogStore& store() { return harness_->store(); }

  std::unique_ptr<LogStoreHarness> harness_;
};

// Entries first to last of one term. The data tells index and term, and is `size` bytes long.
std::vector<Entry> make_entries(uint64_t first, uint64_t last, uint64_t term, size_t size = 20);

// Everything that can be read of a store, as text, one line a group: for comparing two stores.
std::string dump(LogStore& store);

// Does one random operation that LogStore allows, other than sync, to each of the stores, which must have equal
// content. Returns the first error.
Status random_operation(Random& random, const std::vector<LogStore*>& stores);

}  // namespace uccp::storage
