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

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "services/tasks/fair_queues.h"
#include "services/tasks/fleet.h"
#include "services/tasks/near_book.h"
#include "services/tasks/quota_book.h"
#include "services/tasks/ref_table.h"
#include "services/tasks/run_times.h"
#include "services/tasks/shapes.h"
#include "services/tasks/shared_devices.h"

namespace uccp::tasks {

struct QueuedTask {
  TaskRef ref;
  int32_t priority = 50;
  Demand demand;
  std::string queue, user;    // below its namespace
  std::string name;           // tasks of one name run for like times; empty: nothing is known of it
  LabelMap labels;            // its own, for the near terms of others
  uint64_t order = 0;         // position among equals: the revision that queued it
  int64_t not_before_ms = 0;  // on the caller's clock
  int64_t queued_ms = 0;      // since when it waits; 0: since it is added
  bool preemptible = false;   // may be stopped for one of a higher band
  bool interactive = false;   // somebody waits for it: it counts a band higher, and may use the headroom
  // Of a gang `gang_size` tasks start together, once so many are queued; those beyond it join when there is room.
  // Empty: it is alone.
  std::string gang;
  size_t gang_size = 0;
  bool gang_again = false;  // it was stopped, with its whole gang
  bool gang_alone = false;  // it comes back by itself: its gang has had its start
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

// Another way of backfilling for the tasks of some queues. "*" is any namespace, or any queue.
struct BackfillRule {
  std::string name_space, queue;
  Backfill backfill = Backfill::kEasy;
};

struct SchedulerOptions {
  Packing packing = Packing::kTight;
  FairnessOptions fairness;
  // Of queues that no rule names. The first rule that fits counts.
  Backfill backfill = Backfill::kEasy;
  std::vector<BackfillRule> backfill_rules;
  // EASY: a task that fits nowhere for so long gets a worker kept free for it ...
  int64_t reserve_after_ms = 30'000;
  // ... if there are fewer of these already; a gang gets as many as it needs, at most so many gangs at a time.
  // Conservative: at once, as long as there are some.
  size_t reservations_max = 8;
  size_t gang_reservations_max = 4;
  // A task stops only those whose priority is lower by so much.
  int32_t preemption_gap = 10;
  // Part of the CPU of each worker that only interactive tasks may use, percent.
  int32_t headroom_percent = 0;
  // How often a class that fits nowhere looks for tasks to stop, and a gang for room; plans are made as often.
  int64_t retry_ms = 1'000;
};

// What an operator says of it.
struct SchedulerPolicy {
  Backfill backfill = Backfill::kEasy;
  std::vector<BackfillRule> backfill_rules;
  // Part of the CPU of each worker that only interactive tasks may use, percent.
  int32_t headroom_percent = 0;
  // Gangs at a time that have room kept for them.
  size_t gang_reservations = SchedulerOptions().gang_reservations_max;
};
// Most things at a time for which room is kept.
inline constexpr size_t kReservationsMax = 1'024;

SchedulerOptions scheduler_options(const SchedulerPolicy& policy);

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
  void set_worker(WorkerView worker);
  void remove_worker(const std::string& id);
  // Its agent is gone for now: nothing is placed there until set_worker().
  void disconnect_worker(const std::string& id);
  // Counts an attempt that runs already (found after a change of leader, or assigned elsewhere), for so long.
  void occupy(const std::string& worker, QueuedTask task, int64_t ran_ms = 0);
  // Frees what an attempt used.
  void release(const TaskRef& task);
  // A task of the gang ended, and not because all of it was stopped: those that wait go alone from now on.
  void gang_has_begun(const TaskRef& member, const std::string& gang);
  // It has saved a checkpoint, so long ago: only what it did since then is lost if it is stopped.
  void note_checkpoint(const TaskRef& task, int64_t age_ms);
  // It is being stopped already, by whoever decided before.
  void set_leaving(const TaskRef& task);
  // Whether tasks may be stopped for others; not while it is not known yet of some what runs.
  void set_preempting(bool preempting);

  // A task of that name ended well after so long. What is queued from now on is expected to end as those before did,
  // where that is before its own limit.
  void note_run_time(const RunTimes::Name& name, int64_t run_ms) { run_times_.note(name, run_ms); }

  // What is told next is of this moment: rounds are rare while nothing waits.
  void pass_time(int64_t now_ms) { now_ms_ = std::max(now_ms_, now_ms); }
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
  Explanation explain_unqueued(QueuedTask task);
  struct Usage {
    Shape capacity, used;
    size_t running = 0;
  };
  Usage usage(const std::string& worker) const;
  Usage total_usage() const;
  // Of the graphics processors that are free, the part that is on workers where others are in use: a task that needs
  // all of a worker's cannot have it. 0 to 1.
  double gpu_fragmentation() const;
  // Queued tasks that were tried and fit nowhere: those of equal demand together, and gangs, whose members start
  // together. What waits for a quota or for its time is not among them. `key` is of the class or gang while tasks of it
  // wait.
  struct Unplaced {
    uint64_t key = 0;
    std::vector<Demand> members;  // one, or all of a gang
    size_t count = 0;
    bool gang = false;
    int64_t waited_ms = 0;  // the one that waits longest
  };
  std::vector<Unplaced> unplaced(int64_t now_ms) const;
  // A worker as such tasks see it: with the part of its CPU that is not kept for interactive ones.
  WorkerView with_headroom(WorkerView view) const;
  // The key of a queued task there; nothing if it is not ready to be placed.
  std::optional<uint64_t> unplaced_key(const TaskRef& ref) const;
  // The worker that is kept free for a task of the same class as this queued one; empty if none is.
  std::string reserved_for(const TaskRef& ref) const;
  // Gangs that have workers kept free for them.
  size_t gangs_reserved() const;

 private:
  struct Class;
  // What a task takes while it runs; the same for all of a shape.
  struct Footprint {
    Needs needs;
    QuotaAmounts amounts{};
    size_t users = 0;  // classes and running tasks
  };
  // Tasks that start together.
  struct Gang {
    std::map<FairQueues::Position, Class*, FairQueues::ByPosition> members;
    std::set<TaskRef> delayed;         // members whose time has not come
    size_t size = 0;                   // members that start together
    std::set<TaskRef> running;         // members that have started: what is queued beside them goes alone
    int64_t again_since_ms = -1;       // since when members wait that were stopped together; -1: none does
    std::unique_ptr<Class> turn;       // stands for all of them in the queues
    FairQueues::Line* line = nullptr;  // where it does, once they are complete
    FairQueues::Position at;           // of the member in whose place
    int64_t retry_ms = 0;
    int64_t starving_since_ms = -1;    // when it did not fit first; -1: it did not try yet
    std::vector<WorkerSlot> reserved;  // where room is kept for it
    int64_t room_due_ms = 0;           // if tasks are stopped for it: when they have to have left
    uint64_t tried_at = 0;             // room_changes_ when it did not fit last
  };
  using GangKey = TaskRef;  // with the gang's id for the task's
  static GangKey gang_of(const TaskRef& ref, const std::string& gang) { return {ref.tenant, ref.name_space, gang}; }
  // Tasks of equal demand.
  struct Class {
    Class(Demand demand, Fleet& fleet, uint64_t number_) : asked(std::move(demand), fleet), number(number_) {}
    Fleet::Asked asked;
    Footprint* footprint = nullptr;  // of a class that stands for a gang: nullptr
    uint64_t number;
    size_t members = 0;    // queued tasks
    int32_t priority = 0;  // the highest of those that were parked
    bool parked = false;
    std::vector<FairQueues::Line*> parked_lines;
    // Once the class fitted nowhere, only workers that have got more room since can hold it: these.
    bool limited = false;
    std::set<WorkerSlot> candidates;
    int64_t starving_since_ms = -1;   // nothing of it was placed since; -1: it does not wait for room
    WorkerSlot reserved = kNoWorker;  // where room is kept for it
    uint64_t planned_as = 0;          // its place among all plans; 0: nothing is planned for it
    bool makes_room = false;          // tasks are being stopped so that it has room
    int64_t preempted_ms = -1;        // when it looked for tasks to stop last
    Gang* gang = nullptr;             // set if it only stands for one
  };
  // Room on a worker that is kept for a class, or for members of the gang that it stands for.
  struct Hold {
    Class* owner = nullptr;
    Needs needs;            // of all that is to begin there
    int64_t starts_ms = 0;  // at the latest; the largest number: not known
    int64_t ends_ms = 0;    // likewise
    bool operator==(const Hold&) const = default;
  };
  using Holds = std::map<WorkerSlot, std::vector<Hold>>;  // in the order in which they were planned
  struct Queued {
    QueuedTask task;  // without its demand, which is in the class
    Class* cls = nullptr;
    FairQueues::Line* line = nullptr;  // nullptr while its time has not come

    bool is_of(const TaskRef& ref) const { return task.ref == ref; }
  };
  // Small, because there are many, and each that ends is one that was not looked at for long: two cache lines, wherever
  // it begins.
  struct alignas(32) Running {
    // What few tasks have.
    struct Extras {
      LabelMap labels;
      std::string gang;
      SharedDevices::Id device = 0;  // of which it has a share
      int64_t share = 0;
    };
    std::string id;
    QuotaBook::Account* account = nullptr;  // of its tenant, namespace and user
    FairQueues::Node* leaf = nullptr;
    Footprint* footprint = nullptr;
    WorkerSlot worker = kNoWorker;
    int16_t priority = 0;
    bool preemptible = false;
    bool leaving = false;  // was told to make room
    int64_t ends_ms = 0;   // at the latest; 0: not known
    int64_t started_ms = 0;
    std::unique_ptr<const Extras> extras;

    TaskRef ref() const { return {account->owner->tenant, account->owner->name_space, id}; }
    auto order() const { return std::tie(account->owner->tenant, account->owner->name_space, id); }
    bool is_of(const TaskRef& ref) const { return order() == std::tie(ref.tenant, ref.name_space, ref.id); }
    const LabelMap& labels() const;
    bool in_gang() const { return extras && !extras->gang.empty(); }
    NearBook::Resident resident(const Fleet& fleet) const {
      return {account->owner->tenant, account->owner->name_space, labels(), fleet.view(worker)};
    }
  };
  struct ByRef {
    bool operator()(const Running* a, const Running* b) const { return a->order() < b->order(); }
  };

  static std::vector<std::string> path_of(const QueuedTask& task);
  Class* class_of(Demand demand);
  void expect_end(QueuedTask& task) const;
  void leave_headroom(QueuedTask& task) const;
  Backfill backfill_of(const QueuedTask& task) const;
  // How long a class waits before room is kept for it, and for how many classes, or gangs, of its way of backfilling.
  static Backfill way_of(const Class& cls) { return cls.asked.demand().backfill; }
  int64_t reserve_after_ms(const Class& cls) const;
  bool may_reserve(const Class& cls) const;
  size_t& reserved_count(const Class& cls) { return planned_[cls.gang != nullptr][static_cast<size_t>(way_of(cls))]; }
  void leave_class(Class* cls);
  void enqueue(Queued& queued);
  void leave_line(Queued& queued);
  Footprint* footprint_of(const Shape& shape);
  void start(const QueuedTask& task, const Demand& demand, Running running);
  void start_queued(Queued& queued, WorkerSlot worker, FairQueues::Node* leaf);
  void forget(Queued& queued);

  std::optional<std::string> over_quota(const FairQueues::Line* line, const Class& cls) const;
  void park_for_quota(FairQueues::Line* line);
  void unpark_for_quota();

  void join_gang(Queued& queued);
  void leave_delayed(const QueuedTask& task);
  void drop_if_empty(const GangKey& key);
  void leave_gang(Queued& queued);
  void count_preemptible(const Running& running, int sign);
  void count_running(const Running& running, int sign);
  bool runs(const Gang& gang) const;
  static std::vector<Class*> first_members(const Gang& gang);
  void line_up(Gang& gang);
  bool is_to_rejoin(const QueuedTask& task) const;
  struct Seats;
  WorkerSlot seat(Class& cls, const Gang& gang, Seats& seats);
  bool start_gang(Gang& gang, std::vector<Assignment>& out);
  void retry_gangs();
  std::string explain_gang(const Gang& gang);

  // Running tasks to stop, whole gangs of them.
  using Victims = std::set<Running*, ByRef>;
  // What it costs: the sum of the priorities and one for each, and the time of work that is lost.
  using Loss = std::pair<int64_t, int64_t>;
  void preempt(Class& cls, int32_t priority);
  void preempt_for(Gang& gang, int32_t priority);
  bool may_stop(const Running& running, int32_t priority) const;
  void add_with_gang(Running* running, Victims& victims);
  std::optional<Victims> victims(WorkerSlot worker, const Needs& needs, int32_t priority, const Victims& planned);
  bool is_kept_from(int32_t priority, WorkerSlot worker) const;
  std::optional<std::pair<WorkerSlot, Victims>> cheapest(Class& cls, int32_t priority, const Victims& planned);
  // What it did since then is lost if it is stopped.
  int64_t saved_ms(const Running& running) const;
  Loss loss_of(const Victims& victims) const;
  void evict(const Victims& victims, int32_t priority);

  static SharedDevices::Owner owner_of(const Demand& demand) { return {demand.tenant, demand.name_space}; }
  bool has_room(const Class& cls, WorkerSlot worker) const;
  WorkerSlot search_shared(Class& cls);
  SharedDevices::Id take_share(WorkerSlot worker, const Demand& demand);
  WorkerSlot pick(Class& cls);
  void park(Class& cls, FairQueues::Line* line);
  WorkerSlot search(Class& cls);
  bool retry(Class& cls);
  void try_freed_workers();
  bool try_moved_neighbours();
  NearBook::ForEachResident residents() const;

  int64_t expected_end(const Running& running) const;
  std::vector<std::pair<int64_t, int64_t>> room_by_time(WorkerSlot worker, const Needs& needs) const;
  int64_t free_at_ms(WorkerSlot worker, const Needs& needs) const;
  bool usable(const Class& cls, WorkerSlot worker, const Gang* gang = nullptr) const;
  void keep(WorkerSlot worker, Hold hold);
  void stop_keeping(WorkerSlot worker, const Class* owner);
  Hold hold_for(Class& cls, int64_t starts_ms) const;
  void keep_for(Class& cls, WorkerSlot worker, int64_t starts_ms);
  void keep_for(Gang& gang, const std::map<WorkerSlot, Needs>& room, int64_t starts_ms);
  void reserve_for_the_starved();
  void reserve(Class& cls);
  bool reserve(Gang& gang);
  void end_reservation(Class& cls);
  void end_reservation(Gang& gang);
  void end_reservations(WorkerSlot worker);
  bool keeps_its_room(const Class& owner) const;
  std::vector<Class*> planned_anew();
  std::string explain_hold(const Class& owner) const;
  void clear_plan();
  void plan();

  Explanation explain_class(Fleet::Asked& asked, const Class* cls);

  void note_unknown_labels(const Demand& demand, Explanation& out) const;

  const SchedulerOptions options_;
  Fleet fleet_;
  FairQueues queues_;
  NearBook near_;
  SharedDevices shared_;
  RunTimes run_times_;
  QuotaBook quota_book_;
  std::map<std::string, std::vector<FairQueues::Line*>>
      over_quota_;                     // lines that are parked for want of quota, by tenant
  std::set<std::string> quota_freed_;  // tenants that use less, or may use more, than when their lines were parked
  int64_t now_ms_ = 0;
  RefTable<Queued> queued_;
  std::map<Demand, Class> classes_;
  std::map<uint64_t, Class*> near_classes_;        // that have near terms, by number
  std::map<uint64_t, Class*> limited_;             // by number
  std::set<std::pair<int64_t, TaskRef>> delayed_;  // by the time they become due
  // Shapes that are known, and at how many those that nothing has any more are forgotten.
  static constexpr size_t kFootprintsSweptAt = 1'024;
  std::map<Shape, Footprint> footprints_;
  size_t footprints_swept_at_ = kFootprintsSweptAt;
  RefTable<Running> running_;
  std::vector<std::vector<Running*>> on_worker_;  // by slot
  Holds holds_;
  // Classes that have a hold, and gangs as of the last plan, by their way of backfilling.
  std::array<std::array<size_t, 2>, 2> planned_{};
  int64_t plan_due_ms_ = 0;          // when it is looked at anew
  int64_t plan_holds_until_ms_ = 0;  // the first of what is planned begins
  uint64_t next_plan_ = 1;
  std::pair<uint64_t, size_t> planned_at_;  // room_changes_, and how many waited, as of the last plan
  uint64_t room_changes_ = 1;               // how often a worker has got more room, or is kept for less
  std::map<TaskRef, int64_t> saved_ms_;     // when running tasks saved their last checkpoint; those that have one
  std::vector<size_t> preemptible_on_;      // running tasks that may be stopped, by slot
  size_t preemptible_ = 0;                  // all of them
  bool preempting_ = true;
  std::map<GangKey, Gang> gangs_;
  std::vector<Eviction> evictions_;
  uint64_t next_class_ = 1;
};

}  // namespace uccp::tasks
