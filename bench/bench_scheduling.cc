// Placement decisions of the scheduler's core alone: 10,000 workers of several sizes, empty and nearly full.
#include <chrono>

#include "base/random.h"
#include "bench/bench.h"
#include "bench/histogram.h"
#include "services/tasks/scheduler.h"

namespace uccp::bench {
namespace {

using tasks::QueuedTask;
using tasks::Scheduler;
using tasks::TaskRef;
using Clock = std::chrono::steady_clock;

constexpr size_t kWorkers = 10'000;
constexpr double kDecisionsGoal = 10'000;
constexpr double kFullGoal = 0.8;  // of the rate in the empty cluster

// A cluster in memory, its tasks, and the books that tell whether a decision was right.
class Lab {
 public:
  explicit Lab(uint64_t seed) : random_(seed) {
    for (size_t i = 0; i < kWorkers; ++i) {
      const int64_t size = int64_t{1} << random_.below(3);
      tasks::WorkerView view{.id = "worker_" + std::to_string(i),
                             .capacity = {16'000 * size, (int64_t{64} << 30) * size, int64_t{1} << 40},
                             .slots = 200};
      view.labels = {{"zone", zone()}};
      if (random_.chance(0.1)) {
        view.capacity.gpus = 8;
        view.gpus = {{"nvidia-h100", 8, int64_t{80} << 30}};
      }
      total_cpu_ += view.capacity.cpu_milli;
      workers_.push_back({view.capacity.cpu_milli, view.capacity.memory, view.capacity.gpus});
      scheduler_.set_worker(view);
    }
  }

  void submit(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      QueuedTask task = make();
      timed([&] { scheduler_.add_task(std::move(task)); });
    }
  }

  size_t assign(size_t count_max) {
    std::vector<tasks::Assignment> placed;
    timed([&] { placed = scheduler_.assign(now_ms_, count_max); });
    for (const tasks::Assignment& one : placed) {
      const Running running{number_in(one.task.id), number_in(one.worker)};
      const Amounts& asked = tasks_[running.task].amounts;
      used_cpu_ += asked.cpu;
      Amounts& left = workers_[running.worker];
      left.add(asked, -1);
      if (left.cpu < 0 || left.memory < 0 || left.gpus < 0) ++oversubscribed_;
      running_.push_back(running);
    }
    decisions_ += placed.size();
    return placed.size();
  }

  void fill(double share) {
    while (static_cast<double>(used_cpu_) < share * static_cast<double>(total_cpu_)) {
      submit(1000);
      if (assign(1000) == 0) break;
    }
    while (assign(1000) > 0) {}
  }

  void end_one() {
    if (running_.empty()) return;
    std::swap(running_[random_.below(running_.size())], running_.back());
    const Running ended = running_.back();
    running_.pop_back();
    const Task& task = tasks_[ended.task];
    used_cpu_ -= task.amounts.cpu;
    workers_[ended.worker].add(task.amounts, 1);
    const TaskRef ref = ref_of(ended.task);
    timed([&] { scheduler_.release(ref); });
  }

  // Tasks come and go one at a time, as many as end; decisions a second of the scheduler's time. A decision is all that
  // belongs to it: the task is queued and placed, and another one's room is given back.
  double churn(double seconds, LatencyHistogram& latency) {
    const uint64_t before = decisions_;
    spent_ = {};
    while (std::chrono::duration<double>(spent_).count() < seconds) {
      const auto begin = spent_;
      submit(1);
      assign(16);
      end_one();
      latency.record((spent_ - begin).count());
      ++now_ms_;
    }
    return rate(decisions_ - before);
  }

  // Many wait, and all of them fit: tasks queued and placed a second of the scheduler's time.
  double burst(size_t count) {
    const uint64_t before = decisions_;
    spent_ = {};
    submit(count);
    while (assign(256) > 0) {}
    return rate(decisions_ - before);
  }

  double filled() const { return static_cast<double>(used_cpu_) / static_cast<double>(total_cpu_); }
  size_t running() const { return running_.size(); }
  uint64_t decisions() const { return decisions_; }
  uint64_t oversubscribed() const { return oversubscribed_; }

 private:
  // The books are small: what is measured is the scheduler, with as much of the caches as it has beside a server.
  struct Amounts {
    int64_t cpu = 0, memory = 0, gpus = 0;
    void add(const Amounts& other, int64_t sign) {
      cpu += sign * other.cpu;
      memory += sign * other.memory;
      gpus += sign * other.gpus;
    }
  };
  struct Task {
    Amounts amounts;
    uint32_t team = 0;
  };
  struct Running {
    uint32_t task = 0, worker = 0;
  };
  // Of "task_12" and "worker_12".
  static uint32_t number_in(const std::string& id) {
    return static_cast<uint32_t>(std::stoul(id.substr(id.find('_') + 1)));
  }
  TaskRef ref_of(uint32_t number) const {
    return {"tenant", "team-" + std::to_string(tasks_[number].team), "task_" + std::to_string(number)};
  }
  template <typename Call>
  void timed(const Call& call) {
    const auto begin = Clock::now();
    call();
    spent_ += Clock::now() - begin;
  }
  double rate(uint64_t decisions) const {
    return static_cast<double>(decisions) / std::chrono::duration<double>(spent_).count();
  }
  std::string zone() { return std::string(1, static_cast<char>('a' + random_.below(3))); }
  QueuedTask make() {
    const auto number = static_cast<uint32_t>(tasks_.size());
    Task& book = tasks_.emplace_back();
    book.team = static_cast<uint32_t>(random_.below(20));
    QueuedTask task{.ref = ref_of(number)};
    task.priority = static_cast<int32_t>(40 + random_.below(3) * 10);
    task.user = "user-" + std::to_string(random_.below(5));
    task.demand.shape.cpu_milli = int64_t{500} << random_.below(5);
    task.demand.shape.memory = (int64_t{1} << 30) << random_.below(5);
    if (random_.chance(0.02)) task.demand.shape.gpus = static_cast<int64_t>(1 + random_.below(2));
    if (random_.chance(0.2)) task.demand.selector = {{"zone", zone()}};
    task.order = number;
    book.amounts = {task.demand.shape.cpu_milli, task.demand.shape.memory, task.demand.shape.gpus};
    return task;
  }

  SeededRandom random_;
  Scheduler scheduler_;
  std::vector<Amounts> workers_;  // what is free
  std::vector<Task> tasks_;
  std::vector<Running> running_;
  std::chrono::nanoseconds spent_{0};  // by the scheduler
  int64_t now_ms_ = 1;
  int64_t total_cpu_ = 0, used_cpu_ = 0;
  uint64_t decisions_ = 0, oversubscribed_ = 0;
};

void add_latency(Row& row, const LatencyHistogram& latency) {
  row.detail("p50Us", latency.percentile_ms(0.5) * 1000);
  row.detail("p99Us", latency.percentile_ms(0.99) * 1000);
}

}  // namespace

Status run_scheduling_core(Context& context) {
  const double seconds = context.quick ? 0.5 : 1.5;
  Row full{.metric = "decisions at 90 % full", .unit = "1/s"};
  full.goal = {Goal::Of::kOurs, Better::kHigher, kDecisionsGoal};
  full.settings = "core alone, one thread; 10,000 workers, 20 namespaces of 5 users, tasks come and go one by one";
  Row ratio = full;
  ratio.metric = "decisions at 90 % full, beside empty";
  ratio.goal = {Goal::Of::kRatio, Better::kHigher, kFullGoal};
  ratio.peer_name = "the same with no task running at first";
  ratio.peer_required = true;
  Row burst{.metric = "decisions for 50,000 that wait", .unit = "1/s"};
  burst.goal = {Goal::Of::kOurs, Better::kHigher, 10 * kDecisionsGoal};
  burst.settings = "core alone, one thread; 10,000 workers, at most 256 decisions a round";
  LatencyHistogram full_latency, empty_latency;
  for (int i = 0; i < context.pairs(); ++i) {
    const auto seed = static_cast<uint64_t>(i + 1);
    Lab loaded(seed), empty(seed), waiting(seed);
    loaded.fill(0.9);
    const double filled = loaded.filled();
    const double rate = loaded.churn(seconds, full_latency);
    full.add_ours(rate);
    ratio.add_ours(rate);
    ratio.add_peer(empty.churn(seconds, empty_latency));
    burst.add_ours(waiting.burst(50'000));
    full.verified += loaded.decisions();
    ratio.verified += loaded.decisions() + empty.decisions();
    burst.verified += waiting.decisions();
    if (loaded.oversubscribed() + empty.oversubscribed() + waiting.oversubscribed() > 0) {
      full.problem = ratio.problem = burst.problem = "a worker was given more than it has";
    }
    if (filled < 0.85 || loaded.filled() < 0.85) full.problem = ratio.problem = "the cluster was not full";
    context.say("sample " + std::to_string(i + 1) + ": " + std::to_string(loaded.running()) + " tasks running, " +
                std::to_string(static_cast<int>(filled * 100)) + " % of the cores in use");
  }
  add_latency(full, full_latency);
  add_latency(ratio, empty_latency);
  context.emit(full);
  context.emit(ratio);
  context.emit(burst);
  return Status::ok();
}

}  // namespace uccp::bench
