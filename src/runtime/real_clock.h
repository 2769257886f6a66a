// The clocks of the machine: CLOCK_BOOTTIME and CLOCK_REALTIME.
//
// Callable from any thread; holds no state.
#pragma once

#include <compare>

#include "base/clock.h"

namespace uccp::runtime {

class RealClock final : public Clock {
 public:
  BootTime boot() const override;
  WallTime wall() const override;
};

}  // namespace uccp::runtime
