#include "call/pipeline/rate_limit.h"

#include <algorithm>
#include <cmath>

namespace uccp::call {

Status RateLimiter::take(const std::string& principal, const std::string& quota_class, double cost, BootTime now) {
  const auto limit = limits_.find(quota_class);
  if (limit == limits_.end()) return Status::ok();
  const RateLimit& rate = limit->second;
  std::lock_guard lock(mutex_);
  if (buckets_.size() >= kBucketsMax) {
    // A full bucket carries no information: dropping it changes nothing.
    std::erase_if(buckets_, [&](const auto& entry) {
      return entry.second.tokens + (now.us - entry.second.filled.us) / 1e6 * rate.per_second >= rate.burst;
    });
  }
  auto [it, added] = buckets_.try_emplace({principal, quota_class}, Bucket{rate.burst, now});
  Bucket& bucket = it->second;
  bucket.tokens = std::min(rate.burst, bucket.tokens + (now.us - bucket.filled.us) / 1e6 * rate.per_second);
  bucket.filled = now;
  if (bucket.tokens >= cost) {
    bucket.tokens -= cost;
    return Status::ok();
  }
  const double wait_ms = std::ceil((cost - bucket.tokens) / rate.per_second * 1000);
  return Status(Code::kExhausted, "RATE_LIMITED",
                "more than " + std::to_string(static_cast<int64_t>(rate.per_second)) + " " + quota_class +
                    " calls a second by " + principal + "; slow down")
      .with_retry_after_ms(static_cast<uint32_t>(std::min(wait_ms, 60'000.0)));
}

}  // namespace uccp::call
