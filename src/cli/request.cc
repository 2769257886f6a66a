#include "cli/request.h"

#include <re2/re2.h>

#include <algorithm>

#include "base/json.h"
#include "call/json_codec.h"
#include "call/validate.h"
#include "cli/settings.h"
#include "cli/text.h"
#include "cli/yaml.h"

namespace uccp::cli {
namespace {

using call::FieldPath;
using call::FieldPlan;
using call::Kind;
using call::MessagePlan;
using call::WellKnown;

bool is_json_kind(const FieldPlan& field) {
  if (field.kind != Kind::kMessage || field.is_map()) return false;
  const WellKnown known = field.message->well_known;
  return known == WellKnown::kNone || known == WellKnown::kStruct || known == WellKnown::kValue ||
         known == WellKnown::kListValue || known == WellKnown::kEmpty;
}

std::string upper_snake(std::string_view text) {
  std::string out = to_heading(text);
  std::ranges::replace(out, '-', '_');
  return out;
}

const call::RestBinding* main_binding(const call::Method& method) {
  for (const call::RestBinding& binding : method.bindings) {
    if (!binding.rpc_path) return &binding;
  }
  return nullptr;
}

const FieldPlan* body_field(const call::Method& method) {
  const call::RestBinding* binding = main_binding(method);
  return binding != nullptr && binding->body == call::RestBinding::Body::kField ? binding->body_field : nullptr;
}

// What goes into JSON as it is; every other word is a string.
bool is_json_scalar(std::string_view text) {
  if (text == "true" || text == "false" || text == "null") return true;
  static const re2::RE2 kNumber(R"(-?(0|[1-9][0-9]*)(\.[0-9]+)?)");
  return re2::RE2::FullMatch(text, kNumber);
}

// A short form never hides a flag that every command has.
bool is_global_flag(std::string_view name) {
  Settings settings;
  for (const Flag& flag : global_flags(settings)) {
    if (std::ranges::find(flag.names, name) != flag.names.end()) return true;
  }
  return false;
}

// Ids hold no slash, so that "task/task_1", as it is printed, can be told from one. Names may hold slashes.
bool is_id(const FieldPlan& field) { return field.name == "id" || field.name == "ids"; }

// Collects the settable fields of a request, depth first, and names them.
class FlagNames {
 public:
  struct Entry {
    std::string path;  // "task.resources.cpu"
    std::string name;  // without the body's field: "resources.cpu"
    std::string leaf;  // "cpu"
    const FieldPlan* field = nullptr;
    size_t depth = 0;        // 0: of the request or its body
    bool is_amount = false;  // of a Resources message
  };

  FlagNames(const call::Method& method) : method_(method), body_(body_field(method)) {
    walk(*method.request, "", "", 0);
  }

  std::span<const Entry> entries() const { return entries_; }

  // Names of an entry, best first. Only amounts of resources (`--cpu`) go by their last name alone: any other nested
  // field would lose a short name when the contract gains a field, and scripts would break.
  std::vector<std::string> names(const Entry& entry) const {
    std::vector<std::string> names = {to_kebab(entry.name)};
    if (entry.is_amount && owns_leaf(entry)) names.insert(names.begin(), to_kebab(entry.leaf));
    if (entry.path != entry.name) names.push_back(to_kebab(entry.path));
    if (entry.field->is_repeated() || entry.field->is_map()) {
      const std::string one = singular(names.front());
      if (!one.empty() && !is_name(one) && !is_global_flag(one)) names.insert(names.begin(), one);
    }
    return names;
  }

 private:
  static constexpr size_t kDepthMax = 4;

  bool owns_leaf(const Entry& entry) const {
    for (const Entry& other : entries_) {
      if (&other == &entry) continue;
      if (other.name == entry.leaf || (other.is_amount && other.leaf == entry.leaf && other.depth <= entry.depth)) {
        return false;
      }
    }
    return !is_global_flag(to_kebab(entry.leaf));
  }

  bool is_name(std::string_view name) const {
    return std::ranges::any_of(entries_, [&](const Entry& entry) { return to_kebab(entry.leaf) == name; });
  }

  bool handled_elsewhere(const std::string& path) const {
    return (!method_.request_id.empty() && path == proto_path(method_.request_id)) ||
           (!method_.name_space.empty() && path == proto_path(method_.name_space));
  }

  static std::string proto_path(const FieldPath& path) {
    std::string text;
    for (const FieldPlan* step : path.steps()) text += (text.empty() ? "" : ".") + step->name;
    return text;
  }

  void walk(const MessagePlan& plan, const std::string& path_prefix, const std::string& name_prefix, size_t depth) {
    // A message that holds itself is followed once; deeper values go by JSON.
    if (std::ranges::find(stack_, &plan) != stack_.end() || depth > kDepthMax) return;
    stack_.push_back(&plan);
    for (const FieldPlan& field : plan.fields) {
      const std::string path = path_prefix + field.name;
      const std::string name = name_prefix + field.name;
      if (field.output_only || handled_elsewhere(path)) continue;
      if (depth == 0 && path_prefix.empty() && &field == body_) {
        walk(*field.message, path + ".", "", 0);
        continue;
      }
      entries_.push_back({path, name, field.name, &field, depth, plan.full_name == "uccp.v1.Resources"});
      if (field.is_message() && field.message->well_known == WellKnown::kNone) {
        walk(*field.message, path + ".", name + ".", depth + 1);
      }
    }
    stack_.pop_back();
  }

  const call::Method& method_;
  const FieldPlan* body_;
  std::vector<const MessagePlan*> stack_;
  std::vector<Entry> entries_;
};

std::string value_name(const FieldPlan& field) {
  if (field.is_map()) return "KEY=VALUE";
  if (is_json_kind(field)) return "JSON";
  if (field.byte_size) return "SIZE";
  switch (field.kind) {
    case Kind::kString: return "TEXT";
    case Kind::kBytes: return "TEXT|@FILE";
    case Kind::kEnum: return "WORD";
    case Kind::kMessage:
      return field.message->well_known == WellKnown::kTimestamp  ? "TIME"
             : field.message->well_known == WellKnown::kDuration ? "DURATION"
                                                                 : "TEXT";
    default: return "NUMBER";
  }
}

}  // namespace

std::vector<std::string> enum_words(const call::EnumPlan& plan) {
  std::vector<std::string> words;
  for (const call::EnumValue& value : plan.values) {
    if (value.number == 0) continue;
    std::string word = value.name;
    for (char& c : word) c = c == '_' ? '-' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    words.push_back(std::move(word));
  }
  return words;
}

std::vector<Flag> Request::flags() {
  std::vector<Flag> flags;
  const FlagNames names(method_);
  for (const FlagNames::Entry& entry : names.entries()) {
    Result<FieldPath> path = FieldPath::compile(*method_.request, entry.path);
    if (!path) continue;
    Flag flag;
    flag.names = names.names(entry);
    flag.is_switch = entry.field->kind == Kind::kBool && entry.field->shape == call::Shape::kSingular;
    flag.value_name = value_name(*entry.field);
    if (entry.field->enumeration != nullptr) flag.choices = enum_words(*entry.field->enumeration);
    flag.depth = entry.depth;
    flag.set = [this, path = *path](std::string_view text) { return set(path, text); };
    // The owner's type and the field's name are what the comments of the contract are filed under.
    flag.help = path->owner(path->steps().size() - 1).full_name + "." + entry.field->name;
    flags.push_back(std::move(flag));
  }
  return flags;
}

Status Request::set(std::string_view path, std::string_view text) {
  UCCP_TRY(const FieldPath compiled, FieldPath::compile(*method_.request, path));
  return set(compiled, text);
}

Status Request::set(const FieldPath& path, std::string_view text) { return set_field(path, text); }

bool Request::has(const FieldPath& path) const {
  return call::has_field(path, body_) || call::has_field(path, overrides_);
}

Status Request::set_field(const FieldPath& path, std::string_view text) {
  std::string encoded;
  const FieldPlan& field = path.leaf();
  UCCP_RETURN_IF_ERROR(field.is_map() ? set_map_entry(field, text, path.text(), encoded)
                                      : set_value(field, text, path.text(), encoded));
  call::append_at(path, overrides_, encoded);
  return Status::ok();
}

Status Request::set_map_entry(const FieldPlan& field, std::string_view text, const std::string& path,
                              std::string& out) {
  const size_t equals = text.find('=');
  const std::string key(text.substr(0, equals));
  std::string value;
  if (equals != std::string_view::npos && equals > 0) {
    value = std::string(text.substr(equals + 1));
  } else if (const std::optional<std::string> inherited =
                 field.name == "env" && equals != 0 ? io_.env(key) : std::nullopt) {
    // --env NAME hands on the variable of this shell, as container tools do.
    value = *inherited;
  } else {
    return usage_error(to_kebab(field.name) + ": \"" + std::string(text) + "\" is not KEY=VALUE");
  }
  std::string entry;
  UCCP_RETURN_IF_ERROR(call::text_to_field(*field.map_key, key, path, entry));
  UCCP_RETURN_IF_ERROR(set_value(*field.map_value, value, path + "." + key, entry));
  call::put_bytes(out, field.number, entry);
  return Status::ok();
}

Status Request::set_value(const FieldPlan& field, std::string_view text, const std::string& path, std::string& out) {
  if (field.kind == Kind::kBytes) {
    std::string bytes(text);
    if (text.starts_with('@')) {
      UCCP_TRY(bytes, io_.read_file(std::string(text.substr(1))));
    }
    call::put_bytes(out, field.number, bytes);
    return Status::ok();
  }
  if (field.kind == Kind::kEnum && field.enumeration->by_name(text) == nullptr) {
    return call::text_to_field(field, upper_snake(text), path, out);
  }
  if (!is_json_kind(field)) return call::text_to_field(field, text, path, out);
  std::string json(text);
  if (field.is_repeated() && !text.starts_with('[')) json = "[" + json + "]";
  Result<std::string> encoded = call::json_to_field(field, json, {.path_prefix = path});
  if (!encoded && field.message->well_known == WellKnown::kValue) {
    // A bare word is the string itself: --value debug.
    std::string quoted;
    append_json_string(quoted, text);
    encoded = call::json_to_field(field, field.is_repeated() ? "[" + quoted + "]" : quoted, {.path_prefix = path});
  }
  if (!encoded) return encoded.error();
  out += *encoded;
  return Status::ok();
}

Status Request::set_body(std::string_view text, std::string_view origin, BodyForm form) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  const bool is_json = first != std::string_view::npos && text[first] == '{';
  const FieldPlan* resource = form == BodyForm::kRest ? body_field(method_) : nullptr;
  const MessagePlan& plan = resource != nullptr ? *resource->message : *method_.request;
  const std::string prefix = resource != nullptr ? resource->json_name : "";
  const auto convert = [&](const MessagePlan& type, std::string_view path) -> Result<std::string> {
    std::string json(text);
    if (!is_json) {
      UCCP_TRY(json, yaml_to_json(text, type, origin));
    }
    return call::json_to_wire(type, json, {.path_prefix = path});
  };
  Result<std::string> wire = convert(plan, prefix);
  if (wire && resource != nullptr) {
    body_.clear();
    call::put_bytes(body_, resource->number, *wire);
    return Status::ok();
  }
  if (!wire && resource != nullptr) {
    // The whole request, resource and all, as gRPC takes it, is understood too.
    if (Result<std::string> whole = convert(*method_.request, "")) wire = std::move(whole);
  }
  if (!wire) return wire.error();
  body_ = std::move(*wire);
  return Status::ok();
}

Status Request::set_arguments(std::vector<std::string> words) {
  const std::vector<FieldPath>& args = method_.cli->args;
  if (words.size() + 1 == args.size() && args.size() >= 2 && args.back().leaf().name == "port" && !words.empty()) {
    const size_t colon = words.back().rfind(':');
    if (colon != std::string::npos) {
      std::string port = words.back().substr(colon + 1);
      std::string address = words.back().substr(0, colon);
      if (address.starts_with('[') && address.ends_with(']')) address = address.substr(1, address.size() - 2);
      words.back() = std::move(address);
      words.push_back(std::move(port));
    }
  }
  size_t next = 0;
  for (const FieldPath& arg : args) {
    const bool takes_rest = arg.leaf().is_repeated();
    for (; next < words.size(); ++next) {
      std::string_view word = words[next];
      const std::string prefix = method_.cli->noun + "/";
      if (is_id(arg.leaf()) && word.starts_with(prefix)) word.remove_prefix(prefix.size());
      UCCP_RETURN_IF_ERROR(set(arg, word));
      if (!takes_rest) break;
    }
    if (!takes_rest && next < words.size()) {
      ++next;
    } else if (arg.leaf().required && !has(arg)) {
      return usage_error("argument " + to_heading(arg.leaf().name) + " is missing");
    }
  }
  for (; next < words.size(); ++next) UCCP_RETURN_IF_ERROR(set_further(words[next]));
  return Status::ok();
}

// Words behind the contract's arguments: what the one repeated message of two commands is mostly made of.
Status Request::set_further(const std::string& word) {
  JsonWriter json;
  if (method_.name == "Publish") {
    json.begin_object().key("text").value(word).end_object();
    return set("events", json.data());
  }
  if (method_.name == "UpdateConfiguration") {
    const size_t equals = word.find('=');
    if (equals == std::string::npos) return usage_error("\"" + word + "\" is not NAME=VALUE");
    const std::string value = word.substr(equals + 1);
    json.begin_object().key("name").value(word.substr(0, equals)).key("value");
    is_json_scalar(value) ? json.raw(value) : json.value(value);
    json.end_object();
    return set("settings", json.data());
  }
  return usage_error("argument \"" + word + "\" is one too many");
}

Result<std::string> Request::wire() const { return call::canonical(*method_.request, body_ + overrides_); }

Result<std::string> request_json(const call::Method& method, std::string_view wire) {
  return call::wire_to_json(*method.request, wire, {.emit = call::Emit::kSet});
}

}  // namespace uccp::cli
