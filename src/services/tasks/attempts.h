// Small things that the parts of the work runtime share: names of attempts, durations, commands of the system itself.
#pragma once

#include <string>

#include "base/clock.h"
#include "machine/envelope.h"
#include "services/message_types.h"
#include "services/tasks/scheduler.h"
#include "uccp/internal/v1/agent.pb.h"
#include "uccp/internal/v1/work_state.pb.h"

namespace uccp::tasks {

inline TaskRef ref_of(const internal::v1::AttemptId& id) { return {id.tenant(), id.namespace_(), id.task_id()}; }

// All fields of the id as one key.
inline std::string key_of(const internal::v1::AttemptId& id) { return id.SerializeAsString(); }
inline bool same(const internal::v1::AttemptId& a, const internal::v1::AttemptId& b) { return key_of(a) == key_of(b); }

// True: the attempt was told to stop together with its gang, or is to be.
inline bool is_stopped(const internal::v1::TaskRow& row, const internal::v1::AttemptId& id) {
  return row.has_stopped() && row.stopped().term() == id.term() && row.stopped().sequence() == id.sequence();
}

using services::ms_of;
using services::set_ms;
using services::us_of;

// A command that no caller stands behind: not audited, never deduplicated.
inline machine::Envelope system_command(std::string command, std::string payload) {
  machine::Envelope envelope;
  envelope.principal = "system";
  envelope.command = std::move(command);
  envelope.payload = std::move(payload);
  return envelope;
}

// The outcome of an attempt that no agent reports: it never started, or its worker is gone.
inline internal::v1::AttemptOutcome made_up_outcome(const internal::v1::AttemptId& id, v1::AttemptOutcomeKind kind,
                                                    std::string message, WallTime now) {
  internal::v1::AttemptOutcome outcome;
  *outcome.mutable_attempt() = id;
  outcome.set_kind(kind);
  outcome.set_message(std::move(message));
  services::set_wall(outcome.mutable_end_time(), now);
  return outcome;
}

}  // namespace uccp::tasks
