// YAML in both directions: request bodies in, answers out.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "call/plan.h"

namespace uccp::cli {

// One YAML document as JSON. `plan` decides what an unquoted scalar is: `8080` is text where the field is a string.
// Errors: invalid YAML_INVALID naming `origin`, line and column.
Result<std::string> yaml_to_json(std::string_view yaml, const call::MessagePlan& plan, std::string_view origin);

// One resource of a file of several: `role: {name: dev, ...}`, or an item of `role: [...]`.
struct YamlSection {
  std::string key;
  std::string json;
  uint32_t line = 0;  // from 1
};

// All documents of a YAML (or JSON) text, each an object whose members are resources by kind. `plan_of` answers the
// type for a member's name. Errors: as yaml_to_json() and plan_of(), with the line.
using PlanOf = std::function<Result<const call::MessagePlan*>(const std::string& key)>;
Result<std::vector<YamlSection>> yaml_sections(std::string_view yaml, std::string_view origin, const PlanOf& plan_of);

// One JSON value in YAML's block style, ending with a line break. Requires well-formed JSON; else it is copied.
std::string json_to_yaml(std::string_view json);

}  // namespace uccp::cli
