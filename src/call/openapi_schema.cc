#include "call/openapi_schema.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace uccp::call {
namespace {

constexpr double kExactMax = 9007199254740991.0;  // 2^53 - 1
constexpr std::string_view kDurationPattern = "^-?([0-9]+(\\.[0-9]+)?(ns|us|ms|s|m|h))+$";

std::string short_name(std::string_view full_name) {
  constexpr std::string_view kPackage = "uccp.v1.";
  return std::string(full_name.starts_with(kPackage) ? full_name.substr(kPackage.size()) : full_name);
}

// Whole numbers without ".0", which is how people write limits.
void number(JsonWriter& json, double value) {
  if (std::floor(value) == value && std::abs(value) <= kExactMax) {
    json.value(static_cast<int64_t>(value));
  } else {
    json.value(value);
  }
}

bool is_unsigned(Kind kind) {
  return kind == Kind::kUint32 || kind == Kind::kFixed32 || kind == Kind::kUint64 || kind == Kind::kFixed64;
}
bool is_64(Kind kind) {
  return kind == Kind::kInt64 || kind == Kind::kSint64 || kind == Kind::kSfixed64 || kind == Kind::kUint64 ||
         kind == Kind::kFixed64;
}

// RE2 as ECMA-262; empty if it uses what the latter lacks. Patterns match the whole value.
std::string ecma_pattern(const std::string& pattern) {
  for (const std::string_view foreign : {"(?", "[[:", "\\p", "\\P", "\\z", "\\A", "\\Q", "\\C", "\\x{"}) {
    if (pattern.find(foreign) != std::string::npos && !(foreign == "(?" && pattern.find("(?:") != std::string::npos))
      return {};
  }
  const bool anchored = pattern.starts_with('^') && pattern.ends_with('$') && pattern.find('|') == std::string::npos;
  return anchored ? pattern : "^(?:" + pattern + ")$";
}

const FieldPlan* value_of(const FieldPlan& field) { return field.is_map() ? field.map_value : &field; }

}  // namespace

std::string SchemaWriter::description_of(const MessagePlan& owner, const FieldPlan& field) const {
  std::string text(docs_.comment(owner.full_name + "." + field.name));
  if (field.max_length > 0 && field.kind == Kind::kString)
    text += "\n\nAt most " + std::to_string(field.max_length) + " bytes.";
  if (field.is_message() && field.message->well_known == WellKnown::kDuration && (field.min || field.max)) {
    JsonWriter low, high;
    if (field.min) number(low, *field.min);
    if (field.max) number(high, *field.max);
    text += "\n\nIn seconds:" + (field.min ? " at least " + low.data() : "") + (field.min && field.max ? "," : "") +
            (field.max ? " at most " + high.data() : "") + ".";
  }
  if (field.immutable) text += "\n\nCannot be changed later.";
  return text;
}

void SchemaWriter::reference(JsonWriter& json, std::string_view name, std::string_view description, bool read_only,
                             bool deprecated) {
  const std::string target = "#/components/schemas/" + std::string(name);
  const bool siblings = !description.empty() || read_only || deprecated;
  json.begin_object();
  if (siblings && is_30()) {
    json.key("allOf").begin_array().begin_object().key("$ref").value(target).end_object().end_array();
  } else {
    json.key("$ref").value(target);
  }
  if (!description.empty()) json.key("description").value(description);
  if (read_only) json.key("readOnly").value(true);
  if (deprecated) json.key("deprecated").value(true);
  json.end_object();
}

std::string SchemaWriter::component_of(const EnumPlan& plan) {
  std::string name = short_name(plan.full_name);
  components_[name].enumeration = &plan;
  return name;
}

// The form in JSON of a message that is no object of its fields. The object is open. False: it is one.
bool SchemaWriter::well_known(JsonWriter& json, const MessagePlan& plan) {
  switch (plan.well_known) {
    case WellKnown::kNone: return false;
    case WellKnown::kTimestamp: json.key("type").value("string").key("format").value("date-time"); return true;
    case WellKnown::kDuration: json.key("type").value("string").key("pattern").value(kDurationPattern); return true;
    case WellKnown::kFieldMask: json.key("type").value("string"); return true;
    case WellKnown::kStruct: json.key("type").value("object"); return true;
    // A schema without a type takes anything, null included.
    case WellKnown::kValue: return true;
    case WellKnown::kListValue: json.key("type").value("array").key("items").begin_object().end_object(); return true;
    case WellKnown::kEmpty: json.key("type").value("object").key("additionalProperties").value(false); return true;
    case WellKnown::kWrapper: keywords(json, plan.fields[0]); return true;
  }
  return false;
}

void SchemaWriter::message(JsonWriter& json, const MessagePlan& plan) { message_without(json, plan, {}); }

void SchemaWriter::message_without(JsonWriter& json, const MessagePlan& plan,
                                   const std::set<const FieldPlan*>& left_out) {
  if (plan.well_known != WellKnown::kNone) {
    json.begin_object();
    well_known(json, plan);
    json.end_object();
    return;
  }
  const std::string base = short_name(plan.full_name);
  std::string name = base;
  for (int i = 2;; ++i) {
    const auto [at, added] = components_.try_emplace(name);
    if (added) {
      at->second.message = &plan;
      at->second.left_out = left_out;
    }
    if (at->second.message == &plan && at->second.left_out == left_out) break;
    name = base + "_" + std::to_string(i);
  }
  reference(json, name, {}, false, false);
}

void SchemaWriter::integer(JsonWriter& json, const FieldPlan& field) {
  const bool wide = is_64(field.kind), positive = is_unsigned(field.kind);
  if (field.byte_size) {
    json.key("anyOf").begin_array();
    json.begin_object().key("type").value("integer").key("format").value("int64").key("minimum").value(0);
    if (field.max) number(json.key("maximum"), *field.max);
    json.end_object();
    json.begin_object()
        .key("type")
        .value("string")
        .key("pattern")
        .value("^[0-9]+(\\.[0-9]+)?([kMGTPE]|[KMGTPE]i)?B?$")
        .end_object();
    json.end_array();
    return;
  }
  if (wide && !field.json_number) {
    json.key("type").value("string").key("format").value(positive ? "uint64" : "int64");
    json.key("pattern").value(positive ? "^[0-9]{1,20}$" : "^-?[0-9]{1,19}$");
    return;
  }
  double low = wide ? -kExactMax : -2147483648.0, high = wide ? kExactMax : positive ? 4294967295.0 : 2147483647.0;
  if (positive) low = field.required ? 1 : 0;
  if (field.min) low = std::max(low, *field.min);
  if (field.max) high = std::min(high, *field.max);
  json.key("type").value("integer").key("format").value(wide || positive ? "int64" : "int32");
  number(json.key("minimum"), low);
  number(json.key("maximum"), high);
}

void SchemaWriter::text(JsonWriter& json, const FieldPlan& field) {
  json.key("type").value("string");
  if (field.kind == Kind::kBytes && !field.text) {
    if (is_30()) json.key("format").value("byte");
    else json.key("contentEncoding").value("base64");
    // Four characters of base64 for three bytes.
    if (field.max_length > 0) json.key("maxLength").value(static_cast<uint64_t>(field.max_length + 2) / 3 * 4);
    return;
  }
  if (field.required) json.key("minLength").value(1);
  if (field.max_length > 0) json.key("maxLength").value(field.max_length);
  if (const std::string pattern = field.pattern.empty() ? "" : ecma_pattern(field.pattern); !pattern.empty()) {
    json.key("pattern").value(pattern);
  }
}

// Bytes that are usually text, in a body: the text, or base64 of what is none. The object is open.
void SchemaWriter::text_or_base64(JsonWriter& json, const FieldPlan& field) {
  json.key("anyOf").begin_array().begin_object();
  text(json, field);
  json.end_object();
  json.begin_object().key("type").value("object").key("properties").begin_object();
  FieldPlan encoded = field;
  encoded.text = false;
  json.key("base64").begin_object();
  text(json, encoded);
  json.end_object().end_object();
  json.key("required").begin_array().value("base64").end_array();
  json.key("additionalProperties").value(false).end_object().end_array();
}

// Type and limits of one value. The object is open.
void SchemaWriter::keywords(JsonWriter& json, const FieldPlan& field) {
  switch (field.kind) {
    case Kind::kBool: json.key("type").value("boolean"); return;
    case Kind::kFloat:
    case Kind::kDouble:
      json.key("type").value("number").key("format").value(field.kind == Kind::kFloat ? "float" : "double");
      if (field.min) number(json.key("minimum"), *field.min);
      if (field.max) number(json.key("maximum"), *field.max);
      return;
    case Kind::kString:
    case Kind::kBytes: return text(json, field);
    case Kind::kEnum:
    case Kind::kMessage: return;
    default: return integer(json, field);
  }
}

void SchemaWriter::put_example(JsonWriter& json, const FieldPlan& field, bool is_own) {
  JsonWriter value;
  if (!(is_own && example(value, field)) && !neutral_example(value, field)) return;
  if (is_30()) json.key("example").raw(value.data());
  else json.key("examples").begin_array().raw(value.data()).end_array();
}

// Pages of documentation show the least number for want of an example, which without a limit of its own is that of the
// type.
bool SchemaWriter::neutral_example(JsonWriter& json, const FieldPlan& field) {
  const bool is_signed =
      is_number(field.kind) && !is_unsigned(field.kind) && field.kind != Kind::kFloat && field.kind != Kind::kDouble;
  const bool is_text = is_64(field.kind) && !field.json_number;
  const bool must_not_be_zero = field.required && field.shape == Shape::kSingular;
  if (!is_signed || is_text || field.byte_size || field.min || must_not_be_zero) return false;
  return json.value(0), true;
}

bool SchemaWriter::example(JsonWriter& json, const FieldPlan& field) {
  const std::string& text = field.example;
  if (text.empty() || field.is_map()) return false;
  const bool is_message = field.kind == Kind::kMessage;
  if (is_message && field.message->well_known == WellKnown::kNone) return false;
  if (is_message &&
      (field.message->well_known == WellKnown::kStruct || field.message->well_known == WellKnown::kListValue))
    return false;
  if (field.kind == Kind::kBool) return json.value(text == "true"), true;
  const bool plain = is_number(field.kind) && !(is_64(field.kind) && !field.json_number && !field.byte_size);
  double parsed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), parsed);
  if (plain && error == std::errc() && end == text.data() + text.size()) return number(json, parsed), true;
  if (plain && !field.byte_size) return false;
  json.value(text);
  return true;
}

// One value of a repeated field or a map, or the field itself.
void SchemaWriter::item(JsonWriter& json, const FieldPlan& field, bool has_example) {
  if (field.kind == Kind::kEnum) return reference(json, component_of(*field.enumeration), {}, false, false);
  if (field.kind == Kind::kMessage) return message(json, *field.message);
  json.begin_object();
  if (has_example && field.text) text_or_base64(json, field);
  else keywords(json, field);
  put_example(json, field, has_example);
  json.end_object();
}

void SchemaWriter::field(JsonWriter& json, const MessagePlan& owner, const FieldPlan& field, Use use) {
  const bool property = use == Use::kProperty;
  const std::string about = property ? description_of(owner, field) : std::string();
  const bool read_only = property && field.output_only, deprecated = property && field.deprecated;
  if (field.shape == Shape::kSingular) {
    if (field.kind == Kind::kEnum)
      return reference(json, component_of(*field.enumeration), about, read_only, deprecated);
    if (field.kind == Kind::kMessage && field.message->well_known == WellKnown::kNone) {
      JsonWriter ignored;
      message(ignored, *field.message);
      return reference(json, short_name(field.message->full_name), about, read_only, deprecated);
    }
  }
  json.begin_object();
  if (field.shape == Shape::kSingular) {
    if (property && field.text) text_or_base64(json, field);
    else if (field.kind != Kind::kMessage || !well_known(json, *field.message)) keywords(json, field);
    if (property) put_example(json, field, true);
  } else if (field.is_map()) {
    json.key("type").value("object").key("additionalProperties");
    FieldPlan value = *value_of(field);
    value.max_length = field.max_length;  // limits of a map's values are those of the map
    value.pattern = field.pattern;
    value.min = field.min;
    value.max = field.max;
    item(json, value, false);
    if (field.max_items > 0) json.key("maxProperties").value(field.max_items);
    if (field.required) json.key("minProperties").value(1);
    const std::string keys = field.key_pattern.empty() ? "" : ecma_pattern(field.key_pattern);
    if (!keys.empty() && !is_30()) json.key("propertyNames").begin_object().key("pattern").value(keys).end_object();
  } else {
    json.key("type").value("array").key("items");
    item(json, field, property);
    if (field.max_items > 0) json.key("maxItems").value(field.max_items);
    if (field.required) json.key("minItems").value(1);
  }
  if (!about.empty()) json.key("description").value(about);
  if (read_only) json.key("readOnly").value(true);
  if (deprecated) json.key("deprecated").value(true);
  json.end_object();
}

void SchemaWriter::object(JsonWriter& json, const Component& component) {
  const MessagePlan& plan = *component.message;
  json.begin_object().key("type").value("object");
  std::string about(docs_.comment(plan.full_name));
  for (size_t i = 0; i < plan.oneof_names.size(); ++i) {
    std::string members;
    for (const FieldPlan& field : plan.fields) {
      if (field.oneof == static_cast<int16_t>(i))
        members.append(members.empty() ? "`" : ", `").append(field.json_name).append("`");
    }
    about += "\n\nAt most one of " + members + ".";
  }
  if (!about.empty()) json.key("description").value(about);
  json.key("properties").begin_object();
  for (const FieldPlan& field : plan.fields) {
    if (component.left_out.contains(&field)) continue;
    json.key(field.json_name);
    this->field(json, plan, field, Use::kProperty);
  }
  json.end_object();
  const auto is_needed = [&](const FieldPlan& field) {
    return field.required && !field.output_only && !component.left_out.contains(&field);
  };
  if (std::ranges::any_of(plan.fields, is_needed)) {
    json.key("required").begin_array();
    for (const FieldPlan& field : plan.fields) {
      if (is_needed(field)) json.value(field.json_name);
    }
    json.end_array();
  }
  json.key("additionalProperties").value(false);
  json.end_object();
}

void SchemaWriter::enumeration(JsonWriter& json, const EnumPlan& plan) {
  std::string about(docs_.comment(plan.full_name));
  json.begin_object().key("type").value("string").key("enum").begin_array();
  for (const EnumValue& value : plan.values) {
    if (value.number == 0) continue;
    json.value(value.name);
    const std::string what = docs_.sentence(plan.full_name + "." + value.full_name);
    about.append(about.ends_with(')') || about.find("\n- ") != std::string::npos ? "\n" : "\n\n");
    about.append("- `").append(value.name).append("`").append(what.empty() ? "" : ": " + what);
  }
  json.end_array().key("description").value(about).end_object();
}

void SchemaWriter::components(JsonWriter& json) {
  // Writing one may add others: go on until none is left, then put them in order.
  std::map<std::string, std::string> written;
  for (bool more = true; more;) {
    more = false;
    std::vector<std::string> names;
    for (auto& [name, component] : components_) {
      if (!component.written) names.push_back(name);
    }
    for (const std::string& name : names) {
      more = true;
      components_[name].written = true;
      const Component component = components_[name];
      JsonWriter one;
      if (component.enumeration != nullptr) enumeration(one, *component.enumeration);
      else object(one, component);
      written[name] = one.take();
    }
  }
  for (const auto& [name, text] : written) json.key(name).raw(text);
}

}  // namespace uccp::call
