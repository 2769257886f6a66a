// The two clocks. Only `runtime` implements them on real time, only `sim` on virtual time.
#pragma once

#include <cstdint>

namespace uccp {

// Microseconds of a clock that never goes back and runs on through suspend. Its zero means nothing.
struct BootTime {
  int64_t us = 0;
  constexpr auto operator<=>(const BootTime&) const = default;
  constexpr BootTime plus_ms(int64_t ms) const { return {us + ms * 1000}; }
  constexpr int64_t ms_since(BootTime earlier) const { return (us - earlier.us) / 1000; }
};

// Microseconds since 1970-01-01 UTC. May jump. For display and cron only, never for deadlines.
struct WallTime {
  int64_t us = 0;
  constexpr auto operator<=>(const WallTime&) const = default;
};

class Clock {
 public:
  virtual ~Clock() = default;
  virtual BootTime boot() const = 0;
  virtual WallTime wall() const = 0;
};

}  // namespace uccp
