// The agent's loop: an Executor that also waits for descriptors, with epoll.
//
// Invariants: tasks of one poster run in order and never inside post(); a watcher is not called after unwatch() on the
// loop's thread. Each turn runs the tasks that are due, then at most kEventsPerTurn descriptors, so that neither
// starves the other. Thread: post, post_after, cancel and stop from any thread; everything else on the loop's thread or
// before run().
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"

namespace uccp::agent {

class Reactor final : public Executor {
 public:
  // `clock` must outlive the reactor.
  explicit Reactor(const Clock& clock);
  ~Reactor() override;
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  // Works in the calling thread until stop().
  void run();
  // run() in a thread of its own.
  void start();
  // Ends run() after the current turn, and waits for the thread of start().
  void stop();

  void post(Task task) override;
  TimerId post_after(int64_t delay_ms, Task task) override;
  void cancel(TimerId timer) override;
  bool is_current() const override;

  // Calls `ready` whenever `fd` is readable or hung up, until unwatch(fd). Requires: fd is not watched.
  void watch(int fd, std::function<void()> ready);
  // Unknown descriptors are ignored. Call it before closing fd.
  void unwatch(int fd);
  // Keeps the watch but stops, or goes on, calling it.
  void pause(int fd, bool paused);

 private:
  struct Watch {
    uint64_t id = 0;
    std::function<void()> ready;
  };
  static constexpr int kEventsPerTurn = 256;

  void turn();
  void wake();
  int wait_ms();
  void run_tasks();

  const Clock& clock_;
  int epoll_ = -1;
  int wake_ = -1;
  std::thread thread_;
  std::unordered_map<int, Watch> watches_;
  uint64_t next_watch_ = 1;

  std::mutex mutex_;
  std::vector<Task> queue_;
  std::map<std::pair<int64_t, TimerId>, Task> timers_;
  std::unordered_map<TimerId, int64_t> timer_due_;
  TimerId next_timer_ = 1;
  bool woken_ = false;
  bool stopped_ = false;
};

}  // namespace uccp::agent
