// Field paths and field trees over serialized messages.
#include <charconv>

#include "call/json_codec_text.h"
#include "call/wire.h"

namespace uccp::call {

Result<FieldPath> FieldPath::compile(const MessagePlan& root, std::string_view path) {
  FieldPath compiled;
  const MessagePlan* plan = &root;
  for (std::string_view rest = path;;) {
    const size_t dot = rest.find('.');
    const std::string_view name = rest.substr(0, dot);
    const FieldPlan* field = plan == nullptr ? nullptr : plan->by_name(name);
    if (field == nullptr) {
      std::string message = "no field \"" + std::string(path) + "\" in " + root.name;
      const FieldPlan* near = plan == nullptr ? nullptr : plan->nearest(name);
      std::string example = near == nullptr ? "" : near->json_name;
      return std::unexpected(Status(Code::kInvalid, "FIELD_INVALID", std::move(message))
                                 .with_field(std::string(path), "is not a field of the request",
                                             near == nullptr ? "" : "did you mean " + example + "?"));
    }
    compiled.steps_.push_back(field);
    compiled.owners_.push_back(plan);
    if (dot == std::string_view::npos) return compiled;
    rest.remove_prefix(dot + 1);
    plan = field->is_message() ? field->message : nullptr;
  }
}

std::string FieldPath::text() const {
  std::string text;
  for (const FieldPlan* step : steps_) {
    if (!text.empty()) text.push_back('.');
    text.append(step->json_name);
  }
  return text;
}

namespace {

// Calls `found` for each occurrence of the leaf in order and `cleared` when another member of a oneof on the way
// replaces what was found. Returns false on malformed bytes.
template <typename Found, typename Cleared>
bool visit(const FieldPath& path, size_t depth, std::string_view message, Found& found, Cleared& cleared) {
  const FieldPlan& step = *path.steps()[depth];
  WireReader reader(message);
  WireField field;
  while (reader.next(field)) {
    if (field.number == step.number) {
      if (depth + 1 == path.steps().size()) {
        found(field);
      } else if (field.type != WireType::kBytes || !visit(path, depth + 1, field.bytes, found, cleared)) {
        return false;
      }
    } else if (step.oneof >= 0) {
      const FieldPlan* other = path.owner(depth).by_number(field.number);
      if (other != nullptr && other->oneof == step.oneof) cleared();
    }
  }
  return reader.ok();
}

std::optional<WireField> last_of(const FieldPath& path, std::string_view message) {
  std::optional<WireField> last;
  auto found = [&](const WireField& field) { last = field; };
  auto cleared = [&] { last.reset(); };
  if (path.empty() || !visit(path, 0, message, found, cleared)) return std::nullopt;
  return last;
}

uint64_t unzigzag(uint64_t value) { return (value >> 1) ^ (0 - (value & 1)); }

}  // namespace

std::optional<std::string_view> get_string(const FieldPath& path, std::string_view message) {
  const auto field = last_of(path, message);
  if (!field || field->type != WireType::kBytes) return std::nullopt;
  return field->bytes;
}

std::optional<uint64_t> get_uint(const FieldPath& path, std::string_view message) {
  const auto field = last_of(path, message);
  if (!field || field->type == WireType::kBytes) return std::nullopt;
  const Kind kind = path.leaf().kind;
  return kind == Kind::kSint32 || kind == Kind::kSint64 ? unzigzag(field->value) : field->value;
}

std::optional<std::string> get_text(const FieldPath& path, std::string_view message) {
  const auto field = last_of(path, message);
  if (!field || path.leaf().shape != Shape::kSingular || path.leaf().kind == Kind::kMessage) return std::nullopt;
  if (field->type != wire_type(path.leaf().kind)) return std::nullopt;
  if (field->type == WireType::kBytes) return std::string(field->bytes);
  std::string text;
  append_scalar_text(path.leaf(), field->value, text);
  return text;
}

std::optional<std::string> get_message(const FieldPath& path, std::string_view message) {
  std::optional<std::string> merged;
  auto found = [&](const WireField& field) {
    if (field.type != WireType::kBytes) return;
    if (!merged) merged.emplace();
    merged->append(field.bytes);
  };
  auto cleared = [&] { merged.reset(); };
  if (path.empty() || !visit(path, 0, message, found, cleared)) return std::nullopt;
  return merged;
}

std::vector<std::string_view> get_items(const FieldPath& path, std::string_view message) {
  std::vector<std::string_view> items;
  auto found = [&](const WireField& field) {
    if (field.type == WireType::kBytes) items.push_back(field.bytes);
  };
  auto cleared = [&] { items.clear(); };
  if (path.empty() || !visit(path, 0, message, found, cleared)) items.clear();
  return items;
}

bool has_field(const FieldPath& path, std::string_view message) { return last_of(path, message).has_value(); }

void append_at(const FieldPath& path, std::string& message, std::string_view fields) {
  const auto steps = path.steps();
  std::vector<size_t> marks;
  for (size_t i = 0; i + 1 < steps.size(); ++i) marks.push_back(begin_bytes(message, steps[i]->number));
  message.append(fields);
  for (size_t i = marks.size(); i > 0; --i) end_bytes(message, marks[i - 1]);
}

void set_string(const FieldPath& path, std::string& message, std::string_view value) {
  std::string field;
  put_bytes(field, path.leaf().number, value);
  append_at(path, message, field);
}

void set_uint(const FieldPath& path, std::string& message, uint64_t value) {
  std::string field;
  const FieldPlan& leaf = path.leaf();
  if (leaf.kind == Kind::kSint32 || leaf.kind == Kind::kSint64) {
    value = value << 1 ^ static_cast<uint64_t>(static_cast<int64_t>(value) >> 63);
  }
  put_tag(field, leaf.number, wire_type(leaf.kind));
  put_scalar(field, leaf.kind, value);
  append_at(path, message, field);
}

// --- trees ----------------------------------------------------------------------------------------------------------

Result<FieldTree> FieldTree::compile(const MessagePlan& root, std::span<const std::string> paths) {
  FieldTree tree;
  for (const std::string& path : paths) {
    if (path == "*") {
      tree.all_ = true;
      tree.nodes_.push_back({nullptr, true, {}});
      continue;
    }
    const MessagePlan* plan = &root;
    std::optional<size_t> parent;
    for (std::string_view rest = path; plan != nullptr;) {
      const size_t dot = rest.find('.');
      const FieldPlan* field = plan->by_name(rest.substr(0, dot));
      if (field == nullptr) {
        return std::unexpected(Status(Code::kInvalid, "FIELD_INVALID", "no field \"" + path + "\" in " + root.name)
                                   .with_field(path, "is not a field of " + root.name));
      }
      auto& siblings = parent ? tree.nodes_[*parent].children : tree.roots_;
      std::optional<size_t> at;
      for (const uint32_t sibling : siblings) {
        if (tree.nodes_[sibling].field == field) at = sibling;
      }
      if (!at) {
        at = tree.nodes_.size();
        siblings.push_back(static_cast<uint32_t>(*at));
        tree.nodes_.push_back({field, false, {}});
      }
      parent = at;
      const bool opaque =
          field->kind != Kind::kMessage || field->is_map() || field->message->well_known != WellKnown::kNone;
      plan = opaque ? nullptr : field->message;
      if (dot == std::string_view::npos || plan == nullptr) {
        if (dot != std::string_view::npos && field->kind != Kind::kMessage) {
          return std::unexpected(Status(Code::kInvalid, "FIELD_INVALID", "no field \"" + path + "\" in " + root.name)
                                     .with_field(path, field->json_name + " has no fields of its own"));
        }
        tree.nodes_[*at].whole = true;
        break;
      }
      rest.remove_prefix(dot + 1);
    }
  }
  return tree;
}

const FieldTree::Node* FieldTree::child(const Node* node, const FieldPlan& field) const {
  static const Node kWhole{nullptr, true, {}};
  if (node == nullptr && all_) return &kWhole;
  if (node != nullptr && node->whole) return node;
  for (const uint32_t at : node == nullptr ? roots_ : node->children) {
    if (nodes_[at].field == &field) return &nodes_[at];
  }
  return nullptr;
}

namespace {

Status project_into(const MessagePlan& plan, std::string_view message, const FieldTree& tree,
                    const FieldTree::Node* node, int depth, std::string& out) {
  WireReader reader(message);
  WireField field;
  while (reader.next(field)) {
    const FieldPlan* known = plan.by_number(field.number);
    const FieldTree::Node* child = known == nullptr ? nullptr : tree.child(node, *known);
    if (child == nullptr) continue;
    if (field.type == WireType::kBytes) {
      if (child->whole || known->kind != Kind::kMessage) {
        put_bytes(out, field.number, field.bytes);
        continue;
      }
      if (depth >= kDepthMax) return {Code::kInvalid, "WIRE_INVALID", plan.full_name + " is nested too deeply"};
      const size_t mark = begin_bytes(out, field.number);
      UCCP_RETURN_IF_ERROR(project_into(*known->message, field.bytes, tree, child, depth + 1, out));
      end_bytes(out, mark);
      continue;
    }
    put_tag(out, field.number, field.type);
    if (field.type == WireType::kVarint) put_varint(out, field.value);
    if (field.type == WireType::kFixed32) put_fixed32(out, static_cast<uint32_t>(field.value));
    if (field.type == WireType::kFixed64) put_fixed64(out, field.value);
  }
  if (!reader.ok()) return {Code::kInvalid, "WIRE_INVALID", "the bytes are not a " + plan.full_name};
  return Status::ok();
}

}  // namespace

Result<std::string> project(const MessagePlan& plan, std::string_view message, const FieldTree& tree) {
  std::string out;
  UCCP_RETURN_IF_ERROR(project_into(plan, message, tree, nullptr, 0, out));
  return out;
}

}  // namespace uccp::call
