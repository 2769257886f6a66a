// What the tests of this folder share: a directory that goes away, a clock that stands still, a way to wait.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <string>

#include "runtime/real_clock.h"

namespace uccp::runtime::testing {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = ::testing::TempDir() + "uccp_runtime_XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string at(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

struct FixedClock final : Clock {
  BootTime boot() const override { return {0}; }
  WallTime wall() const override { return now; }
  WallTime now{RealClock().wall()};
  void advance_days(int64_t days) { now.us += days * 24 * 3600 * 1'000'000; }
};

// A value that one thread changes and another waits for.
template <typename T>
class Watched {
 public:
  template <typename F>
  void change(F change) {
    std::lock_guard lock(mutex_);
    change(value_);
    changed_.notify_all();
  }
  // True as soon as the condition holds, false after a time in which it should have come true many times.
  template <typename F>
  bool wait(F condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), [&] { return condition(value_); });
  }
  T get() {
    std::lock_guard lock(mutex_);
    return value_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  T value_{};
};

}  // namespace uccp::runtime::testing
