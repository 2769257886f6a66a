#include "storage/memory/memory_log_store.h"

#include "storage/conformance/log_store_conformance.h"

namespace uccp::storage {
namespace {

class MemoryHarness final : public LogStoreHarness {
 public:
  LogStore& store() override { return store_; }
  void crash() override { store_.crash(); }
  void restart() override { store_.crash(); }

 private:
  MemoryLogStore store_;
};

std::unique_ptr<LogStoreHarness> make_harness() { return std::make_unique<MemoryHarness>(); }

INSTANTIATE_TEST_SUITE_P(Memory, LogStoreConformance, testing::Values(under_test(&make_harness)));

}  // namespace
}  // namespace uccp::storage
