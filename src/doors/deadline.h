// How a door ends a call whose handler did not answer in time. Header only: all doors include it.
#pragma once

#include "call/call.h"
#include "call/method.h"

namespace uccp::doors {

// The handler may be at work still, so a change is not known to have failed.
inline void end_at_deadline(call::Call& call) {
  if (call.finished()) return;
  call.deliver_cancel();
  if (call.method != nullptr && call.method->mutating) {
    return call.finish(
        Status(Code::kOutcomeUnknown, "OUTCOME_UNKNOWN",
               "no result before the deadline; the change may still be made: look, or repeat it with the "
               "same request id"));
  }
  call.finish(Status(Code::kDeadline, "DEADLINE_EXCEEDED", "no result before the deadline"));
}

}  // namespace uccp::doors
