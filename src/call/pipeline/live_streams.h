// The streams that are open, so that they can be ended when their callers may not go on.
//
// Callable from any thread. A call is added once its stages passed and removed when it finishes.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "call/call.h"

namespace uccp::call {

class LiveStreams {
 public:
  // `request` is what a server stream was asked for; policies may look at it.
  void add(const CallPtr& call, std::string request) {
    std::lock_guard lock(mutex_);
    streams_[call.get()] = {call, std::move(request), {}};
    // It may have finished before it came here.
    if (call->finished()) streams_.erase(call.get());
  }
  // Why recheck() ended it; OK if it did not.
  Status remove(const Call* call) {
    std::lock_guard lock(mutex_);
    const auto it = streams_.find(call);
    if (it == streams_.end()) return Status::ok();
    Status ended = std::move(it->second.ended);
    streams_.erase(it);
    return ended;
  }
  // Ends each stream for which `check` answers an error, with that error. Runs without the lock.
  void recheck(const std::function<Status(const Call&, const std::string& request)>& check) {
    std::vector<std::pair<CallPtr, std::string>> all;
    {
      std::lock_guard lock(mutex_);
      for (const auto& [raw, stream] : streams_) {
        if (CallPtr call = stream.call.lock()) all.emplace_back(std::move(call), stream.request);
      }
    }
    for (const auto& [call, request] : all) {
      Status status = check(*call, request);
      if (status.is_ok()) continue;
      {
        std::lock_guard lock(mutex_);
        if (const auto it = streams_.find(call.get()); it != streams_.end()) it->second.ended = status;
      }
      // A handler that hears of it ends the call as one whose client went away; remove() knows better.
      call->deliver_cancel();
      call->finish(std::move(status));
    }
  }

 private:
  struct Stream {
    std::weak_ptr<Call> call;
    std::string request;
    Status ended;
  };
  std::mutex mutex_;
  std::map<const Call*, Stream> streams_;
};

}  // namespace uccp::call
