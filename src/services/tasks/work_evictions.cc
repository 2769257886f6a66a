// WorkRuntime, the part about attempts that have to stop although nobody is tired of their tasks: these are queued
// again, which costs no retry.
#include <algorithm>

#include "base/log.h"
#include "services/feature_types.h"
#include "services/tasks/attempts.h"
#include "services/tasks/work_runtime.h"

namespace uccp::tasks {
namespace {

using internal::v1::ServerMessage;

constexpr int64_t kEvictGraceMs = 10'000;
constexpr int64_t kProposedAgainMs = 1'000;

}  // namespace

// Stops what runs on a worker that got a NO_EXECUTE taint, and what does not tolerate it; it is queued again.
void WorkRuntime::evict_intolerant(Worker& worker, const WorkerView& view) {
  const auto here = attempts_on_.find(worker.id);
  if (here == attempts_on_.end()) return;
  for (const TaskRef& ref : here->second) {
    LiveAttempt& attempt = attempts_.at(ref);
    if (attempt.cancel_sent) continue;
    const auto row = row_of(ref);
    if (!row) continue;
    const Marks tolerations = tolerations_of(row->task());
    const auto taint = std::ranges::find_if(view.taints, [&](const Mark& one) {
      return one.kind == TaintKind::kNoExecute && !tolerates(tolerations, one);
    });
    if (taint == view.taints.end()) continue;
    stop_to_requeue(worker, attempt, *row, "the worker got the taint " + taint->key);
  }
}

// Asks an attempt to stop with its grace; the task is queued again, which costs no retry.
void WorkRuntime::stop_to_requeue(Worker& worker, LiveAttempt& attempt, const internal::v1::TaskRow& row,
                                  const std::string& reason) {
  attempt.cancel_sent = true;
  ServerMessage message;
  auto& cancel = *message.mutable_cancel();
  *cancel.mutable_attempt() = attempt.id;
  set_ms(cancel.mutable_grace(), row.task().has_grace_period() ? ms_of(row.task().grace_period()) : kEvictGraceMs);
  cancel.set_reason(reason);
  cancel.set_kind(v1::ATTEMPT_OUTCOME_KIND_PREEMPTED);
  worker.session->send(std::move(message));
}

// Makes room for tasks of a higher band.
void WorkRuntime::evict(const std::vector<Eviction>& evictions) {
  internal::v1::StopGangsCommand command;
  for (const Eviction& eviction : evictions) {
    const auto attempt = attempts_.find(eviction.task);
    const auto row = row_of(eviction.task);
    if (attempt == attempts_.end() || !row) continue;
    env_.metrics.counter("uccp_tasks_preempted_total", "Attempts that were stopped for a task of a higher priority")
        .add();
    const bool known_to_all = env_.feature_level() >= services::kSchedulingLevel;
    if (!row->task().has_gang() || !known_to_all) {
      stop_for_others(eviction.task, eviction.reason);
      continue;
    }
    internal::v1::StopItem& item = *command.add_items();
    item.mutable_task()->set_tenant(eviction.task.tenant);
    item.mutable_task()->set_namespace_(eviction.task.name_space);
    item.mutable_task()->set_id(eviction.task.id);
    item.mutable_attempt()->set_term(attempt->second.id.term());
    item.mutable_attempt()->set_sequence(attempt->second.id.sequence());
    item.mutable_attempt()->set_number(attempt->second.id.attempt_number());
    item.mutable_attempt()->set_reason(eviction.reason);
  }
  if (command.items_size() > 0) stop_gangs(std::move(command));
}

void WorkRuntime::stop_for_others(const TaskRef& ref, const std::string& reason) {
  const auto attempt = attempts_.find(ref);
  const auto row = row_of(ref);
  if (attempt == attempts_.end() || attempt->second.cancel_sent || !row) return;
  const auto worker = workers_.find(attempt->second.id.worker_id());
  if (worker == workers_.end() || !worker->second.session) return;
  stop_to_requeue(worker->second, attempt->second, *row, reason);
}

// Whoever leads next has to know that all of the gang stops, before the first of it does.
void WorkRuntime::stop_gangs(internal::v1::StopGangsCommand command) {
  machine::Envelope envelope = system_command("tasks.stop_gangs", command.SerializeAsString());
  env_.proposer.propose(kWorkGroup, std::move(envelope),
                        [this, term = term_, command = std::move(command)](Result<machine::Applied> applied) mutable {
                          if (!leading_ || term != term_) return;
                          if (!applied) {
                            log::warn("the stop of a gang was not committed", {{"reason", applied.error().reason()}});
                            env_.loop.post_after(kProposedAgainMs,
                                                 [this, term, command = std::move(command)]() mutable {
                                                   if (leading_ && term == term_) stop_gangs(std::move(command));
                                                 });
                            return;
                          }
                          for (const internal::v1::StopItem& item : command.items()) {
                            const TaskRef ref{item.task().tenant(), item.task().namespace_(), item.task().id()};
                            const auto row = row_of(ref);
                            const auto live = attempts_.find(ref);
                            if (row && live != attempts_.end() && is_stopped(*row, live->second.id))
                              stop_for_others(ref, item.attempt().reason());
                          }
                        });
}

// Whether a task of a gang starts together with it, as far as the state knows.
void WorkRuntime::set_gang(const TaskRef& ref, const internal::v1::TaskRow& row, QueuedTask& queued) const {
  set_gang_start(row, env_.feature_level() >= services::kSchedulingLevel, queued);
  if (row.task().attempts() > 0) return;
  // The others had their start without it, and may all have ended.
  const auto gang = work::kGangs.get(env_.view(), {ref.tenant, ref.name_space}, queued.gang);
  if (gang && gang->begun()) queued.gang_alone = true;
}

void WorkRuntime::note_gang_outcome(const TaskRef& ref, const internal::v1::TaskRow& row) {
  const std::string& id = row.task().gang().id();
  const auto gang = work::kGangs.get(env_.view(), {ref.tenant, ref.name_space}, id);
  if (gang && gang->begun()) scheduler_->gang_has_begun(ref, id);
}

// An attempt that is found running, and that was told to make room, or was to be told.
void WorkRuntime::go_on_stopping(const TaskRef& ref) {
  scheduler_->set_leaving(ref);
  // After the Welcome, which has to be the first message of the stream.
  env_.loop.post([this, ref] {
    const auto row = row_of(ref);
    const auto live = attempts_.find(ref);
    if (leading_ && row && live != attempts_.end() && is_stopped(*row, live->second.id))
      stop_for_others(ref, row->stopped().reason());
  });
}

}  // namespace uccp::tasks
