// Status as problem+json (RFC 9457) and as serialized google.rpc.Status, and back. Same content through every door.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace uccp::call {

// {"type","title","status","detail","code","reason","fields":[{"field","description","example"}],"retryAfterMs",
//  "resource":{"type","name"},"help","leaderHint","callId"}; absent parts are left out. Requires !status.is_ok().
std::string to_problem_json(const Status& status, std::string_view call_id = {});
// Never fails: what is not a problem document of ours becomes a status by its HTTP code, with the body as message.
Status from_problem_json(std::string_view json, int http_status);

// google.rpc.Status with ErrorInfo (always; domain "uccp", metadata `code`, `leader_hint`), BadRequest, RetryInfo,
// PreconditionFailure, ResourceInfo and Help as they apply: the value of the trailer grpc-status-details-bin.
std::string to_rpc_status(const Status& status);
// `grpc_code` and `message` count where `details` is empty or malformed.
Status from_rpc_status(std::string_view details, int grpc_code, std::string_view message);

// Text for people: "error: ...", one line a field, what to do.
std::string to_text(const Status& status);

}  // namespace uccp::call
