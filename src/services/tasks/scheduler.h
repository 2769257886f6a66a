// Which queued task goes to which worker: a deterministic core, events in and assignments out.
//
// No IO, no clock, no randomness: time comes with the calls, ties are broken by id. Lives in the memory of the leader,
// which rebuilds it after a change of leadership.
//
// Tasks are kept in groups of equal shape (resources, selector, tolerations) and priority, so that a round costs by groups and
// not by tasks: once one task of a group fits nowhere, the others are not tried. Among the workers that fit, the one
// that is left with the smallest dominant share of free resources is taken (best fit), so that large tasks keep finding
// room.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace uccp::tasks {

// Fixed point: CPU in thousandths of a core.
struct Shape {
  int64_t cpu_milli = 0;
  int64_t memory = 0;
  int64_t disk = 0;
  int64_t gpus = 0;
  int64_t network_bps = 0;
  // What has no field of its own, in thousandths, by name: accelerators ("tpu", and "tpu v5e-8" for a type of them), and
  // what workers declare under names of their own ("licence/matlab"). Never with an amount of zero.
  std::map<std::string, int64_t> counted;

  auto operator<=>(const Shape&) const = default;
  bool fits_in(const Shape& free) const;
  Shape& operator+=(const Shape& other);
  Shape& operator-=(const Shape& other);
};

using LabelMap = std::map<std::string, std::string>;

// Tenant, namespace and id in one key; equal ids of two namespaces are two tasks.
struct TaskRef {
  std::string tenant, name_space, id;
  auto operator<=>(const TaskRef&) const = default;
};

// What the graphics processors of a task have to be; how many is in its shape.
struct GpuNeed {
  std::string type;  // prefix of vendor and model; empty: any
  int64_t memory = 0;

  auto operator<=>(const GpuNeed&) const = default;
};

// Graphics processors of one kind in a worker.
struct GpuKind {
  std::string type;
  int64_t count = 0;
  int64_t memory = 0;  // of each
};

enum class TaintKind : uint8_t { kAny, kNoSchedule, kPreferNot, kNoExecute };

// A mark that keeps tasks away, and what a task says to pass by it: then an empty key or value, and kAny, fit everything.
struct Mark {
  std::string key, value;
  TaintKind kind = TaintKind::kAny;

  auto operator<=>(const Mark&) const = default;
};
using Marks = std::vector<Mark>;

// True if one of the tolerations fits the taint.
bool tolerates(const Marks& tolerations, const Mark& taint);

struct QueuedTask {
  TaskRef ref;
  int32_t priority = 50;
  Shape shape;
  GpuNeed gpu;
  LabelMap selector;          // labels that the worker must have
  Marks tolerations;
  uint64_t order = 0;         // position among equals: the revision that queued it
  int64_t not_before_ms = 0;  // on the caller's clock
};

struct WorkerView {
  std::string id;
  Shape capacity;
  LabelMap labels;
  std::vector<GpuKind> gpus;
  Marks taints;
  size_t slots = 0;       // most attempts at a time
  bool accepts = true;    // not cordoned, not draining
  bool connected = true;  // its agent
};

// What keeps a task from a worker.
enum class Obstacle : uint8_t { kNone, kNotConnected, kCordoned, kLabels, kTooSmall, kBusy, kSlots, kTaints };

struct Explanation {
  struct Reason {
    Obstacle obstacle = Obstacle::kNone;
    size_t workers = 0;
    std::string message;  // one sentence, with the worker that comes closest
  };
  std::string summary;
  size_t workers = 0;           // each is in one of the reasons
  size_t ahead = 0;             // queued tasks that are placed before it
  std::vector<Reason> reasons;  // the most frequent first
};

struct Assignment {
  TaskRef task;
  std::string worker;
};

class Scheduler {
 public:
  // Queues a task, or replaces it.
  void add_task(QueuedTask task);
  // Forgets a queued task. False if it is not queued.
  bool remove_task(const TaskRef& ref);
  bool is_queued(const TaskRef& ref) const { return queued_.contains(ref); }
  size_t queued() const { return queued_.size(); }

  // Adds or changes a worker; what runs there stays counted.
  void set_worker(const WorkerView& worker);
  void remove_worker(const std::string& id);
  // Its agent is gone for now: nothing is placed there until set_worker().
  void disconnect_worker(const std::string& id);
  // Counts an attempt that runs already (found after a change of leader, or assigned elsewhere).
  void occupy(const std::string& worker, const TaskRef& task, const Shape& shape);
  // Frees what an attempt used.
  void release(const TaskRef& task);

  // Assigns queued tasks whose time has come, at most `count_max`, and counts them as running.
  std::vector<Assignment> assign(int64_t now_ms, size_t count_max);
  // Earliest time at which a delayed task becomes due; -1: none.
  int64_t next_due_ms() const;

  // Why a task that is queued here waits; nothing if it is not queued. Costs by workers and by groups.
  std::optional<Explanation> explain(const TaskRef& ref) const;
  // The same for a task that is not queued, as if it were now.
  Explanation explain_unqueued(const QueuedTask& task) const;
  struct Usage {
    Shape capacity, used;
    size_t running = 0;
  };
  Usage usage(const std::string& worker) const;
  Usage total_usage() const;

 private:
  struct GroupKey {
    int32_t priority;  // higher first
    Shape shape;
    LabelMap selector;
    GpuNeed gpu;
    Marks tolerations;
    bool operator<(const GroupKey& other) const;
  };
  struct Worker {
    WorkerView view;
    Shape used;
    size_t running = 0;
  };
  struct Running {
    std::string worker;
    Shape shape;
  };
  using Group = std::set<std::pair<uint64_t, TaskRef>>;

  Worker* best_fit(const GroupKey& group);
  void enqueue(const QueuedTask& task);
  static Obstacle obstacle(const GroupKey& group, const Worker& worker);
  static GroupKey key_of(const QueuedTask& task) {
    return {task.priority, task.shape, task.selector, task.gpu, task.tolerations};
  }

  std::map<TaskRef, QueuedTask> queued_;
  std::map<GroupKey, Group> groups_;               // tasks that are due
  std::set<std::pair<int64_t, TaskRef>> delayed_;  // by the time they become due
  std::map<std::string, Worker> workers_;
  std::map<TaskRef, Running> running_;
};

}  // namespace uccp::tasks
