// How calls to instances went of late, as callers report it, and what that means for their circuits. Pure but for the
// clock that is handed in; one thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>

#include "base/clock.h"
#include "machine/domain.h"
#include "uccp/v1/discovery.pb.h"

namespace uccp::discovery {

inline constexpr int64_t kOutcomeWindowMs = 10'000;
inline constexpr uint64_t kOutcomeCallsMin = 20;
inline constexpr uint64_t kTrialSuccesses = 5;

class CallOutcomes {
 public:
  struct Report {
    machine::LeaseId lease = 0;  // identifies the instance
    uint64_t successes = 0;
    uint64_t failures = 0;
  };
  // The state that the circuit should go to from `now_is`; nullopt: stays.
  std::optional<v1::CircuitState> add(const Report& report, v1::CircuitState now_is, BootTime now);
  size_t size() const { return windows_.size(); }

 private:
  static constexpr size_t kBuckets = 10;
  struct Bucket {
    int64_t number = -1;
    uint64_t successes = 0, failures = 0;
  };
  using Window = std::array<Bucket, kBuckets>;
  void sweep(int64_t number);

  std::map<machine::LeaseId, Window> windows_;
  size_t sweep_at_ = 1024;
};

}  // namespace uccp::discovery
