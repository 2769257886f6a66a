// Notices when the wall clock jumps. Nothing depends on it but what people read, cron, and certificates and tokens; so
// a jump is no fault, but whoever reads times and logs has to know of it.
//
// A jump is a difference of more than 5 s between what the wall clock and the boot clock measured since the last look.
// Thread: the executor's, until that is stopped; start() on any.
#pragma once

#include <compare>

#include "base/clock.h"
#include "base/executor.h"
#include "base/metrics.h"

namespace uccp::server {

class ClockWatch {
 public:
  // Everything must live until `executor` is stopped.
  ClockWatch(Executor& executor, const Clock& clock, MetricsRegistry& metrics);

  void start();
  // Looks now. Public for tests.
  void look();

 private:
  void schedule();

  Executor& executor_;
  const Clock& clock_;
  Counter& jumps_;
  BootTime boot_;
  WallTime wall_;
};

}  // namespace uccp::server
