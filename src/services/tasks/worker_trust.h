// What faults of its own do to a worker: quarantine, probation, recovery. Inside apply.
#pragma once

#include "machine/domain.h"
#include "uccp/internal/v1/agent.pb.h"

namespace uccp::tasks {

// Takes the end of an attempt that counted into what is known of its worker. `quarantine_ms`: length of a first
// quarantine; 0: there is none.
void note_outcome(machine::ApplyContext& c, const internal::v1::AttemptOutcome& outcome, int64_t quarantine_ms);

}  // namespace uccp::tasks
