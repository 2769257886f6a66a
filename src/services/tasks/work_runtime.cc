#include "services/tasks/work_runtime.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/log.h"
#include "services/tasks/attempts.h"
#include "services/tasks/function_values.h"
#include "services/tasks/retry_rules.h"
#include "services/tasks/task_arrays.h"

namespace uccp::tasks {
namespace {

using internal::v1::AttemptId;
using internal::v1::ServerMessage;
using internal::v1::TaskRow;
using internal::v1::WorkerRow;

constexpr size_t kAssignPerRound = 256;
constexpr uint64_t kPruneEveryTicks = 10;
constexpr uint64_t kRefreshEveryTicks = 10;
constexpr size_t kPrunedPerRound = 1000;

// The blob of a task's artifact, or why there is none.
Result<v1::Blob> find_artifact(const machine::GroupView& view, const TaskRef& ref, const v1::TaskOutput& output) {
  const auto row = find_task(view, {ref.tenant, ref.name_space}, output.task_id());
  if (row) {
    for (const v1::Artifact& artifact : row->task().artifacts()) {
      if (artifact.path() != output.path()) continue;
      v1::Blob blob;
      blob.set_sha256(artifact.sha256());
      blob.set_size(artifact.size());
      return blob;
    }
  }
  return fail(Code::kFailedPrecondition, "INPUT_MISSING",
              "the input " + output.path() + " of task " + output.task_id() +
                  " does not exist: that task has no such " + "artifact; name it in its outputs");
}

Status resolve_inputs(const machine::GroupView& view, const TaskRef& ref, const v1::Task& task,
                      internal::v1::LaunchAttempt& launch) {
  for (const v1::Input& input : task.inputs()) {
    auto& resolved = *launch.add_inputs();
    resolved.set_path(input.path());
    resolved.set_mode(input.mode());
    if (input.has_task_output()) {
      UCCP_TRY(*resolved.mutable_blob(), find_artifact(view, ref, input.task_output()));
    } else {
      *resolved.mutable_blob() = input.blob();
    }
  }
  return Status::ok();
}

}  // namespace

WorkRuntime::WorkRuntime(WorkRuntimeOptions options, WorkRuntimeEnvironment environment, LiveTasks& live)
    : options_(std::move(options)),
      env_(std::move(environment)),
      live_(live),
      scheduler_(std::make_unique<Scheduler>(scheduler_options(options_.policy))),
      makers_({.clock = env_.clock,
               .proposer = env_.proposer,
               .metrics = env_.metrics,
               .view = env_.view,
               .loop = env_.loop,
               .open_events = env_.open_events}) {
  count_topics();
}

WorkRuntime::~WorkRuntime() = default;

void WorkRuntime::on_leadership(bool ready, Term term) {
  if (leading_) step_down();
  if (ready && !stopped_) lead(term);
}

void WorkRuntime::lead(Term term) {
  leading_ = true;
  term_ = term;
  next_sequence_ = 1;
  const machine::GroupView view = env_.view();
  base_applied_ = view.applied();
  base_machine_ms_ = view.machine_time_ms();
  base_boot_ = env_.clock.boot();
  work::kWorkers.scan(view, work::kWorkerScope, "", "", [&](std::string_view id, WorkerRow row) {
    Worker& worker = workers_[std::string(id)];
    worker.id = id;
    worker.epoch = row.epoch();
    note_scaling_group(worker, row);
    if (row.incarnation().empty() || row.worker().status() == v1::WORKER_STATUS_LOST) return true;
    worker.lease_until = base_boot_.plus_ms(options_.agent_lease_ms + options_.lease_margin_ms);
    recovering_.insert(worker.id);
    return true;
  });
  std::vector<EndedRun> ended;
  work::kTasks.scan_all(view, [&](const machine::Scope& scope, std::string_view id, TaskRow row) {
    if (work::is_terminal(row.task().status())) {
      if (auto run = ended_run(scope, row.task())) ended.push_back(std::move(*run));
      return true;
    }
    const TaskRef ref{scope.tenant, scope.name_space, std::string(id)};
    note_deadlines(ref, row);
    makers_.track(ref, &row);
    if (row.task().status() != v1::TASK_STATUS_PENDING) held_.emplace(ref, std::move(row));
    return true;
  });
  learn_run_times(std::move(ended));
  budgets_.load(view, env_.clock.wall());
  work::kQuotas.scan_all(view, [&](const machine::Scope& scope, std::string_view key, const v1::ResourceQuota& quota) {
    set_quota(scope.tenant, std::string(key), quota, view);
    return true;
  });
  costs_until_ = base_boot_;
  log::info("work group: recovering", {{"workers", recovering_.size()}, {"tasks", held_.size()}});
  const uint64_t generation = ++watch_generation_;
  const auto watch = [&](std::string_view topic, auto handler) {
    return env_.watcher.watch(
        {.group = kWorkGroup, .topic = std::string(topic)}, view.applied(),
        [this, generation, handler](const machine::Change& change) {
          env_.loop.post([this, generation, handler, change] {
            if (generation == watch_generation_) (this->*handler)(change);
          });
          return true;
        },
        [](const Status& status) { log::debug("work watch ended", {{"reason", status.reason()}}); });
  };
  task_watch_ = watch(work::kTaskTopic, &WorkRuntime::on_task_change);
  worker_watch_ = watch(work::kWorkerTopic, &WorkRuntime::on_worker_change);
  quota_watch_ = watch(work::kQuotaTopic, &WorkRuntime::on_quota_change);
  scheduler_->set_preempting(recovering_.empty());
  finish_recovery_if_done();
  if (timer_ == 0) timer_ = env_.loop.post_after(kTickMs, [this] { tick(); });
}

void WorkRuntime::step_down() {
  leading_ = false;
  ++watch_generation_;
  task_watch_.reset();
  worker_watch_.reset();
  quota_watch_.reset();
  const Status status(Code::kNotLeader, "NOT_LEADER", "this node no longer leads the work group; connect again");
  for (auto& [id, worker] : workers_) {
    if (worker.session) worker.session->close(status);
    live_.erase_worker(id);
  }
  connections_.clear();
  workers_.clear();
  attempts_.clear();
  attempts_on_.clear();
  live_.clear();
  scheduler_ = std::make_unique<Scheduler>(scheduler_options(options_.policy));
  data_hints_.clear();
  scaling_.reset();
  recovering_.clear();
  held_.clear();
  arrays_.clear();
  queue_timeouts_.clear();
  deadlines_.clear();
  makers_.clear();
  budgets_.clear();
  cancelling_.clear();
  outcomes_.clear();
  outcomes_under_way_.clear();
  settling_.clear();
  tracked_over_.clear();
  subscriptions_.clear();
  actors_.close_all(status);
}

void WorkRuntime::stop() {
  stopped_ = true;
  env_.loop.cancel(timer_);
  if (leading_) step_down();
}

// Goes on from what was applied last. The first stamped command of a term sets only the origin of machine time, so the
// time before it has not passed for the machine: extrapolating over it would end every pause and retention too early.
int64_t WorkRuntime::machine_now_ms() {
  if (const machine::GroupView view = env_.view(); view.applied() != base_applied_) {
    base_applied_ = view.applied();
    base_machine_ms_ = view.machine_time_ms();
    base_boot_ = env_.clock.boot();
  }
  return base_machine_ms_ + env_.clock.boot().ms_since(base_boot_);
}

std::optional<TaskRow> WorkRuntime::row_of(const TaskRef& ref) const {
  return find_task(env_.view(), {ref.tenant, ref.name_space}, ref.id);
}

void WorkRuntime::tick() {
  timer_ = env_.loop.post_after(kTickMs, [this] { tick(); });
  tracked_over_.clear();  // a task that is tracked once more than needed does no harm
  if (!leading_) return;
  const BootTime now = env_.clock.boot();
  for (auto& [id, worker] : workers_) {
    if (worker.lease_until.us > 0 && worker.lease_until < now && !worker.fencing) fence(worker);
    judge_health(worker, now);
    end_quarantine(worker);
  }
  end_queue_timeouts();
  end_deadlines();
  makers_.tick();
  const int64_t due = scheduler_->next_due_ms();
  // What waits for its time, and once a second what only time changes: ages, shares, rooms to be kept free.
  if ((due >= 0 && due <= machine_now_ms()) || (ticks_ % kRefreshEveryTicks == 0 && scheduler_->queued() > 0))
    schedule_round();
  if (++ticks_ % kPruneEveryTicks == 0) {
    prune();
    end_objects();
    account_costs();
    refresh_budgets();
    scale();
  }
  publish_quotas();
  update_metrics();
}

void WorkRuntime::on_task_change(const machine::Change& change) {
  if (!leading_) return;
  const TaskRef ref{change.scope.tenant, change.scope.name_space, change.key};
  if (const auto over = tracked_over_.find(ref); over != tracked_over_.end() && change.index <= over->second) {
    tracked_over_.erase(over);
    return;
  }
  track(ref);
}

// Brings the leader's memory in line with the row as it is now. The change itself may be older than that.
void WorkRuntime::track(const TaskRef& ref) { track(ref, row_of(ref)); }

void WorkRuntime::track(const TaskRef& ref, const std::optional<TaskRow>& row) {
  makers_.track(ref, row ? &*row : nullptr);
  if (row && is_array(row->task()) && !work::is_terminal(row->task().status())) {
    note_deadlines(ref, *row);
    return track_array(ref, &*row);
  }
  if (!row || work::is_terminal(row->task().status())) {
    scheduler_->remove_task(ref);
    held_.erase(ref);
    if (arrays_.contains(ref)) track_array(ref, row ? &*row : nullptr);
    const auto live = attempts_.find(ref);
    actors_.ended(ref, row);
    // An attempt of a task that is over is of no use to anybody.
    if (live != attempts_.end() && row && live->second.id.attempt_number() == row->task().attempts() + 1) {
      send_cancel(ref, *row);
    } else {
      drop_attempt(ref);
    }
    if (row && is_element(row->task()) && !attempts_.contains(ref)) track_element(ref, *row);
    return;
  }
  if (!is_element(row->task())) note_deadlines(ref, *row);
  const auto live = attempts_.find(ref);
  if (live != attempts_.end() && live->second.id.attempt_number() <= row->task().attempts()) drop_attempt(ref);
  if (row->task().status() == v1::TASK_STATUS_STOPPING) return send_cancel(ref, *row);
  if (attempts_.contains(ref)) return note_checkpoint(ref, *row);
  if (row->task().status() != v1::TASK_STATUS_QUEUED) return;
  if (is_held(ref)) {
    if (is_element(row->task())) give_up_turn(ref, *row);
    return;
  }
  // Comes again when the outcome counts or is refused.
  if (settling_.contains(ref)) return;
  if (is_element(row->task())) return track_element(ref, *row);
  queue_task(ref, *row);
  schedule_round();
}

Status WorkRuntime::check_placeable(const std::string& tenant, const v1::Task& task) const {
  if (!leading_)
    return Status(Code::kUnavailable, "WORK_NOT_READY", "the scheduler is starting; nothing was done, retry");
  const Explanation explanation = scheduler_->explain_unqueued(queued_of({tenant, task.namespace_(), task.id()}, task));
  const auto may_fit = [](const Explanation::Reason& reason) {
    return reason.obstacle == Obstacle::kNone || reason.obstacle == Obstacle::kBusy ||
           reason.obstacle == Obstacle::kSlots;
  };
  if (std::ranges::any_of(explanation.reasons, may_fit)) return Status::ok();
  std::string why = explanation.summary;
  for (const Explanation::Reason& reason : explanation.reasons) why += "; " + reason.message;
  return Status(Code::kFailedPrecondition, "TASK_UNPLACEABLE", "no present worker could run the task: " + why);
}

void WorkRuntime::queue_task(const TaskRef& ref, const TaskRow& row) {
  QueuedTask queued = queued_of(ref, row.task());
  queued.queued_ms = row.created_ms();
  if (row.accepted() > 0) queued.order = row.accepted();
  if (!queued.gang.empty()) set_gang(ref, row, queued);
  queued.not_before_ms = row.not_before_ms() > machine_now_ms() ? row.not_before_ms() : 0;
  if (row.task().affinity().prefer_data()) prefer_data(ref, row.task(), queued.demand);
  scheduler_->add_task(std::move(queued));
}

// Workers that have fetched inputs of the task are a wish of it, as if it had named them.
void WorkRuntime::prefer_data(const TaskRef& ref, const v1::Task& task, Demand& demand) const {
  internal::v1::LaunchAttempt launch;
  if (!resolve_inputs(env_.view(), ref, task, launch).is_ok()) return;  // said when it is launched
  std::vector<DataHints::Content> contents;
  for (const auto& input : launch.inputs()) contents.push_back({input.blob().sha256(), input.blob().size()});
  for (const auto& [worker, weight] : data_hints_.workers(contents))
    demand.preferred.emplace_back(std::string(work::kWorkerLabel) + "=" + worker, weight);
}

void WorkRuntime::keep_attempt(const TaskRef& ref, const LiveAttempt& attempt) {
  if (attempts_.insert_or_assign(ref, attempt).second) count_attempt(ref, 1);
  attempts_on_[attempt.id.worker_id()].insert(ref);
  live_.set(ref, attempt);
}

void WorkRuntime::drop_attempt(const TaskRef& ref) {
  const auto it = attempts_.find(ref);
  if (it == attempts_.end()) return;
  const std::string worker = it->second.id.worker_id();
  attempts_.erase(it);
  count_attempt(ref, -1);
  const auto beside = attempts_on_.find(worker);
  beside->second.erase(ref);
  if (beside->second.empty()) attempts_on_.erase(beside);
  live_.erase(ref);
  if (actors_.has(ref)) actors_.detached(ref, row_of(ref));
  scheduler_->release(ref);
  for (auto sub = subscriptions_.begin(); sub != subscriptions_.end();) {
    if (sub->second.ref != ref) {
      ++sub;
      continue;
    }
    internal::v1::LogReply reply;
    reply.set_complete(true);
    auto node = subscriptions_.extract(sub++);
    node.mapped().sink.reply(reply);
  }
  if (const auto w = workers_.find(worker); w != workers_.end()) update_live(w->second);
  schedule_round();
}

void WorkRuntime::cancel(machine::Envelope envelope, internal::v1::CancelCommand command,
                         machine::Proposer::Done done) {
  const TaskRef ref{envelope.scope.tenant, envelope.scope.name_space, command.id()};
  if (!leading_) {
    return done(fail(Code::kUnavailable, "WORK_NOT_READY", "the scheduler is starting; nothing was done, retry"));
  }
  // A task that may run somewhere is asked to stop; one that does not is over at once.
  bool may_run = attempts_.contains(ref) || is_held(ref);
  if (const auto row = row_of(ref); row && is_array(row->task())) {
    set_may_run(ref, *command.mutable_elements());
    may_run = false;  // decided for each element, and none is started meanwhile
  }
  command.set_final(!may_run);
  if (!may_run) cancelling_.insert(ref);
  envelope.command = "tasks.cancel";
  envelope.payload = command.SerializeAsString();
  env_.proposer.propose(kWorkGroup, std::move(envelope),
                        [this, ref, elements = std::move(*command.mutable_elements()),
                         done = std::move(done)](Result<machine::Applied> applied) mutable {
                          cancelling_.erase(ref);
                          if (leading_) track(ref);
                          if (leading_) track_ended(ref, elements);
                          done(std::move(applied));
                        });
}

void WorkRuntime::send_cancel(const TaskRef& ref, const TaskRow& row) {
  const auto live = attempts_.find(ref);
  if (live == attempts_.end()) {
    // Nothing runs it: the stop is the end, unless a worker that has not reported yet may still run it.
    if (is_held(ref) || settling_.contains(ref) || work::is_terminal(row.task().status()) ||
        !cancelling_.insert(ref).second)
      return;
    internal::v1::CancelCommand command;
    command.set_id(ref.id);
    command.set_reason(row.task().status_reason());
    command.set_final(true);
    command.set_timed_out(row.deadline_passed());
    machine::Envelope envelope = system_command("tasks.cancel", command.SerializeAsString());
    envelope.scope = {ref.tenant, ref.name_space};
    return env_.proposer.propose(kWorkGroup, std::move(envelope),
                                 [this, ref](Result<machine::Applied>) { cancelling_.erase(ref); });
  }
  const auto worker = workers_.find(live->second.id.worker_id());
  if (live->second.cancel_sent || worker == workers_.end() || !worker->second.session) return;
  live->second.cancel_sent = true;
  ServerMessage message;
  auto& cancel = *message.mutable_cancel();
  *cancel.mutable_attempt() = live->second.id;
  const int64_t own = row.task().has_grace_period() ? ms_of(row.task().grace_period()) : 10'000;
  set_ms(cancel.mutable_grace(), row.cancel_requested() && row.cancel_grace_ms() >= 0 ? row.cancel_grace_ms() : own);
  cancel.set_reason(row.task().status_reason());
  cancel.set_kind(v1::ATTEMPT_OUTCOME_KIND_CANCELLED);
  worker->second.session->send(std::move(message));
}

void WorkRuntime::schedule_round() {
  if (round_scheduled_ || !leading_) return;
  round_scheduled_ = true;
  env_.loop.post([this] { run_round(); });
}

void WorkRuntime::run_round() {
  round_scheduled_ = false;
  if (!leading_) return;
  const auto assignments = scheduler_->assign(machine_now_ms(), kAssignPerRound);
  for (const Assignment& assignment : assignments) launch(assignment);
  evict(scheduler_->take_evictions());
  if (assignments.size() == kAssignPerRound) schedule_round();
}

namespace {

// The attempt goes on from the checkpoint that was asked for, else from the newest.
void set_checkpoint(const TaskRow& row, internal::v1::LaunchAttempt& launch) {
  const auto& all = row.task().checkpoints();
  const auto named =
      std::ranges::find_if(all, [&](const v1::Checkpoint& one) { return one.name() == row.resume_from(); });
  if (named != all.end()) *launch.mutable_checkpoint() = *named;
  else if (!all.empty()) *launch.mutable_checkpoint() = *all.rbegin();
  launch.mutable_task()->clear_checkpoints();
}

}  // namespace

void WorkRuntime::launch(const Assignment& assignment) {
  const auto row = row_of(assignment.task);
  Worker& worker = workers_[assignment.worker];
  if (!row || row->task().status() != v1::TASK_STATUS_QUEUED || !worker.session || is_cancelling(assignment.task)) {
    scheduler_->release(assignment.task);
    if (row && row->task().status() == v1::TASK_STATUS_QUEUED) queue_task(assignment.task, *row);
    else if (row && is_element(row->task())) track(assignment.task);
    return;
  }
  LiveAttempt attempt;
  attempt.shape = shape_of(row->task().resources());
  attempt.user = row->task().principal();
  attempt.runs_on = runs_on(row->task().type());
  AttemptId& id = attempt.id;
  id.set_task_id(assignment.task.id);
  id.set_namespace_(assignment.task.name_space);
  id.set_tenant(assignment.task.tenant);
  id.set_term(term_.value);
  id.set_sequence(next_sequence_++);
  id.set_worker_id(worker.id);
  id.set_worker_epoch(worker.epoch);
  id.set_attempt_number(row->task().attempts() + 1);
  keep_attempt(assignment.task, attempt);
  ServerMessage message;
  auto& launch = *message.mutable_launch();
  *launch.mutable_attempt() = id;
  *launch.mutable_task() = row->task();
  launch.mutable_task()->clear_attempt_history();
  if (is_element(row->task())) {
    auto& env = *launch.mutable_task()->mutable_env();
    env["UCCP_ARRAY_ID"] = row->task().parent_id();
    env["UCCP_ARRAY_INDEX"] = std::to_string(row->task().array_index());
    env["UCCP_ARRAY_SIZE"] = std::to_string(row->task().array().size());
  }
  set_checkpoint(*row, launch);
  // A service has no end, a stream may have none, and an actor lives until it ends or is ended; one that a caller has
  // given them still holds.
  if (!launch.task().has_timeout() && !runs_on(row->task().type()) && !launch.task().function().has_actor())
    set_ms(launch.mutable_task()->mutable_timeout(), options_.task_timeout_default_ms);
  Status status = resolve_inputs(env_.view(), assignment.task, row->task(), launch);
  if (status.is_ok()) status = resolve_values(env_.view(), assignment.task, launch);
  if (!status.is_ok()) {
    return outcome(made_up_outcome(id, v1::ATTEMPT_OUTCOME_KIND_LAUNCH_FAILED, status.message(), env_.clock.wall()));
  }
  for (const auto& input : launch.inputs()) data_hints_.note(input.blob().sha256(), worker.id);
  worker.session->send(std::move(message));
  update_live(worker);
}

Result<uint64_t> WorkRuntime::open_actor(const TaskRef& ref, std::shared_ptr<ActorPeer> peer) {
  if (!leading_)
    return fail(Code::kUnavailable, "WORK_NOT_READY", "the scheduler is starting; nothing was done, retry");
  const auto row = row_of(ref);
  if (!row || !row->task().function().has_actor()) {
    return fail(Status(Code::kInvalid, "NOT_AN_ACTOR", "task " + ref.id + " is no actor; its result is a value")
                    .with_field("actor", "must be an actor"));
  }
  if (work::is_terminal(row->task().status())) {
    return fail(Code::kFailedPrecondition, "ACTOR_ENDED",
                "the actor " + ref.id + " has ended: " + row->task().status_reason());
  }
  const uint64_t channel = actors_.open(ref, std::move(peer));
  const auto live = attempts_.find(ref);
  if (live == attempts_.end() || !live->second.started) return channel;
  const auto worker = workers_.find(live->second.id.worker_id());
  if (worker != workers_.end()) actors_.attached(ref, live->second.id, worker->second.session);
  return channel;
}

// Tasks of the scope whose artifacts are inputs of tasks that have not ended: they and their blobs are needed still.
std::set<std::string> WorkRuntime::needed_as_inputs(const machine::Scope& scope) const {
  std::set<std::string> needed;
  const machine::GroupView view = env_.view();
  work::kActiveTasks.scan(view, scope, "", "", [&](std::string_view id, std::string_view) {
    const auto row = work::kTasks.get(view, scope, id);
    if (!row) return true;
    for (const v1::Input& input : row->task().inputs()) {
      if (!input.has_task_output()) continue;
      const std::string& source = input.task_output().task_id();
      needed.insert(source);
      if (const auto element = element_of(source)) needed.insert(element->array);
    }
    return true;
  });
  return needed;
}

void WorkRuntime::prune() {
  internal::v1::PruneCommand command;
  const int64_t now = machine_now_ms();
  std::map<std::pair<std::string, std::string>, std::set<std::string>>
      needed;  // by scope; found out only if something is due
  work::kTaskExpiry.scan(env_.view(), {}, "", "", [&](std::string_view row, std::string_view) {
    ByteReader in(row);
    if (static_cast<int64_t>(in.u64()) > now) return false;
    const TaskRef ref{in.key_part(), in.key_part(), std::string(in.rest())};
    const auto [in_scope, is_new] = needed.try_emplace({ref.tenant, ref.name_space});
    if (is_new) in_scope->second = needed_as_inputs({ref.tenant, ref.name_space});
    if (in_scope->second.contains(ref.id)) return true;
    auto& key = *command.add_tasks();
    key.set_tenant(ref.tenant);
    key.set_namespace_(ref.name_space);
    key.set_id(ref.id);
    return command.tasks_size() < static_cast<int>(kPrunedPerRound);
  });
  if (command.tasks_size() == 0) return;
  env_.proposer.propose(kWorkGroup, system_command("tasks.prune", command.SerializeAsString()),
                        [](const Result<machine::Applied>&) {});
}

void WorkRuntime::update_live(Worker& worker) {
  const Scheduler::Usage usage = scheduler_->usage(worker.id);
  worker.live.used = usage.used;
  worker.live.running = usage.running;
  live_.set_worker(worker.id, worker.live);
}

void WorkRuntime::update_metrics() {
  const size_t waiting = scheduler_->queued() + held_.size() + waiting_elements();
  live_.set_queued(waiting);
  size_t healthy = 0, quarantined = 0;
  for (const auto& [id, worker] : workers_) {
    healthy += worker.live.connected ? 1 : 0;
    quarantined += worker.quarantine_until_ms > 0 ? 1 : 0;
  }
  const auto [total, used, running] = scheduler_->total_usage();
  const auto set = [&](std::string_view name, std::string_view help, double value) {
    env_.metrics.gauge(name, help).set(value);
  };
  set("uccp_workers_total", "Total workers", static_cast<double>(workers_.size()));
  set("uccp_workers_healthy", "Healthy workers", static_cast<double>(healthy));
  set("uccp_workers_quarantined", "Workers that take nothing because of faults of their own",
      static_cast<double>(quarantined));
  set("uccp_tasks_pending", "Pending tasks", static_cast<double>(waiting));
  set("uccp_tasks_running", "Running tasks", static_cast<double>(running));
  set("uccp_cluster_cpu_total", "Total cluster CPU, cores", static_cast<double>(total.cpu_milli) / 1000);
  set("uccp_cluster_cpu_available", "Available CPU, cores",
      static_cast<double>(total.cpu_milli - used.cpu_milli) / 1000);
  set("uccp_cluster_memory_total", "Total cluster memory, bytes", static_cast<double>(total.memory));
  set("uccp_cluster_memory_available", "Available memory, bytes", static_cast<double>(total.memory - used.memory));
  set("uccp_cluster_gpu_total", "Total GPUs", static_cast<double>(total.gpus));
  set("uccp_cluster_gpu_available", "Available GPUs", static_cast<double>(total.gpus - used.gpus));
  set("uccp_cluster_gpu_fragmentation", "Share of the free GPUs that is on workers where others are in use",
      scheduler_->gpu_fragmentation());
}

}  // namespace uccp::tasks
