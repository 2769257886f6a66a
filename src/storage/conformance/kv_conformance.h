// The rules that every Kv keeps, as tests. A test program of an implementation writes
//
//   INSTANTIATE_TEST_SUITE_P(Memory, KvConformance, testing::Values(under_test(&make_harness)));
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "storage/kv.h"

namespace uccp::storage {

// One Kv under test, with what the tests need to do to it from outside.
class KvHarness {
 public:
  virtual ~KvHarness() = default;
  virtual Kv& kv() = 0;
  // Loses what a crash may lose, and opens the Kv again. Views must be gone.
  virtual void crash() = 0;
  // A directory for a checkpoint that does not exist yet.
  virtual std::string new_directory() = 0;
  virtual Result<std::unique_ptr<Kv>> open_checkpoint(const std::string& directory) = 0;
};

using KvHarnessFactory = std::unique_ptr<KvHarness> (*)();

// Returns its argument. Naming it makes the linker take the tests out of the library.
KvHarnessFactory under_test(KvHarnessFactory factory);

class KvConformance : public testing::TestWithParam<KvHarnessFactory> {
 protected:
  void SetUp() override;

  Kv& kv() { return harness_->kv(); }
  void put(const std::string& key, const std::string& value);
  void erase(const std::string& key);
  // All pairs of a view as "key=value ".
  static std::string dump(const KvView& view);
  std::string dump() { return dump(*kv().view()); }

  std::unique_ptr<KvHarness> harness_;
};

}  // namespace uccp::storage
