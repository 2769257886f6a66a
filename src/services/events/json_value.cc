#include "services/events/json_value.h"

#include <simdjson.h>

namespace uccp::events {
namespace {

using google::protobuf::Value;

constexpr int kDepthMax = 64;

bool convert(const simdjson::dom::element& from, Value& to, int depth) {
  if (depth > kDepthMax) return false;
  switch (from.type()) {
    case simdjson::dom::element_type::OBJECT:
      to.mutable_struct_value();
      for (const auto [key, value] : simdjson::dom::object(from)) {
        if (!convert(value, (*to.mutable_struct_value()->mutable_fields())[std::string(key)], depth + 1)) return false;
      }
      return true;
    case simdjson::dom::element_type::ARRAY:
      to.mutable_list_value();
      for (const auto value : simdjson::dom::array(from)) {
        if (!convert(value, *to.mutable_list_value()->add_values(), depth + 1)) return false;
      }
      return true;
    case simdjson::dom::element_type::STRING: to.set_string_value(std::string(std::string_view(from))); return true;
    case simdjson::dom::element_type::BOOL: to.set_bool_value(bool(from)); return true;
    case simdjson::dom::element_type::NULL_VALUE: to.set_null_value(google::protobuf::NULL_VALUE); return true;
    default: to.set_number_value(double(from)); return true;
  }
}

}  // namespace

Result<Value> parse_json(std::string_view text) {
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  if (const auto error = parser.parse(text.data(), text.size()).get(root)) {
    return fail(Code::kInvalid, "JSON_INVALID", std::string("it is no JSON: ") + simdjson::error_message(error));
  }
  Value value;
  if (!convert(root, value, 0)) {
    return fail(Code::kInvalid, "JSON_INVALID", "it is nested more than " + std::to_string(kDepthMax) + " deep");
  }
  return value;
}

bool same_json(const Value& a, const Value& b) {
  if (a.kind_case() != b.kind_case()) return false;
  switch (a.kind_case()) {
    case Value::kNumberValue: return a.number_value() == b.number_value();
    case Value::kStringValue: return a.string_value() == b.string_value();
    case Value::kBoolValue: return a.bool_value() == b.bool_value();
    case Value::kStructValue: {
      const auto& left = a.struct_value().fields();
      const auto& right = b.struct_value().fields();
      if (left.size() != right.size()) return false;
      for (const auto& [key, value] : left) {
        const auto other = right.find(key);
        if (other == right.end() || !same_json(value, other->second)) return false;
      }
      return true;
    }
    case Value::kListValue: {
      if (a.list_value().values_size() != b.list_value().values_size()) return false;
      for (int i = 0; i < a.list_value().values_size(); ++i) {
        if (!same_json(a.list_value().values(i), b.list_value().values(i))) return false;
      }
      return true;
    }
    default: return true;
  }
}

const Value* member(const Value& object, std::string_view name) {
  if (!object.has_struct_value()) return nullptr;
  const auto found = object.struct_value().fields().find(std::string(name));
  return found == object.struct_value().fields().end() ? nullptr : &found->second;
}

}  // namespace uccp::events
