// A queue of work that one thread at a time takes from, with timers. The loop of a node is one; so is its disk thread.
//
// Whoever owns state confines it to one executor; all others post to it. Tasks posted by one thread run in order.
#pragma once

#include <cstdint>
#include <functional>

#include "base/clock.h"

namespace uccp {

class Executor {
 public:
  using Task = std::move_only_function<void()>;
  // 0 is no timer.
  using TimerId = uint64_t;

  virtual ~Executor() = default;

  // Queues `task`. Callable from any thread; never runs it before returning.
  virtual void post(Task task) = 0;
  // Runs `task` on the executor when `delay_ms` have passed on its boot clock. Callable from any thread.
  virtual TimerId post_after(int64_t delay_ms, Task task) = 0;
  // After return on the executor's own thread the task will not run. Unknown and fired ids are ignored.
  virtual void cancel(TimerId timer) = 0;
  // True when called from a task of this executor.
  virtual bool is_current() const = 0;
};

}  // namespace uccp
