// How many calls of each tenant are at work, and whether several tenants call of late. Callable from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "call/call.h"

namespace uccp::call {

class TenantLoads {
 public:
  // Tenants that are known at most; then those of which nothing is at work are forgotten.
  static constexpr size_t kTenantsMax = 10'000;
  // Two tenants that called within this time call side by side.
  static constexpr int64_t kSideBySideMs = 30'000;

  std::shared_ptr<TenantLoad> of(const std::string& tenant);
  // A call of the tenant has come.
  void note(const TenantLoad& load, BootTime now) {
    const TenantLoad* const before = last_.exchange(&load, std::memory_order_relaxed);
    if (before != nullptr && before != &load) changed_us_.store(now.us, std::memory_order_relaxed);
  }
  // Others than the one that calls now have called of late.
  bool side_by_side(BootTime now) const {
    return now.us - changed_us_.load(std::memory_order_relaxed) < kSideBySideMs * 1000;
  }

 private:
  std::mutex mutex_;  // of what follows
  std::map<std::string, std::shared_ptr<TenantLoad>> tenants_;
  std::atomic<const TenantLoad*> last_{nullptr};  // only compared
  // When a call of one tenant last came behind one of another.
  std::atomic<int64_t> changed_us_{INT64_MIN / 2};
};

}  // namespace uccp::call
