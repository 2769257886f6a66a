// The parts of the OpenAPI document that no method decides: problems, headers, parameters of every path, and the paths
// that the door has by itself. Private to openapi*.cc.
#pragma once

#include <span>
#include <string_view>

#include "base/json.h"
#include "call/openapi.h"

namespace uccp::call {

// One status that a call may fail with. `name` is that of the component.
struct ErrorAnswer {
  int status;
  std::string_view name;
  std::string_view description;
};
std::span<const ErrorAnswer> error_answers();

// "401": {"$ref": "#/components/responses/Unauthenticated"}.
void put_error(JsonWriter& json, int status);
// {"$ref": "#/components/parameters/Pretty"}.
void put_parameter_reference(JsonWriter& json, std::string_view name);
void put_header_reference(JsonWriter& json, std::string_view name);

// Members of components: responses, parameters, headers, securitySchemes.
void put_shared_components(JsonWriter& json, OpenApiLevel level);
// Member of components/schemas.
void put_problem_schema(JsonWriter& json);
// Members of paths: /api/v1/batch, /health..., /openapi.json.
void put_own_paths(JsonWriter& json);

}  // namespace uccp::call
