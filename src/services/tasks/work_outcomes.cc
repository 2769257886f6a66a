// WorkRuntime, the outcomes' part: from an agent's report through the log to what it means for the task.
#include <algorithm>

#include "base/log.h"
#include "services/tasks/attempts.h"
#include "services/tasks/work_runtime.h"

namespace uccp::tasks {
namespace {

using internal::v1::AttemptId;
using internal::v1::AttemptOutcome;
using internal::v1::ServerMessage;

constexpr size_t kOutcomesPerCommand = 256;
// Outcomes may carry values; together they have to fit into one entry of the log.
constexpr size_t kOutcomeBytesPerCommand = 512u << 10;

std::string without_prefix(std::string name, std::string_view prefix) {
  return name.starts_with(prefix) ? name.substr(prefix.size()) : name;
}

}  // namespace

int64_t WorkRuntime::backoff_ms(const AttemptOutcome& outcome) {
  if (outcome.kind() == v1::ATTEMPT_OUTCOME_KIND_EXITED && outcome.exit_code() == 0) {
    // Nothing follows, which is how most attempts end.
    const auto live = attempts_.find(ref_of(outcome.attempt()));
    if (live != attempts_.end() && !live->second.runs_on) return 0;
  }
  const auto row = row_of(ref_of(outcome.attempt()));
  // What was no fault of the task or its worker goes back to the queue at once.
  if (!row || outcome.kind() == v1::ATTEMPT_OUTCOME_KIND_LOST || outcome.kind() == v1::ATTEMPT_OUTCOME_KIND_PREEMPTED)
    return 0;
  const v1::RetryPolicy& policy = row->task().retry();
  double wait = policy.has_initial_backoff() ? static_cast<double>(ms_of(policy.initial_backoff())) : 1000;
  const double most = policy.has_max_backoff() ? static_cast<double>(ms_of(policy.max_backoff())) : 300'000;
  const double factor = policy.multiplier() >= 1 ? policy.multiplier() : 2;
  for (int i = 0; i < row->task().retry_count() && wait < most; ++i) wait *= factor;
  const double jitter = policy.has_jitter() ? policy.jitter() : 0.1;
  return static_cast<int64_t>(std::min(wait, most) * (1 - jitter * env_.random.unit()));
}

void WorkRuntime::acknowledge(const AttemptId& id, bool accepted) {
  const auto worker = workers_.find(id.worker_id());
  if (worker == workers_.end() || !worker->second.session) return;
  ServerMessage message;
  *message.mutable_outcome_ack()->mutable_attempt() = id;
  message.mutable_outcome_ack()->set_accepted(accepted);
  worker->second.session->send(std::move(message));
}

void WorkRuntime::outcome(const AttemptOutcome& outcome) {
  if (outcome.kind() == v1::ATTEMPT_OUTCOME_KIND_LOST) {
    // Apply takes a loss of any epoch, and knows an attempt by its number only. So it has to be the attempt that is
    // live here, or one that an earlier leader placed and no fence has ended since: otherwise another one of the same
    // number may run where the task was placed again.
    const TaskRef ref = ref_of(outcome.attempt());
    const auto live = attempts_.find(ref);
    const auto worker = work::kWorkers.get(env_.view(), work::kWorkerScope, outcome.attempt().worker_id());
    const bool inherited =
        live == attempts_.end() && is_held(ref) && worker && worker->epoch() == outcome.attempt().worker_epoch();
    const bool known = live != attempts_.end() && same(live->second.id, outcome.attempt());
    if (!known && !inherited) return acknowledge(outcome.attempt(), false);
  }
  if (!outcomes_under_way_.insert(key_of(outcome.attempt())).second) return;
  settling_.insert(ref_of(outcome.attempt()));
  outcomes_.push_back(outcome);
  // Its place is free from the agent's word on; the task itself waits until the outcome counts.
  if (const auto live = attempts_.find(ref_of(outcome.attempt()));
      live != attempts_.end() && same(live->second.id, outcome.attempt())) {
    scheduler_->release(live->first);
    schedule_round();
  }
  if (outcome_flush_scheduled_) return;
  outcome_flush_scheduled_ = true;
  env_.loop.post([this] {
    outcome_flush_scheduled_ = false;
    if (leading_) flush_outcomes();
  });
}

void WorkRuntime::settled(const AttemptId& id) {
  if (outcomes_under_way_.erase(key_of(id)) > 0) settling_.erase(settling_.find(ref_of(id)));
}

void WorkRuntime::flush_outcomes() {
  while (!outcomes_.empty()) {
    size_t count = 0;
    for (size_t bytes = 0; count < std::min(outcomes_.size(), kOutcomesPerCommand); ++count) {
      bytes += outcomes_[count].ByteSizeLong();
      if (count > 0 && bytes > kOutcomeBytesPerCommand) break;
    }
    std::vector<AttemptOutcome> batch(std::make_move_iterator(outcomes_.begin()),
                                      std::make_move_iterator(outcomes_.begin() + static_cast<ptrdiff_t>(count)));
    outcomes_.erase(outcomes_.begin(), outcomes_.begin() + static_cast<ptrdiff_t>(count));
    internal::v1::OutcomesCommand command;
    command.set_quarantine_ms(options_.quarantine_ms);
    for (const AttemptOutcome& o : batch) {
      auto& item = *command.add_items();
      *item.mutable_outcome() = o;
      item.set_backoff_ms(backoff_ms(o));
    }
    env_.proposer.propose(kWorkGroup, system_command("tasks.outcomes", command.SerializeAsString()),
                          [this, batch = std::move(batch)](Result<machine::Applied> applied) mutable {
                            if (!leading_) return;
                            if (applied) {
                              for (const AttemptOutcome& o : batch) settled(o.attempt());
                              internal::v1::OutcomesResult result;
                              (void)result.ParseFromString(applied->response);
                              return outcomes_applied(std::move(batch), result);
                            }
                            // Not logged, or not known to be: the same outcomes once more, which apply takes only once.
                            log::warn("outcomes not committed",
                                      {{"reason", applied.error().reason()}, {"count", batch.size()}});
                            env_.loop.post_after(200, [this, batch = std::move(batch), term = term_] {
                              if (!leading_ || term != term_) return;
                              for (const AttemptOutcome& o : batch) {
                                settled(o.attempt());
                                outcome(o);
                                track(ref_of(o.attempt()));
                              }
                            });
                          });
  }
}

void WorkRuntime::note_run_time(const TaskRef& ref, const v1::Task& task, const AttemptOutcome& outcome) {
  if (!outcome.has_start_time() || !outcome.has_end_time()) return;
  const int64_t run_ms = (services::us_of(outcome.end_time()) - services::us_of(outcome.start_time())) / 1000;
  if (run_ms >= 0) scheduler_->note_run_time({ref.tenant, ref.name_space, task.name()}, run_ms);
}

// What earlier leaders have learned is in the rows of tasks that ended: the newest count, so they come last.
void WorkRuntime::learn_run_times(std::vector<EndedRun> ended) {
  std::ranges::sort(ended, {}, [](const EndedRun& run) { return std::pair(run.end_us, run.name); });
  for (const EndedRun& run : ended) scheduler_->note_run_time(run.name, run.run_ms);
}

// How much of what the attempt has done would be lost with it.
void WorkRuntime::note_checkpoint(const TaskRef& ref, const internal::v1::TaskRow& row) {
  if (row.task().checkpoints().empty()) return;
  const v1::Checkpoint& newest = *row.task().checkpoints().rbegin();
  if (newest.attempt() != row.task().attempts() + 1) return;  // of an earlier one, from which this one went on
  scheduler_->pass_time(machine_now_ms());
  scheduler_->note_checkpoint(ref, (env_.clock.wall().us - us_of(newest.create_time())) / 1000);
}

void WorkRuntime::outcomes_applied(std::vector<AttemptOutcome> sent, const internal::v1::OutcomesResult& result) {
  for (size_t i = 0; i < sent.size(); ++i) {
    const AttemptId& id = sent[i].attempt();
    const TaskRef ref = ref_of(id);
    const bool accepted = static_cast<int>(i) < result.accepted_size() && result.accepted(static_cast<int>(i));
    acknowledge(id, accepted);
    const auto row = row_of(ref);
    if (accepted) {
      env_.metrics
          .counter("uccp_attempts_ended_total", "Attempts that ended, by kind",
                   {{"kind", without_prefix(v1::AttemptOutcomeKind_Name(sent[i].kind()), "ATTEMPT_OUTCOME_KIND_")}})
          .add();
      if (row && row->task().has_gang()) note_gang_outcome(ref, *row);
      if (row && row->task().status() == v1::TASK_STATUS_SUCCEEDED) note_run_time(ref, row->task(), sent[i]);
      if (row && work::is_terminal(row->task().status())) {
        env_.metrics
            .counter("uccp_tasks_completed_total", "Tasks that ended, by status",
                     {{"status", without_prefix(v1::TaskStatus_Name(row->task().status()), "TASK_STATUS_")}})
            .add();
        if (row->task().dead_letter()) {
          env_.metrics
              .counter("uccp_tasks_dead_lettered_total",
                       "Tasks that failed although their policy gave them several attempts")
              .add();
        }
      }
    }
    const auto live = attempts_.find(ref);
    if (live != attempts_.end() && same(live->second.id, id)) drop_attempt(ref);
    // What did not count says nothing of the attempt that a worker yet to report may run.
    if (accepted || recovering_.empty()) held_.erase(ref);
    track(ref, row);
    if (row && work::is_terminal(row->task().status())) tracked_over_[ref] = env_.view().applied();
  }
}

}  // namespace uccp::tasks
