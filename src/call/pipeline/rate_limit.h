// Token buckets by principal and quota class.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "base/status.h"

namespace uccp::call {

struct RateLimit {
  double per_second = 0;
  double burst = 0;
};

class RateLimiter {
 public:
  // Buckets of principals not seen for long are dropped beyond this number.
  static constexpr size_t kBucketsMax = 100'000;

  explicit RateLimiter(std::map<std::string, RateLimit> limits) : limits_(std::move(limits)) {}

  // Takes `cost` tokens. Errors: exhausted RATE_LIMITED with the time after which the tokens are there.
  Status take(const std::string& principal, const std::string& quota_class, double cost, BootTime now);

 private:
  struct Bucket {
    double tokens;
    BootTime filled;
  };
  const std::map<std::string, RateLimit> limits_;
  std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, Bucket> buckets_;
};

}  // namespace uccp::call
