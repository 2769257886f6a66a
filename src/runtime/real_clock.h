// The clocks of the machine: CLOCK_BOOTTIME and CLOCK_REALTIME.
//
// Tests make the wall clock jump: if the environment variable kWallOffsetVariable names a file of 8 bytes, that number
// of microseconds (in the byte order of the machine) is added, as it is at each look. Nothing else reads the wall
// clock. Callable from any thread; holds no state.
#pragma once

#include <compare>

#include "base/clock.h"

namespace uccp::runtime {

inline constexpr const char* kWallOffsetVariable = "UCCP_TEST_WALL_OFFSET";

class RealClock final : public Clock {
 public:
  BootTime boot() const override;
  WallTime wall() const override;
};

}  // namespace uccp::runtime
