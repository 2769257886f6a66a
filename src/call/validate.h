// Checks a serialized request against the options of its fields, in one walk.
#pragma once

#include <string_view>

#include "base/status.h"
#include "call/plan.h"

namespace uccp::call {

// Checks wire form, size (limits::kMessageBytesMax), depth, unknown field numbers, UTF-8, enum values, and per field
// required, lengths, counts, ranges and patterns. Limits hold for set, non-zero values only; an absent field violates
// nothing but `required`, and not even that inside the resource of a request with an `update_mask`. Output-only fields
// are not checked beyond their wire form: they are ignored in requests. Errors: invalid WIRE_INVALID (not a message of
// this type), REQUEST_TOO_LARGE, or FIELD_INVALID with up to kViolationsMax fields. Values of redacted fields are never
// quoted.
Status validate(const MessagePlan& plan, std::string_view wire);

// A copy in canonical form: fields ascending, map entries sorted, merged, without zero values of fields without
// presence, without output-only and unknown fields. Equal requests have equal bytes, so it can be hashed for
// deduplication. Errors: invalid WIRE_INVALID.
Result<std::string> canonical(const MessagePlan& plan, std::string_view wire);

}  // namespace uccp::call
