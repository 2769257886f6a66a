// LatencyHistogram: counts of durations in buckets whose width grows with the value, as HdrHistogram does.
//
// Each power of two is cut into 64 buckets, so a percentile is at most 1.6 % above the true value. Fixed size, no
// allocation. Thread: one at a time.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace uccp::bench {

class LatencyHistogram {
 public:
  void record(int64_t ns) {
    const uint64_t value = ns < 0 ? 0 : static_cast<uint64_t>(ns);
    ++counts_[bucket_of(value)];
    ++count_;
    max_ = std::max(max_, value);
  }

  uint64_t count() const { return count_; }
  double max_ms() const { return static_cast<double>(max_) / 1e6; }

  // The upper edge of the bucket that holds the p-th part (0 to 1) of all values; 0 if there are none.
  double percentile_ms(double p) const {
    if (count_ == 0) return 0;
    const auto wanted = std::max<uint64_t>(1, static_cast<uint64_t>(p * static_cast<double>(count_) + 0.5));
    uint64_t seen = 0;
    for (size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen >= wanted) return static_cast<double>(std::min(upper_edge(i), max_)) / 1e6;
    }
    return max_ms();
  }

 private:
  static constexpr unsigned kBits = 6;  // 64 buckets a power of two
  static constexpr size_t kBuckets = (64 - kBits + 1) << kBits;

  static size_t bucket_of(uint64_t value) {
    if (value < (1u << kBits)) return value;
    const unsigned shift = static_cast<unsigned>(std::bit_width(value)) - 1 - kBits;
    return ((shift + 1) << kBits) + ((value >> shift) & ((1u << kBits) - 1));
  }
  static uint64_t upper_edge(size_t bucket) {
    const size_t power = bucket >> kBits;
    if (power == 0) return bucket;
    const uint64_t mantissa = (bucket & ((1u << kBits) - 1)) + (1u << kBits) + 1;
    return (mantissa << (power - 1)) - 1;
  }

  std::array<uint64_t, kBuckets> counts_{};
  uint64_t count_ = 0;
  uint64_t max_ = 0;
};

}  // namespace uccp::bench
