// IoLoop: one thread of the gRPC door and the sockets that it owns.
//
// A turn: sockets that are ready, then what other threads have left, then what this turn posted to the node's loop if
// that sleeps (base/lent_turns.h), then one flush of each connection that has something to send. So the answers that a
// node's loop gives in one turn of its own cost one wake-up, one TLS record and one system call for each connection,
// not for each call. Threads: post() and is_current() from any thread, the rest on the loop.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/lent_turns.h"

namespace uccp::doors {

// What another thread leaves for the loop.
class IoWork {
 public:
  virtual ~IoWork() = default;
  virtual void work() = 0;
};

// A socket, listening or connected.
class IoSource {
 public:
  virtual ~IoSource() = default;
  virtual void on_ready(uint32_t epoll_events) = 0;
  virtual void on_tick(BootTime now) {}
  // Sends what has gathered; called once a turn after flush_later().
  virtual void flush() {}

 private:
  friend class IoLoop;
  bool flush_due_ = false;
};

class IoLoop {
 public:
  static constexpr int kTickMs = 100;
  static constexpr int kRestUs = 2'000;

  // `node`, where handlers post to, may be null; else it must outlive the loop's thread.
  explicit IoLoop(const Clock& clock, LentTurns* node = nullptr);
  ~IoLoop();  // stop()
  IoLoop(const IoLoop&) = delete;
  IoLoop& operator=(const IoLoop&) = delete;

  void start();
  // Ends the thread and lets go of all sources. Not from the loop. Idempotent.
  void stop();

  // Runs `work` on the loop, in order. Dropped when the loop has stopped.
  void post(std::shared_ptr<IoWork> work);
  bool is_current() const;

  // Keeps the source until unwatch(), and in any case to the end of the turn.
  void watch(int fd, uint32_t epoll_events, std::shared_ptr<IoSource> source);
  void change(int fd, uint32_t epoll_events, IoSource& source);
  void unwatch(int fd, IoSource& source);
  void flush_later(IoSource& source);
  // Calls on_ready(0) in the next turn: there is more to read than the socket tells.
  void again(IoSource& source) { again_.push_back(&source); }
  // The loop sleeps a little after this turn. A node that refuses calls for want of room so reads them in larger
  // pieces, which cost less, and leaves the cores to the calls that it has taken.
  void rest() { rest_due_ = true; }
  const std::vector<std::shared_ptr<IoSource>>& sources() const { return sources_; }

 private:
  void run();
  void take_events();
  void take_work();
  void take_own();
  void take_turns_of_node();
  void flush();
  void tick();

  const Clock& clock_;
  LentTurns* const node_;
  int epoll_ = -1;
  int wake_ = -1;
  std::thread thread_;

  std::mutex mutex_;
  bool sleeping_ = false;
  bool stopping_ = false;
  std::vector<std::shared_ptr<IoWork>> mail_;

  // Of the loop's thread.
  std::vector<std::shared_ptr<IoWork>> own_;
  std::vector<std::shared_ptr<IoSource>> sources_;
  std::vector<std::shared_ptr<IoSource>> leaving_;
  std::vector<IoSource*> again_;
  std::vector<IoSource*> to_flush_;
  bool rest_due_ = false;
  BootTime next_tick_;
};

using IoLoopPtr = std::shared_ptr<IoLoop>;

// Runs a function as work.
template <typename F>
class IoTask final : public IoWork {
 public:
  explicit IoTask(F function) : function_(std::move(function)) {}
  void work() override { function_(); }

 private:
  F function_;
};
template <typename F>
std::shared_ptr<IoWork> io_task(F function) {
  return std::make_shared<IoTask<F>>(std::move(function));
}

}  // namespace uccp::doors
