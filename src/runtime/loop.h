// The real Executor: one thread that takes tasks from a queue and from timers on the boot clock, and serves sockets if
// asked to.
//
// Invariants: tasks of one poster run in order; no task runs inside post(); a task runs at most once; after close() no
// task is accepted, and what was accepted before runs before the thread ends. Timers that are not due at close() are
// dropped. The queue has no limit of its own: whoever posts on behalf of clients bounds what it has in flight.
// It lends its turns: a thread that posts may run the tasks itself while the loop's thread sleeps. Tasks still run one
// at a time, in order, and see what those before them did.
// Thread: tasks and the stall hook run on the loop's thread, or on one that took turns; handlers of sockets always on
// the loop's; everything else is callable from any thread.
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
#include "base/lent_turns.h"

namespace boost::asio {
class io_context;
}

namespace uccp::runtime {

struct LoopOptions {
  // A task that took longer than this is a stall.
  int64_t stall_ms = 500;
  // Called where the task ran after a stall, with the time that the task took: leases are extended by it.
  std::move_only_function<void(int64_t task_ms)> on_stall;
  // The loop waits in an io_context, whose handlers run on its thread between turns of the queue, or while that lends
  // one: see Turn.
  bool sockets = false;
};

class Loop final : public Executor, public LentTurns {
 public:
  // With more tasks than this the thread of the loop is woken all the same: it works beside the one that posts.
  static constexpr size_t kTasksHeld = 2;
  // Bounds of what one take() does: a publish of one event takes eight turns.
  static constexpr int kTurnsLent = 32;
  static constexpr int64_t kLentUs = 2'000;

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

  void hold() override;
  void take() override;

  // For the time in which a handler of a socket touches what tasks touch: the thread of the loop may be out of a turn
  // in it, and another thread in one. Waits until that ends. On the loop's thread; may be nested.
  class Turn {
   public:
    explicit Turn(Loop& loop);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    Loop& loop_;
    const bool nested_;
  };

  // In the loop's own thread, where handlers of its sockets run, in a turn or not. is_current() is true in a lent turn,
  // too, where sockets must not be touched.
  bool in_own_thread() const;
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
  bool wait_for_work(std::unique_lock<std::mutex>& lock);
  void wait_for_turn(std::unique_lock<std::mutex>& lock);
  void run_turn(std::vector<Task>& batch);
  void wake_if_needed(std::unique_lock<std::mutex>& lock);
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
  bool has_turn_ = false;          // of the loop's thread: it is the one who has it
  bool turn_taken_ = false;        // somebody runs tasks
  bool woken_ = false;             // for what is in the queue the thread was woken, or somebody at work will see it
  bool turn_wanted_ = false;       // the loop's thread waits for the end of a turn
  int64_t sleeps_until_us_ = 0;    // on the boot clock; 0: it does not sleep
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
