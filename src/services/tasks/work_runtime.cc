#include "services/tasks/work_runtime.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/log.h"
#include "machine/resource_id.h"

namespace uccp::tasks {
namespace {

using internal::v1::AttemptId;
using internal::v1::AttemptOutcome;
using internal::v1::ServerMessage;
using internal::v1::TaskRow;
using internal::v1::WorkerRow;

constexpr int64_t kTickMs = 100;
constexpr size_t kAssignPerRound = 256;
constexpr size_t kOutcomesPerCommand = 256;
constexpr uint64_t kPruneEveryTicks = 600;
constexpr size_t kPrunedPerRound = 1000;
constexpr int64_t kDeniedRetryMs = 500;

TaskRef ref_of(const AttemptId& id) { return {id.tenant(), id.namespace_(), id.task_id()}; }

std::string key_of(const AttemptId& id) { return id.SerializeAsString(); }

bool same(const AttemptId& a, const AttemptId& b) { return key_of(a) == key_of(b); }

int64_t to_ms(const google::protobuf::Duration& d) { return d.seconds() * 1000 + d.nanos() / 1'000'000; }

void set_ms(google::protobuf::Duration* out, int64_t ms) {
  out->set_seconds(ms / 1000);
  out->set_nanos(static_cast<int32_t>(ms % 1000 * 1'000'000));
}

std::string without_prefix(std::string name, std::string_view prefix) {
  return name.starts_with(prefix) ? name.substr(prefix.size()) : name;
}

machine::Envelope system_command(std::string command, std::string payload) {
  machine::Envelope envelope;
  envelope.principal = "system";
  envelope.command = std::move(command);
  envelope.payload = std::move(payload);
  return envelope;
}

AttemptOutcome made_up_outcome(const AttemptId& id, v1::AttemptOutcomeKind kind, std::string message, WallTime now) {
  AttemptOutcome outcome;
  *outcome.mutable_attempt() = id;
  outcome.set_kind(kind);
  outcome.set_message(std::move(message));
  outcome.mutable_end_time()->set_seconds(now.us / 1'000'000);
  outcome.mutable_end_time()->set_nanos(static_cast<int32_t>(now.us % 1'000'000 * 1000));
  return outcome;
}

}  // namespace

WorkRuntime::WorkRuntime(WorkRuntimeOptions options, WorkRuntimeEnvironment environment, LiveTasks& live)
    : options_(std::move(options)), env_(std::move(environment)), live_(live) {}

WorkRuntime::~WorkRuntime() = default;

// Leadership. -----------------------------------------------------------------------------------------------------------

void WorkRuntime::on_leadership(bool ready, Term term) {
  if (leading_) step_down();
  if (ready && !stopped_) lead(term);
}

void WorkRuntime::lead(Term term) {
  leading_ = true;
  term_ = term;
  next_sequence_ = 1;
  const machine::GroupView view = env_.view();
  base_machine_ms_ = view.machine_time_ms();
  base_boot_ = env_.clock.boot();
  work::kWorkers.scan(view, work::kWorkerScope, "", "", [&](std::string_view id, WorkerRow row) {
    Worker& worker = workers_[std::string(id)];
    worker.id = id;
    worker.epoch = row.epoch();
    worker.cordoned = row.cordoned();
    if (row.incarnation().empty() || row.worker().status() == v1::WORKER_STATUS_LOST) return true;
    worker.lease_until = base_boot_.plus_ms(options_.agent_lease_ms + options_.lease_margin_ms);
    recovering_.insert(worker.id);
    return true;
  });
  work::kTasks.scan_all(view, [&](const machine::Scope& scope, std::string_view id, TaskRow row) {
    if (work::is_terminal(row.task().status()) || row.task().status() == v1::TASK_STATUS_PENDING) return true;
    held_.emplace(TaskRef{scope.tenant, scope.name_space, std::string(id)}, std::move(row));
    return true;
  });
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
  finish_recovery_if_done();
  if (timer_ == 0) timer_ = env_.loop.post_after(kTickMs, [this] { tick(); });
}

void WorkRuntime::step_down() {
  leading_ = false;
  ++watch_generation_;
  task_watch_.reset();
  worker_watch_.reset();
  const Status status(Code::kNotLeader, "NOT_LEADER", "this node no longer leads the work group; connect again");
  for (auto& [id, worker] : workers_) {
    if (worker.session) worker.session->close(status);
    live_.erase_worker(id);
  }
  workers_.clear();
  attempts_.clear();
  live_.clear();
  scheduler_ = Scheduler();
  recovering_.clear();
  held_.clear();
  cancelling_.clear();
  outcomes_.clear();
  outcomes_under_way_.clear();
  subscriptions_.clear();
}

void WorkRuntime::stop() {
  stopped_ = true;
  env_.loop.cancel(timer_);
  if (leading_) step_down();
}

int64_t WorkRuntime::machine_now_ms() const { return base_machine_ms_ + env_.clock.boot().ms_since(base_boot_); }

std::optional<TaskRow> WorkRuntime::row_of(const TaskRef& ref) const {
  return work::kTasks.get(env_.view(), {ref.tenant, ref.name_space}, ref.id);
}

void WorkRuntime::tick() {
  timer_ = env_.loop.post_after(kTickMs, [this] { tick(); });
  if (!leading_) return;
  const BootTime now = env_.clock.boot();
  for (auto& [id, worker] : workers_) {
    if (worker.lease_until.us > 0 && worker.lease_until < now && !worker.fencing) fence(worker);
  }
  const int64_t due = scheduler_.next_due_ms();
  if (due >= 0 && due <= machine_now_ms()) schedule_round();
  if (++ticks_ % kPruneEveryTicks == 0) prune();
  update_metrics();
}

// Tasks. ----------------------------------------------------------------------------------------------------------------

void WorkRuntime::on_task_change(const machine::Change& change) {
  if (!leading_) return;
  track({change.scope.tenant, change.scope.name_space, change.key});
}

// Brings the leader's memory in line with the row as it is now. The change itself may be older than that.
void WorkRuntime::track(const TaskRef& ref) {
  const auto row = row_of(ref);
  if (!row || work::is_terminal(row->task().status())) {
    scheduler_.remove_task(ref);
    held_.erase(ref);
    const auto live = attempts_.find(ref);
    // An attempt of a task that is over is of no use to anybody.
    if (live != attempts_.end() && row && live->second.id.attempt_number() == row->task().attempts() + 1) {
      send_cancel(ref, *row);
    } else {
      drop_attempt(ref);
    }
    return;
  }
  const auto live = attempts_.find(ref);
  if (live != attempts_.end() && live->second.id.attempt_number() <= row->task().attempts()) drop_attempt(ref);
  if (row->task().status() == v1::TASK_STATUS_STOPPING) return send_cancel(ref, *row);
  if (row->task().status() != v1::TASK_STATUS_QUEUED || attempts_.contains(ref) || held_.contains(ref)) return;
  queue_task(ref, *row);
  schedule_round();
}

void WorkRuntime::queue_task(const TaskRef& ref, const TaskRow& row) {
  const v1::Task& task = row.task();
  QueuedTask queued;
  queued.ref = ref;
  queued.priority = task.has_priority() ? task.priority() : work::kPriorityDefault;
  queued.shape = shape_of(task.resources());
  queued.selector.insert(task.node_selector().begin(), task.node_selector().end());
  queued.order = task.revision();
  queued.not_before_ms = row.not_before_ms() > machine_now_ms() ? row.not_before_ms() : 0;
  scheduler_.add_task(std::move(queued));
}

void WorkRuntime::drop_attempt(const TaskRef& ref) {
  const auto it = attempts_.find(ref);
  if (it == attempts_.end()) return;
  const std::string worker = it->second.id.worker_id();
  attempts_.erase(it);
  live_.erase(ref);
  scheduler_.release(ref);
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
  const bool may_run = attempts_.contains(ref) || held_.contains(ref);
  command.set_final(!may_run);
  if (!may_run) cancelling_.insert(ref);
  envelope.command = "tasks.cancel";
  envelope.payload = command.SerializeAsString();
  env_.proposer.propose(kWorkGroup, std::move(envelope),
                        [this, ref, done = std::move(done)](Result<machine::Applied> applied) mutable {
                          cancelling_.erase(ref);
                          if (leading_) track(ref);
                          done(std::move(applied));
                        });
}

void WorkRuntime::send_cancel(const TaskRef& ref, const TaskRow& row) {
  const auto live = attempts_.find(ref);
  if (live == attempts_.end()) {
    // Nothing runs it: the stop is the end, unless a worker that has not reported yet may still run it.
    if (held_.contains(ref) || work::is_terminal(row.task().status()) || !cancelling_.insert(ref).second) return;
    internal::v1::CancelCommand command;
    command.set_id(ref.id);
    command.set_reason(row.task().status_reason());
    command.set_final(true);
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
  const int64_t own = row.task().has_grace_period() ? to_ms(row.task().grace_period()) : 10'000;
  set_ms(cancel.mutable_grace(), row.cancel_requested() && row.cancel_grace_ms() >= 0 ? row.cancel_grace_ms() : own);
  cancel.set_reason(row.task().status_reason());
  cancel.set_kind(v1::ATTEMPT_OUTCOME_KIND_CANCELLED);
  worker->second.session->send(std::move(message));
}

// Scheduling. -----------------------------------------------------------------------------------------------------------

void WorkRuntime::schedule_round() {
  if (round_scheduled_ || !leading_) return;
  round_scheduled_ = true;
  env_.loop.post([this] { run_round(); });
}

void WorkRuntime::run_round() {
  round_scheduled_ = false;
  if (!leading_) return;
  const auto assignments = scheduler_.assign(machine_now_ms(), kAssignPerRound);
  for (const Assignment& assignment : assignments) launch(assignment);
  if (assignments.size() == kAssignPerRound) schedule_round();
}

namespace {

// The blob of a task's artifact, or why there is none.
Result<v1::Blob> find_artifact(const machine::GroupView& view, const TaskRef& ref, const v1::TaskOutput& output) {
  const auto row = work::kTasks.get(view, {ref.tenant, ref.name_space}, output.task_id());
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
              "the input " + output.path() + " of task " + output.task_id() + " does not exist: that task has no such " +
                  "artifact; name it in its outputs");
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

void WorkRuntime::launch(const Assignment& assignment) {
  const auto row = row_of(assignment.task);
  Worker& worker = workers_[assignment.worker];
  if (!row || row->task().status() != v1::TASK_STATUS_QUEUED || !worker.session ||
      cancelling_.contains(assignment.task)) {
    scheduler_.release(assignment.task);
    if (row && row->task().status() == v1::TASK_STATUS_QUEUED) queue_task(assignment.task, *row);
    return;
  }
  LiveAttempt attempt;
  attempt.shape = shape_of(row->task().resources());
  AttemptId& id = attempt.id;
  id.set_task_id(assignment.task.id);
  id.set_namespace_(assignment.task.name_space);
  id.set_tenant(assignment.task.tenant);
  id.set_term(term_.value);
  id.set_sequence(next_sequence_++);
  id.set_worker_id(worker.id);
  id.set_worker_epoch(worker.epoch);
  id.set_attempt_number(row->task().attempts() + 1);
  attempts_[assignment.task] = attempt;
  live_.set(assignment.task, attempt);
  ServerMessage message;
  auto& launch = *message.mutable_launch();
  *launch.mutable_attempt() = id;
  *launch.mutable_task() = row->task();
  launch.mutable_task()->clear_attempt_history();
  if (!launch.task().has_timeout()) set_ms(launch.mutable_task()->mutable_timeout(), options_.task_timeout_default_ms);
  if (Status status = resolve_inputs(env_.view(), assignment.task, row->task(), launch); !status.is_ok()) {
    return outcome(made_up_outcome(id, v1::ATTEMPT_OUTCOME_KIND_LAUNCH_FAILED, status.message(), env_.clock.wall()));
  }
  worker.session->send(std::move(message));
  update_live(worker);
}

// Agents. ---------------------------------------------------------------------------------------------------------------

WorkRuntime::Worker* WorkRuntime::worker_of(const std::shared_ptr<AgentSession>& session) {
  for (auto& [id, worker] : workers_) {
    if (worker.session == session) return &worker;
  }
  return nullptr;
}

void WorkRuntime::receive(const std::shared_ptr<AgentSession>& session, internal::v1::AgentMessage message) {
  if (!leading_) {
    return session->close(Status(Code::kUnavailable, "WORK_NOT_READY", "this node does not lead the work group yet; retry"));
  }
  using Body = internal::v1::AgentMessage;
  if (message.body_case() == Body::kHello) return hello(session, message.hello());
  if (message.body_case() == Body::kOutcome) return outcome(message.outcome());
  Worker* worker = worker_of(session);
  if (worker == nullptr) return;  // replaced by a newer stream, or its Hello is not committed yet
  switch (message.body_case()) {
    case Body::kHeartbeat: return heartbeat(*worker, message.heartbeat());
    case Body::kStarted: return started(*worker, message.started());
    case Body::kDenied: return denied(*worker, message.denied());
    case Body::kLog:
      for (auto& [id, sub] : subscriptions_) {
        if (same(sub.attempt, message.log().attempt())) sub.sink.chunk(message.log());
      }
      return;
    case Body::kLogReply: {
      const auto it = subscriptions_.find(message.log_reply().subscription());
      if (it != subscriptions_.end()) it->second.sink.reply(message.log_reply());
      return;
    }
    case Body::kProgress: {
      const auto it = attempts_.find(ref_of(message.progress().attempt()));
      if (it == attempts_.end() || !same(it->second.id, message.progress().attempt())) return;
      it->second.progress = message.progress().progress();
      return live_.set(it->first, it->second);
    }
    default: return;
  }
}

void WorkRuntime::hello(const std::shared_ptr<AgentSession>& session, const internal::v1::Hello& hello) {
  // Outcomes that the agent still carries are of the epoch before: they go into the log ahead of the new one.
  for (const AttemptOutcome& pending : hello.pending_outcomes()) outcome(pending);
  flush_outcomes();
  internal::v1::HelloCommand command;
  v1::Worker& worker = *command.mutable_worker();
  worker.set_id(hello.worker_id().empty() ? machine::make_id("worker", env_.clock.wall(), env_.random) : hello.worker_id());
  worker.set_name(hello.name());
  worker.set_version(hello.version());
  worker.set_address(hello.address());
  worker.set_pool(hello.pool().empty() ? "default" : hello.pool());
  worker.set_region(hello.region());
  worker.set_zone(hello.zone());
  worker.set_type(hello.type());
  worker.set_isolation(hello.isolation());
  *worker.mutable_labels() = hello.labels();
  *worker.mutable_taints() = hello.taints();
  *worker.mutable_capabilities() = hello.capabilities();
  *worker.mutable_gpus() = hello.gpus();
  *worker.mutable_resources()->mutable_total() = hello.capacity();
  command.set_incarnation(hello.incarnation());
  env_.proposer.propose(kWorkGroup, system_command("workers.hello", command.SerializeAsString()),
                        [this, session, hello](Result<machine::Applied> applied) {
                          if (!applied) return session->close(applied.error());
                          WorkerRow row;
                          if (leading_ && row.ParseFromString(applied->response)) welcome(session, hello, row);
                        });
}

void WorkRuntime::welcome(const std::shared_ptr<AgentSession>& session, const internal::v1::Hello& hello,
                          const WorkerRow& row) {
  Worker& worker = workers_[row.worker().id()];
  worker.id = row.worker().id();
  if (worker.session && worker.session != session) {
    worker.session->close(Status(Code::kConflict, "STREAM_REPLACED", "a newer stream of this agent took over"));
  }
  worker.session = session;
  worker.epoch = row.epoch();
  worker.fencing = false;
  worker.cordoned = row.cordoned();
  worker.lease_until = env_.clock.boot().plus_ms(options_.agent_lease_ms + options_.lease_margin_ms);
  worker.live.connected = true;
  worker.live.last_seen = env_.clock.wall();

  ServerMessage message;
  auto& welcome = *message.mutable_welcome();
  std::set<std::string> carried;
  for (const auto& running : hello.running()) {
    if (adopt(worker, running)) carried.insert(key_of(running.attempt()));
    else *welcome.add_kill() = running.attempt();
  }
  for (const auto& pending : hello.pending_outcomes()) carried.insert(key_of(pending.attempt()));
  // What was placed here and the agent knows nothing of is not running: that is its word for it.
  lose_attempts(worker.id, "the worker lost the attempt", carried);
  welcome.set_worker_id(worker.id);
  welcome.set_epoch(worker.epoch);
  set_ms(welcome.mutable_heartbeat_interval(), options_.heartbeat_interval_ms);
  set_ms(welcome.mutable_lease(), options_.agent_lease_ms);
  welcome.set_cluster_id(options_.cluster_id);
  welcome.set_protocol_version(1);
  welcome.set_log_bytes_max(options_.log_bytes_max);
  session->send(std::move(message));

  WorkerView view;
  view.id = worker.id;
  view.capacity = shape_of(row.worker().resources().total());
  view.labels.insert(row.worker().labels().begin(), row.worker().labels().end());
  view.slots = options_.slots_per_worker;
  view.accepts = !worker.cordoned;
  scheduler_.set_worker(view);
  update_live(worker);
  log::info("worker connected", {{"worker", worker.id}, {"epoch", worker.epoch}, {"running", carried.size()}});
  recovering_.erase(worker.id);
  finish_recovery_if_done();
  schedule_round();
}

// Takes over an attempt that an agent says it runs. False: it must not go on.
bool WorkRuntime::adopt(Worker& worker, const internal::v1::RunningAttempt& running) {
  const TaskRef ref = ref_of(running.attempt());
  const auto row = row_of(ref);
  if (!row || work::is_terminal(row->task().status()) || running.attempt().worker_epoch() != worker.epoch ||
      running.attempt().attempt_number() != row->task().attempts() + 1) {
    return false;
  }
  const auto known = attempts_.find(ref);
  if (known != attempts_.end() && !same(known->second.id, running.attempt())) return false;
  scheduler_.remove_task(ref);
  held_.erase(ref);
  LiveAttempt attempt;
  attempt.id = running.attempt();
  attempt.shape = shape_of(row->task().resources());
  attempt.started = true;
  attempt.start_time = running.start_time();
  if (known != attempts_.end()) attempt.usage = known->second.usage;
  attempts_[ref] = attempt;
  scheduler_.occupy(worker.id, ref, attempt.shape);
  live_.set(ref, attempt);
  if (row->task().status() == v1::TASK_STATUS_STOPPING) env_.loop.post([this, ref] { if (leading_) track(ref); });
  return true;
}

void WorkRuntime::finish_recovery_if_done() {
  if (!recovering_.empty()) return;
  auto held = std::move(held_);
  held_.clear();
  for (const auto& [ref, row] : held) {
    if (!attempts_.contains(ref)) track(ref);
  }
}

void WorkRuntime::heartbeat(Worker& worker, const internal::v1::AgentHeartbeat& heartbeat) {
  worker.live.last_seen = env_.clock.wall();
  if (heartbeat.has_load()) worker.live.load = heartbeat.load();
  for (const auto& usage : heartbeat.usage()) {
    const auto it = attempts_.find(ref_of(usage.attempt()));
    if (it == attempts_.end() || !same(it->second.id, usage.attempt())) continue;
    it->second.usage = usage.usage();
    live_.set(it->first, it->second);
  }
  update_live(worker);
  const BootTime arrived = env_.clock.boot();
  // Confirmed only once this node knows that it still led after the heartbeat came in.
  env_.reader.read(kWorkGroup, machine::ReadLevel::linearizable(),
                   [this, id = worker.id, session = worker.session, sequence = heartbeat.sequence(),
                    arrived](Result<machine::GroupView> view) {
                     const auto it = workers_.find(id);
                     if (!view || it == workers_.end() || it->second.session != session || it->second.fencing) return;
                     it->second.lease_until = arrived.plus_ms(options_.agent_lease_ms + options_.lease_margin_ms);
                     ServerMessage message;
                     message.mutable_heartbeat_ack()->set_sequence(sequence);
                     set_ms(message.mutable_heartbeat_ack()->mutable_lease_until(), options_.agent_lease_ms);
                     session->send(std::move(message));
                   });
}

void WorkRuntime::started(Worker&, const internal::v1::AttemptStarted& started) {
  const auto it = attempts_.find(ref_of(started.attempt()));
  if (it == attempts_.end() || !same(it->second.id, started.attempt())) return;
  it->second.started = true;
  it->second.start_time = started.start_time();
  live_.set(it->first, it->second);
}

void WorkRuntime::denied(Worker& worker, const internal::v1::AttemptDenied& denied) {
  ServerMessage ack;
  *ack.mutable_outcome_ack()->mutable_attempt() = denied.attempt();
  ack.mutable_outcome_ack()->set_accepted(true);
  worker.session->send(std::move(ack));
  const TaskRef ref = ref_of(denied.attempt());
  const auto it = attempts_.find(ref);
  if (it == attempts_.end() || !same(it->second.id, denied.attempt())) return;
  log::debug("attempt denied", {{"task", ref.id}, {"worker", worker.id}, {"why", denied.message()}});
  drop_attempt(ref);
  // It never ran, so no attempt is recorded; it waits a moment, since the worker may deny again.
  auto row = row_of(ref);
  if (!row) return;
  row->set_not_before_ms(std::max(row->not_before_ms(), machine_now_ms() + kDeniedRetryMs));
  if (row->task().status() == v1::TASK_STATUS_QUEUED) queue_task(ref, *row);
  else track(ref);
}

void WorkRuntime::closed(const std::shared_ptr<AgentSession>& session) {
  Worker* worker = worker_of(session);
  if (worker == nullptr) return;
  worker->session = nullptr;
  worker->live.connected = false;
  scheduler_.set_worker({.id = worker->id, .capacity = scheduler_.usage(worker->id).capacity, .accepts = false});
  update_live(*worker);
  // Followers of its output ask again when it is back.
  internal::v1::LogReply over;
  over.set_complete(true);
  std::vector<LogSink> sinks;
  std::erase_if(subscriptions_, [&](auto& entry) {
    if (entry.second.attempt.worker_id() != worker->id) return false;
    sinks.push_back(std::move(entry.second.sink));
    return true;
  });
  for (LogSink& sink : sinks) sink.reply(over);
  log::warn("worker disconnected", {{"worker", worker->id}, {"epoch", worker->epoch}});
}

void WorkRuntime::fence(Worker& worker) {
  worker.fencing = true;
  internal::v1::FenceCommand command;
  command.set_worker_id(worker.id);
  command.set_epoch(worker.epoch);
  command.set_reason("no heartbeat for " + std::to_string(options_.agent_lease_ms + options_.lease_margin_ms) + " ms");
  log::warn("fencing worker", {{"worker", worker.id}, {"epoch", worker.epoch}});
  env_.proposer.propose(kWorkGroup, system_command("workers.fence", command.SerializeAsString()),
                        [this, id = worker.id](Result<machine::Applied> applied) {
                          const auto it = workers_.find(id);
                          if (!leading_ || it == workers_.end()) return;
                          if (!applied) {
                            it->second.fencing = false;  // tried again at the next tick
                            return;
                          }
                          WorkerRow row;
                          if (row.ParseFromString(applied->response)) it->second.epoch = row.epoch();
                          if (it->second.session) {
                            it->second.session->close(Status(Code::kUnavailable, "WORKER_FENCED", "connect again"));
                          }
                          it->second.session = nullptr;
                          it->second.lease_until = {};
                          it->second.live.connected = false;
                          lose_attempts(id, "the worker was lost", {});
                          scheduler_.remove_worker(id);
                          recovering_.erase(id);
                          update_live(it->second);
                          finish_recovery_if_done();
                        });
}

void WorkRuntime::lose_attempts(const std::string& worker_id, const std::string& why,
                                const std::set<std::string>& except) {
  for (const auto& [ref, attempt] : attempts_) {
    if (attempt.id.worker_id() != worker_id || except.contains(key_of(attempt.id))) continue;
    outcome(made_up_outcome(attempt.id, v1::ATTEMPT_OUTCOME_KIND_LOST, why, env_.clock.wall()));
  }
}

void WorkRuntime::on_worker_change(const machine::Change& change) {
  const auto it = workers_.find(change.key);
  if (!leading_ || it == workers_.end()) return;
  Worker& worker = it->second;
  const auto row = work::kWorkers.get(env_.view(), work::kWorkerScope, change.key);
  if (!row) {
    if (worker.session) {
      ServerMessage message;
      message.mutable_shutdown()->set_reason("the worker was deregistered");
      worker.session->send(std::move(message));
    }
    lose_attempts(worker.id, "the worker was deregistered", {});
    scheduler_.remove_worker(worker.id);
    live_.erase_worker(worker.id);
    workers_.erase(it);
    return;
  }
  worker.cordoned = row->cordoned();
  if (!worker.session || worker.epoch != row->epoch()) return;
  WorkerView view{.id = worker.id, .capacity = shape_of(row->worker().resources().total()),
                  .slots = options_.slots_per_worker, .accepts = !worker.cordoned};
  view.labels.insert(row->worker().labels().begin(), row->worker().labels().end());
  scheduler_.set_worker(view);
  update_live(worker);
  schedule_round();
}

// Outcomes. -------------------------------------------------------------------------------------------------------------

int64_t WorkRuntime::backoff_ms(const AttemptOutcome& outcome) {
  const auto row = row_of(ref_of(outcome.attempt()));
  if (!row || outcome.kind() == v1::ATTEMPT_OUTCOME_KIND_LOST) return 0;
  const v1::RetryPolicy& policy = row->task().retry();
  double wait = policy.has_initial_backoff() ? static_cast<double>(to_ms(policy.initial_backoff())) : 1000;
  const double most = policy.has_max_backoff() ? static_cast<double>(to_ms(policy.max_backoff())) : 300'000;
  const double factor = policy.multiplier() >= 1 ? policy.multiplier() : 2;
  for (int i = 0; i < row->task().retry_count() && wait < most; ++i) wait *= factor;
  const double jitter = policy.has_jitter() ? policy.jitter() : 0.2;
  return static_cast<int64_t>(std::min(wait, most) * (1 - jitter * env_.random.unit()));
}

void WorkRuntime::outcome(const AttemptOutcome& outcome) {
  if (!outcomes_under_way_.insert(key_of(outcome.attempt())).second) return;
  outcomes_.push_back(outcome);
  if (outcome_flush_scheduled_) return;
  outcome_flush_scheduled_ = true;
  env_.loop.post([this] {
    outcome_flush_scheduled_ = false;
    if (leading_) flush_outcomes();
  });
}

void WorkRuntime::flush_outcomes() {
  while (!outcomes_.empty()) {
    const size_t count = std::min(outcomes_.size(), kOutcomesPerCommand);
    std::vector<AttemptOutcome> batch(std::make_move_iterator(outcomes_.begin()),
                                      std::make_move_iterator(outcomes_.begin() + static_cast<ptrdiff_t>(count)));
    outcomes_.erase(outcomes_.begin(), outcomes_.begin() + static_cast<ptrdiff_t>(count));
    internal::v1::OutcomesCommand command;
    for (const AttemptOutcome& o : batch) {
      auto& item = *command.add_items();
      *item.mutable_outcome() = o;
      item.set_backoff_ms(backoff_ms(o));
    }
    env_.proposer.propose(
        kWorkGroup, system_command("tasks.outcomes", command.SerializeAsString()),
        [this, batch = std::move(batch)](Result<machine::Applied> applied) mutable {
          for (const AttemptOutcome& o : batch) outcomes_under_way_.erase(key_of(o.attempt()));
          if (!leading_) return;
          if (applied) {
            internal::v1::OutcomesResult result;
            (void)result.ParseFromString(applied->response);
            return outcomes_applied(std::move(batch), result);
          }
          // Not logged, or not known to be: the same outcomes once more, which apply takes only once.
          log::warn("outcomes not committed", {{"reason", applied.error().reason()}, {"count", batch.size()}});
          env_.loop.post_after(200, [this, batch = std::move(batch), term = term_] {
            if (!leading_ || term != term_) return;
            for (const AttemptOutcome& o : batch) outcome(o);
          });
        });
  }
}

void WorkRuntime::outcomes_applied(std::vector<AttemptOutcome> sent, const internal::v1::OutcomesResult& result) {
  for (size_t i = 0; i < sent.size(); ++i) {
    const AttemptId& id = sent[i].attempt();
    const TaskRef ref = ref_of(id);
    const bool accepted = static_cast<int>(i) < result.accepted_size() && result.accepted(static_cast<int>(i));
    if (const auto worker = workers_.find(id.worker_id()); worker != workers_.end() && worker->second.session) {
      ServerMessage message;
      *message.mutable_outcome_ack()->mutable_attempt() = id;
      message.mutable_outcome_ack()->set_accepted(accepted);
      worker->second.session->send(std::move(message));
    }
    if (accepted) {
      env_.metrics.counter("uccp_attempts_ended_total", "Attempts that ended, by kind",
                           {{"kind", without_prefix(v1::AttemptOutcomeKind_Name(sent[i].kind()), "ATTEMPT_OUTCOME_KIND_")}}).add();
      const auto row = row_of(ref);
      if (row && work::is_terminal(row->task().status())) {
        env_.metrics.counter("uccp_tasks_completed_total", "Tasks that ended, by status",
                             {{"status", without_prefix(v1::TaskStatus_Name(row->task().status()), "TASK_STATUS_")}}).add();
      }
    }
    const auto live = attempts_.find(ref);
    if (live != attempts_.end() && same(live->second.id, id)) drop_attempt(ref);
    held_.erase(ref);
    track(ref);
  }
}

// Logs. -----------------------------------------------------------------------------------------------------------------

uint64_t WorkRuntime::subscribe_logs(const TaskRef& ref, int32_t attempt, uint64_t stdout_offset,
                                     uint64_t stderr_offset, bool follow, LogSink sink) {
  const auto live = attempts_.find(ref);
  if (live == attempts_.end() || (attempt != 0 && live->second.id.attempt_number() != attempt)) return 0;
  const auto worker = workers_.find(live->second.id.worker_id());
  if (worker == workers_.end() || !worker->second.session) return 0;
  const uint64_t id = next_subscription_++;
  subscriptions_[id] = {ref, live->second.id, std::move(sink)};
  ServerMessage message;
  auto& subscribe = *message.mutable_subscribe_logs();
  *subscribe.mutable_attempt() = live->second.id;
  subscribe.set_subscription(id);
  subscribe.set_stdout_offset(stdout_offset);
  subscribe.set_stderr_offset(stderr_offset);
  subscribe.set_follow(follow);
  worker->second.session->send(std::move(message));
  return id;
}

void WorkRuntime::unsubscribe_logs(uint64_t subscription) {
  const auto node = subscriptions_.extract(subscription);
  if (node.empty()) return;
  const auto worker = workers_.find(node.mapped().attempt.worker_id());
  if (worker == workers_.end() || !worker->second.session) return;
  ServerMessage message;
  *message.mutable_unsubscribe_logs()->mutable_attempt() = node.mapped().attempt;
  message.mutable_unsubscribe_logs()->set_subscription(subscription);
  worker->second.session->send(std::move(message));
}

// Housekeeping. ---------------------------------------------------------------------------------------------------------

void WorkRuntime::prune() {
  internal::v1::PruneCommand command;
  const int64_t now = machine_now_ms();
  work::kTaskExpiry.scan(env_.view(), {}, "", "", [&](std::string_view row, std::string_view) {
    ByteReader in(row);
    if (static_cast<int64_t>(in.u64()) > now) return false;
    auto& key = *command.add_tasks();
    key.set_tenant(in.key_part());
    key.set_namespace_(in.key_part());
    key.set_id(std::string(in.rest()));
    return command.tasks_size() < static_cast<int>(kPrunedPerRound);
  });
  if (command.tasks_size() == 0) return;
  env_.proposer.propose(kWorkGroup, system_command("tasks.prune", command.SerializeAsString()),
                        [](const Result<machine::Applied>&) {});
}

void WorkRuntime::update_live(Worker& worker) {
  const Scheduler::Usage usage = scheduler_.usage(worker.id);
  worker.live.used = usage.used;
  worker.live.running = usage.running;
  live_.set_worker(worker.id, worker.live);
}

void WorkRuntime::update_metrics() {
  size_t healthy = 0;
  for (const auto& [id, worker] : workers_) healthy += worker.live.connected ? 1 : 0;
  const auto [total, used, running] = scheduler_.total_usage();
  const auto set = [&](std::string_view name, std::string_view help, double value) {
    env_.metrics.gauge(name, help).set(value);
  };
  set("uccp_workers_total", "Total workers", static_cast<double>(workers_.size()));
  set("uccp_workers_healthy", "Healthy workers", static_cast<double>(healthy));
  set("uccp_tasks_pending", "Pending tasks", static_cast<double>(scheduler_.queued() + held_.size()));
  set("uccp_tasks_running", "Running tasks", static_cast<double>(running));
  set("uccp_cluster_cpu_total", "Total cluster CPU, cores", static_cast<double>(total.cpu_milli) / 1000);
  set("uccp_cluster_cpu_available", "Available CPU, cores", static_cast<double>(total.cpu_milli - used.cpu_milli) / 1000);
  set("uccp_cluster_memory_total", "Total cluster memory, bytes", static_cast<double>(total.memory));
  set("uccp_cluster_memory_available", "Available memory, bytes", static_cast<double>(total.memory - used.memory));
  set("uccp_cluster_gpu_total", "Total GPUs", static_cast<double>(total.gpus));
  set("uccp_cluster_gpu_available", "Available GPUs", static_cast<double>(total.gpus - used.gpus));
}

}  // namespace uccp::tasks
