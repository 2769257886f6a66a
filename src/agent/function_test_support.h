// What the tests of executors of functions share: processes that are pretended, a record of what comes of attempts, and
// a loop in a thread of its own.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "agent/executor.h"
#include "agent/reactor.h"
#include "base/bytes.h"
#include "runtime/real_clock.h"

namespace uccp::agent {

// Remembers what it is told to start, and ends it when it is told to.
class PretendedProcesses final : public ExecutorBackend {
 public:
  void launch(std::vector<AttemptSpec> specs) override {
    for (AttemptSpec& spec : specs) launched.push_back(std::move(spec));
  }
  void cancel(const AttemptKey& key, const CancelOptions& options) override {
    cancelled.push_back(key);
    if (sink != nullptr) ends.push_back({key, {.kind = options.kind, .message = options.reason}});
  }
  void credit(const AttemptKey&, size_t) override {}
  void materialize(AttemptSpec, std::move_only_function<void(Status)>) override {}
  void release(const AttemptKey& key) override { released.push_back(key); }
  Capacity capacity() const override { return {}; }
  AttemptUse usage(const AttemptKey&) const override { return {}; }
  std::vector<std::string> reconcile() override { return {}; }
  void drain(const CancelOptions&, std::move_only_function<void()> when) override { drained = std::move(when); }

  // Tells of the ends that cancel() caused.
  void settle() {
    for (auto& [key, end] : std::exchange(ends, {})) sink->finished(key, std::move(end));
  }
  ExecutorSink* sink = nullptr;
  std::vector<AttemptSpec> launched;
  std::vector<AttemptKey> cancelled, released;
  std::vector<std::pair<AttemptKey, AttemptEnd>> ends;
  std::move_only_function<void()> drained;
};

class Recorder final : public ExecutorSink {
 public:
  void started(const AttemptKey& key, WallTime) override { begun.push_back(key); }
  void output(const AttemptKey& key, tasks::LogStreamKind, WallTime, std::string_view bytes) override {
    text[key] += bytes;
  }
  void finished(const AttemptKey& key, AttemptEnd end) override { ended.emplace(key, std::move(end)); }
  std::vector<AttemptKey> begun;
  std::map<AttemptKey, std::string> text;
  std::map<AttemptKey, AttemptEnd> ended;
};

inline std::string field(char tag, std::string_view content) {
  return ByteWriter().u8(static_cast<uint8_t>(tag)).u32(static_cast<uint32_t>(content.size())).raw(content).take();
}

// Everything but sockets belongs to the loop's thread.
class OnLoop {
 protected:
  OnLoop() : reactor_(clock_) {}

  template <typename Work>
  auto on_loop(Work work, int64_t delay_ms = 0) {
    std::packaged_task<decltype(work())()> task(std::move(work));
    auto result = task.get_future();
    reactor_.post_after(delay_ms, [&task] { task(); });
    return result.get();
  }

  testing::AssertionResult run_until(const std::function<bool()>& reached) {
    for (int turn = 0; turn < kTurnsMax; ++turn) {
      const bool yes = on_loop(
          [&] {
            processes_.settle();
            return reached();
          },
          turn == 0 ? 0 : kTurnMs);
      if (yes) return testing::AssertionSuccess();
    }
    return testing::AssertionFailure() << "it did not come true";
  }
  testing::AssertionResult run_until_ended(const std::string& key) {
    return run_until([&] { return recorder_.ended.contains(key); });
  }
  AttemptEnd end_of(const std::string& key) {
    return on_loop([&] {
      return recorder_.ended.contains(key) ? recorder_.ended.at(key) : AttemptEnd{.message = "it has not ended"};
    });
  }

  static constexpr int64_t kTurnMs = 5;
  static constexpr int kTurnsMax = 6000;

  runtime::RealClock clock_;
  Reactor reactor_;
  Recorder recorder_;
  PretendedProcesses processes_;
};

}  // namespace uccp::agent
