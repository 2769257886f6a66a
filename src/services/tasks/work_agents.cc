// WorkRuntime, the agents' part: who is connected, what they carry, whether they still live.
#include <algorithm>

#include "base/log.h"
#include "machine/resource_id.h"
#include "services/tasks/attempts.h"
#include "services/tasks/retry_rules.h"
#include "services/tasks/work_runtime.h"

namespace uccp::tasks {
namespace {

using internal::v1::AttemptOutcome;
using internal::v1::ServerMessage;
using internal::v1::WorkerRow;

constexpr int64_t kDeniedRetryMs = 500;
constexpr int64_t kHeartbeatsMissed = 3;

}  // namespace

WorkRuntime::Worker* WorkRuntime::worker_of(const std::shared_ptr<AgentSession>& session) {
  const auto worker = workers_.find(session->worker_id);
  return worker == workers_.end() || worker->second.session != session ? nullptr : &worker->second;
}

void WorkRuntime::receive(const std::shared_ptr<AgentSession>& session, internal::v1::AgentMessage message) {
  if (!leading_) {
    return session->close(
        Status(Code::kUnavailable, "WORK_NOT_READY", "this node does not lead the work group yet; retry"));
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
    case Body::kChannel: return actors_.answered(message.channel());
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
  if (Status status = connections_.admit(session, hello.worker_id()); !status.is_ok())
    return session->close(std::move(status));
  // Outcomes that the agent still carries are of the epoch before: they go into the log ahead of the new one.
  // A fence that is proposed between here and the Welcome would end an epoch whose lease the Welcome renews.
  if (const auto known = workers_.find(hello.worker_id()); known != workers_.end() && !known->second.fencing) {
    known->second.lease_until = std::max(known->second.lease_until,
                                         env_.clock.boot().plus_ms(options_.agent_lease_ms + options_.lease_margin_ms));
  }
  for (const AttemptOutcome& pending : hello.pending_outcomes()) outcome(pending);
  flush_outcomes();
  internal::v1::HelloCommand command;
  v1::Worker& worker = *command.mutable_worker();
  worker.set_id(hello.worker_id().empty() ? machine::make_id("worker", env_.clock.wall(), env_.random)
                                          : hello.worker_id());
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
  command.set_session(hello.session());
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
  session->worker_id = worker.id;
  worker.epoch = row.epoch();
  worker.price_per_hour = row.worker().price_per_hour();
  note_scaling_group(worker, row);
  worker.fencing = false;
  worker.live.gpus.clear();
  worker.last_heartbeat = env_.clock.boot();
  worker.live.health_score = 1;
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
  for (const auto& pending : hello.pending_outcomes()) {
    carried.insert(key_of(pending.attempt()));
    // An earlier Hello, answered only now, may have said that it runs: then its end was not known to be of a live one.
    const auto live = attempts_.find(ref_of(pending.attempt()));
    if (live != attempts_.end() && same(live->second.id, pending.attempt())) outcome(pending);
    // They went into the log ahead of the Hello: what is not under way any more is settled.
    if (!outcomes_under_way_.contains(key_of(pending.attempt()))) *welcome.add_acknowledged() = pending.attempt();
  }
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

  send_drain(worker, row);
  const WorkerView view = present_view(worker, row);
  scheduler_->set_worker(view);
  evict_intolerant(worker, view);
  update_live(worker);
  makers_.workers_changed();
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
  scheduler_->remove_task(ref);
  held_.erase(ref);
  LiveAttempt attempt;
  attempt.id = running.attempt();
  attempt.shape = shape_of(row->task().resources());
  attempt.user = row->task().principal();
  attempt.runs_on = runs_on(row->task().type());
  attempt.started = true;
  attempt.start_time = running.start_time();
  if (known != attempts_.end()) attempt.usage = known->second.usage;
  keep_attempt(ref, attempt);
  const int64_t now_us = env_.clock.wall().us;
  const int64_t ran_ms = running.has_start_time() ? (now_us - us_of(running.start_time())) / 1000 : 0;
  scheduler_->pass_time(machine_now_ms());
  scheduler_->occupy(worker.id, queued_of(ref, row->task()), ran_ms);
  note_checkpoint(ref, *row);
  if (is_stopped(*row, attempt.id)) go_on_stopping(ref);
  // After the Welcome, which has to be the first message of the stream.
  if (row->task().function().has_actor()) {
    env_.loop.post([this, ref, id = attempt.id, session = worker.session] {
      const auto live = attempts_.find(ref);
      if (leading_ && live != attempts_.end() && same(live->second.id, id)) actors_.attached(ref, id, session);
    });
  }
  if (row->task().status() == v1::TASK_STATUS_STOPPING)
    env_.loop.post([this, ref] {
      if (leading_) track(ref);
    });
  return true;
}

void WorkRuntime::finish_recovery_if_done() {
  if (!recovering_.empty()) return;
  // Only now are all gangs known as a whole.
  scheduler_->set_preempting(true);
  std::vector<TaskRef> known;
  // What ended under an earlier leader and is not counted yet is held on: its outcome could not be committed so far.
  std::erase_if(held_, [&](const auto& held) {
    if (settling_.contains(held.first)) return false;
    known.push_back(held.first);
    return true;
  });
  for (const TaskRef& ref : known) {
    if (!attempts_.contains(ref)) track(ref);
  }
}

void WorkRuntime::heartbeat(Worker& worker, const internal::v1::AgentHeartbeat& heartbeat) {
  worker.live.last_seen = env_.clock.wall();
  worker.last_heartbeat = env_.clock.boot();
  if (heartbeat.has_load()) worker.live.load = heartbeat.load();
  if (heartbeat.gpus_size() > 0) worker.live.gpus.assign(heartbeat.gpus().begin(), heartbeat.gpus().end());
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

void WorkRuntime::started(Worker& worker, const internal::v1::AttemptStarted& started) {
  const auto it = attempts_.find(ref_of(started.attempt()));
  if (it == attempts_.end() || !same(it->second.id, started.attempt())) return;
  it->second.started = true;
  it->second.start_time = started.start_time();
  live_.set(it->first, it->second);
  actors_.attached(it->first, it->second.id, worker.session);
}

void WorkRuntime::denied(Worker& worker, const internal::v1::AttemptDenied& denied) {
  ServerMessage ack;
  *ack.mutable_outcome_ack()->mutable_attempt() = denied.attempt();
  ack.mutable_outcome_ack()->set_accepted(true);
  worker.session->send(std::move(ack));
  const TaskRef ref = ref_of(denied.attempt());
  const auto it = attempts_.find(ref);
  if (it == attempts_.end() || !same(it->second.id, denied.attempt())) return;
  // It is already reported as lost, under this number: placed again before that counts, it would be taken for it.
  if (outcomes_under_way_.contains(key_of(denied.attempt()))) return;
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
  connections_.remove(*session);
  Worker* worker = worker_of(session);
  if (worker == nullptr) return;
  worker->session = nullptr;
  worker->live.connected = false;
  scheduler_->disconnect_worker(worker->id);
  update_live(*worker);
  actors_.session_over(session);
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

// In quarantine it takes nothing, on probation one attempt at a time.
WorkerView WorkRuntime::present_view(Worker& worker, const WorkerRow& row) {
  WorkerView view = view_of(row, options_.slots_per_worker);
  const internal::v1::WorkerTrust& trust = row.trust();
  const bool out = trust.until_ms() > machine_now_ms();
  worker.quarantine_until_ms = out ? trust.until_ms() : 0;
  worker.live.trust = {.faults = trust.faults_ms_size(),
                       .quarantined = out,
                       .until = {out ? trust.until_wall_us() : 0},
                       .probation_left = trust.probation_left()};
  if (out) view.accepts = false;
  if (trust.probation_left() > 0) view.slots = std::min<size_t>(view.slots, 1);
  return view;
}

void WorkRuntime::end_quarantine(Worker& worker) {
  if (worker.quarantine_until_ms == 0 || worker.quarantine_until_ms > machine_now_ms()) return;
  worker.quarantine_until_ms = 0;
  const auto row = work::kWorkers.get(env_.view(), work::kWorkerScope, worker.id);
  if (!row || !worker.session || worker.epoch != row->epoch() || worker.live.health_score < 1) return;
  log::info("quarantine of a worker is over", {{"worker", worker.id}});
  scheduler_->set_worker(present_view(worker, *row));
  update_live(worker);
  schedule_round();
}

// A connection that is open says little: an agent that hangs keeps it. What counts are heartbeats.
void WorkRuntime::judge_health(Worker& worker, BootTime now) {
  if (!worker.session) return;
  const int64_t late_ms = now.ms_since(worker.last_heartbeat) - kHeartbeatsMissed * options_.heartbeat_interval_ms;
  const double score =
      late_ms <= 0 ? 1 : std::max(0.0, 1 - static_cast<double>(late_ms) / static_cast<double>(options_.agent_lease_ms));
  if (score == worker.live.health_score) return;
  const bool was_well = worker.live.health_score >= 1;
  worker.live.health_score = score;
  if (was_well && score < 1) {
    log::warn("heartbeats of a worker are missing", {{"worker", worker.id}, {"late_ms", late_ms}});
    scheduler_->disconnect_worker(worker.id);
  }
  if (!was_well && score >= 1) {
    const auto row = work::kWorkers.get(env_.view(), work::kWorkerScope, worker.id);
    if (row && worker.epoch == row->epoch()) scheduler_->set_worker(present_view(worker, *row));
    schedule_round();
  }
  update_live(worker);
}

// The agent itself refuses new attempts and stops what still runs at the deadline. Said again with each connection,
// also that there is none: it may have ended while the agent was away.
void WorkRuntime::send_drain(Worker& worker, const WorkerRow& row) {
  ServerMessage message;
  auto& drain = *message.mutable_drain();
  drain.set_reason(row.drain().reason());
  drain.set_undo(!row.has_drain());
  if (row.has_drain())
    set_ms(drain.mutable_deadline(), std::max<int64_t>(0, row.drain().deadline_ms() - machine_now_ms()));
  worker.drain_deadline_ms = row.has_drain() ? row.drain().deadline_ms() : -1;
  worker.session->send(std::move(message));
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
                          scheduler_->remove_worker(id);
                          recovering_.erase(id);
                          update_live(it->second);
                          finish_recovery_if_done();
                        });
}

void WorkRuntime::lose_attempts(const std::string& worker_id, const std::string& why,
                                const std::set<std::string>& except) {
  const auto here = attempts_on_.find(worker_id);
  if (here == attempts_on_.end()) return;
  for (const TaskRef& ref : here->second) {
    const LiveAttempt& attempt = attempts_.at(ref);
    if (except.contains(key_of(attempt.id))) continue;
    outcome(made_up_outcome(attempt.id, v1::ATTEMPT_OUTCOME_KIND_LOST, why, env_.clock.wall()));
  }
}

void WorkRuntime::on_worker_change(const machine::Change& change) {
  makers_.workers_changed();
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
    scheduler_->remove_worker(worker.id);
    live_.erase_worker(worker.id);
    recovering_.erase(worker.id);
    workers_.erase(it);
    finish_recovery_if_done();
    return;
  }
  worker.price_per_hour = row->worker().price_per_hour();
  if (!worker.session || worker.epoch != row->epoch()) return;
  if (worker.drain_deadline_ms != (row->has_drain() ? row->drain().deadline_ms() : -1)) send_drain(worker, *row);
  const WorkerView view = present_view(worker, *row);
  scheduler_->set_worker(view);
  evict_intolerant(worker, view);
  update_live(worker);
  schedule_round();
}

}  // namespace uccp::tasks
