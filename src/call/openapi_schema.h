// JSON schemas of messages and fields for the OpenAPI document. Private to openapi*.cc.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "call/contract_docs.h"
#include "call/openapi.h"
#include "call/plan.h"

namespace uccp::call {

// Writes schemas and remembers which components they refer to.
class SchemaWriter {
 public:
  SchemaWriter(const ContractDocs& docs, OpenApiLevel level) : docs_(docs), level_(level) {}

  // The schema of a message: a reference, or the schema itself where JSON has a form of its own for it.
  void message(JsonWriter& json, const MessagePlan& plan);
  // The same without some of its fields: a request whose path holds them.
  void message_without(JsonWriter& json, const MessagePlan& plan, const std::set<const FieldPlan*>& left_out);
  // The schema of a field, with its description and example unless it is that of a parameter, which has its own.
  enum class Use : uint8_t { kProperty, kParameter };
  void field(JsonWriter& json, const MessagePlan& owner, const FieldPlan& field, Use use);
  // `"example"` of a field as a value of its type; false: it has none.
  bool example(JsonWriter& json, const FieldPlan& field);
  std::string description_of(const MessagePlan& owner, const FieldPlan& field) const;

  // All components referred to so far, and those that they refer to.
  void components(JsonWriter& json);

 private:
  struct Component {
    const MessagePlan* message = nullptr;
    const EnumPlan* enumeration = nullptr;
    std::set<const FieldPlan*> left_out;
    bool written = false;
  };
  bool is_30() const { return level_ == OpenApiLevel::k30; }
  void reference(JsonWriter& json, std::string_view name, std::string_view description, bool read_only,
                 bool deprecated);
  std::string component_of(const EnumPlan& plan);
  void object(JsonWriter& json, const Component& component);
  void enumeration(JsonWriter& json, const EnumPlan& plan);
  void item(JsonWriter& json, const FieldPlan& field, bool has_example);
  void keywords(JsonWriter& json, const FieldPlan& field);
  void integer(JsonWriter& json, const FieldPlan& field);
  void text(JsonWriter& json, const FieldPlan& field);
  void text_or_base64(JsonWriter& json, const FieldPlan& field);
  bool well_known(JsonWriter& json, const MessagePlan& plan);
  // `is_own`: the field's own example counts, else a neutral one at most.
  void put_example(JsonWriter& json, const FieldPlan& field, bool is_own);
  bool neutral_example(JsonWriter& json, const FieldPlan& field);

  const ContractDocs& docs_;
  const OpenApiLevel level_;
  std::map<std::string, Component> components_;
};

}  // namespace uccp::call
