#include "agent/reactor.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/check.h"

namespace uccp::agent {
namespace {

// The descriptor and the number of its watch in one word: an event of a watch that is gone is told apart from one of a
// new watch on the same descriptor.
uint64_t tag(int fd, uint64_t id) { return id << 32 | static_cast<uint32_t>(fd); }

thread_local const Reactor* current_reactor = nullptr;

}  // namespace

Reactor::Reactor(const Clock& clock)
    : clock_(clock), epoll_(epoll_create1(EPOLL_CLOEXEC)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  UCCP_CHECK(epoll_ >= 0 && wake_ >= 0, "the agent's loop needs two descriptors");
  epoll_event event{.events = EPOLLIN, .data = {.u64 = tag(wake_, 0)}};
  UCCP_CHECK(epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event) == 0, "an eventfd can be polled");
}

Reactor::~Reactor() {
  stop();
  close(wake_);
  close(epoll_);
}

void Reactor::run() {
  current_reactor = this;
  for (;;) {
    {
      std::lock_guard lock(mutex_);
      if (stopped_) break;
    }
    turn();
  }
  current_reactor = nullptr;
}

void Reactor::start() {
  thread_ = std::thread([this] { run(); });
}

void Reactor::stop() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  wake();
  if (thread_.joinable() && thread_.get_id() != std::this_thread::get_id()) thread_.join();
}

bool Reactor::is_current() const { return current_reactor == this; }

void Reactor::wake() {
  const uint64_t one = 1;
  // A full counter wakes as well.
  (void)!write(wake_, &one, sizeof one);
}

void Reactor::post(Task task) {
  bool first = false;
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(task));
    first = !std::exchange(woken_, true);
  }
  if (first) wake();
}

Executor::TimerId Reactor::post_after(int64_t delay_ms, Task task) {
  TimerId id = 0;
  {
    std::lock_guard lock(mutex_);
    id = next_timer_++;
    const int64_t due = clock_.boot().us + std::max<int64_t>(delay_ms, 0) * 1000;
    timers_.emplace(std::pair(due, id), std::move(task));
    timer_due_.emplace(id, due);
  }
  if (!is_current()) wake();
  return id;
}

void Reactor::cancel(TimerId timer) {
  Task dropped;
  std::lock_guard lock(mutex_);
  const auto due = timer_due_.find(timer);
  if (due == timer_due_.end()) return;
  const auto found = timers_.find({due->second, timer});
  dropped = std::move(found->second);
  timers_.erase(found);
  timer_due_.erase(due);
}

void Reactor::watch(int fd, std::function<void()> ready) {
  const uint64_t id = next_watch_++ & 0x7fffffff;
  epoll_event event{.events = EPOLLIN, .data = {.u64 = tag(fd, id)}};
  UCCP_CHECK(epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0, "a watched descriptor is open, pollable and new");
  watches_[fd] = {id, std::move(ready)};
}

void Reactor::unwatch(int fd) {
  if (watches_.erase(fd) == 0) return;
  epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
}

void Reactor::pause(int fd, bool paused) {
  const auto found = watches_.find(fd);
  if (found == watches_.end()) return;
  // Taken out altogether: a hang-up is reported whatever the events asked for are.
  epoll_event event{.events = EPOLLIN, .data = {.u64 = tag(fd, found->second.id)}};
  epoll_ctl(epoll_, paused ? EPOLL_CTL_DEL : EPOLL_CTL_ADD, fd, &event);
}

int Reactor::wait_ms() {
  std::lock_guard lock(mutex_);
  if (!queue_.empty() || stopped_) return 0;
  if (timers_.empty()) return -1;
  const int64_t us = timers_.begin()->first.first - clock_.boot().us;
  return static_cast<int>(std::clamp<int64_t>((us + 999) / 1000, 0, 60'000));
}

void Reactor::run_tasks() {
  std::vector<Task> tasks;
  {
    std::lock_guard lock(mutex_);
    tasks.swap(queue_);
    woken_ = false;
  }
  for (Task& task : tasks) {
    task();
    task = nullptr;
  }
  // One by one: a timer may cancel the next. Those that are set meanwhile wait for the next turn.
  const int64_t now = clock_.boot().us;
  for (;;) {
    Task task;
    {
      std::lock_guard lock(mutex_);
      if (timers_.empty() || timers_.begin()->first.first > now) return;
      const auto first = timers_.begin();
      timer_due_.erase(first->first.second);
      task = std::move(first->second);
      timers_.erase(first);
    }
    task();
  }
}

void Reactor::turn() {
  std::array<epoll_event, kEventsPerTurn> events;
  const int count = epoll_wait(epoll_, events.data(), kEventsPerTurn, wait_ms());
  run_tasks();
  for (int i = 0; i < count; ++i) {
    const int fd = static_cast<int>(events[i].data.u64 & 0xffffffff);
    if (fd == wake_) {
      uint64_t value = 0;
      (void)!read(wake_, &value, sizeof value);
      continue;
    }
    const auto found = watches_.find(fd);
    if (found == watches_.end() || found->second.id != events[i].data.u64 >> 32) continue;
    // A copy: the callback may unwatch itself.
    const auto ready = found->second.ready;
    ready();
  }
}

}  // namespace uccp::agent
