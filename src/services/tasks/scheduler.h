// Which queued task goes to which worker: a deterministic core, events in and actions out.
//
// No IO, no clock, no randomness: time comes with the calls, ties are broken by position. Lives in the memory of the
// leader, which rebuilds it after a change of leadership; the same events give the same actions, live and in
// simulation.
//
// Whose turn it is, FairQueues says; which worker is best, Fleet. Here they meet. Tasks of equal demand are one class:
// once a class fits nowhere it is parked, and only workers that have got more room since are tried for it, so a round
// costs by what changed and not by what waits. docs/design/scheduling.md has the whole.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "services/tasks/fair_queues.h"
#include "services/tasks/fleet.h"
#include "services/tasks/near_book.h"
#include "services/tasks/quota_book.h"
#include "services/tasks/shapes.h"

namespace uccp::tasks {

struct QueuedTask {
  TaskRef ref;
  int32_t priority = 50;
  Demand demand;
  std::string queue, user;    // below its namespace
  LabelMap labels;            // its own, for the near terms of others
  uint64_t order = 0;         // position among equals: the revision that queued it
  int64_t not_before_ms = 0;  // on the caller's clock
  int64_t queued_ms = 0;      // since when it waits; 0: since it is added
  bool preemptible = false;   // may be stopped for one of a higher band
  // Tasks of a gang start together, once `gang_size` of them are queued; empty: it is alone.
  std::string gang;
  size_t gang_size = 0;
};

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

// A running task that has to make room; it goes on counting until it is released.
struct Eviction {
  TaskRef task;
  std::string reason;
};

struct SchedulerOptions {
  Packing packing = Packing::kTight;
  FairnessOptions fairness;
  // A task that fits nowhere for so long gets a worker kept free for it ...
  int64_t reserve_after_ms = 30'000;
  // ... if there are fewer of these already.
  size_t reservations_max = 8;
  // A task stops only those whose priority is lower by so much.
  int32_t preemption_gap = 10;
  // How often a class that fits nowhere looks for tasks to stop, and a gang for room.
  int64_t retry_ms = 1'000;
};

class Scheduler {
 public:
  explicit Scheduler(SchedulerOptions options = {});
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

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
  void occupy(const std::string& worker, const QueuedTask& task);
  // Frees what an attempt used.
  void release(const TaskRef& task);

  // Assigns queued tasks whose time has come, at most `count_max`, and counts them as running.
  std::vector<Assignment> assign(int64_t now_ms, size_t count_max);
  // Tasks that have to stop so that others may run, each said once.
  std::vector<Eviction> take_evictions() { return std::exchange(evictions_, {}); }
  // Earliest time at which a delayed task becomes due, or something is to be tried again; -1: none.
  int64_t next_due_ms() const;
  void set_quota(const std::string& tenant, QuotaView quota);
  void remove_quota(const std::string& tenant, const std::string& key);
  const QuotaBook& quotas() const { return quota_book_; }
  // Weight of a node of the tree of fairness: tenant, namespace, queue, user, as far as named.
  void set_weight(const std::vector<std::string>& path, double weight) { queues_.set_weight(path, weight); }

  // Why a task that is queued here waits; nothing if it is not queued. Costs by workers.
  std::optional<Explanation> explain(const TaskRef& ref);
  // The same for a task that is not queued, as if it were now.
  Explanation explain_unqueued(const QueuedTask& task);
  struct Usage {
    Shape capacity, used;
    size_t running = 0;
  };
  Usage usage(const std::string& worker) const;
  Usage total_usage() const;
  // The worker that is kept free for a task of the same class as this queued one; empty if none is.
  std::string reserved_for(const TaskRef& ref) const;

 private:
  struct Class;
  // Tasks that start together.
  struct Gang {
    std::map<FairQueues::Position, Class*, FairQueues::ByPosition> members;
    size_t size = 0;
    size_t running = 0;                // members that have started: what is queued beside them goes alone
    std::unique_ptr<Class> turn;       // stands for all of them in the queues
    FairQueues::Line* line = nullptr;  // where it does, once they are complete
    FairQueues::Position at;           // of the member in whose place
    int64_t retry_ms = 0;
  };
  using GangKey = TaskRef;  // with the gang's id for the task's
  static GangKey gang_of(const TaskRef& ref, const std::string& gang) { return {ref.tenant, ref.name_space, gang}; }
  // Tasks of equal demand.
  struct Class {
    Class(Demand demand, Fleet& fleet, uint64_t number_) : asked(std::move(demand), fleet), number(number_) {}
    Fleet::Asked asked;
    uint64_t number;
    size_t members = 0;  // queued tasks
    bool parked = false;
    std::vector<FairQueues::Line*> parked_lines;
    // Once the class fitted nowhere, only workers that have got more room since can hold it: these.
    bool limited = false;
    std::set<WorkerSlot> candidates;
    int64_t starving_since_ms = -1;   // nothing of it was placed since; -1: it does not wait for room
    WorkerSlot reserved = kNoWorker;  // kept free for it
    int64_t preempted_ms = -1;        // when it looked for tasks to stop last
    Gang* gang = nullptr;             // set if it only stands for one
  };
  struct Queued {
    QueuedTask task;  // without its demand, which is in the class
    Class* cls = nullptr;
    FairQueues::Line* line = nullptr;  // nullptr while its time has not come
  };
  struct Running {
    WorkerSlot worker = kNoWorker;
    Needs needs;
    FairQueues::Node* leaf = nullptr;
    int64_t ends_ms = 0;  // at the latest; 0: not known
    QuotaBook::Owner owner;
    QuotaAmounts amounts{};
    LabelMap labels;
    std::string gang;
    int32_t priority = 0;
    bool preemptible = false;
    bool leaving = false;  // was told to make room
    int64_t started_ms = 0;
  };

  static std::vector<std::string> path_of(const QueuedTask& task);
  Class* class_of(Demand demand);
  void leave_class(Class* cls);
  void enqueue(Queued& queued);
  void leave_line(Queued& queued);
  void start(const TaskRef& ref, Running running);
  void start_queued(Queued& queued, WorkerSlot worker, FairQueues::Node* leaf);
  void forget(Queued& queued);

  std::optional<std::string> over_quota(const FairQueues::Line* line, const Class& cls) const;
  void park_for_quota(FairQueues::Line* line);
  void unpark_for_quota();

  void join_gang(Queued& queued);
  void leave_gang(Queued& queued);
  void count_running(const TaskRef& ref, const std::string& gang, int sign);
  void line_up(Gang& gang);
  bool start_gang(Gang& gang, std::vector<Assignment>& out);
  void retry_gangs();
  std::string explain_gang(const Gang& gang);

  void preempt(Class& cls, int32_t priority);
  std::vector<const TaskRef*> victims(WorkerSlot worker, const Needs& needs, int32_t priority) const;

  WorkerSlot pick(Class& cls);
  bool usable(const Class& cls, WorkerSlot worker) const;
  void park(Class& cls, FairQueues::Line* line);
  WorkerSlot search(Class& cls);
  bool retry(Class& cls);
  void try_freed_workers();
  bool try_moved_neighbours();
  NearBook::ForEachResident residents() const;
  void reserve_for_the_starved();
  void reserve(Class& cls);
  void end_reservation(WorkerSlot worker);
  int64_t free_at_ms(WorkerSlot worker, const Needs& needs) const;
  Explanation explain_class(Fleet::Asked& asked);

  const SchedulerOptions options_;
  Fleet fleet_;
  FairQueues queues_;
  NearBook near_;
  QuotaBook quota_book_;
  std::map<std::string, std::vector<FairQueues::Line*>>
      over_quota_;                     // lines that are parked for want of quota, by tenant
  std::set<std::string> quota_freed_;  // tenants that use less, or may use more, than when their lines were parked
  int64_t now_ms_ = 0;
  std::unordered_map<TaskRef, Queued, TaskRefHash> queued_;
  std::map<Demand, Class> classes_;
  std::map<uint64_t, Class*> near_classes_;        // that have near terms, by number
  std::map<uint64_t, Class*> limited_;             // by number
  std::set<std::pair<int64_t, TaskRef>> delayed_;  // by the time they become due
  std::unordered_map<TaskRef, Running, TaskRefHash> running_;
  std::vector<std::map<TaskRef, const Running*>> on_worker_;  // by slot
  std::map<WorkerSlot, Class*> reservations_;
  std::vector<size_t> preemptible_on_;  // running tasks that may be stopped, by slot
  std::map<GangKey, Gang> gangs_;
  std::vector<Eviction> evictions_;
  uint64_t next_class_ = 1;
};

}  // namespace uccp::tasks
