// Threads that carry work of other threads to gRPC, and the mark that tells a door's own threads.
//
// Starting a write costs gRPC a system call. A loop that answers a hundred calls in a turn must not pay it, so it leaves
// only a task here. Tasks of one key run in order, on one thread.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace uccp::doors {

// While one exists, the thread counts as a door's.
class OnDoorThread {
 public:
  OnDoorThread() { ++depth_; }
  ~OnDoorThread() { --depth_; }
  OnDoorThread(const OnDoorThread&) = delete;
  OnDoorThread& operator=(const OnDoorThread&) = delete;
  static bool is_current() { return depth_ > 0; }

 private:
  static thread_local int depth_;
};

class ReplyThreads {
 public:
  using Task = std::move_only_function<void()>;

  explicit ReplyThreads(size_t threads);
  ~ReplyThreads() { stop(); }

  bool empty() const { return workers_.empty(); }
  // Requires !empty(). Callers bound what they post: one task a call. After stop() tasks are dropped.
  void post(size_t key, Task task);
  // Runs what is queued and ends the threads. Not from a task. Idempotent.
  void stop();

 private:
  struct Worker {
    std::mutex mutex;
    std::condition_variable wake;
    std::vector<Task> queue;
    bool closed = false;
    std::thread thread;
  };
  static void work(Worker& worker);

  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace uccp::doors
