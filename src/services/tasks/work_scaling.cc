// WorkRuntime, the part that starts workers of scaling groups and lets them go.
#include <fmt/format.h>

#include "base/log.h"
#include "services/feature_types.h"
#include "services/tasks/attempts.h"
#include "services/tasks/work_runtime.h"

namespace uccp::tasks {
namespace {

// Workers belong to no tenant: those who run the cluster are told.
constexpr std::string_view kScalingTenant = "default", kScalingNamespace = "default";

std::string label_of(const internal::v1::WorkerRow& row, const char* name) {
  const auto found = row.worker().labels().find(name);
  return found == row.worker().labels().end() ? "" : found->second;
}

}  // namespace

void WorkRuntime::note_scaling_group(Worker& worker, const internal::v1::WorkerRow& row) {
  worker.scaling_group = label_of(row, kScalingGroupLabel);
  worker.scaling_instance = label_of(row, kScalingInstanceLabel);
}

// Asks what there is; the step follows with the answer.
void WorkRuntime::scale() {
  if (env_.provisioner == nullptr || options_.scaling.groups.empty()) return;
  if (!scaling_) {
    std::vector<ScalingGroup> groups = options_.scaling.groups;
    for (ScalingGroup& group : groups) group.worker = scheduler_->with_headroom(std::move(group.worker));
    scaling_ = std::make_unique<Scaling>(options_.scaling.limits, std::move(groups));
  }
  if (std::exchange(scaling_->asked, true)) return;
  env_.provisioner->list([this, term = term_](std::vector<ScalingInstance> instances) {
    env_.loop.post([this, term, instances = std::move(instances)]() mutable {
      if (!leading_ || term_ != term || !scaling_) return;
      scaling_->asked = false;
      step_scaling(std::move(instances));
    });
  });
}

ScalingInput WorkRuntime::scaling_input(std::vector<ScalingInstance> instances) {
  ScalingInput input{.now_ms = env_.clock.boot().us / 1000, .instances = std::move(instances)};
  for (Scheduler::Unplaced& one : scheduler_->unplaced(machine_now_ms())) {
    if (one.gang) input.gangs.push_back({one.key, std::move(one.members), one.waited_ms});
    else input.demand.push_back({one.key, std::move(one.members.front()), one.count, one.waited_ms});
  }
  for (auto& [id, worker] : workers_) {
    // Room elsewhere matters to gangs only: what goes alone would have been placed there.
    if (worker.scaling_group.empty() && (input.gangs.empty() || !worker.session)) continue;
    const auto row = work::kWorkers.get(env_.view(), work::kWorkerScope, id);
    if (!row) continue;
    const Scheduler::Usage usage = scheduler_->usage(id);
    WorkerView view = worker.session ? present_view(worker, *row) : view_of(*row, options_.slots_per_worker);
    ScalingWorker one{.view = scheduler_->with_headroom(std::move(view)),
                      .used = usage.used,
                      .running = usage.running,
                      .group = worker.scaling_group,
                      .instance = worker.scaling_instance,
                      .draining = row->has_drain(),
                      .silent = worker.session == nullptr,
                      .busy = attempts_on_.contains(id) || recovering_.contains(id) || worker.fencing};
    one.lost = one.silent && row->worker().status() == v1::WORKER_STATUS_LOST;
    const bool idle = usage.running == 0 && !one.silent && !one.busy;
    if (!idle) scaling_->idle_since.erase(id);
    else
      one.idle_ms = env_.clock.boot().ms_since(scaling_->idle_since.try_emplace(id, env_.clock.boot()).first->second);
    input.workers.push_back(std::move(one));
  }
  std::erase_if(scaling_->idle_since, [&](const auto& one) { return !workers_.contains(one.first); });
  return input;
}

void WorkRuntime::step_scaling(std::vector<ScalingInstance> instances) {
  ScalingOutput output = scaling_->core.step(scaling_input(std::move(instances)));
  scaling_->notes = std::move(output.notes);
  for (ScalingDecision& decision : output.decisions) carry_out(std::move(decision));
  for (const auto& [group, counts] : output.counts) {
    const auto set = [&](std::string_view name, std::string_view help, size_t value) {
      env_.metrics.gauge(name, help, {{"group", group}}).set(static_cast<double>(value));
    };
    set("uccp_autoscaler_workers_wanted", "Workers that a scaling group is to have", counts.wanted);
    set("uccp_autoscaler_workers_starting", "Workers of a scaling group that have not registered yet", counts.starting);
    set("uccp_autoscaler_workers_ready", "Workers of a scaling group that are connected and stay", counts.ready);
    set("uccp_autoscaler_workers_draining", "Workers of a scaling group that are on their way out", counts.draining);
  }
}

void WorkRuntime::count_failed_start(const std::string& group) {
  env_.metrics
      .counter("uccp_autoscaler_failures_total", "Workers of a scaling group that did not come", {{"group", group}})
      .add();
}

void WorkRuntime::carry_out(ScalingDecision decision) {
  using Kind = ScalingDecision::Kind;
  const bool on_worker = decision.kind == Kind::kDrain || decision.kind == Kind::kRemove;
  if (on_worker && !scaling_->under_way.insert(decision.worker).second) return;
  if (decision.kind == Kind::kStart)
    decision.instance = options_.scaling.node + "-" + decision.group + "-" + fmt::format("{:016x}", env_.random.next());
  env_.metrics
      .counter("uccp_autoscaler_decisions_total", "Decisions of the autoscaler",
               {{"kind", std::string(name_of(decision.kind))}, {"cause", decision.cause}})
      .add();
  log::info("autoscaler", {{"decision", name_of(decision.kind)},
                           {"group", decision.group},
                           {"instance", decision.instance},
                           {"worker", decision.worker},
                           {"reason", decision.reason}});
  audit_scaling(decision);
  if (env_.on_scaling) env_.on_scaling(decision);
  switch (decision.kind) {
    case Kind::kStart:
    case Kind::kRestart: return start_instance(decision);
    case Kind::kGiveUp: count_failed_start(decision.group); [[fallthrough]];
    case Kind::kStop: return env_.provisioner->stop(decision.instance);
    case Kind::kDrain: {
      internal::v1::DrainCommand command;
      command.set_worker_id(decision.worker);
      command.set_within_ms(options_.scaling.drain_ms);
      command.set_reason("autoscaler: " + decision.reason);
      return command_worker(decision.worker, "workers.drain", command.SerializeAsString());
    }
    case Kind::kRemove: {
      internal::v1::WorkerRemoveCommand command;
      command.set_worker_id(decision.worker);
      return command_worker(decision.worker, "workers.deregister", command.SerializeAsString());
    }
  }
}

// Who searches the audit trail finds each decision as a call of the autoscaler: autoscaler.start of small/n1-small-0a.
void WorkRuntime::audit_scaling(const ScalingDecision& decision) {
  if (env_.feature_level() < services::kSchedulingLevel) return;
  internal::v1::ScalingNote note;
  note.set_kind(std::string(name_of(decision.kind)));
  note.set_group(decision.group);
  note.set_instance(decision.instance);
  note.set_worker(decision.worker);
  note.set_reason(decision.reason);
  machine::Envelope envelope = system_command("workers.note_scaling", note.SerializeAsString());
  envelope.scope = {std::string(kScalingTenant), std::string(kScalingNamespace)};
  envelope.principal = "autoscaler";
  envelope.method = "autoscaler." + note.kind();
  envelope.resource = decision.group + "/" + (decision.worker.empty() ? decision.instance : decision.worker);
  envelope.audited = true;
  env_.proposer.propose(kWorkGroup, std::move(envelope), [note](const Result<machine::Applied>& applied) {
    if (!applied)
      log::warn("a decision of the autoscaler is not in the audit trail",
                {{"decision", note.kind()}, {"group", note.group()}, {"why", applied.error().message()}});
  });
}

void WorkRuntime::start_instance(const ScalingDecision& decision) {
  env_.provisioner->start(decision.group, decision.instance, [this, term = term_, decision](const Status& status) {
    if (status.is_ok()) return;
    env_.loop.post([this, term, decision, status] {
      log::warn("a worker could not be started", {{"group", decision.group}, {"reason", status.message()}});
      count_failed_start(decision.group);
      if (leading_ && term_ == term && scaling_)
        scaling_->core.start_failed(decision.group, env_.clock.boot().us / 1000);
    });
  });
}

void WorkRuntime::command_worker(const std::string& worker, const char* name, std::string payload) {
  env_.proposer.propose(kWorkGroup, system_command(name, std::move(payload)),
                        [this, term = term_, worker](const Result<machine::Applied>& applied) {
                          if (!applied)
                            log::debug("a worker was not changed",
                                       {{"worker", worker}, {"why", applied.error().message()}});
                          if (leading_ && term_ == term && scaling_) scaling_->under_way.erase(worker);
                        });
}

// What the autoscaler does for a task that waits, or why it does nothing; empty if it has nothing to say.
std::string WorkRuntime::scaling_note(const TaskRef& ref) const {
  if (!scaling_) return "";
  const auto key = scheduler_->unplaced_key(ref);
  const auto note = key ? scaling_->notes.find(*key) : scaling_->notes.end();
  return note == scaling_->notes.end() ? "" : note->second;
}

}  // namespace uccp::tasks
