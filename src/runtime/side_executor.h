// Work beside a loop that may block, such as writing to the disk: done by a thread of its own, or by the loop itself
// when that has nothing else to do and the work has been short of late.
//
// Two hand-overs between threads cost as much as a fast disk needs for a sync; a loop that would only sleep meanwhile
// saves them. When there is anything else to do, or the disk is slow, the work goes to the thread. Before the loop does
// it, it lets kTurnsBefore turns pass: what the same turn said to peers is handed to their connections in the first one
// and written at the beginning of the second, so that they work at the same time.
//
// Invariants: tasks run in the order in which they were posted, one at a time, and never inside post(). Callable from
// any thread.
#pragma once

#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "runtime/loop.h"

namespace uccp::runtime {

class SideExecutor final : public Executor {
 public:
  static constexpr int kTurnsBefore = 2;
  // A task that takes longer has no place on the loop, and neither have the next ones until this many were short again.
  static constexpr int64_t kShortUs = 1'000;
  static constexpr int kShortTasksMin = 32;

  // All must outlive the executor, which must outlive the tasks of both. `may_block`, asked in a turn of the loop:
  // whether the loop may be held up by a disk that hangs; empty: always.
  SideExecutor(Loop& loop, Loop& thread, const Clock& clock, std::function<bool()> may_block = {})
      : loop_(loop), thread_(thread), clock_(clock), may_block_(std::move(may_block)) {}

  void post(Task task) override;
  TimerId post_after(int64_t delay_ms, Task task) override;
  void cancel(TimerId timer) override { thread_.cancel(timer); }
  bool is_current() const override;

 private:
  // Who is about to run what is queued, or at it.
  enum class Holder : uint8_t { kNobody, kLoop, kThread };

  void wait_on_loop(int turns_left);
  void work_on_thread();
  void hand_to_thread(std::unique_lock<std::mutex>& lock);
  void run(Task task);

  Loop& loop_;
  Loop& thread_;
  const Clock& clock_;
  const std::function<bool()> may_block_;
  mutable std::mutex mutex_;
  std::deque<Task> queue_;
  Holder holder_ = Holder::kNobody;
  std::thread::id running_;
  int short_tasks_ = 0;  // in a row, up to kShortTasksMin
};

}  // namespace uccp::runtime
