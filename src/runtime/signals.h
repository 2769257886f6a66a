// Signals as events: a thread waits for them and hands their numbers to an Executor or a callback.
//
// Invariants: the signals are blocked in the constructing thread and all threads that it starts afterwards, so they are
// never handled anywhere else; construct the watcher in main() before any other thread exists. Signals of one number
// that arrive together are one event. The signals stay blocked after destruction.
// Thread: the callback runs on the executor, or on the watcher's own thread if there is none.
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/executor.h"

namespace uccp::runtime {

class SignalWatcher {
 public:
  using Callback = std::move_only_function<void(int signal_number)>;

  // `executor` may be null; otherwise it must outlive the watcher.
  SignalWatcher(const std::vector<int>& signal_numbers, Executor* executor, Callback callback);
  // After return the callback is not called again. Requires: not called by the callback without an executor.
  ~SignalWatcher();
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;

 private:
  struct Shared;
  void work();

  Executor* executor_;
  std::shared_ptr<Shared> shared_;
  int signal_fd_ = -1;
  int stop_fd_ = -1;
  std::thread thread_;
};

}  // namespace uccp::runtime
