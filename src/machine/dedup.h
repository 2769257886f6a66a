// Deduplication of commands: replies kept by session and sequence number, or by request id for a day.
//
// The deciding check is made in apply, at the group that owns the data. A repeated command gets the first one's result;
// the same id with another request is a conflict; a session that is unknown executes nothing.
#pragma once

#include <optional>

#include "machine/domain.h"
#include "machine/machine.h"

namespace uccp::machine::dedup {

// The stored result of this command, or an error that forbids running it; nullopt: run it, then call remember().
std::optional<ApplyResult> recall(const Transaction& state, const Envelope& envelope, const MachineLimits& limits);
void remember(Transaction& state, const Envelope& envelope, LogIndex index, int64_t now_ms, const ApplyResult& result);
// Drops replies older than the ttl, a bounded number a call. Called at fixed indexes, so that replicas do the same.
// Answers the machine time before which a further call would find nothing.
int64_t forget_old(Transaction& state, int64_t now_ms, const MachineLimits& limits);

ApplyResult open_session(Transaction& state, const Envelope& envelope, LogIndex index, const MachineLimits& limits);
ApplyResult close_session(Transaction& state, const Envelope& envelope);

}  // namespace uccp::machine::dedup
