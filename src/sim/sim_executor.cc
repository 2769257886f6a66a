#include "sim/sim_executor.h"

#include <algorithm>
#include <deque>

#include "base/check.h"

namespace uccp::sim {

SimScheduler::EventId SimScheduler::schedule_at(int64_t at_us, Task task) {
  const EventId id = ++last_event_;
  const int64_t at = std::max(at_us, time_.us);
  queue_.emplace(Key{at, id}, std::move(task));
  times_.emplace(id, at);
  return id;
}

void SimScheduler::cancel(EventId event) {
  const auto it = times_.find(event);
  if (it == times_.end()) return;
  // The task goes last: its destructor may schedule or cancel.
  auto node = queue_.extract({it->second, event});
  times_.erase(it);
}

void SimScheduler::trace(uint64_t value) {
  // The finalizer of splitmix64 over the running sum.
  uint64_t z = trace_hash_ + value + 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  trace_hash_ = z ^ (z >> 31);
}

bool SimScheduler::run_one() {
  if (queue_.empty()) return false;
  auto node = queue_.extract(queue_.begin());
  const auto [at, id] = node.key();
  times_.erase(id);
  time_.us = at;
  trace(static_cast<uint64_t>(at));
  trace(id);
  node.mapped()();
  return true;
}

void SimScheduler::run_until(int64_t at_us) {
  while (!queue_.empty() && queue_.begin()->first.first <= at_us) run_one();
  time_.us = std::max(time_.us, at_us);
}

bool SimScheduler::run_until_idle(uint64_t events_max) {
  for (uint64_t ran = 0; ran < events_max; ++ran) {
    if (!run_one()) return true;
  }
  return queue_.empty();
}

bool SimScheduler::run_until(const std::function<bool()>& condition, int64_t at_us) {
  while (!condition()) {
    if (queue_.empty() || queue_.begin()->first.first > at_us) {
      time_.us = std::max(time_.us, at_us);
      return condition();
    }
    run_one();
  }
  return true;
}

// Shared with the events, which may outlive the executor.
struct SimExecutor::State {
  SimScheduler& scheduler;
  Items items;
  std::deque<TimerId> held;  // due while paused, or while those before them wait to be run after it
  TimerId last_id = 0;
  bool paused = false;
  bool stopped = false;
  bool running = false;
};

SimExecutor::SimExecutor(SimScheduler& scheduler) : SimExecutor(scheduler, Options()) {}

SimExecutor::SimExecutor(SimScheduler& scheduler, Options options)
    : scheduler_(scheduler), options_(options), state_(std::make_shared<State>(scheduler)) {
  UCCP_CHECK(options_.jitter_us == 0 || options_.random != nullptr, "jitter needs a source of randomness");
}

SimExecutor::~SimExecutor() { stop(); }

void SimExecutor::run_now(State& state, Items::iterator it) {
  Task task = std::move(it->second.task);
  state.items.erase(it);
  state.running = true;
  task();
  state.running = false;
}

void SimExecutor::run(const std::shared_ptr<State>& state, TimerId id) {
  const auto it = state->items.find(id);
  if (it == state->items.end()) return;
  if (state->paused || !state->held.empty()) {
    state->held.push_back(id);
    return;
  }
  run_now(*state, it);
}

void SimExecutor::run_held(const std::shared_ptr<State>& state) {
  if (state->paused || state->held.empty()) return;
  const auto it = state->items.find(state->held.front());
  state->held.pop_front();
  state->scheduler.schedule_after(0, [state] { run_held(state); });
  if (it != state->items.end()) run_now(*state, it);
}

Executor::TimerId SimExecutor::enqueue(int64_t at_us, Task task) {
  if (state_->stopped) return 0;
  const TimerId id = ++state_->last_id;
  const auto event = scheduler_.schedule_at(at_us, [state = state_, id] { run(state, id); });
  state_->items.emplace(id, Item{std::move(task), event});
  return id;
}

void SimExecutor::post(Task task) {
  int64_t at = scheduler_.now_us() + options_.delay_us;
  if (options_.jitter_us > 0) {
    at += static_cast<int64_t>(options_.random->below(static_cast<uint64_t>(options_.jitter_us) + 1));
  }
  // Jitter must not let a later task overtake.
  last_post_us_ = std::max(last_post_us_, at);
  enqueue(last_post_us_, std::move(task));
}

Executor::TimerId SimExecutor::post_after(int64_t delay_ms, Task task) {
  const int64_t boot_us = std::max<int64_t>(delay_ms, 0) * 1000;
  const int64_t delay_us = options_.clock != nullptr ? options_.clock->virtual_us_for(boot_us) : boot_us;
  return enqueue(scheduler_.now_us() + options_.delay_us + delay_us, std::move(task));
}

void SimExecutor::cancel(TimerId timer) {
  auto node = state_->items.extract(timer);
  if (!node.empty()) scheduler_.cancel(node.mapped().event);
}

bool SimExecutor::is_current() const { return state_->running; }

void SimExecutor::pause() { state_->paused = true; }

void SimExecutor::resume() {
  if (!state_->paused) return;
  state_->paused = false;
  scheduler_.schedule_after(0, [state = state_] { run_held(state); });
}

void SimExecutor::stop() {
  state_->stopped = true;
  // Destructors of tasks may call the executor: it is empty before they run.
  auto items = std::exchange(state_->items, {});
  state_->held.clear();
  for (const auto& [id, item] : items) scheduler_.cancel(item.event);
}

bool SimExecutor::paused() const { return state_->paused; }
size_t SimExecutor::pending() const { return state_->items.size(); }

}  // namespace uccp::sim
