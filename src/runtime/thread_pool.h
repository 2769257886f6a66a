// Threads for work that blocks or burns CPU: disk calls, hashing, compression, waiting for a child.
//
// Invariants: at most `queue_tasks_max` tasks wait; an accepted task runs exactly once; tasks start in the order in
// which they were accepted but run side by side. Completions are the task's business: it posts them to an Executor.
// Thread: callable from any thread.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"

namespace uccp::runtime {

struct ThreadPoolOptions {
  std::string name = "pool";
  size_t threads = 2;
  size_t queue_tasks_max = 10'000;
};

class ThreadPool {
 public:
  using Task = std::move_only_function<void()>;

  explicit ThreadPool(ThreadPoolOptions options);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Queues `task`; never blocks and never runs it before returning. Errors: exhausted POOL_QUEUE_FULL; unavailable
  // POOL_STOPPED. A refused task is destroyed before return.
  Status post(Task task);
  // Refuses new tasks, runs those accepted, ends the threads. Requires: not called from a task. Idempotent.
  void stop();

  size_t queued() const;

 private:
  void work();

  const ThreadPoolOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> queue_;
  bool closed_ = false;
  std::mutex join_mutex_;
  std::vector<std::thread> threads_;
};

}  // namespace uccp::runtime
