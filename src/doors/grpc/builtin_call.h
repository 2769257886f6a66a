// The calls that the gRPC door answers itself, outside of the pipeline: reflection and health. Private to the door.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "call/call.h"

namespace uccp::doors {

// Takes a call whose messages then come to its on_message().
using BuiltinHandler = std::function<void(const call::CallPtr& call)>;

class BuiltinCalls {
 public:
  BuiltinCalls();
  // Before the door opens. Callable from any thread.
  void set_ready(std::function<bool()> ready);
  // `path` as in ":path"; null: the pipeline's.
  const BuiltinHandler* find(std::string_view path) const {
    const auto at = handlers_.find(path);
    return at == handlers_.end() ? nullptr : &at->second;
  }

  // Sends the state to all health watches that have not seen it yet.
  void publish();
  // Ends all watches, those that come later too.
  void close();

 private:
  struct Watch;
  void check(const call::CallPtr& call);
  void begin_watch(const call::CallPtr& call);

  std::map<std::string, BuiltinHandler, std::less<>> handlers_;
  std::function<bool()> ready_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<Watch>> watches_;
  bool closed_ = false;
};

}  // namespace uccp::doors
