// An object that stays in a process, as the agent sees it: the calls of its methods on their way there and back, and
// whether somebody owns it still.
//
// Nothing goes to the process before the object is made. The packets are those of docs/design/compute.md.
// Thread: the loop's; nothing blocks.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "agent/actor_calls.h"
#include "base/executor.h"
#include "base/status.h"

namespace uccp::agent {

class HostedActor {
 public:
  struct Hooks {
    ActorCalls::Answer answer;
    // A packet for the process. After an error it gets none until it says something again.
    std::function<Status(char kind, const std::string& body)> send;
    // No owner was connected for the whole timeout.
    std::function<void(std::string why)> abandoned;
  };

  // `owner_timeout_ms` 0: it lives without an owner. `loop` must outlive it.
  HostedActor(Executor& loop, ActorLimits limits, int64_t owner_timeout_ms, Hooks hooks);
  ~HostedActor() { end(); }
  HostedActor(const HostedActor&) = delete;
  HostedActor& operator=(const HostedActor&) = delete;

  // A message of a caller.
  void request(uint64_t channel, std::string_view data);
  void close(uint64_t channel) { calls_.close(channel); }
  void close_all() { calls_.close_all(); }
  // From the process: A, the object is made; M, results, and that a packet was taken.
  void packet(char kind, std::string_view body);
  // The process is gone, or going: nobody is watched any more.
  void end();

 private:
  void feed();
  void watch_owner();

  Executor& loop_;
  const int64_t owner_timeout_ms_;
  const Hooks hooks_;
  ActorCalls calls_;
  bool ready_ = false;
  int64_t ownerless_ms_ = 0;
  Executor::TimerId owner_timer_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace uccp::agent
