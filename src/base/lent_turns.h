// A loop that lends its turns: while its own thread sleeps, another thread does what it has posted there itself. A
// hand-over between two threads and back costs more than a fast disk needs for a sync; a thread that would only wait
// for the answer saves both.
#pragma once

namespace uccp {

class LentTurns {
 public:
  virtual ~LentTurns() = default;
  // From here to take() of the same thread, what this thread posts to the loop wakes nobody, unless it becomes much. No
  // task of the loop may be waited for meanwhile.
  virtual void hold() = 0;
  // Runs what waits on the loop, in this thread and as its thread would, until nothing is left or a bound is reached;
  // leaves it to whoever is at work there or was woken for it. Requires: not called from a task of the loop.
  virtual void take() = 0;
};

}  // namespace uccp
