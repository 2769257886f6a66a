// JSON to protobuf bytes and back, by plan.
//
// The form is proto3's canonical JSON with these differences:
//  - enum values lose the prefix of their type ("SUCCEEDED"); input takes both forms, in upper case, nothing else;
//  - `byte_size` fields take "64Mi", "1.5Gi", "10k" as well, and are JSON numbers up to 2^53; `json_number` fields are
//    JSON numbers up to 2^53;
//  - durations take "1h30m", "250ms" besides "1.5s"; output is always seconds;
//  - unknown and repeated keys are errors; `output_only` fields are dropped from input without an error, because
//    clients send back what they read;
//  - see Emit for zero values in output.
// Output of json_to_wire is deterministic: fields ascending, map entries sorted by key.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "call/plan.h"
#include "call/wire.h"

namespace uccp::call {

struct JsonInput {
  // Keep fields that the server sets: for reading responses (clients, tests), not requests.
  bool keep_output_only = false;
  // Put before each field path in errors: "task" when the body is the field `task`.
  std::string_view path_prefix = {};
};

// Errors: invalid JSON_INVALID (not JSON, not UTF-8, too deep, too large) or FIELD_INVALID with up to kViolationsMax
// fields. Values of redacted fields are never quoted. Empty input is an empty object.
Result<std::string> json_to_wire(const MessagePlan& plan, std::string_view json, const JsonInput& input = {});

// The same for the value of one field; the result is a message that holds only that field (tag included).
Result<std::string> json_to_field(const FieldPlan& field, std::string_view json, const JsonInput& input = {});

// A scalar, enum, Timestamp, Duration, FieldMask or wrapper given as text (query parameter, path variable, CLI flag),
// encoded with its tag onto `out`; of a repeated field one item. Bools are "true" and "false".
// Errors: invalid FIELD_INVALID for `path` (the text used in the message).
Status text_to_field(const FieldPlan& field, std::string_view text, std::string_view path, std::string& out);

// Which zero values of fields without presence are written. Empty strings, bytes, enums, lists and maps never are
// (except JsonOptions::always); fields with presence are written exactly when they are present.
enum class Emit : uint8_t {
  kSet,      // none: proto3's canonical form
  kFacts,    // bools and numbers that the server sets (`output_only`): "healthy":false, "attempts":0
  kNumbers,  // all bools and numbers
};

struct JsonOptions {
  Emit emit = Emit::kFacts;
  // Two spaces a level instead of none.
  bool pretty = false;
  // Fields marked `redact` become "[redacted]".
  bool redact = false;
  // More fields to redact (MethodPolicy.redact); not owned.
  const FieldTree* redact_also = nullptr;
  // Only these fields are written; not owned; null: all.
  const FieldTree* only = nullptr;
  // A repeated field or map of the outermost message that is written even when empty ("services":[]); Method::items.
  const FieldPlan* always = nullptr;
};

// Unknown fields are skipped. Errors: invalid WIRE_INVALID if the bytes are not a message of this type or too deep.
Result<std::string> wire_to_json(const MessagePlan& plan, std::string_view wire, const JsonOptions& options = {});

}  // namespace uccp::call
