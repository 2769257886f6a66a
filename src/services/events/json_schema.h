// JSON Schema, draft 2020-12: its assertions, applicators and local references. What is not known here is refused when
// a schema is read, not passed over when it is applied. Time is bounded: patterns are RE2's, and a check gives up after
// a number of steps. Immutable once made; any thread.
//
//   of every value     type enum const, allOf anyOf oneOf not if then else, $ref to "#" and "#/..."
//   numbers            minimum maximum exclusiveMinimum exclusiveMaximum multipleOf
//   text               minLength maxLength pattern
//   objects            properties required additionalProperties patternProperties propertyNames minProperties
//   maxProperties
//                      dependentRequired
//   lists              items prefixItems contains minContains maxContains minItems maxItems uniqueItems
#pragma once

#include <google/protobuf/struct.pb.h>

#include <memory>
#include <string>

#include "base/status.h"

namespace re2 {
class RE2;
}

namespace uccp::events {

class JsonSchema {
 public:
  // Errors: invalid SCHEMA_INVALID with the place and what is wrong there.
  static Result<std::shared_ptr<const JsonSchema>> parse(const std::string& definition);
  ~JsonSchema();

  // Errors: invalid SCHEMA_MISMATCH with the place in the value and the rule that it breaks.
  Status check(const google::protobuf::Value& value) const;
  const google::protobuf::Value& root() const { return root_; }

 private:
  friend class JsonSchemaReader;
  friend class JsonSchemaCheck;
  struct Patterns;
  JsonSchema();

  google::protobuf::Value root_;
  std::unique_ptr<Patterns> patterns_;  // compiled, by their text
};

// Whether every value that `narrow` accepts is sure to be accepted by `wide`. What cannot be told counts as no. A
// property that a schema does not name is taken as absent. Errors: failed_precondition SCHEMA_INCOMPATIBLE with the
// place and the reason.
Status accepts_all(const JsonSchema& wide, const JsonSchema& narrow);

}  // namespace uccp::events
