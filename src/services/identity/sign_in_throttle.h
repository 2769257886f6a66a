// Slows guessing of passwords by address, on this node; what is counted by user is in the replicated state.
//
// Each failure of an address beyond kFree doubles the time in which further attempts from there are refused unseen.
// A success changes nothing: whoever has one password could make room for guessing others. Callable from any thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "base/clock.h"

namespace uccp::identity {

class SignInThrottle {
 public:
  static constexpr uint32_t kFree = 20;
  static constexpr int64_t kMinMs = 1'000;
  static constexpr int64_t kMaxMs = 5 * 60 * 1000;
  static constexpr int64_t kForgetMs = 15 * 60 * 1000;
  static constexpr size_t kAddressesMax = 100'000;

  // Milliseconds until an attempt from there is looked at; 0: now.
  int64_t wait_ms(const std::string& address, BootTime now) {
    std::lock_guard lock(mutex_);
    const auto it = entries_.find(address);
    return it == entries_.end() ? 0 : std::max<int64_t>(0, it->second.until.ms_since(now));
  }

  void failed(const std::string& address, BootTime now) {
    std::lock_guard lock(mutex_);
    if (entries_.size() >= kAddressesMax) {
      std::erase_if(entries_, [&](const auto& entry) { return now.ms_since(entry.second.last) > kForgetMs; });
      if (entries_.size() >= kAddressesMax) return;
    }
    Entry& entry = entries_[address];
    if (entry.failures > 0 && now.ms_since(entry.last) > kForgetMs) entry = {};
    entry.last = now;
    if (++entry.failures <= kFree) return;
    const uint32_t doublings = std::min<uint32_t>(entry.failures - kFree - 1, 20);
    entry.until = now.plus_ms(std::min(kMaxMs, kMinMs << doublings));
  }

 private:
  struct Entry {
    uint32_t failures = 0;
    BootTime last;
    BootTime until;
  };
  std::mutex mutex_;
  std::map<std::string, Entry> entries_;
};

}  // namespace uccp::identity
