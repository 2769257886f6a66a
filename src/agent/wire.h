// Between the messages of AgentLink and the executors' own types.
//
// Pure functions; callable from any thread.
#pragma once

#include <string>

#include "agent/executor.h"
#include "agent/link.h"

namespace uccp::agent {

// Readable, unique in the cluster, and a file name: <task>.<term>.<sequence>.<attempt>.
AttemptKey key_of(const wire::AttemptId& id);
// True if the key can be a file name and the parts are there.
bool is_valid(const wire::AttemptId& id);
// The command, limits and so on; inputs with inline content or a checkpoint only: blobs are the caller's business.
AttemptSpec spec_of(const wire::LaunchAttempt& launch);
api::AttemptOutcomeKind kind_of(EndKind kind);
EndKind kind_from(api::AttemptOutcomeKind kind);
api::Usage usage_of(const AttemptUse& use, WallTime now);
api::Payload payload_of(const AttemptValue& value);
// What a function returned; requires end.value.
api::Payload payload_of(const AttemptEnd& end);
google::protobuf::Timestamp timestamp_of(WallTime time);
google::protobuf::Duration duration_of(int64_t ms);
// `absent_ms` when the message is not there.
int64_t ms_of(const google::protobuf::Duration* duration, int64_t absent_ms);

}  // namespace uccp::agent
