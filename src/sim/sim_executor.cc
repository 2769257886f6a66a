#include "sim/sim_executor.h"

#include <algorithm>
#include <deque>

#include "base/check.h"

namespace uccp::sim {

SimScheduler::EventId SimScheduler::schedule_at(int64_t at_us, Task task) {
  return add(at_us, std::move(task), nullptr);
}

SimScheduler::EventId SimScheduler::add(int64_t at_us, Task task, Owner* owner) {
  if (free_.empty()) {
    free_.push_back(static_cast<uint32_t>(slots_.size()));
    slots_.emplace_back();
    UCCP_CHECK(slots_.size() < size_t{1} << kSlotBits, "a simulation has fewer than a million events waiting");
  }
  const uint32_t place = free_.back();
  free_.pop_back();
  Slot& slot = slots_[place];
  slot.task = std::move(task);
  slot.sequence = ++last_sequence_;
  slot.owner = owner;
  slot.previous = kNoSlot;
  slot.next = owner != nullptr ? owner->first_ : kNoSlot;
  if (slot.next != kNoSlot) slots_[slot.next].previous = place;
  if (owner != nullptr) owner->first_ = place;
  heap_.push_back({std::max(at_us, time_.us), slot.sequence, place});
  std::ranges::push_heap(heap_, std::greater());
  ++pending_;
  return slot.sequence << kSlotBits | place;
}

SimScheduler::Task SimScheduler::release(uint32_t place) {
  Slot& slot = slots_[place];
  if (slot.previous != kNoSlot) slots_[slot.previous].next = slot.next;
  else if (slot.owner != nullptr) slot.owner->first_ = slot.next;
  if (slot.next != kNoSlot) slots_[slot.next].previous = slot.previous;
  slot.sequence = 0;
  slot.owner = nullptr;
  free_.push_back(place);
  --pending_;
  return std::exchange(slot.task, nullptr);
}

SimScheduler::Task SimScheduler::take(EventId event) {
  const auto place = static_cast<uint32_t>(event & ((EventId{1} << kSlotBits) - 1));
  if (event == 0 || place >= slots_.size() || slots_[place].sequence != event >> kSlotBits) return nullptr;
  return release(place);
}

// The task goes when nothing is under way: its destructor may schedule or cancel.
void SimScheduler::cancel(EventId event) { const Task task = take(event); }

void SimScheduler::trace(uint64_t value) {
  // The finalizer of splitmix64 over the running sum.
  uint64_t z = trace_hash_ + value + 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  trace_hash_ = z ^ (z >> 31);
}

const SimScheduler::Entry* SimScheduler::front() {
  while (!heap_.empty()) {
    const Entry& entry = heap_.front();
    if (slots_[entry.slot].sequence == entry.sequence) return &entry;
    std::ranges::pop_heap(heap_, std::greater());
    heap_.pop_back();
  }
  return nullptr;
}

bool SimScheduler::run_one() {
  const Entry* next = front();
  if (next == nullptr) return false;
  const Entry entry = *next;
  std::ranges::pop_heap(heap_, std::greater());
  heap_.pop_back();
  Owner* owner = slots_[entry.slot].owner;
  Task task = release(entry.slot);
  time_.us = entry.at_us;
  ++events_;
  trace(static_cast<uint64_t>(entry.at_us) ^ entry.sequence << 40);
  if (owner != nullptr) owner->due(entry.sequence << kSlotBits | entry.slot, std::move(task));
  else task();
  return true;
}

void SimScheduler::run_until(int64_t at_us) {
  for (const Entry* next = front(); next != nullptr && next->at_us <= at_us; next = front()) run_one();
  time_.us = std::max(time_.us, at_us);
}

bool SimScheduler::run_until_idle(uint64_t events_max) {
  for (uint64_t ran = 0; ran < events_max; ++ran) {
    if (!run_one()) return true;
  }
  return pending_ == 0;
}

bool SimScheduler::run_until(const std::function<bool()>& condition, int64_t at_us) {
  while (!condition()) {
    const Entry* next = front();
    if (next == nullptr || next->at_us > at_us) {
      time_.us = std::max(time_.us, at_us);
      return condition();
    }
    run_one();
  }
  return true;
}

// Shared with the event that goes on after a pause, which may outlive the executor.
class SimExecutor::State final : public SimScheduler::Owner, public std::enable_shared_from_this<State> {
 public:
  explicit State(SimScheduler& scheduler) : scheduler_(scheduler) {}

  void due(TimerId id, Task task) override {
    if (paused || !held.empty()) return held.push_back({id, std::move(task)});
    run(std::move(task));
  }
  void cancel(TimerId id) {
    const auto found = std::ranges::find(held, id, &Held::id);
    if (found == held.end()) return scheduler_.cancel(id);
    const Task task = std::exchange(found->task, nullptr);
  }
  static void run_held(const std::shared_ptr<State>& state) {
    if (state->paused || state->held.empty()) return;
    Task task = std::move(state->held.front().task);
    state->held.pop_front();
    state->scheduler_.schedule_after(0, [state] { run_held(state); });
    if (task) state->run(std::move(task));
  }
  void stop() {
    stopped = true;
    // Destructors of tasks may call the executor: it is empty before they run.
    std::vector<Task> dropped;
    for (Held& item : held) dropped.push_back(std::move(item.task));
    held.clear();
    while (first_ != SimScheduler::kNoSlot) dropped.push_back(scheduler_.release(first_));
  }
  size_t count() const {
    size_t count = held.size();
    for (uint32_t at = first_; at != SimScheduler::kNoSlot; at = scheduler_.slots_[at].next) ++count;
    return count;
  }

  bool paused = false;
  bool stopped = false;
  bool running = false;

 private:
  struct Held {
    TimerId id;
    Task task;
  };
  void run(Task task) {
    const auto self = shared_from_this();  // the task may end the executor
    running = true;
    task();
    running = false;
  }

  SimScheduler& scheduler_;
  std::deque<Held> held;  // due while paused, or while those before them wait to be run after it
};

SimExecutor::SimExecutor(SimScheduler& scheduler) : SimExecutor(scheduler, Options()) {}

SimExecutor::SimExecutor(SimScheduler& scheduler, Options options)
    : scheduler_(scheduler), options_(options), state_(std::make_shared<State>(scheduler)) {
  UCCP_CHECK(options_.jitter_us == 0 || options_.random != nullptr, "jitter needs a source of randomness");
}

SimExecutor::~SimExecutor() { stop(); }

Executor::TimerId SimExecutor::enqueue(int64_t at_us, Task task) {
  return state_->stopped ? 0 : scheduler_.add(at_us, std::move(task), state_.get());
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

void SimExecutor::post_at(int64_t at_us, Task task) { enqueue(at_us, std::move(task)); }

Executor::TimerId SimExecutor::post_after(int64_t delay_ms, Task task) {
  const int64_t boot_us = std::max<int64_t>(delay_ms, 0) * 1000;
  const int64_t delay_us = options_.clock != nullptr ? options_.clock->virtual_us_for(boot_us) : boot_us;
  return enqueue(scheduler_.now_us() + options_.delay_us + delay_us, std::move(task));
}

void SimExecutor::cancel(TimerId timer) { state_->cancel(timer); }

bool SimExecutor::is_current() const { return state_->running; }

void SimExecutor::pause() { state_->paused = true; }

void SimExecutor::resume() {
  if (!state_->paused) return;
  state_->paused = false;
  scheduler_.schedule_after(0, [state = state_] { State::run_held(state); });
}

void SimExecutor::stop() { state_->stop(); }

bool SimExecutor::paused() const { return state_->paused; }
size_t SimExecutor::pending() const { return state_->count(); }

}  // namespace uccp::sim
