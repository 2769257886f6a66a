#include "services/events/json_schema.h"

#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "services/events/json_value.h"

namespace uccp::events {

using google::protobuf::Value;

namespace {

constexpr int kDepthMax = 64;
constexpr int kStepsMax = 100'000;

constexpr auto kAnnotations = std::to_array<std::string_view>(
    {"$schema", "$id", "$comment", "$anchor", "title", "description", "default", "examples", "deprecated", "readOnly",
     "writeOnly", "format", "contentMediaType", "contentEncoding"});
constexpr auto kNumbers = std::to_array<std::string_view>(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "minItems",
     "maxItems", "minProperties", "maxProperties", "minContains", "maxContains"});
constexpr auto kSchemas = std::to_array<std::string_view>(
    {"not", "if", "then", "else", "additionalProperties", "propertyNames", "items", "contains"});
constexpr auto kSchemaLists = std::to_array<std::string_view>({"allOf", "anyOf", "oneOf", "prefixItems"});
constexpr auto kSchemaMaps =
    std::to_array<std::string_view>({"properties", "patternProperties", "$defs", "definitions"});
constexpr auto kTypes =
    std::to_array<std::string_view>({"null", "boolean", "object", "array", "number", "string", "integer"});

bool is_one_of(std::string_view word, const auto& words) { return std::ranges::find(words, word) != words.end(); }

Status invalid(const std::string& where, const std::string& why) {
  return Status(Code::kInvalid, "SCHEMA_INVALID", "the schema at '" + (where.empty() ? "/" : where) + "' " + why);
}

// Characters, not bytes.
size_t length_of(std::string_view text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; }));
}

std::set<std::string> strings_of(const Value* list) {
  std::set<std::string> out;
  if (list == nullptr) return out;
  if (list->has_string_value()) out.insert(list->string_value());
  for (const Value& value : list->list_value().values()) out.insert(value.string_value());
  return out;
}

bool has_type(const Value& value, std::string_view type) {
  switch (value.kind_case()) {
    case Value::kStructValue: return type == "object";
    case Value::kListValue: return type == "array";
    case Value::kStringValue: return type == "string";
    case Value::kBoolValue: return type == "boolean";
    case Value::kNumberValue:
      return type == "number" || (type == "integer" && std::floor(value.number_value()) == value.number_value());
    default: return type == "null";
  }
}

// "#/$defs/item" from the root; null if it leads nowhere.
const Value* resolve(const Value& root, std::string_view reference) {
  if (!reference.starts_with("#")) return nullptr;
  reference.remove_prefix(1);
  const Value* at = &root;
  while (!reference.empty() && at != nullptr) {
    if (reference.front() != '/') return nullptr;
    reference.remove_prefix(1);
    const std::string_view part = reference.substr(0, reference.find('/'));
    reference.remove_prefix(part.size());
    std::string name;
    for (size_t i = 0; i < part.size(); ++i) {
      const bool escaped = part[i] == '~' && i + 1 < part.size();
      name += escaped ? (part[++i] == '1' ? '/' : '~') : part[i];
    }
    at = member(*at, name);
  }
  return at;
}

}  // namespace

struct JsonSchema::Patterns {
  std::map<std::string, std::unique_ptr<re2::RE2>, std::less<>> all;
};

JsonSchema::JsonSchema() : patterns_(std::make_unique<Patterns>()) {}
JsonSchema::~JsonSchema() = default;

// --- reading --------------------------------------------------------------------------------------------------------

class JsonSchemaReader {
 public:
  explicit JsonSchemaReader(JsonSchema& schema) : schema_(schema) {}

  Status read(const Value& at, const std::string& where, int depth) {
    if (at.has_bool_value()) return Status::ok();
    if (!at.has_struct_value()) return invalid(where, "is neither an object nor true or false");
    if (depth > kDepthMax) return invalid(where, "is nested too deep");
    // Maps of protobuf have no order; errors shall be the same each time.
    const auto& fields = at.struct_value().fields();
    const std::map<std::string, Value> sorted(fields.begin(), fields.end());
    for (const auto& [name, value] : sorted) UCCP_RETURN_IF_ERROR(read_keyword(name, value, where + "/" + name, depth));
    return Status::ok();
  }

 private:
  Status read_keyword(const std::string& name, const Value& value, const std::string& where, int depth) {
    if (is_one_of(name, kAnnotations) || name == "enum" || name == "const" || name == "uniqueItems") {
      const bool listed = name != "enum" || value.has_list_value();
      return listed ? Status::ok() : invalid(where, "is not a list");
    }
    if (is_one_of(name, kNumbers)) {
      return value.has_number_value() ? Status::ok() : invalid(where, "is not a number");
    }
    if (is_one_of(name, kSchemas)) return read(value, where, depth + 1);
    if (is_one_of(name, kSchemaLists)) {
      if (!value.has_list_value() || value.list_value().values().empty())
        return invalid(where, "is not a list of schemas");
      for (int i = 0; i < value.list_value().values_size(); ++i) {
        UCCP_RETURN_IF_ERROR(read(value.list_value().values(i), where + "/" + std::to_string(i), depth + 1));
      }
      return Status::ok();
    }
    if (is_one_of(name, kSchemaMaps)) {
      if (!value.has_struct_value()) return invalid(where, "is not an object of schemas");
      for (const auto& [key, inner] : value.struct_value().fields()) {
        if (name == "patternProperties") UCCP_RETURN_IF_ERROR(add_pattern(key, where));
        UCCP_RETURN_IF_ERROR(read(inner, where + "/" + key, depth + 1));
      }
      return Status::ok();
    }
    if (name == "type") {
      for (const std::string& type : strings_of(&value)) {
        if (!is_one_of(type, kTypes)) return invalid(where, "names '" + type + "', which is no type");
      }
      return strings_of(&value).empty() ? invalid(where, "names no type") : Status::ok();
    }
    if (name == "required") return value.has_list_value() ? Status::ok() : invalid(where, "is not a list of names");
    if (name == "dependentRequired")
      return value.has_struct_value() ? Status::ok() : invalid(where, "is not an object");
    if (name == "pattern") return add_pattern(value.string_value(), where);
    if (name == "$ref") {
      const bool found = resolve(schema_.root(), value.string_value()) != nullptr;
      return found ? Status::ok()
                   : invalid(where, "refers to '" + value.string_value() + "', which is not in this schema");
    }
    return invalid(where, "is a keyword that is not supported");
  }

  Status add_pattern(const std::string& pattern, const std::string& where) {
    re2::RE2::Options options(re2::RE2::Quiet);
    options.set_max_mem(1 << 20);
    auto compiled = std::make_unique<re2::RE2>(pattern, options);
    if (!compiled->ok()) return invalid(where, "has the pattern '" + pattern + "': " + compiled->error());
    schema_.patterns_->all[pattern] = std::move(compiled);
    return Status::ok();
  }

  JsonSchema& schema_;
};

Result<std::shared_ptr<const JsonSchema>> JsonSchema::parse(const std::string& definition) {
  auto root = parse_json(definition);
  if (!root) return std::unexpected(invalid("", "cannot be read: " + std::string(root.error().message())));
  std::shared_ptr<JsonSchema> schema(new JsonSchema);
  schema->root_ = std::move(*root);
  UCCP_RETURN_IF_ERROR(JsonSchemaReader(*schema).read(schema->root_, "", 0));
  return schema;
}

// --- checking -------------------------------------------------------------------------------------------------------

class JsonSchemaCheck {
 public:
  explicit JsonSchemaCheck(const JsonSchema& schema) : schema_(schema) {}

  // Empty if the value is right; else the rule that it breaks, with `broken_at` set.
  std::string check(const Value& rule, const Value& value, const std::string& where, int depth) {
    if (++steps_ > kStepsMax || depth > kDepthMax) return at(where, "takes too long to check");
    if (rule.has_bool_value()) return rule.bool_value() ? "" : at(where, "is not allowed");
    for (const auto part : {&JsonSchemaCheck::of_any, &JsonSchemaCheck::of_kind, &JsonSchemaCheck::combined}) {
      if (std::string broken = (this->*part)(rule, value, where, depth); !broken.empty()) return broken;
    }
    return "";
  }
  const std::string& broken_at() const { return broken_at_; }

 private:
  std::string at(const std::string& where, std::string what) {
    broken_at_ = where;
    return what;
  }
  bool accepts(const Value& rule, const Value& value, const std::string& where, int depth) {
    return check(rule, value, where, depth + 1).empty();
  }
  bool matches(const std::string& pattern, const std::string& text) const {
    const auto found = schema_.patterns_->all.find(pattern);
    return found != schema_.patterns_->all.end() && re2::RE2::PartialMatch(text, *found->second);
  }

  std::string of_any(const Value& rule, const Value& value, const std::string& where, int depth) {
    if (const Value* type = member(rule, "type")) {
      const auto types = strings_of(type);
      if (std::ranges::none_of(types, [&](const std::string& t) { return has_type(value, t); })) {
        std::string wanted;
        for (const std::string& t : types) wanted += (wanted.empty() ? "" : " or ") + t;
        return at(where, "is not of type " + wanted);
      }
    }
    if (const Value* fixed = member(rule, "const"); fixed != nullptr && !same_json(*fixed, value)) {
      return at(where, "is not the constant");
    }
    if (const Value* list = member(rule, "enum")) {
      const auto& values = list->list_value().values();
      if (std::ranges::none_of(values, [&](const Value& one) { return same_json(one, value); })) {
        return at(where, "is none of the allowed values");
      }
    }
    if (const Value* reference = member(rule, "$ref")) {
      return check(*resolve(schema_.root(), reference->string_value()), value, where, depth + 1);
    }
    return "";
  }

  std::string of_kind(const Value& rule, const Value& value, const std::string& where, int depth) {
    switch (value.kind_case()) {
      case Value::kNumberValue: return of_number(rule, value.number_value(), where);
      case Value::kStringValue: return of_text(rule, value.string_value(), where);
      case Value::kStructValue: return of_object(rule, value, where, depth);
      case Value::kListValue: return of_list(rule, value, where, depth);
      default: return "";
    }
  }

  std::string within(const Value& rule, const char* least, const char* most, double number, const std::string& where,
                     const std::string& what) {
    if (const Value* limit = member(rule, least); limit != nullptr && number < limit->number_value()) {
      return at(where, what + " less than " + least + " allows");
    }
    if (const Value* limit = member(rule, most); limit != nullptr && number > limit->number_value()) {
      return at(where, what + " more than " + most + " allows");
    }
    return "";
  }

  std::string of_number(const Value& rule, double number, const std::string& where) {
    if (const Value* limit = member(rule, "exclusiveMinimum"); limit != nullptr && number <= limit->number_value()) {
      return at(where, "is not above exclusiveMinimum");
    }
    if (const Value* limit = member(rule, "exclusiveMaximum"); limit != nullptr && number >= limit->number_value()) {
      return at(where, "is not below exclusiveMaximum");
    }
    if (const Value* unit = member(rule, "multipleOf"); unit != nullptr && unit->number_value() > 0) {
      const double times = number / unit->number_value();
      if (std::abs(times - std::round(times)) > 1e-9) return at(where, "is no multiple of multipleOf");
    }
    return within(rule, "minimum", "maximum", number, where, "is");
  }

  std::string of_text(const Value& rule, const std::string& text, const std::string& where) {
    if (const Value* pattern = member(rule, "pattern"); pattern != nullptr && !matches(pattern->string_value(), text)) {
      return at(where, "does not match '" + pattern->string_value() + "'");
    }
    return within(rule, "minLength", "maxLength", static_cast<double>(length_of(text)), where, "has");
  }

  std::string of_object(const Value& rule, const Value& value, const std::string& where, int depth) {
    const auto& fields = value.struct_value().fields();
    for (const std::string& name : strings_of(member(rule, "required"))) {
      if (!fields.contains(name)) return at(where, "lacks '" + name + "'");
    }
    if (const Value* dependent = member(rule, "dependentRequired")) {
      for (const auto& [name, needed] : dependent->struct_value().fields()) {
        for (const std::string& other : strings_of(&needed)) {
          if (fields.contains(name) && !fields.contains(other))
            return at(where, "lacks '" + other + "', which '" + name + "' needs");
        }
      }
    }
    const std::map<std::string, Value> sorted(fields.begin(), fields.end());
    for (const auto& [name, field] : sorted) {
      if (std::string broken = of_property(rule, name, field, where + "/" + name, depth); !broken.empty())
        return broken;
    }
    return within(rule, "minProperties", "maxProperties", static_cast<double>(fields.size()), where, "has");
  }

  std::string of_property(const Value& rule, const std::string& name, const Value& field, const std::string& where,
                          int depth) {
    bool named = false;
    if (const Value* names = member(rule, "propertyNames")) {
      Value text;
      text.set_string_value(name);
      if (std::string broken = check(*names, text, where, depth + 1); !broken.empty())
        return "has a name that " + broken;
    }
    if (const Value* properties = member(rule, "properties")) {
      if (const Value* inner = member(*properties, name)) {
        named = true;
        if (std::string broken = check(*inner, field, where, depth + 1); !broken.empty()) return broken;
      }
    }
    if (const Value* patterns = member(rule, "patternProperties")) {
      for (const auto& [pattern, inner] : patterns->struct_value().fields()) {
        if (!matches(pattern, name)) continue;
        named = true;
        if (std::string broken = check(inner, field, where, depth + 1); !broken.empty()) return broken;
      }
    }
    const Value* others = member(rule, "additionalProperties");
    return named || others == nullptr ? "" : check(*others, field, where, depth + 1);
  }

  std::string of_list(const Value& rule, const Value& value, const std::string& where, int depth) {
    const auto& values = value.list_value().values();
    const Value* first = member(rule, "prefixItems");
    const Value* items = member(rule, "items");
    const Value* contains = member(rule, "contains");
    const int prefix = first == nullptr ? 0 : first->list_value().values_size();
    int contained = 0;
    for (int i = 0; i < values.size(); ++i) {
      const std::string here = where + "/" + std::to_string(i);
      const Value* inner = i < prefix ? &first->list_value().values(i) : items;
      if (inner != nullptr) {
        if (std::string broken = check(*inner, values[i], here, depth + 1); !broken.empty()) return broken;
      }
      contained += contains != nullptr && accepts(*contains, values[i], here, depth) ? 1 : 0;
    }
    if (contains != nullptr) {
      const Value* least = member(rule, "minContains");
      const Value* most = member(rule, "maxContains");
      if (contained < (least == nullptr ? 1 : least->number_value()))
        return at(where, "contains too few of what it must");
      if (most != nullptr && contained > most->number_value()) return at(where, "contains too many of what it may");
    }
    if (const Value* unique = member(rule, "uniqueItems"); unique != nullptr && unique->bool_value()) {
      for (int i = 0; i < values.size(); ++i) {
        for (int j = 0; j < i; ++j) {
          if (++steps_ > kStepsMax) return at(where, "takes too long to check");
          if (same_json(values[i], values[j])) return at(where, "has the same item twice");
        }
      }
    }
    return within(rule, "minItems", "maxItems", static_cast<double>(values.size()), where, "has");
  }

  std::string combined(const Value& rule, const Value& value, const std::string& where, int depth) {
    if (const Value* all = member(rule, "allOf")) {
      for (const Value& one : all->list_value().values()) {
        if (std::string broken = check(one, value, where, depth + 1); !broken.empty()) return broken;
      }
    }
    const auto count = [&](const char* name) {
      return std::ranges::count_if(member(rule, name)->list_value().values(),
                                   [&](const Value& one) { return accepts(one, value, where, depth); });
    };
    if (member(rule, "anyOf") != nullptr && count("anyOf") == 0) return at(where, "fits none of anyOf");
    if (member(rule, "oneOf") != nullptr) {
      if (const auto fits = count("oneOf"); fits != 1) {
        return at(where, "fits " + std::to_string(fits) + " of oneOf, not one");
      }
    }
    if (const Value* wrong = member(rule, "not"); wrong != nullptr && accepts(*wrong, value, where, depth)) {
      return at(where, "fits what is not allowed");
    }
    if (const Value* condition = member(rule, "if")) {
      const Value* branch = member(rule, accepts(*condition, value, where, depth) ? "then" : "else");
      if (branch != nullptr) return check(*branch, value, where, depth + 1);
    }
    return "";
  }

  const JsonSchema& schema_;
  int steps_ = 0;
  std::string broken_at_;
};

Status JsonSchema::check(const Value& value) const {
  JsonSchemaCheck check(*this);
  const std::string broken = check.check(root_, value, "", 0);
  if (broken.empty()) return Status::ok();
  return Status(Code::kInvalid, "SCHEMA_MISMATCH",
                "'" + (check.broken_at().empty() ? "/" : check.broken_at()) + "' " + broken);
}

}  // namespace uccp::events
