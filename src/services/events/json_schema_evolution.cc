// Whether one JSON Schema accepts all that another one does, keyword by keyword. Declared in json_schema.h.
#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "services/events/json_schema.h"
#include "services/events/json_value.h"

namespace uccp::events {
namespace {

using google::protobuf::Value;

constexpr auto kLower = std::to_array<const char*>(
    {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains"});
constexpr auto kUpper = std::to_array<const char*>(
    {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains"});
// Nothing is known of these unless both say the same.
constexpr auto kSame = std::to_array<const char*>(
    {"pattern", "multipleOf", "uniqueItems", "patternProperties", "propertyNames", "dependentRequired", "prefixItems",
     "contains", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "const", "$ref"});

class Comparison {
 public:
  // Also of what both refer to: under one name, what is meant may have changed.
  std::string differ_with_definitions(const Value& wide, const Value& narrow) {
    for (const char* name : {"$defs", "definitions"}) {
      const Value* mine = get(wide, name);
      const Value* other = get(narrow, name);
      if (mine == nullptr || other == nullptr) continue;
      const auto& fields = mine->struct_value().fields();
      for (const auto& [key, definition] : std::map<std::string, Value>(fields.begin(), fields.end())) {
        const Value* same = member(*other, key);
        if (same == nullptr) continue;
        if (std::string why = differ(definition, *same, std::string("/") + name + "/" + key); !why.empty()) return why;
      }
    }
    return differ(wide, narrow, "");
  }

  // Empty if `wide` accepts all that `narrow` does.
  std::string differ(const Value& wide, const Value& narrow, const std::string& where) {
    if (same_json(wide, narrow)) return "";
    if (wide.has_bool_value()) return wide.bool_value() ? "" : where + " is not allowed any more";
    if (narrow.has_bool_value() && !narrow.bool_value()) return "";
    for (const auto part : {&Comparison::values, &Comparison::bounds, &Comparison::objects, &Comparison::lists}) {
      if (std::string why = (this->*part)(wide, narrow, where); !why.empty()) return why;
    }
    return "";
  }

 private:
  static const Value* get(const Value& schema, const char* name) { return member(schema, name); }

  static std::set<std::string> types(const Value* type) {
    std::set<std::string> out;
    if (type == nullptr) return out;
    if (type->has_string_value()) out.insert(type->string_value());
    for (const Value& one : type->list_value().values()) out.insert(one.string_value());
    return out;
  }

  std::string values(const Value& wide, const Value& narrow, const std::string& where) {
    const auto wanted = types(get(wide, "type"));
    const auto given = types(get(narrow, "type"));
    if (!wanted.empty() && given.empty()) return where + " had no type, and has one";
    for (const std::string& type : given) {
      const bool fits = wanted.empty() || wanted.contains(type) || (type == "integer" && wanted.contains("number"));
      if (!fits) return where + " may be of type " + type + " in one and not in the other";
    }
    if (const Value* list = get(wide, "enum")) {
      const Value* other = get(narrow, "enum");
      if (other == nullptr) return where + " has a list of values in one only";
      for (const Value& one : other->list_value().values()) {
        const auto& all = list->list_value().values();
        if (std::ranges::none_of(all, [&](const Value& v) { return same_json(v, one); })) {
          return where + " lacks a value that the other one allows";
        }
      }
    }
    for (const char* name : kSame) {
      const Value* mine = get(wide, name);
      const Value* other = get(narrow, name);
      if (mine != nullptr && (other == nullptr || !same_json(*mine, *other))) {
        return where + " has another '" + name + "', which cannot be compared";
      }
    }
    return "";
  }

  std::string bounds(const Value& wide, const Value& narrow, const std::string& where) {
    const auto tighter = [&](const char* name, auto fits) -> std::string {
      const Value* mine = get(wide, name);
      if (mine == nullptr) return "";
      const Value* other = get(narrow, name);
      const bool ok = other != nullptr && fits(mine->number_value(), other->number_value());
      return ok ? "" : where + " has a tighter '" + name + "'";
    };
    for (const char* name : kLower) {
      if (std::string why = tighter(name, std::less_equal<>()); !why.empty()) return why;
    }
    for (const char* name : kUpper) {
      if (std::string why = tighter(name, std::greater_equal<>()); !why.empty()) return why;
    }
    return "";
  }

  std::string objects(const Value& wide, const Value& narrow, const std::string& where) {
    const auto needed = types(get(wide, "required"));
    const auto there = types(get(narrow, "required"));
    for (const std::string& name : needed) {
      if (!there.contains(name)) return where + "/" + name + " is required in one and not in the other";
    }
    const Value* mine = get(wide, "properties");
    const Value* other = get(narrow, "properties");
    const Value* rest = get(wide, "additionalProperties");
    std::map<std::string, Value> sorted;
    if (other != nullptr) sorted.insert(other->struct_value().fields().begin(), other->struct_value().fields().end());
    for (const auto& [name, inner] : sorted) {
      const Value* same = mine == nullptr ? nullptr : member(*mine, name);
      if (same == nullptr) same = rest;
      if (same == nullptr) continue;
      if (std::string why = differ(*same, inner, where + "/" + name); !why.empty()) return why;
    }
    const Value* open = get(narrow, "additionalProperties");
    if (rest != nullptr && get(narrow, "patternProperties") != nullptr && get(wide, "patternProperties") == nullptr) {
      return where + " has 'patternProperties' in one only";
    }
    if (rest == nullptr || (open != nullptr && same_json(*rest, *open))) return "";
    if (open == nullptr) return where + " allows further properties in one only";
    return differ(*rest, *open, where + "/*");
  }

  std::string lists(const Value& wide, const Value& narrow, const std::string& where) {
    const Value* mine = get(wide, "items");
    if (mine == nullptr) return "";
    const Value* other = get(narrow, "items");
    if (other == nullptr) return where + " had items of any kind";
    return differ(*mine, *other, where + "/items");
  }
};

}  // namespace

Status accepts_all(const JsonSchema& wide, const JsonSchema& narrow) {
  const std::string why = Comparison().differ_with_definitions(wide.root(), narrow.root());
  return why.empty() ? Status::ok() : Status(Code::kFailedPrecondition, "SCHEMA_INCOMPATIBLE", why);
}

}  // namespace uccp::events
