// YAML in both directions: request bodies in, answers out.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "call/plan.h"

namespace uccp::cli {

// One YAML document as JSON. `plan` decides what an unquoted scalar is: `8080` is text where the field is a string.
// Errors: invalid YAML_INVALID naming `origin`, line and column.
Result<std::string> yaml_to_json(std::string_view yaml, const call::MessagePlan& plan, std::string_view origin);

// One JSON value in YAML's block style, ending with a line break. Requires well-formed JSON; else it is copied.
std::string json_to_yaml(std::string_view json);

}  // namespace uccp::cli
