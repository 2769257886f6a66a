// The leader's side of execution: which attempt runs where, what agents report, what has to be started or stopped.
//
// Loop thread only. Everything here is memory of the leader: it is built from the replicated state and from what agents
// say in their Hello, and it is thrown away with the leadership. Rules that keep an attempt from running twice:
//  - a task that the last leader may have placed is placed again only when every worker that was alive then has said
//  what
//    it runs, or was fenced (its epoch ended by a committed command);
//  - an attempt that is lost is reported as LOST through the log before the task is queued again;
//  - outcomes count only from the present epoch, decided in apply.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/metrics.h"
#include "base/random.h"
#include "machine/ports.h"
#include "services/tasks/actor_channels.h"
#include "services/tasks/agent_connections.h"
#include "services/tasks/data_hints.h"
#include "services/tasks/live_tasks.h"
#include "services/tasks/provisioner.h"
#include "services/tasks/quota_budgets.h"
#include "services/tasks/scaling.h"
#include "services/tasks/scheduler.h"
#include "services/tasks/task_makers.h"
#include "services/work_types.h"

namespace uccp::tasks {

struct WorkRuntimeOptions {
  int64_t heartbeat_interval_ms = 1000;
  // The agent kills its attempts this long after its last confirmed heartbeat was sent ...
  int64_t agent_lease_ms = 60'000;
  // ... and the leader waits this much longer before it fences the worker.
  int64_t lease_margin_ms = 5'000;
  size_t slots_per_worker = 100;
  uint64_t log_bytes_max = 64u << 20;
  std::string cluster_id;
  int64_t task_timeout_default_ms = 3'600'000;
  // Length of the first quarantine of a worker; 0: none.
  int64_t quarantine_ms = 60'000;
  SchedulerPolicy policy;
  ScalingOptions scaling;
};

struct WorkRuntimeEnvironment {
  Executor& loop;
  const Clock& clock;
  Random& random;
  machine::Proposer& proposer;
  machine::Reader& reader;
  machine::Watcher& watcher;
  MetricsRegistry& metrics;
  std::function<machine::GroupView()> view;  // newest applied state of the work group
  // Of the cluster: which commands all nodes know.
  std::function<uint32_t()> feature_level;
  // Streams of events for tasks that they trigger; may be empty.
  TaskMakers::OpenEvents open_events;
  // The use of a quota reached a threshold; may be empty.
  std::function<void(const QuotaAlert&)> on_quota_alert;
  // Makes workers of the scaling groups; may be nullptr.
  Provisioner* provisioner = nullptr;
  // The autoscaler decided something; may be empty.
  std::function<void(const ScalingDecision&)> on_scaling;
  // Topics of a namespace, or of all of a tenant if none is named; empty: none are counted.
  std::function<uint64_t(const machine::Scope&)> topics;
};

class WorkRuntime {
 public:
  WorkRuntime(WorkRuntimeOptions options, WorkRuntimeEnvironment environment, LiveTasks& live);
  ~WorkRuntime();

  // From the node. `ready`: this node leads the work group in `term` and its state is current.
  void on_leadership(bool ready, Term term);
  void stop();

  // From the link service, on the loop.
  void receive(const std::shared_ptr<AgentSession>& session, internal::v1::AgentMessage message);
  void closed(const std::shared_ptr<AgentSession>& session);

  // Stops a task wherever it is; answers the task after the cancellation is committed.
  void cancel(machine::Envelope envelope, internal::v1::CancelCommand command, machine::Proposer::Done done);

  // Output of running attempts. The sink is called on the loop until unsubscribe; `complete` ends it.
  struct LogSink {
    std::function<void(const internal::v1::LogChunk&)> chunk;
    std::function<void(const internal::v1::LogReply&)> reply;
  };
  struct LogStart {
    uint64_t stdout_offset = 0;
    uint64_t stderr_offset = 0;
    bool follow = false;
    bool values = false;  // what the function yields, as if it were its standard output
  };
  // Answers 0 if no attempt of the task is live.
  uint64_t subscribe_logs(const TaskRef& ref, int32_t attempt, const LogStart& start, LogSink sink);
  void unsubscribe_logs(uint64_t subscription);

  // Calls of actors, on the loop. The peer hears of it when the actor's object is there, and when the channel ends.
  // Answers the number of the channel. Errors: failed_precondition ACTOR_ENDED; invalid NOT_AN_ACTOR; unavailable
  // WORK_NOT_READY.
  Result<uint64_t> open_actor(const TaskRef& ref, std::shared_ptr<ActorPeer> peer);
  Status send_to_actor(uint64_t channel, std::string data) { return actors_.send(channel, std::move(data)); }
  void close_actor(uint64_t channel) { actors_.close(channel); }

  // Why a task does not run, as far as the leader knows: fills all but id and status. Errors: unavailable
  // WORK_NOT_READY.
  Status explain(const TaskRef& ref, const internal::v1::TaskRow& row, v1::TaskExplanation& out) const;
  // explain() in one sentence, for logs and reports.
  std::string why(const TaskRef& ref) const;
  // Which quotas a task would meet. Errors: not_found QUOTA_NOT_FOUND if there is none; unavailable WORK_NOT_READY.
  Status explain_quota(const std::string& tenant, const v1::ExplainQuotaRequest& request, v1::QuotaExplanation& out);
  // Errors: failed_precondition TASK_UNPLACEABLE, with what keeps it from every present worker, if it could not even
  // wait for room; unavailable WORK_NOT_READY.
  Status check_placeable(const std::string& tenant, const v1::Task& task) const;

 private:
  static constexpr int64_t kTickMs = 100;

  struct Worker {
    std::string id;
    uint64_t epoch = 0;
    std::shared_ptr<AgentSession> session;
    BootTime lease_until;
    BootTime last_heartbeat;
    LiveWorker live;
    bool fencing = false;
    double price_per_hour = 0;
    int64_t drain_deadline_ms = -1;               // as it was told last; -1: no drain
    int64_t quarantine_until_ms = 0;              // by machine time; 0: it is in none
    std::string scaling_group, scaling_instance;  // empty: it was not started by the autoscaler
  };
  struct Subscription {
    TaskRef ref;
    internal::v1::AttemptId attempt;
    LogSink sink;
  };

  void lead(Term term);
  void step_down();
  void tick();
  void on_task_change(const machine::Change& change);
  void on_worker_change(const machine::Change& change);
  void track(const TaskRef& ref);
  void track(const TaskRef& ref, const std::optional<internal::v1::TaskRow>& row);
  void keep_attempt(const TaskRef& ref, const LiveAttempt& attempt);
  void drop_attempt(const TaskRef& ref);
  void note_deadlines(const TaskRef& ref, const internal::v1::TaskRow& row);
  void end_queue_timeouts();
  void end_deadlines();
  void propose_end(const TaskRef& ref, machine::Envelope envelope);
  void queue_task(const TaskRef& ref, const internal::v1::TaskRow& row);
  void note_checkpoint(const TaskRef& ref, const internal::v1::TaskRow& row);
  void prefer_data(const TaskRef& ref, const v1::Task& task, Demand& demand) const;

  // Elements of an array that the leader deals with.
  struct ArrayTurn {
    std::set<uint32_t> out;       // in the scheduler, or with an attempt
    std::set<uint32_t> returned;  // behind `next`, and to be queued again
    size_t live = 0;              // with an attempt
    uint32_t next = 0;            // the first one that was not looked at
    size_t waiting = 0;           // that have not ended
    std::optional<int32_t> priority;
  };
  bool is_held(const TaskRef& ref) const;
  bool is_cancelling(const TaskRef& ref) const;
  void count_attempt(const TaskRef& ref, int change);
  void track_array(const TaskRef& ref, const internal::v1::TaskRow* row);
  void track_element(const TaskRef& ref, const internal::v1::TaskRow& row);
  void give_up_turn(const TaskRef& ref, const internal::v1::TaskRow& row);
  void queue_element(const TaskRef& ref, const internal::v1::TaskRow& array, uint32_t index);
  void feed(const TaskRef& ref, const internal::v1::TaskRow& row);
  std::vector<uint32_t> elements_that_may_run(const TaskRef& array) const;
  void set_may_run(const TaskRef& array, internal::v1::ElementsToEnd& elements) const;
  void track_ended(const TaskRef& array, const internal::v1::ElementsToEnd& elements);
  void stop_array(const TaskRef& ref, const internal::v1::TaskRow& row);
  std::string explain_array(const TaskRef& ref, const internal::v1::TaskRow& row) const;
  size_t waiting_elements() const;

  void hello(const std::shared_ptr<AgentSession>& session, const internal::v1::Hello& hello);
  void welcome(const std::shared_ptr<AgentSession>& session, const internal::v1::Hello& hello,
               const internal::v1::WorkerRow& row);
  bool adopt(Worker& worker, const internal::v1::RunningAttempt& running);
  void heartbeat(Worker& worker, const internal::v1::AgentHeartbeat& heartbeat);
  void started(Worker& worker, const internal::v1::AttemptStarted& started);
  void denied(Worker& worker, const internal::v1::AttemptDenied& denied);
  void outcome(const internal::v1::AttemptOutcome& outcome);
  void acknowledge(const internal::v1::AttemptId& id, bool accepted);
  void flush_outcomes();
  void note_run_time(const TaskRef& ref, const v1::Task& task, const internal::v1::AttemptOutcome& outcome);
  void learn_run_times(std::vector<EndedRun> ended);
  // The outcome is not under way any more.
  void settled(const internal::v1::AttemptId& id);
  void outcomes_applied(std::vector<internal::v1::AttemptOutcome> sent, const internal::v1::OutcomesResult& result);
  void lose_attempts(const std::string& worker_id, const std::string& why, const std::set<std::string>& except);
  int64_t backoff_ms(const internal::v1::AttemptOutcome& outcome);

  void load_quotas(const std::string& tenant);
  void set_quota(const std::string& tenant, const std::string& key, const v1::ResourceQuota& quota,
                 const machine::GroupView& view);
  void on_quota_change(const machine::Change& change);
  void count_topics();
  void publish_quotas();
  void account_costs();
  void charge_budgets(const TaskRef& ref, const LiveAttempt& attempt, const Worker& worker, double hours);
  void refresh_budgets();

  // The worker as the scheduler is to see it now.
  WorkerView present_view(Worker& worker, const internal::v1::WorkerRow& row);
  void end_quarantine(Worker& worker);
  void judge_health(Worker& worker, BootTime now);
  void evict_intolerant(Worker& worker, const WorkerView& view);
  void stop_to_requeue(Worker& worker, LiveAttempt& attempt, const internal::v1::TaskRow& row,
                       const std::string& reason);
  void evict(const std::vector<Eviction>& evictions);
  void stop_for_others(const TaskRef& ref, const std::string& reason);
  void stop_gangs(internal::v1::StopGangsCommand command);
  void go_on_stopping(const TaskRef& ref);
  void note_gang_outcome(const TaskRef& ref, const internal::v1::TaskRow& row);
  void set_gang(const TaskRef& ref, const internal::v1::TaskRow& row, QueuedTask& queued) const;
  void send_drain(Worker& worker, const internal::v1::WorkerRow& row);
  void fence(Worker& worker);
  void finish_recovery_if_done();
  void note_scaling_group(Worker& worker, const internal::v1::WorkerRow& row);
  void scale();
  ScalingInput scaling_input(std::vector<ScalingInstance> instances);
  void step_scaling(std::vector<ScalingInstance> instances);
  void carry_out(ScalingDecision decision);
  void audit_scaling(const ScalingDecision& decision);
  void start_instance(const ScalingDecision& decision);
  void command_worker(const std::string& worker, const char* name, std::string payload);
  void count_failed_start(const std::string& group);
  std::string scaling_note(const TaskRef& ref) const;

  void schedule_round();
  void run_round();
  void launch(const Assignment& assignment);
  void send_cancel(const TaskRef& ref, const internal::v1::TaskRow& row);
  std::set<std::string> needed_as_inputs(const machine::Scope& scope) const;
  void prune();
  void end_objects();
  void update_live(Worker& worker);
  void update_metrics();
  int64_t machine_now_ms();
  Worker* worker_of(const std::shared_ptr<AgentSession>& session);
  std::optional<internal::v1::TaskRow> row_of(const TaskRef& ref) const;

  const WorkRuntimeOptions options_;
  WorkRuntimeEnvironment env_;
  LiveTasks& live_;

  bool leading_ = false;
  bool stopped_ = false;
  Term term_;
  uint64_t next_sequence_ = 1;
  LogIndex base_applied_;
  int64_t base_machine_ms_ = 0;
  BootTime base_boot_;
  std::unique_ptr<Scheduler> scheduler_;
  DataHints data_hints_;
  std::unique_ptr<Scaling> scaling_;  // while it leads
  AgentConnections connections_;
  std::map<std::string, Worker> workers_;
  std::map<TaskRef, LiveAttempt> attempts_;
  std::map<std::string, std::set<TaskRef>> attempts_on_;  // the same by worker; none is empty
  std::set<TaskRef> cancelling_;  // a cancellation that ends the task at once is under way: start nothing
  // By machine time, milliseconds.
  std::set<std::pair<int64_t, TaskRef>> queue_timeouts_;
  std::set<std::pair<int64_t, TaskRef>> deadlines_;
  TaskMakers makers_;
  // After a change of leader: workers that have not said yet what they run, and tasks that may run there.
  std::set<std::string> recovering_;
  std::map<TaskRef, internal::v1::TaskRow> held_;
  std::map<TaskRef, ArrayTurn> arrays_;
  std::shared_ptr<machine::Watch> task_watch_;
  std::shared_ptr<machine::Watch> worker_watch_;
  std::shared_ptr<machine::Watch> quota_watch_;
  BootTime costs_until_;
  QuotaBudgets budgets_;
  uint64_t watch_generation_ = 0;
  std::vector<internal::v1::AttemptOutcome> outcomes_;
  bool outcome_flush_scheduled_ = false;
  std::set<std::string> outcomes_under_way_;
  std::multiset<TaskRef> settling_;  // tasks of these: placed before they count, a task could run twice
  // Tasks that have ended and were tracked as of an index: the changes up to there say nothing new.
  std::map<TaskRef, LogIndex> tracked_over_;
  bool round_scheduled_ = false;
  std::map<uint64_t, Subscription> subscriptions_;
  ActorChannels actors_;
  uint64_t next_subscription_ = 1;
  uint64_t ticks_ = 0;
  Executor::TimerId timer_ = 0;
};

}  // namespace uccp::tasks
