#include "services/tasks/worker_trust.h"

#include <algorithm>

#include "services/feature_types.h"
#include "services/worker_row_types.h"

namespace uccp::tasks {
namespace {

using internal::v1::AttemptOutcome;
using Trust = internal::v1::WorkerTrust;
using internal::v1::WorkerRow;
using machine::ApplyContext;

void forget_old_faults(Trust& trust, int64_t now_ms) {
  auto& faults = *trust.mutable_faults_ms();
  const auto fresh = std::ranges::find_if(faults, [&](int64_t at) { return at > now_ms - work::kWorkerFaultWindowMs; });
  faults.erase(faults.begin(), fresh);
}

// At most half of the workers are kept out: when more of them fail, what is common to them is at fault, and a cluster
// without workers mends nothing.
bool may_be_kept_out(ApplyContext& c, const std::string& id) {
  size_t all = 0, out = 1;
  work::kWorkers.scan(c.state(), work::kWorkerScope, "", "", [&](std::string_view other, const WorkerRow& row) {
    if (row.worker().status() == v1::WORKER_STATUS_LOST) return true;
    all += 1;
    out += other != id && row.trust().until_ms() > c.now_ms() ? 1 : 0;
    return true;
  });
  return out * 2 <= all;
}

void quarantine(ApplyContext& c, Trust& trust, int64_t first_ms) {
  const int doublings = std::min(trust.quarantines(), 16);
  const int64_t length = std::min(first_ms << doublings, std::max(first_ms, work::kQuarantineMsMax));
  trust.set_quarantines(trust.quarantines() + 1);
  trust.set_until_ms(c.now_ms() + length);
  trust.set_until_wall_us(c.envelope().wall.us + length * 1000);
  trust.set_probation_left(work::kProbationAttempts);
  trust.clear_faults_ms();
}

void note_fault(ApplyContext& c, WorkerRow& row, int64_t quarantine_ms) {
  Trust& trust = *row.mutable_trust();
  forget_old_faults(trust, c.now_ms());
  if (c.now_ms() < trust.until_ms()) return;  // what was under way when its quarantine began
  trust.add_faults_ms(c.now_ms());
  if (trust.probation_left() == 0 && trust.faults_ms_size() < work::kWorkerFaultsMax) return;
  if (quarantine_ms > 0 && may_be_kept_out(c, row.worker().id())) return quarantine(c, trust, quarantine_ms);
  while (trust.faults_ms_size() > work::kWorkerFaultsMax) trust.mutable_faults_ms()->erase(trust.faults_ms().begin());
}

// True if something changed.
bool note_success(ApplyContext& c, WorkerRow& row) {
  Trust& trust = *row.mutable_trust();
  if (c.now_ms() < trust.until_ms()) return false;
  if (trust.probation_left() > 0) {
    trust.set_probation_left(trust.probation_left() - 1);
    if (trust.probation_left() == 0) row.clear_trust();
    return true;
  }
  forget_old_faults(trust, c.now_ms());
  if (trust.faults_ms_size() > 0) return false;
  row.clear_trust();
  return true;
}

}  // namespace

void note_outcome(ApplyContext& c, const AttemptOutcome& outcome, int64_t quarantine_ms) {
  // Nodes of before know nothing of it, and the state has to be equal on all.
  if (c.envelope().feature_level < services::kSchedulingLevel) return;
  // A restart of the agent is reported for each attempt it had; by itself it says nothing of the machine.
  const bool fault = outcome.worker_fault() && outcome.kind() != v1::ATTEMPT_OUTCOME_KIND_LOST;
  const bool success = outcome.kind() == v1::ATTEMPT_OUTCOME_KIND_EXITED ||
                       outcome.kind() == v1::ATTEMPT_OUTCOME_KIND_SIGNALLED ||
                       outcome.kind() == v1::ATTEMPT_OUTCOME_KIND_TIMED_OUT;
  if (!fault && !success) return;
  auto row = work::kWorkers.get(c.state(), work::kWorkerScope, outcome.attempt().worker_id());
  if (!row || (!fault && !row->has_trust())) return;
  if (fault) note_fault(c, *row, quarantine_ms);
  else if (!note_success(c, *row)) return;
  work::store_worker(c, *row, work::ChangeKind::kUpdated);
}

}  // namespace uccp::tasks
