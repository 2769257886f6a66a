#include "services/discovery/call_outcomes.h"

#include <algorithm>

namespace uccp::discovery {

std::optional<v1::CircuitState> CallOutcomes::add(const Report& report, v1::CircuitState now_is, BootTime now) {
  if (now_is == v1::CIRCUIT_STATE_OPEN) {
    windows_.erase(report.lease);
    return std::nullopt;
  }
  const int64_t number = now.us / 1000 / (kOutcomeWindowMs / static_cast<int64_t>(kBuckets));
  if (windows_.size() >= sweep_at_) sweep(number);
  Window& window = windows_[report.lease];
  Bucket& bucket = window[static_cast<size_t>(number) % kBuckets];
  if (bucket.number != number) bucket = {number, 0, 0};
  bucket.successes += report.successes;
  bucket.failures += report.failures;
  uint64_t successes = 0, failures = 0;
  for (const Bucket& b : window) {
    if (b.number <= number - static_cast<int64_t>(kBuckets)) continue;
    successes += b.successes;
    failures += b.failures;
  }
  std::optional<v1::CircuitState> next;
  if (now_is == v1::CIRCUIT_STATE_HALF_OPEN) {
    if (report.failures > 0) next = v1::CIRCUIT_STATE_OPEN;
    else if (successes >= kTrialSuccesses) next = v1::CIRCUIT_STATE_CLOSED;
  } else if (successes + failures >= kOutcomeCallsMin && failures >= successes) {
    next = v1::CIRCUIT_STATE_OPEN;
  }
  if (next) windows_.erase(report.lease);
  return next;
}

void CallOutcomes::sweep(int64_t number) {
  std::erase_if(windows_, [&](const auto& item) {
    return std::ranges::all_of(item.second,
                               [&](const Bucket& b) { return b.number <= number - static_cast<int64_t>(kBuckets); });
  });
  sweep_at_ = std::max<size_t>(1024, windows_.size() * 2);
}

}  // namespace uccp::discovery
