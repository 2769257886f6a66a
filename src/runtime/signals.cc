#include "runtime/signals.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <mutex>
#include <utility>

#include "base/check.h"

namespace uccp::runtime {

// Outlives the watcher while posts of it are still queued.
struct SignalWatcher::Shared {
  explicit Shared(Callback c) : callback(std::move(c)) {}

  void deliver(int signal_number) {
    std::lock_guard lock(mutex);
    if (!stopped) callback(signal_number);
  }

  std::recursive_mutex mutex;  // a callback may destroy the watcher
  bool stopped = false;
  Callback callback;
};

SignalWatcher::SignalWatcher(const std::vector<int>& signal_numbers, Executor* executor, Callback callback)
    : executor_(executor), shared_(std::make_shared<Shared>(std::move(callback))) {
  sigset_t watched;
  sigemptyset(&watched);
  for (const int number : signal_numbers) {
    UCCP_CHECK(sigaddset(&watched, number) == 0, "a signal number exists");
  }
  UCCP_CHECK(pthread_sigmask(SIG_BLOCK, &watched, nullptr) == 0, "signals can be blocked");
  signal_fd_ = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
  stop_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  UCCP_CHECK(signal_fd_ >= 0 && stop_fd_ >= 0, "descriptors are left at start-up");
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "signals");
    work();
  });
}

SignalWatcher::~SignalWatcher() {
  {
    std::lock_guard lock(shared_->mutex);
    shared_->stopped = true;
  }
  eventfd_write(stop_fd_, 1);
  UCCP_CHECK(thread_.get_id() != std::this_thread::get_id(), "a watcher is not destroyed by its own thread");
  thread_.join();
  ::close(signal_fd_);
  ::close(stop_fd_);
}

void SignalWatcher::work() {
  while (true) {
    pollfd polled[2] = {{signal_fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
    if (::poll(polled, 2, -1) < 0) continue;
    if (polled[1].revents != 0) return;
    signalfd_siginfo info;
    while (::read(signal_fd_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      const int number = static_cast<int>(info.ssi_signo);
      if (executor_ == nullptr) {
        shared_->deliver(number);
      } else {
        executor_->post([shared = shared_, number] { shared->deliver(number); });
      }
    }
  }
}

}  // namespace uccp::runtime
