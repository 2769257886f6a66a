#include "server/clock_watch.h"

#include <cstdlib>

#include "base/log.h"

namespace uccp::server {
namespace {

constexpr int64_t kLookMs = 500;
constexpr int64_t kJumpMs = 5'000;

}  // namespace

ClockWatch::ClockWatch(Executor& executor, const Clock& clock, MetricsRegistry& metrics)
    : executor_(executor),
      clock_(clock),
      jumps_(metrics.counter("uccp_wall_clock_jumps_total", "Jumps of the wall clock by more than 5 s")),
      boot_(clock.boot()),
      wall_(clock.wall()) {}

void ClockWatch::start() { schedule(); }

void ClockWatch::schedule() {
  executor_.post_after(kLookMs, [this] {
    look();
    schedule();
  });
}

void ClockWatch::look() {
  const BootTime boot = clock_.boot();
  const WallTime wall = clock_.wall();
  const int64_t jump_ms = (wall.us - wall_.us) / 1000 - boot.ms_since(boot_);
  boot_ = boot;
  wall_ = wall;
  if (std::abs(jump_ms) <= kJumpMs) return;
  jumps_.add();
  log::warn("the wall clock jumped; leases, timeouts and order do not depend on it", {{"ms", jump_ms}});
}

}  // namespace uccp::server
