#include "runtime/side_executor.h"

#include <algorithm>
#include <utility>

namespace uccp::runtime {

void SideExecutor::post(Task task) {
  std::unique_lock lock(mutex_);
  queue_.push_back(std::move(task));
  if (holder_ != Holder::kNobody) return;
  if (short_tasks_ < kShortTasksMin || !loop_.is_current()) return hand_to_thread(lock);
  if (may_block_ && !may_block_()) return hand_to_thread(lock);
  holder_ = Holder::kLoop;
  loop_.post([this] { wait_on_loop(kTurnsBefore - 1); });
}

Executor::TimerId SideExecutor::post_after(int64_t delay_ms, Task task) {
  return thread_.post_after(delay_ms, [this, task = std::move(task)]() mutable { post(std::move(task)); });
}

bool SideExecutor::is_current() const {
  std::lock_guard lock(mutex_);
  return running_ == std::this_thread::get_id();
}

void SideExecutor::wait_on_loop(int turns_left) {
  std::unique_lock lock(mutex_);
  if (!loop_.only_task()) return hand_to_thread(lock);
  if (turns_left > 0) return loop_.post([this, turns_left] { wait_on_loop(turns_left - 1); });
  Task task = std::move(queue_.front());
  queue_.pop_front();
  lock.unlock();
  run(std::move(task));
  lock.lock();
  if (queue_.empty()) holder_ = Holder::kNobody;
  else hand_to_thread(lock);
}

// The thread takes the lock first thing.
void SideExecutor::hand_to_thread(std::unique_lock<std::mutex>& lock) {
  holder_ = Holder::kThread;
  lock.unlock();
  thread_.post([this] { work_on_thread(); });
}

void SideExecutor::work_on_thread() {
  std::unique_lock lock(mutex_);
  while (!queue_.empty()) {
    Task task = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    run(std::move(task));
    lock.lock();
  }
  holder_ = Holder::kNobody;
}

void SideExecutor::run(Task task) {
  {
    std::lock_guard lock(mutex_);
    running_ = std::this_thread::get_id();
  }
  const BootTime begin = clock_.boot();
  task();
  task = nullptr;
  const bool is_short = clock_.boot().us - begin.us <= kShortUs;
  std::lock_guard lock(mutex_);
  running_ = {};
  short_tasks_ = is_short ? std::min(short_tasks_ + 1, kShortTasksMin) : 0;
}

}  // namespace uccp::runtime
