// What the leader knows of running attempts and connected workers, for reads: the part of their status that is not in
// the replicated state. Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "services/tasks/scheduler.h"
#include "uccp/internal/v1/agent.pb.h"
#include "uccp/internal/v1/work_state.pb.h"
#include "uccp/v1/resources.pb.h"
#include "uccp/v1/tasks.pb.h"
#include "uccp/v1/workers.pb.h"

namespace uccp::tasks {

struct LiveAttempt {
  internal::v1::AttemptId id;
  Shape shape;
  std::string user;      // who submitted the task
  bool runs_on = false;  // the task does not end with an attempt that ends well
  bool started = false;
  google::protobuf::Timestamp start_time;
  std::optional<v1::Usage> usage;
  std::optional<double> progress;
  bool cancel_sent = false;
};

// What a worker's own faults have done to it.
struct LiveTrust {
  int faults = 0;
  bool quarantined = false;
  WallTime until;  // of the quarantine
  int probation_left = 0;
};

struct LiveWorker {
  bool connected = false;
  LiveTrust trust;
  // 1 while heartbeats come; falls from the third that is missing on to 0 at the end of the lease.
  double health_score = 1;
  WallTime last_seen;
  Shape used;
  size_t running = 0;
  std::optional<v1::WorkerLoad> load;
  std::vector<v1::WorkerGpu> gpus;  // with what is handed out, as the agent said last; empty: as in the row
};

class LiveTasks {
 public:
  void set(const TaskRef& ref, const LiveAttempt& attempt);
  void erase(const TaskRef& ref);
  void clear();
  std::optional<LiveAttempt> find(const TaskRef& ref) const;
  size_t running() const;
  void set_queued(size_t count);
  size_t queued() const;

  // What is used of each quota, by tenant and key.
  struct QuotaUsed {
    QuotaAmounts now{};
    v1::QuotaLimits budgets;  // of the month, and of what is kept
  };
  using QuotaUse = std::map<std::pair<std::string, std::string>, QuotaUsed>;
  void set_quota_use(QuotaUse use);
  void overlay(const std::string& tenant, v1::ResourceQuota& quota) const;

  void set_worker(const std::string& id, const LiveWorker& worker);
  void erase_worker(const std::string& id);
  std::optional<LiveWorker> find_worker(const std::string& id) const;
  size_t workers_connected() const;
  // Called after a worker changed, on the thread that changed it. Set once, before anything else runs.
  void on_worker(std::function<void()> callback) { on_worker_ = std::move(callback); }

  // Lays what is live over a stored task: RUNNING, worker, start, use.
  void overlay(const std::string& tenant, v1::Task& task) const;
  // Lays what is live over a stored worker: status, what is free, when it was seen.
  void overlay(v1::Worker& worker, const internal::v1::WorkerRow& row) const;

  // Elements of an array that run.
  int32_t running_elements(const TaskRef& array) const;

  // Called after what is laid over a task changed, on the thread that changed it. At most this many listeners.
  using Listener = std::function<void(const TaskRef&)>;
  uint64_t listen(Listener listener);
  void unlisten(uint64_t id);

 private:
  void notify(const TaskRef& ref);
  void count_element(const TaskRef& ref, int32_t change);

  mutable std::mutex mutex_;
  std::map<TaskRef, LiveAttempt> tasks_;
  std::map<TaskRef, int32_t> running_elements_;  // by array; none is zero
  std::map<std::string, LiveWorker> workers_;
  QuotaUse quota_use_;
  size_t queued_ = 0;
  std::function<void()> on_worker_;
  std::map<uint64_t, Listener> listeners_;
  uint64_t next_listener_ = 1;
};

Shape shape_of(const v1::Resources& resources);
void set_resources(v1::Resources& out, const Shape& shape);
Marks tolerations_of(const v1::Task& task);
// What the scheduler has to know of a task, all but its times.
QueuedTask queued_of(const TaskRef& ref, const v1::Task& task);
// How long a task ran that ended well.
struct EndedRun {
  RunTimes::Name name;
  int64_t end_us = 0;
  int64_t run_ms = 0;
};
// Nothing if it did not end well, or its times are not known.
std::optional<EndedRun> ended_run(const machine::Scope& scope, const v1::Task& task);
// Whether a task of a gang that comes back waits for the others. `stops_are_kept`: the state says which were stopped
// together.
void set_gang_start(const internal::v1::TaskRow& row, bool stops_are_kept, QueuedTask& queued);
// What the scheduler has to know of a connected worker. Its pool, type, region and zone are labels too, named uccp/pool
// and so on, so that selectors can name them.
WorkerView view_of(const internal::v1::WorkerRow& row, size_t slots);

}  // namespace uccp::tasks
