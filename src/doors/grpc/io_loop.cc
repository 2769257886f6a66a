#include "doors/grpc/io_loop.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <utility>

#include "base/check.h"

namespace uccp::doors {
namespace {

thread_local const IoLoop* t_current = nullptr;

}  // namespace

IoLoop::IoLoop(const Clock& clock, LentTurns* node)
    : clock_(clock),
      node_(node),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  UCCP_CHECK(epoll_ >= 0 && wake_ >= 0, "the process has descriptors left for the loops of the doors");
  epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
  UCCP_CHECK(::epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event) == 0, "an eventfd can be watched");
}

IoLoop::~IoLoop() {
  stop();
  ::close(epoll_);
  ::close(wake_);
}

void IoLoop::start() {
  next_tick_ = clock_.boot().plus_ms(kTickMs);
  thread_ = std::thread([this] { run(); });
}

void IoLoop::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  const uint64_t one = 1;
  (void)!::write(wake_, &one, sizeof one);
  if (thread_.joinable()) thread_.join();
}

bool IoLoop::is_current() const { return t_current == this; }

void IoLoop::post(std::shared_ptr<IoWork> work) {
  if (is_current()) return own_.push_back(std::move(work));
  bool wake = false;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    mail_.push_back(std::move(work));
    // One that is awake looks at its mail before it sleeps.
    wake = std::exchange(sleeping_, false);
  }
  const uint64_t one = 1;
  if (wake) (void)!::write(wake_, &one, sizeof one);
}

void IoLoop::watch(int fd, uint32_t epoll_events, std::shared_ptr<IoSource> source) {
  epoll_event event{.events = epoll_events, .data = {.ptr = source.get()}};
  UCCP_CHECK(::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0, "an open socket can be watched");
  sources_.push_back(std::move(source));
}

void IoLoop::change(int fd, uint32_t epoll_events, IoSource& source) {
  epoll_event event{.events = epoll_events, .data = {.ptr = &source}};
  UCCP_CHECK(::epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event) == 0, "a watched socket can be changed");
}

void IoLoop::unwatch(int fd, IoSource& source) {
  ::epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
  std::erase(again_, &source);
  const auto at = std::ranges::find(sources_, &source, [](const auto& each) { return each.get(); });
  if (at == sources_.end()) return;
  leaving_.push_back(std::move(*at));
  *at = std::move(sources_.back());
  sources_.pop_back();
}

void IoLoop::flush_later(IoSource& source) {
  if (std::exchange(source.flush_due_, true)) return;
  to_flush_.push_back(&source);
}

void IoLoop::run() {
  t_current = this;
  // OpenSSL writes to sockets whose other end may be gone; that is an error of the write and nothing more.
  sigset_t pipe;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
  while (true) {
    {
      std::lock_guard lock(mutex_);
      if (stopping_) break;
    }
    if (node_ != nullptr) node_->hold();
    take_events();
    take_work();
    if (node_ != nullptr) take_turns_of_node();
    tick();
    flush();
    leaving_.clear();
    if (std::exchange(rest_due_, false)) std::this_thread::sleep_for(std::chrono::microseconds(kRestUs));
  }
  // Destroying them may post more, which is dropped with them.
  std::vector<std::shared_ptr<IoWork>> rest;
  {
    std::lock_guard lock(mutex_);
    rest.swap(mail_);
  }
  rest.clear();
  own_.clear();
  sources_.clear();
  leaving_.clear();
  t_current = nullptr;
}

void IoLoop::take_events() {
  int timeout_ms = static_cast<int>(std::clamp<int64_t>(next_tick_.ms_since(clock_.boot()) + 1, 0, kTickMs));
  if (!own_.empty() || !again_.empty()) {
    timeout_ms = 0;
  } else {
    std::lock_guard lock(mutex_);
    sleeping_ = mail_.empty() && !stopping_;
    if (!sleeping_) timeout_ms = 0;
  }
  std::array<epoll_event, 256> events;
  const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout_ms);
  std::vector<IoSource*> again;
  again.swap(again_);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<size_t>(i)];
    if (event.data.ptr != nullptr) {
      static_cast<IoSource*>(event.data.ptr)->on_ready(event.events);
    } else {
      uint64_t count_of_wakes = 0;
      (void)!::read(wake_, &count_of_wakes, sizeof count_of_wakes);
    }
  }
  for (IoSource* source : again) source->on_ready(0);
}

void IoLoop::take_work() {
  std::vector<std::shared_ptr<IoWork>> batch;
  {
    std::lock_guard lock(mutex_);
    sleeping_ = false;
    batch.swap(mail_);
  }
  for (const auto& work : batch) work->work();
  take_own();
}

// What answers leave for this loop goes out with this turn; who waits for other answers is not kept waiting by a sync.
void IoLoop::take_turns_of_node() {
  flush();
  node_->take();
  take_own();
}

// What these leave here is done in the next turn, so that no call keeps the loop for itself.
void IoLoop::take_own() {
  std::vector<std::shared_ptr<IoWork>> own;
  own.swap(own_);
  for (const auto& work : own) work->work();
}

void IoLoop::flush() {
  // A source that closes while it is flushed stays valid in leaving_.
  for (size_t i = 0; i < to_flush_.size(); ++i) {
    to_flush_[i]->flush_due_ = false;
    to_flush_[i]->flush();
  }
  to_flush_.clear();
}

void IoLoop::tick() {
  const BootTime now = clock_.boot();
  if (now < next_tick_) return;
  next_tick_ = now.plus_ms(kTickMs);
  // A tick may close connections, which takes them out of the list.
  const auto all = sources_;
  for (const auto& source : all) source->on_tick(now);
}

}  // namespace uccp::doors
