// Virtual time: one queue of events for a whole simulation, and executors that are views of it.
//
// Events run in order of time; at the same time in the order in which they were scheduled. So a run is a function of
// its seed. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/executor.h"
#include "base/random.h"
#include "sim/sim_clock.h"

namespace uccp::sim {

class SimScheduler {
 public:
  using Task = Executor::Task;
  // 0 is no event.
  using EventId = uint64_t;

  const VirtualTime& time() const { return time_; }
  int64_t now_us() const { return time_.us; }

  // Runs `task` at `at_us`, or now if that is past. Never before returning.
  EventId schedule_at(int64_t at_us, Task task);
  EventId schedule_after(int64_t delay_us, Task task) { return schedule_at(time_.us + delay_us, std::move(task)); }
  // Unknown and fired ids are ignored.
  void cancel(EventId event);

  // Runs the next event, advancing time to it. False if there is none.
  bool run_one();
  // Runs all events up to `at_us` and leaves the time there.
  void run_until(int64_t at_us);
  void run_for_ms(int64_t ms) { run_until(time_.us + ms * 1000); }
  // Runs until nothing is left, or `events_max` have run. False in the second case.
  bool run_until_idle(uint64_t events_max = 1'000'000);
  // Runs until `condition` holds, checked after each event, at most to `at_us`. What it was at the end.
  bool run_until(const std::function<bool()>& condition, int64_t at_us);

  size_t pending() const { return queue_.size(); }
  // Folds what ran and when, so that two runs of one seed can be compared.
  uint64_t trace_hash() const { return trace_hash_; }
  // Adds something to the trace hash: a message, a state digest.
  void trace(uint64_t value);

 private:
  using Key = std::pair<int64_t, EventId>;

  VirtualTime time_;
  EventId last_event_ = 0;
  uint64_t trace_hash_ = 0;
  std::map<Key, Task> queue_;
  std::map<EventId, int64_t> times_;
};

// The executor of one simulated loop or disk thread.
class SimExecutor final : public Executor {
 public:
  struct Options {
    // If set, delays are measured on it. Must outlive the executor.
    const SimClock* clock = nullptr;
    // Each task starts this much after it was posted, plus up to `jitter_us`; order is kept.
    int64_t delay_us = 0;
    int64_t jitter_us = 0;
    // Required for jitter. Must outlive the executor.
    Random* random = nullptr;
  };

  // `scheduler` must outlive the executor.
  explicit SimExecutor(SimScheduler& scheduler);
  SimExecutor(SimScheduler& scheduler, Options options);
  // Drops what is queued.
  ~SimExecutor() override;

  void post(Task task) override;
  TimerId post_after(int64_t delay_ms, Task task) override;
  void cancel(TimerId timer) override;
  bool is_current() const override;

  // Holds all tasks and due timers back (SIGSTOP), until resume() runs them in order.
  void pause();
  void resume();
  // Drops what is queued and everything posted from now on (kill -9).
  void stop();
  bool paused() const;
  // Of tasks posted from now on.
  void set_delay_us(int64_t us) { options_.delay_us = us; }
  // Tasks and timers that have not run.
  size_t pending() const;

 private:
  struct State;
  struct Item {
    Task task;
    SimScheduler::EventId event = 0;
  };
  using Items = std::map<TimerId, Item>;
  static void run(const std::shared_ptr<State>& state, TimerId id);
  static void run_now(State& state, Items::iterator it);
  static void run_held(const std::shared_ptr<State>& state);
  TimerId enqueue(int64_t at_us, Task task);

  SimScheduler& scheduler_;
  Options options_;
  int64_t last_post_us_ = 0;
  std::shared_ptr<State> state_;
};

}  // namespace uccp::sim
