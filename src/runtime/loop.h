// The real Executor: one thread that takes tasks from a queue and from timers on the boot clock, and serves sockets if
// asked to.
//
// Invariants: tasks of one poster run in order; no task runs inside post(); a task runs at most once; after close() no
// task is accepted, and what was accepted before runs before the thread ends. Timers that are not due at close() are
// dropped. The queue has no limit of its own: whoever posts on behalf of clients bounds what it has in flight.
// Thread: tasks and the stall hook run on the loop's thread; everything else is callable from any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/executor.h"

namespace boost::asio {
class io_context;
}

namespace uccp::runtime {

struct LoopOptions {
  // A task that took longer than this is a stall.
  int64_t stall_ms = 500;
  // Called on the loop's thread after a stall, with the time that the task took: leases are extended by it.
  std::move_only_function<void(int64_t task_ms)> on_stall;
  // The loop waits in an io_context, whose handlers run on its thread between turns of the queue.
  bool sockets = false;
};

class Loop final : public Executor {
 public:
  // `clock` must outlive the loop.
  explicit Loop(const Clock& clock, LoopOptions options = {});
  // Stops the loop if that was not done.
  ~Loop() override;
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Starts the thread, named `name` (15 characters are kept). Requires: neither start() nor run() was called before.
  void start(const std::string& name);
  // Works in the calling thread until close() was called and the queue is drained. Requires as start().
  void run();
  // Refuses posts from now on; does not wait. A refused task is destroyed in the thread that posted it. Idempotent.
  void close();
  // close(), then waits until accepted tasks have run and the thread has ended. On the loop's own thread, or for a loop
  // inside run(), it does not wait. Idempotent.
  void stop();

  void post(Task task) override;
  // 0 if the loop is closed.
  TimerId post_after(int64_t delay_ms, Task task) override;
  // Called from another thread, the task may be running or about to run.
  void cancel(TimerId timer) override;
  bool is_current() const override;

  // Where sockets that belong to this loop live. What is pending when the loop ends is destroyed with the loop.
  // Requires `sockets`.
  boost::asio::io_context& io();

  // On the loop's thread: no other task waits to run but the one that asks, timers and sockets apart.
  bool only_task() const { return queued() <= 1; }
  // Tasks that wait to run, timers excluded. For metrics.
  size_t queued() const;
  // Stalls since the start. For metrics.
  uint64_t stalls() const;

 private:
  using TimerKey = std::pair<int64_t, TimerId>;  // due on the boot clock (us), id

  void work();
  void wake(std::unique_lock<std::mutex>& lock);
  void sleep(std::unique_lock<std::mutex>& lock, int64_t us);
  void serve_sockets();
  bool take_batch(std::vector<Task>& batch);
  bool take_due_timer(int64_t now_us, Task& task);
  void run_task(Task& task);
  void note_time(BootTime begin);

  const Clock& clock_;
  LoopOptions options_;
  struct Sockets;
  const std::unique_ptr<Sockets> sockets_;  // null without sockets

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool asleep_ = false;            // and not told to wake up yet
  std::atomic<size_t> wakers_{0};  // that are about to tell it
  std::vector<Task> queue_;
  std::map<TimerKey, Task> timers_;
  std::map<TimerId, int64_t> timer_due_;
  TimerId next_timer_ = 1;
  std::atomic<size_t> batch_left_{0};
  std::atomic<uint64_t> stalls_{0};
  bool started_ = false;
  bool closed_ = false;

  std::mutex join_mutex_;
  std::thread thread_;
};

}  // namespace uccp::runtime
