// Virtual time: one queue of events for a whole simulation, and executors that are views of it.
//
// Events run in order of time; at the same time in the order in which they were scheduled. So a run is a function of
// its seed. One thread.
#pragma once

#include <cstdint>
#include <functional>
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

  size_t pending() const { return pending_; }
  // Events that ran.
  uint64_t events() const { return events_; }
  // Folds what ran and when, so that two runs of one seed can be compared.
  uint64_t trace_hash() const { return trace_hash_; }
  // Adds something to the trace hash: a message, a state digest.
  void trace(uint64_t value);

 private:
  friend class SimExecutor;
  // Of an executor: takes its task when it is due.
  class Owner {
   public:
    virtual void due(EventId event, Task task) = 0;

   protected:
    ~Owner() = default;
    friend class SimScheduler;
    uint32_t first_ = kNoSlot;  // of its events
  };
  static constexpr uint32_t kNoSlot = UINT32_MAX;
  static constexpr unsigned kSlotBits = 20;
  // What waits; the place is used again. Events of one owner are a list, so that it can drop them all.
  struct Slot {
    Task task;
    uint64_t sequence = 0;  // 0: free
    Owner* owner = nullptr;
    uint32_t previous = kNoSlot;
    uint32_t next = kNoSlot;
  };
  // A heap by time, then sequence. Cancelled events stay in it until they come to its top.
  struct Entry {
    int64_t at_us;
    uint64_t sequence;
    uint32_t slot;
    bool operator>(const Entry& other) const {
      return at_us != other.at_us ? at_us > other.at_us : sequence > other.sequence;
    }
  };

  EventId add(int64_t at_us, Task task, Owner* owner);
  // The task of a live event, which is free afterwards; nullptr if it is not live.
  Task take(EventId event);
  Task release(uint32_t slot);
  // The next live event, or nullptr.
  const Entry* front();

  VirtualTime time_;
  uint64_t last_sequence_ = 0;
  uint64_t trace_hash_ = 0;
  uint64_t events_ = 0;
  size_t pending_ = 0;
  std::vector<Entry> heap_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
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
  // Runs `task` at `at_us` of virtual time, or as soon as the executor is not held back.
  void post_at(int64_t at_us, Task task);
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
  class State;
  TimerId enqueue(int64_t at_us, Task task);

  SimScheduler& scheduler_;
  Options options_;
  int64_t last_post_us_ = 0;
  std::shared_ptr<State> state_;
};

}  // namespace uccp::sim
