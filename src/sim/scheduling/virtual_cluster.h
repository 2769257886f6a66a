// A cluster in virtual time around the real scheduler: workers that come, go and are cut off, tasks that run and end.
//
// One seed decides everything; the same seed gives the same trace. The virtual workers keep books of their own, and
// each event is checked against them:
//  - no worker is ever given more than it has, nor more attempts than it may run;
//  - a task is never placed while an attempt of it may still run, and never after it has ended;
//  - what is placed is queued, and goes to a worker that is connected, accepts tasks and has the labels asked for;
//  - the tasks of a gang start in one round, all of them, and are stopped for others in one round, all of them;
//  - only what may be stopped is stopped;
//  - a device of which a namespace has shares is not handed out whole, nor to another namespace;
//  - a quota is never exceeded;
//  - what the scheduler says is in use is what the books say.
#pragma once

#include <cstdint>
#include <map>
#include <queue>
#include <set>
#include <string>
#include <vector>

#include "base/random.h"
#include "services/tasks/scheduler.h"

namespace uccp::sim {

struct VirtualWorkload {
  size_t workers = 100;
  size_t tasks = 1000;           // in all
  double tasks_per_s = 100;      // that arrive
  int64_t duration_ms = 60'000;  // mean of an attempt, spread exponentially
  size_t namespaces = 10;
  int64_t cpu_milli_max = 4'000;  // of a task; amounts are halved down from it
  double gpu_share = 0.02;        // tasks that ask for devices
  double selector_share = 0.2;    // tasks that ask for a zone
  double gang_share = 0;          // of each four tasks in a row: start together
  double shared_gpu_share = 0;    // tasks that ask for a share of a device
  double preemptible_share = 0;   // tasks, and whole gangs, of the lowest priority that may be stopped for others
  int64_t quota_tasks = 0;        // most tasks of a namespace at a time; 0: no quota
  double failures_per_s = 0;      // workers that are cut off; fenced a lease later, and back after that
  double straggler_share = 0;     // attempts that take ten times as long
  int64_t lease_ms = 65'000;
};

class VirtualCluster {
 public:
  VirtualCluster(uint64_t seed, const VirtualWorkload& workload, tasks::SchedulerOptions options = {});

  // Runs until all tasks have ended, or until virtual time is over. False if the latter.
  bool run(int64_t until_ms);

  // The first breach of a rule; empty if there was none.
  const std::string& violation() const { return violation_; }
  int64_t now_ms() const { return now_ms_; }
  size_t running() const { return running_; }
  size_t running_peak() const { return running_peak_; }
  size_t ended() const { return ended_; }
  size_t lost() const { return lost_; }
  size_t stopped() const { return stopped_; }
  uint64_t events() const { return events_; }
  uint64_t decisions() const { return decisions_; }
  // Over all that happened; equal for equal runs.
  uint64_t trace_hash() const { return trace_hash_; }
  // Core-seconds held, of those there were while tasks arrived.
  double utilisation() const;
  // Mean of (wait + run) / max(run, 10 s).
  double bounded_slowdown() const { return ended_ == 0 ? 0 : slowdown_sum_ / static_cast<double>(ended_); }
  // Jain's index of the mean slowdowns of the namespaces: 1 is equal, 1/n is one that has all.
  double fairness() const;

 private:
  enum class Kind : uint8_t { kArrive, kEnd, kCutOff, kFence, kBack, kStop, kTick };
  struct Event {
    int64_t at_ms = 0;
    uint64_t sequence = 0;
    Kind kind = Kind::kArrive;
    uint32_t id = 0;
    uint32_t attempt = 0;
    bool operator>(const Event& o) const { return at_ms != o.at_ms ? at_ms > o.at_ms : sequence > o.sequence; }
  };
  enum class State : uint8_t { kFuture, kQueued, kRunning, kEnded };
  struct Task {
    tasks::Shape shape;
    int64_t duration_ms = 0, queued_ms = 0, started_ms = 0;
    uint32_t name_space = 0;
    uint32_t worker = 0, attempt = 0;
    State state = State::kFuture;
    int8_t zone = -1;
    int8_t priority = 50;
    uint32_t gang = 0;  // 0: none
    bool preemptible = false;
    bool stopping = false;  // told to make room
    bool stopped = false;   // the attempt before ended so
  };
  struct Worker {
    tasks::WorkerView view;
    tasks::Shape used;
    std::set<uint32_t> tasks;
    std::map<uint32_t, int64_t> shares;  // of devices, by namespace
    bool cut_off = false;
  };

  void at(int64_t at_ms, Kind kind, uint32_t id, uint32_t attempt = 0);
  void make_workers();
  void make_task(uint32_t id);
  void handle(const Event& event);
  void queue(uint32_t id);
  void schedule();
  void place(uint32_t id, const std::string& worker);
  void leave_worker(uint32_t id);
  void end(uint32_t id);
  void check_worker(uint32_t id);
  void check_devices(const Worker& worker, const tasks::Scheduler::Usage& usage);
  void check_gangs(const std::vector<tasks::Assignment>& placed);
  void stop(const std::vector<tasks::Eviction>& evictions);
  void count_in_books(uint32_t id, int64_t sign);
  void breach(const std::string& what);
  void mix(uint64_t value) { trace_hash_ = (trace_hash_ ^ value) * 0x100000001b3; }
  int64_t exponential(double mean);
  tasks::TaskRef ref_of(uint32_t id) const;

  const VirtualWorkload workload_;
  SeededRandom random_;
  tasks::Scheduler scheduler_;
  std::vector<Worker> workers_;
  std::map<std::string, uint32_t> worker_ids_;
  std::vector<Task> tasks_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> queue_;
  int64_t now_ms_ = 0, counted_ms_ = 0, arrivals_end_ms_ = 0;
  uint64_t next_sequence_ = 0;
  uint64_t events_ = 0, decisions_ = 0;
  size_t running_ = 0, running_peak_ = 0, ended_ = 0, lost_ = 0, stopped_ = 0;
  int64_t used_cpu_ = 0, total_cpu_ = 0;
  double cpu_ms_ = 0;
  double slowdown_sum_ = 0;
  std::vector<int64_t> running_of_;                   // by namespace
  uint32_t gang_ = 0;                                 // that tasks made now belong to
  std::vector<std::pair<double, size_t>> slowdowns_;  // by namespace: sum, count
  std::string violation_;
  uint64_t trace_hash_ = 0xcbf29ce484222325;
};

}  // namespace uccp::sim
