// Waits for several parts of one call that end on any threads, then goes on once with the first error.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "base/status.h"

namespace uccp::events {

class Join {
 public:
  using Done = std::move_only_function<void(Status)>;
  // Requires parts > 0. `done` runs within the last arrive().
  static std::shared_ptr<Join> make(size_t parts, Done done) {
    return std::shared_ptr<Join>(new Join(parts, std::move(done)));
  }
  // What `work` does to results that the parts share is done under one lock.
  template <typename Work>
  void arrive(Status status, Work work) {
    {
      std::lock_guard lock(mutex_);
      work();
      if (!status.is_ok() && status_.is_ok()) status_ = std::move(status);
      if (--waiting_ > 0) return;
    }
    done_(std::move(status_));
  }
  void arrive(Status status) {
    arrive(std::move(status), [] {});
  }

 private:
  Join(size_t parts, Done done) : waiting_(parts), done_(std::move(done)) {}

  std::mutex mutex_;
  size_t waiting_;
  Status status_;
  Done done_;
};

}  // namespace uccp::events
