#include "runtime/thread_pool.h"

#include <pthread.h>

#include <utility>

#include "base/check.h"

namespace uccp::runtime {

ThreadPool::ThreadPool(ThreadPoolOptions options) : options_(std::move(options)) {
  UCCP_CHECK(options_.threads > 0, "a pool has threads");
  for (size_t i = 0; i < options_.threads; ++i) {
    threads_.emplace_back([this, name = options_.name.substr(0, 15)] {
      pthread_setname_np(pthread_self(), name.c_str());
      work();
    });
  }
}

ThreadPool::~ThreadPool() { stop(); }

Status ThreadPool::post(Task task) {
  std::lock_guard lock(mutex_);
  if (closed_) return Status(Code::kUnavailable, "POOL_STOPPED", "thread pool " + options_.name + " is stopped");
  if (queue_.size() >= options_.queue_tasks_max) {
    return Status(Code::kExhausted, "POOL_QUEUE_FULL",
                  "thread pool " + options_.name + " has " + std::to_string(queue_.size()) +
                      " tasks waiting, its limit; retry later");
  }
  queue_.push_back(std::move(task));
  wake_.notify_one();
  return Status::ok();
}

void ThreadPool::stop() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    wake_.notify_all();
  }
  std::lock_guard lock(join_mutex_);
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

size_t ThreadPool::queued() const {
  std::lock_guard lock(mutex_);
  return queue_.size();
}

void ThreadPool::work() {
  while (true) {
    Task task;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return closed_ || !queue_.empty(); });
      if (queue_.empty()) return;
      task = std::move(queue_.front());
      queue_.pop_front();
    }
    task();
  }
}

}  // namespace uccp::runtime
