#include "call/listing_filter.h"

#include <compare>
#include <cstring>

#include "call/json_codec_text.h"

namespace uccp::call {
namespace {

constexpr int kFieldNamesMax = 40;

void collect(const MessagePlan& plan, bool (*wanted)(const FieldPlan&), std::string prefix, int depth, int& left,
             std::string& out) {
  for (const FieldPlan& field : plan.fields) {
    const std::string name = prefix + field.json_name;
    if (wanted(field)) {
      if (left-- <= 0) return;
      const bool keys = field.is_map() || (field.is_message() && field.message->well_known == WellKnown::kValue);
      out.append(out.empty() ? "" : ", ").append(name).append(keys ? ".KEY" : "");
    }
    if (depth > 0 && field.is_message() && field.message->well_known == WellKnown::kNone) {
      collect(*field.message, wanted, name + ".", depth - 1, left, out);
    }
  }
}

// Of an entry of a map<string, string>.
struct MapEntry {
  std::string_view key;
  std::string_view value;
};

MapEntry read_entry(std::string_view bytes) {
  MapEntry entry;
  WireReader reader(bytes);
  WireField field;
  while (reader.next(field)) {
    if (field.number == 1) entry.key = field.bytes;
    if (field.number == 2) entry.value = field.bytes;
  }
  return entry;
}

}  // namespace

std::string usable_fields(const MessagePlan& plan, bool (*wanted)(const FieldPlan&)) {
  std::string out;
  int left = kFieldNamesMax;
  collect(plan, wanted, "", 2, left, out);
  return out.empty() ? "none" : out;
}

bool Filter::matches(std::string_view item, const JsonDocument* json) const {
  return nodes_.empty() || eval(static_cast<uint32_t>(nodes_.size() - 1), item, json);
}

// Depth is bounded by the parser.
bool Filter::eval(uint32_t at, std::string_view item, const JsonDocument* json) const {
  const Node& node = nodes_[at];
  switch (node.kind) {
    case Node::Kind::kAnd: return eval(node.left, item, json) && eval(node.right, item, json);
    case Node::Kind::kOr: return eval(node.left, item, json) || eval(node.right, item, json);
    case Node::Kind::kNot: return !eval(node.left, item, json);
    case Node::Kind::kComparison: return compare(comparisons_[node.left], item, json);
  }
  return false;
}

namespace {

// `op` numbers as in Filter::Operator.
template <typename Order>
bool in_order(uint8_t op, Order order) {
  switch (op) {
    case 1: return order != 0;
    case 2: return order < 0;
    case 3: return order <= 0;
    case 4: return order > 0;
    case 5: return order >= 0;
    default: return order == 0;
  }
}

}  // namespace

bool Filter::compare_text(const Comparison& c, std::string_view value) {
  if (c.op == Operator::kHas) return value.find(c.text) != std::string_view::npos;
  if (c.any_prefix || c.any_suffix) {
    bool equal;
    if (c.any_prefix && c.any_suffix) equal = value.find(c.text) != std::string_view::npos;
    else if (c.any_prefix) equal = value.ends_with(c.text);
    else equal = value.starts_with(c.text);
    return equal == (c.op == Operator::kEqual);
  }
  return in_order(static_cast<uint8_t>(c.op), value <=> std::string_view(c.text));
}

bool Filter::compare_map(const Comparison& c, std::string_view item) {
  const std::string& key = c.type == Type::kMapKey ? c.text : c.map_key;
  std::optional<std::string_view> value;
  for (const std::string_view bytes : get_items(c.path, item)) {
    const MapEntry entry = read_entry(bytes);
    if (entry.key == key) value = entry.value;
  }
  if (c.type == Type::kMapKey) return value.has_value();
  // What is not there is equal to nothing, and so unequal to everything.
  if (!value) return c.op == Operator::kNotEqual;
  return compare_text(c, *value);
}

bool Filter::compare_scalar(const Comparison& c, std::string_view item) {
  const uint64_t bits = get_uint(c.path, item).value_or(0);
  const auto op = static_cast<uint8_t>(c.op);
  switch (c.type) {
    case Type::kUnsigned: return in_order(op, bits <=> c.unsigned_value);
    case Type::kReal: {
      double value = 0;
      if (c.path.leaf().kind == Kind::kFloat) {
        float narrow = 0;
        const auto low = static_cast<uint32_t>(bits);
        std::memcpy(&narrow, &low, sizeof narrow);
        value = static_cast<double>(narrow);
      } else {
        std::memcpy(&value, &bits, sizeof value);
      }
      return in_order(op, value <=> c.real);
    }
    default: {
      // int32 and enums are sign-extended varints; sfixed32 is not.
      const Kind kind = c.path.leaf().kind;
      const auto value = kind == Kind::kSfixed32 || kind == Kind::kInt32 || kind == Kind::kEnum
                             ? static_cast<int64_t>(static_cast<int32_t>(bits))
                             : static_cast<int64_t>(bits);
      return in_order(op, value <=> c.signed_value);
    }
  }
}

bool Filter::compare_leaf(const Comparison& c, const JsonLeaf& leaf) {
  const auto op = static_cast<uint8_t>(c.op);
  if (leaf.kind == JsonLeaf::Kind::kText) return compare_text(c, leaf.text);
  if (leaf.kind != c.also) return c.op == Operator::kNotEqual;
  switch (leaf.kind) {
    case JsonLeaf::Kind::kNumber: return in_order(op, leaf.number <=> c.real);
    case JsonLeaf::Kind::kBool: return (leaf.boolean == (c.signed_value != 0)) != (c.op == Operator::kNotEqual);
    default: return c.op != Operator::kNotEqual;
  }
}

bool Filter::compare_json(const Comparison& c, const JsonDocument& json) {
  bool found = false;
  const auto is_item = [&](const JsonLeaf& item) {
    // A list has the item, not a part of it.
    found |= item.kind == JsonLeaf::Kind::kText ? item.text == c.text : compare_leaf(c, item);
    return !found;
  };
  const JsonLeaf leaf = json.find(c.keys, is_item);
  if (c.op == Operator::kHas && c.any_suffix) return leaf.kind != JsonLeaf::Kind::kAbsent;
  if (c.op == Operator::kHas && leaf.kind == JsonLeaf::Kind::kList) return found;
  if (c.op == Operator::kHas && leaf.kind == JsonLeaf::Kind::kObject) {
    std::vector<std::string> keys = c.keys;
    keys.push_back(c.text);
    return json.find(keys, [](const JsonLeaf&) { return false; }).kind != JsonLeaf::Kind::kAbsent;
  }
  return compare_leaf(c, leaf);
}

bool Filter::compare(const Comparison& c, std::string_view item, const JsonDocument* json) {
  switch (c.type) {
    case Type::kJson:
      if (json != nullptr) return compare_json(c, *json);
      return compare_json(c, WireJson(get_message(c.path, item).value_or("")));
    case Type::kText: return compare_text(c, get_string(c.path, item).value_or(std::string_view()));
    case Type::kList:
      for (const std::string_view value : get_items(c.path, item)) {
        if (value == c.text) return true;
      }
      return false;
    case Type::kMapKey:
    case Type::kMapValue: return compare_map(c, item);
    case Type::kSet: return has_field(c.path, item);
    case Type::kTime: {
      const auto bytes = get_message(c.path, item);
      SecondsNanos time;
      if (!bytes || !read_time(*bytes, time)) return c.op == Operator::kNotEqual;
      const auto order = time.seconds != c.signed_value ? time.seconds <=> c.signed_value : time.nanos <=> c.nanos;
      return in_order(static_cast<uint8_t>(c.op), order);
    }
    default: return compare_scalar(c, item);
  }
}

}  // namespace uccp::call
