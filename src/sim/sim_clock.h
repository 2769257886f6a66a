// The clocks of one simulated node, derived from the virtual time of the simulation.
//
// The boot clock runs at its own rate; the wall clock follows it from a settable moment on, so it drifts as well.
#pragma once

#include "base/check.h"
#include "base/clock.h"

namespace uccp::sim {

// Microseconds since the simulation began, the same for all nodes. Only the scheduler advances it.
struct VirtualTime {
  int64_t us = 0;
};

class SimClock final : public Clock {
 public:
  // `time` must outlive the clock. Boot time starts at `boot`, wall time at `wall`.
  explicit SimClock(const VirtualTime& time, BootTime boot = {1'000'000}, WallTime wall = {1'700'000'000'000'000})
      : time_(time), anchor_us_(time.us), boot_(boot), wall_offset_us_(wall.us - boot.us) {}

  BootTime boot() const override { return {boot_.us + elapsed(time_.us - anchor_us_)}; }
  WallTime wall() const override { return {boot().us + wall_offset_us_}; }

  // Parts per million that the node's clocks run fast (negative: slow) from now on. Requires |ppm| < 1,000,000.
  void set_drift_ppm(int64_t ppm) {
    UCCP_CHECK(ppm > -1'000'000 && ppm < 1'000'000, "a clock runs forward, at most twice as fast as time");
    boot_ = boot();
    anchor_us_ = time_.us;
    drift_ppm_ = ppm;
  }
  // The boot clock never goes back. Setting it leaves the wall clock alone.
  void set_boot(BootTime boot) {
    UCCP_CHECK(boot >= this->boot(), "the boot clock does not go back");
    const WallTime wall_before = wall();
    boot_ = boot;
    anchor_us_ = time_.us;
    set_wall(wall_before);
  }
  void set_wall(WallTime wall) { wall_offset_us_ = wall.us - boot().us; }

  // Virtual microseconds until the boot clock has advanced by `boot_us`, rounded up.
  int64_t virtual_us_for(int64_t boot_us) const {
    const int64_t rate = 1'000'000 + drift_ppm_;
    return static_cast<int64_t>((static_cast<__int128>(boot_us) * 1'000'000 + rate - 1) / rate);
  }

 private:
  int64_t elapsed(int64_t virtual_us) const {
    return static_cast<int64_t>(static_cast<__int128>(virtual_us) * (1'000'000 + drift_ppm_) / 1'000'000);
  }

  const VirtualTime& time_;
  int64_t anchor_us_;
  BootTime boot_;
  int64_t wall_offset_us_;
  int64_t drift_ppm_ = 0;
};

}  // namespace uccp::sim
