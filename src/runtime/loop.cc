#include "runtime/loop.h"

#include <pthread.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <chrono>
#include <limits>

#include "base/check.h"
#include "base/log.h"

namespace uccp::runtime {
namespace {

thread_local const Loop* current_loop = nullptr;
thread_local const Loop* own_loop = nullptr;  // of the thread that it runs in
thread_local const Loop* held_loop = nullptr;

// The condition variable waits on a clock that stands still during suspend, so the boot clock is looked at this often
// while a timer is pending.
constexpr int64_t kTimerSleepUsMax = 1'000'000;
constexpr int64_t kForever = std::numeric_limits<int64_t>::max();
// Handlers in one turn, so that a peer that floods a socket does not keep tasks waiting.
constexpr int kHandlersPerTurn = 64;

}  // namespace

// Woken through an eventfd of its own: a post() to the io_context would interrupt it under the lock that it takes next.
struct Loop::Sockets {
  Sockets() : wakes(context, ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) { await_wake(); }
  void await_wake() {
    wakes.async_read_some(boost::asio::buffer(&count, sizeof count), [this](boost::system::error_code error, size_t) {
      if (!error) await_wake();
    });
  }

  boost::asio::io_context context{1};
  boost::asio::posix::stream_descriptor wakes;
  uint64_t count = 0;
};

Loop::Loop(const Clock& clock, LoopOptions options)
    : clock_(clock), options_(std::move(options)), sockets_(options_.sockets ? std::make_unique<Sockets>() : nullptr) {}

Loop::~Loop() {
  stop();
  while (wakers_.load() > 0) std::this_thread::yield();
}

void Loop::start(const std::string& name) {
  {
    std::lock_guard lock(mutex_);
    UCCP_CHECK(!started_, "a loop is started once");
    started_ = true;
  }
  std::lock_guard lock(join_mutex_);
  thread_ = std::thread([this, short_name = name.substr(0, 15)] {
    pthread_setname_np(pthread_self(), short_name.c_str());
    work();
  });
}

void Loop::run() {
  {
    std::lock_guard lock(mutex_);
    UCCP_CHECK(!started_, "a loop is started once");
    started_ = true;
  }
  work();
}

void Loop::close() {
  std::map<TimerKey, Task> dropped;  // destroyed outside the lock: a task's captures may call back into the loop
  std::unique_lock lock(mutex_);
  if (closed_) return;
  closed_ = true;
  const int64_t now_us = clock_.boot().us;
  for (auto timer = timers_.upper_bound({now_us, ~TimerId{0}}); timer != timers_.end();) {
    timer_due_.erase(timer->first.second);
    dropped.insert(timers_.extract(timer++));
  }
  wake(lock);
}

void Loop::stop() {
  close();
  if (is_current()) return;
  std::lock_guard lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

void Loop::post(Task task) {
  // The parameter outlives the lock, so a refused task is destroyed outside it.
  std::unique_lock lock(mutex_);
  if (closed_) return;
  queue_.push_back(std::move(task));
  // Whoever runs tasks looks at the queue before it leaves; who holds will take the turn, if it does not hold up more.
  const bool held = held_loop == this && queue_.size() <= kTasksHeld;
  if (woken_ || turn_taken_ || held) return;
  woken_ = true;
  wake(lock);
}

Loop::TimerId Loop::post_after(int64_t delay_ms, Task task) {
  const int64_t due_us = clock_.boot().plus_ms(std::max<int64_t>(delay_ms, 0)).us;
  std::unique_lock lock(mutex_);
  if (closed_) return 0;
  const TimerId id = next_timer_++;
  const auto added = timers_.emplace(TimerKey{due_us, id}, std::move(task)).first;
  timer_due_.emplace(id, due_us);
  if (added == timers_.begin() && !turn_taken_) wake(lock);
  return id;
}

void Loop::cancel(TimerId timer) {
  Task dropped;
  std::lock_guard lock(mutex_);
  const auto due = timer_due_.find(timer);
  if (due == timer_due_.end()) return;
  const auto entry = timers_.find({due->second, timer});
  dropped = std::move(entry->second);
  timers_.erase(entry);
  timer_due_.erase(due);
}

boost::asio::io_context& Loop::io() {
  UCCP_CHECK(sockets_ != nullptr, "a loop without sockets has no io_context");
  return sockets_->context;
}

bool Loop::is_current() const { return current_loop == this; }

bool Loop::in_own_thread() const { return own_loop == this; }

size_t Loop::queued() const {
  std::lock_guard lock(mutex_);
  return queue_.size() + batch_left_.load(std::memory_order_relaxed);
}

uint64_t Loop::stalls() const { return stalls_.load(std::memory_order_relaxed); }

void Loop::work() {
  current_loop = own_loop = this;
  std::vector<Task> batch;
  while (take_batch(batch)) {
    serve_sockets();
    run_turn(batch);
  }
  serve_sockets();  // those that the last tasks closed
  current_loop = own_loop = nullptr;
}

void Loop::run_turn(std::vector<Task>& batch) {
  for (Task& task : batch) {
    run_task(task);
    batch_left_.fetch_sub(1, std::memory_order_relaxed);
  }
  batch.clear();
  // One at a time, so that a task can still cancel a timer that is due in the same turn. Timers that these tasks
  // start wait for the next turn, which keeps a timer of no delay from starving the queue.
  const int64_t now_us = clock_.boot().us;
  Task task;
  while (take_due_timer(now_us, task)) run_task(task);
}

void Loop::hold() { held_loop = this; }

void Loop::take() {
  held_loop = nullptr;
  std::unique_lock lock(mutex_);
  if (queue_.empty() || turn_taken_ || woken_) return;
  turn_taken_ = true;
  const Loop* const outer = std::exchange(current_loop, this);
  const BootTime begin = clock_.boot();
  std::vector<Task> batch;
  for (int turn = 0; turn < kTurnsLent && !queue_.empty() && clock_.boot().us - begin.us < kLentUs; ++turn) {
    batch.swap(queue_);
    batch_left_.store(batch.size(), std::memory_order_relaxed);
    lock.unlock();
    run_turn(batch);
    lock.lock();
  }
  current_loop = outer;
  turn_taken_ = false;
  wake_if_needed(lock);
}

// When a turn ends that was lent.
void Loop::wake_if_needed(std::unique_lock<std::mutex>& lock) {
  const bool earlier = !timers_.empty() && timers_.begin()->first.first < sleeps_until_us_;
  woken_ = !queue_.empty();
  if (woken_ || earlier || turn_wanted_ || closed_) wake(lock);
}

// Lets go of the lock first: who wakes up would only wait for it, which costs both of them a switch of threads.
void Loop::wake(std::unique_lock<std::mutex>& lock) {
  const bool waits = std::exchange(turn_wanted_, false);
  const bool sleeps = std::exchange(asleep_, false);
  if (!waits && !sleeps) return;
  ++wakers_;
  lock.unlock();
  if (waits || !sockets_) wake_.notify_one();
  if (sleeps && sockets_) ::eventfd_write(sockets_->wakes.native_handle(), 1);
  --wakers_;
}

// Until somebody calls wake(), a socket has something, or the time has passed; perhaps earlier.
void Loop::sleep(std::unique_lock<std::mutex>& lock, int64_t us) {
  const std::chrono::microseconds time(std::min(us, kTimerSleepUsMax));
  sleeps_until_us_ = us == kForever ? kForever : clock_.boot().us + time.count();
  asleep_ = true;
  if (sockets_) {
    lock.unlock();
    sockets_->context.run_one_for(time);
    lock.lock();
  } else if (us == kForever) {
    wake_.wait(lock);
  } else {
    wake_.wait_for(lock, time);
  }
  asleep_ = false;
  sleeps_until_us_ = 0;
}

void Loop::serve_sockets() {
  if (!sockets_) return;
  const BootTime begin = clock_.boot();
  for (int i = 0; i < kHandlersPerTurn && sockets_->context.poll_one() > 0; ++i) {}
  note_time(begin);
}

// Ends the turn that the thread has, waits for work and moves the queue into `batch`, which may stay empty if only
// timers are due. False at the end.
bool Loop::take_batch(std::vector<Task>& batch) {
  std::unique_lock lock(mutex_);
  if (std::exchange(has_turn_, false)) turn_taken_ = false;
  if (!wait_for_work(lock)) return false;
  has_turn_ = turn_taken_ = true;
  woken_ = false;
  batch.swap(queue_);
  batch_left_.store(batch.size(), std::memory_order_relaxed);
  return true;
}

// False at the end. Afterwards nobody has the turn.
bool Loop::wait_for_work(std::unique_lock<std::mutex>& lock) {
  bool served = false;  // a handler of a socket may have brought more than a task
  while (true) {
    wait_for_turn(lock);
    if (!queue_.empty() || served) return true;
    if (timers_.empty() && closed_) return false;
    const int64_t us = timers_.empty() ? kForever : timers_.begin()->first.first - clock_.boot().us;
    if (us <= 0) return true;
    sleep(lock, us);
    served = sockets_ != nullptr;
  }
}

void Loop::wait_for_turn(std::unique_lock<std::mutex>& lock) {
  while (turn_taken_) {
    turn_wanted_ = true;
    wake_.wait(lock);
    turn_wanted_ = false;
  }
}

Loop::Turn::Turn(Loop& loop) : loop_(loop), nested_(std::exchange(loop.has_turn_, true)) {
  if (nested_) return;
  std::unique_lock lock(loop_.mutex_);
  loop_.wait_for_turn(lock);
  loop_.turn_taken_ = true;
}

Loop::Turn::~Turn() {
  if (nested_) return;
  loop_.has_turn_ = false;
  std::lock_guard lock(loop_.mutex_);
  loop_.turn_taken_ = false;
}

bool Loop::take_due_timer(int64_t now_us, Task& task) {
  std::lock_guard lock(mutex_);
  if (timers_.empty() || timers_.begin()->first.first > now_us) return false;
  auto node = timers_.extract(timers_.begin());
  timer_due_.erase(node.key().second);
  task = std::move(node.mapped());
  return true;
}

void Loop::run_task(Task& task) {
  const BootTime begin = clock_.boot();
  task();
  task = nullptr;  // its captures are part of its time, and go before the next task runs
  note_time(begin);
}

void Loop::note_time(BootTime begin) {
  const int64_t task_ms = clock_.boot().ms_since(begin);
  if (task_ms <= options_.stall_ms) return;
  stalls_.fetch_add(1, std::memory_order_relaxed);
  log::warn("a task stalled its loop", {{"task_ms", task_ms}, {"limit_ms", options_.stall_ms}});
  if (options_.on_stall) options_.on_stall(task_ms);
}

}  // namespace uccp::runtime
