#include "cli/yaml.h"

#include <re2/re2.h>
#include <simdjson.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <sstream>

#include "base/json.h"

namespace uccp::cli {
namespace {

using call::FieldPlan;
using call::Kind;
using call::MessagePlan;

// What is known of a node's type; both null: nothing.
struct Expected {
  const MessagePlan* message = nullptr;
  const FieldPlan* field = nullptr;  // of a scalar
};

Expected expected_of(const FieldPlan& field) {
  if (field.kind != Kind::kMessage) return {nullptr, &field};
  switch (field.message->well_known) {
    case call::WellKnown::kNone: return {field.message, nullptr};
    case call::WellKnown::kStruct:
    case call::WellKnown::kValue:
    case call::WellKnown::kListValue: return {};
    default: return {nullptr, &field};
  }
}

bool is_json_number(const std::string& text) {
  static const re2::RE2 kNumber(R"(-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?)");
  return re2::RE2::FullMatch(text, kNumber);
}

bool is_text(const Expected& expected) {
  if (expected.field == nullptr) return false;
  const Kind kind = expected.field->kind;
  return kind == Kind::kString || kind == Kind::kBytes || kind == Kind::kEnum || kind == Kind::kMessage;
}

void append_scalar(const YAML::Node& node, const Expected& expected, std::string& out) {
  const std::string& text = node.Scalar();
  const bool quoted = node.Tag() == "!";
  if (!quoted && !is_text(expected)) {
    if (text == "true" || text == "false" || is_json_number(text)) {
      out += text;
      return;
    }
  }
  append_json_string(out, text);
}

Status append_node(const YAML::Node& node, const Expected& expected, int depth, std::string& out) {
  if (depth > call::kDepthMax) return Status(Code::kInvalid, "YAML_INVALID", "the YAML is nested too deeply");
  if (!node.IsDefined() || node.IsNull()) {
    out += "null";
    return Status::ok();
  }
  if (node.IsScalar()) {
    append_scalar(node, expected, out);
    return Status::ok();
  }
  const bool is_map = node.IsMap();
  out.push_back(is_map ? '{' : '[');
  bool first = true;
  for (const auto& child : node) {
    if (!first) out.push_back(',');
    first = false;
    if (!is_map) {
      UCCP_RETURN_IF_ERROR(append_node(child, expected, depth + 1, out));
      continue;
    }
    const std::string key = child.first.as<std::string>("");
    append_json_string(out, key);
    out.push_back(':');
    Expected inner;
    if (expected.message != nullptr) {
      if (const FieldPlan* field = expected.message->by_name(key)) {
        inner = field->is_map() ? Expected{nullptr, field} : expected_of(*field);
      }
    } else if (expected.field != nullptr && expected.field->is_map()) {
      inner = expected_of(*expected.field->map_value);
    }
    UCCP_RETURN_IF_ERROR(append_node(child.second, inner, depth + 1, out));
  }
  out.push_back(is_map ? '}' : ']');
  return Status::ok();
}

Status yaml_error(std::string_view origin, const YAML::Exception& error) {
  return {Code::kInvalid, "YAML_INVALID",
          std::string(origin) + " line " + std::to_string(error.mark.line + 1) + " column " +
              std::to_string(error.mark.column + 1) + ": " + error.msg};
}

Status at_line(std::string_view origin, const YAML::Node& node, const std::string& what) {
  return {Code::kInvalid, "YAML_INVALID",
          std::string(origin) + " line " + std::to_string(node.Mark().line + 1) + ": " + what};
}

Status append_sections(const YAML::Node& document, std::string_view origin, const PlanOf& plan_of,
                       std::vector<YamlSection>& out) {
  if (!document.IsDefined() || document.IsNull()) return Status::ok();
  if (!document.IsMap())
    return at_line(origin, document, "a document has resources by kind, such as `role: {name: dev}`");
  for (const auto& member : document) {
    const std::string key = member.first.as<std::string>("");
    const Result<const MessagePlan*> plan = plan_of(key);
    if (!plan) return at_line(origin, member.first, plan.error().message());
    const auto append = [&](const YAML::Node& node) -> Status {
      if (!node.IsMap()) return at_line(origin, node, key + " is an object with the fields of a " + key);
      YamlSection section{.key = key, .json = {}, .line = static_cast<uint32_t>(node.Mark().line + 1)};
      UCCP_RETURN_IF_ERROR(append_node(node, {*plan, nullptr}, 0, section.json));
      out.push_back(std::move(section));
      return Status::ok();
    };
    if (!member.second.IsSequence()) {
      UCCP_RETURN_IF_ERROR(append(member.second));
      continue;
    }
    for (const auto& item : member.second) UCCP_RETURN_IF_ERROR(append(item));
  }
  return Status::ok();
}

// --- out -------------------------------------------------------------------------------------------------------------

bool is_plain(std::string_view text) {
  // Words that YAML 1.1 readers take for something else are quoted as well.
  static const re2::RE2 kPlain(R"([A-Za-z_/][A-Za-z0-9_./@+-]*([ :][A-Za-z0-9_./@+-]+)*)");
  static const re2::RE2 kReserved(R"((?i)true|false|yes|no|on|off|null|y|n|nan|inf)");
  return re2::RE2::FullMatch(text, kPlain) && !re2::RE2::FullMatch(text, kReserved);
}

void append_text(std::string_view text, std::string& out) {
  if (is_plain(text)) {
    out += text;
  } else {
    append_json_string(out, text);  // a JSON string is a YAML double-quoted one
  }
}

void append_value(const simdjson::dom::element& value, size_t indent, std::string& out);

void append_members(const simdjson::dom::object& object, size_t indent, bool indent_first, std::string& out) {
  bool first = true;
  for (const auto& member : object) {
    if (!first || indent_first) out.append(indent, ' ');
    first = false;
    append_text(member.key, out);
    out.push_back(':');
    append_value(member.value, indent, out);
  }
}

void append_items(const simdjson::dom::array& array, size_t indent, std::string& out) {
  for (const simdjson::dom::element item : array) {
    out.append(indent, ' ');
    out += "-";
    simdjson::dom::object object;
    if (item.get(object) == simdjson::SUCCESS && object.size() > 0) {
      out.push_back(' ');
      append_members(object, indent + 2, false, out);
    } else {
      append_value(item, indent, out);
    }
  }
}

// Appends behind "key:" or "-", with the separating blank or line break.
void append_value(const simdjson::dom::element& value, size_t indent, std::string& out) {
  switch (value.type()) {
    case simdjson::dom::element_type::OBJECT: {
      const simdjson::dom::object object = value.get_object().value_unsafe();
      if (object.size() == 0) {
        out += " {}\n";
        return;
      }
      out.push_back('\n');
      append_members(object, indent + 2, true, out);
      return;
    }
    case simdjson::dom::element_type::ARRAY: {
      const simdjson::dom::array array = value.get_array().value_unsafe();
      if (array.size() == 0) {
        out += " []\n";
        return;
      }
      out.push_back('\n');
      append_items(array, indent + 2, out);
      return;
    }
    case simdjson::dom::element_type::STRING:
      out.push_back(' ');
      append_text(value.get_string().value_unsafe(), out);
      break;
    default: out.push_back(' '); out += simdjson::minify(value);
  }
  out.push_back('\n');
}

// Where documents begin. On some texts that are no YAML, such as ",a", the library finds a document at the same place
// for ever; this sees it.
class DocumentStarts final : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override {
    if (mark.pos <= last_) throw YAML::ParserException(mark, "a value cannot begin here");
    last_ = mark.pos;
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}

 private:
  int last_ = -1;
};

// Throws YAML::Exception.
std::vector<YAML::Node> load_documents(std::string_view yaml) {
  const std::string text(yaml);
  std::istringstream in(text);
  YAML::Parser parser(in);
  DocumentStarts starts;
  while (parser.HandleNextDocument(starts)) {}
  return YAML::LoadAll(text);
}

}  // namespace

Result<std::string> yaml_to_json(std::string_view yaml, const MessagePlan& plan, std::string_view origin) {
  try {
    const std::vector<YAML::Node> documents = load_documents(yaml);
    if (documents.size() > 1) {
      return fail(Code::kInvalid, "YAML_INVALID",
                  std::string(origin) + " holds " + std::to_string(documents.size()) + " documents; give one");
    }
    std::string json;
    if (documents.empty() || documents[0].IsNull()) return std::string("{}");
    UCCP_RETURN_IF_ERROR(append_node(documents[0], {&plan, nullptr}, 0, json));
    return json;
  } catch (const YAML::Exception& error) {
    return std::unexpected(yaml_error(origin, error));
  }
}

Result<std::vector<YamlSection>> yaml_sections(std::string_view yaml, std::string_view origin, const PlanOf& plan_of) {
  try {
    std::vector<YamlSection> sections;
    for (const YAML::Node& document : load_documents(yaml)) {
      UCCP_RETURN_IF_ERROR(append_sections(document, origin, plan_of, sections));
    }
    return sections;
  } catch (const YAML::Exception& error) {
    return std::unexpected(yaml_error(origin, error));
  }
}

std::string json_to_yaml(std::string_view json) {
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  if (parser.parse(simdjson::padded_string(json)).get(root) != simdjson::SUCCESS) return std::string(json) + "\n";
  std::string out;
  simdjson::dom::object object;
  simdjson::dom::array array;
  if (root.get(object) == simdjson::SUCCESS && object.size() > 0) {
    append_members(object, 0, true, out);
  } else if (root.get(array) == simdjson::SUCCESS && array.size() > 0) {
    append_items(array, 0, out);
  } else {
    append_value(root, 0, out);
    out.erase(0, 1);
  }
  return out;
}

}  // namespace uccp::cli
