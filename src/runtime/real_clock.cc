#include "runtime/real_clock.h"

#include <time.h>

#include "base/check.h"

namespace uccp::runtime {
namespace {

int64_t read_us(clockid_t clock) {
  timespec now{};
  UCCP_CHECK(clock_gettime(clock, &now) == 0, "the kernel has this clock");
  return static_cast<int64_t>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000;
}

}  // namespace

BootTime RealClock::boot() const { return {read_us(CLOCK_BOOTTIME)}; }
WallTime RealClock::wall() const { return {read_us(CLOCK_REALTIME)}; }

}  // namespace uccp::runtime
