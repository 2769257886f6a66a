// Evaluation of compiled conditions. Allocates only for lists and for numbers shown as text.
#include <arpa/inet.h>

#include <algorithm>
#include <bit>
#include <charconv>

#include "call/policy/policy_expression.h"
#include "call/policy/words.h"

namespace uccp::call {
namespace {

using Op = ExpressionNode::Op;

struct Value {
  bool flag = false;
  double number = 0;
  std::string_view text;
  std::vector<std::string_view> texts;
};

double number_of(const FieldPlan& field, uint64_t bits) {
  switch (field.kind) {
    case Kind::kFloat: return std::bit_cast<float>(static_cast<uint32_t>(bits));
    case Kind::kDouble: return std::bit_cast<double>(bits);
    case Kind::kInt32:
    case Kind::kSint32:
    case Kind::kSfixed32: return static_cast<double>(static_cast<int32_t>(bits));
    case Kind::kInt64:
    case Kind::kSint64:
    case Kind::kSfixed64: return static_cast<double>(static_cast<int64_t>(bits));
    default: return static_cast<double>(bits);
  }
}

// Seconds of a Duration or a Timestamp.
double seconds_of(std::string_view message) {
  double seconds = 0;
  WireReader reader(message);
  for (WireField field; reader.next(field);) {
    if (field.type != WireType::kVarint) continue;
    if (field.number == 1) seconds += static_cast<double>(static_cast<int64_t>(field.value));
    if (field.number == 2) seconds += static_cast<double>(static_cast<int64_t>(field.value)) / 1e9;
  }
  return seconds;
}

Value views(const std::vector<std::string>& texts) {
  Value value;
  value.texts.assign(texts.begin(), texts.end());
  return value;
}

int64_t days_of(WallTime wall) { return wall.us / 86'400'000'000; }

Value attribute_of(Attribute attribute, const AccessQuery& q) {
  Value value;
  switch (attribute) {
    case Attribute::kPrincipalName: value.text = q.principal.name; break;
    case Attribute::kPrincipalTenant: value.text = q.principal.tenant; break;
    case Attribute::kPrincipalKind: value.text = kind_name(q.principal.kind); break;
    case Attribute::kPrincipalCredential: value.text = credential_name(q.principal.credential); break;
    case Attribute::kPrincipalGroups: return views(q.principal.groups);
    case Attribute::kPrincipalRoles: return views(q.principal.roles);
    case Attribute::kPrincipalNamespaces: return views(q.principal.namespaces);
    case Attribute::kResourceName: value.text = q.resource; break;
    case Attribute::kResourceNamespace: value.text = q.name_space; break;
    case Attribute::kContextAddress: value.text = q.address; break;
    case Attribute::kContextDoor: value.text = q.door; break;
    case Attribute::kContextHour: value.number = static_cast<double>(q.wall.us / 3'600'000'000 % 24); break;
    // 1970-01-01 was a Thursday; Monday is 1.
    case Attribute::kContextWeekday: value.number = static_cast<double>((days_of(q.wall) + 3) % 7 + 1); break;
  }
  return value;
}

Value request_value(const ExpressionNode& node, const AccessQuery& q) {
  Value value;
  const auto it = node.fields.find(q.method->index);
  if (it == node.fields.end()) return value;
  const FieldPath& path = it->second;
  const FieldPlan& leaf = path.leaf();
  if (leaf.is_repeated()) {
    value.texts = get_items(path, q.request);
  } else if (leaf.kind == Kind::kMessage) {
    if (const auto message = get_message(path, q.request)) value.number = seconds_of(*message);
  } else if (leaf.kind == Kind::kString || leaf.kind == Kind::kBytes) {
    value.text = get_string(path, q.request).value_or(std::string_view());
  } else if (const auto bits = get_uint(path, q.request)) {
    value.flag = *bits != 0;
    value.number = number_of(leaf, *bits);
    if (leaf.kind == Kind::kEnum) {
      const EnumValue* known = leaf.enumeration->by_number(static_cast<int32_t>(*bits));
      if (known != nullptr) value.text = known->name;
    }
  }
  return value;
}

class Evaluation {
 public:
  Evaluation(const Expression& expression, const AccessQuery& query) : nodes_(expression.nodes), query_(query) {}

  bool truth(uint16_t at) const {
    const ExpressionNode& node = nodes_[at];
    switch (node.op) {
      case Op::kNot: return !truth(node.left);
      case Op::kAnd: return truth(node.left) && truth(node.right);
      case Op::kOr: return truth(node.left) || truth(node.right);
      case Op::kHas: {
        const auto it = node.fields.find(query_.method->index);
        return it != node.fields.end() && has_field(it->second, query_.request);
      }
      case Op::kLiteral:
      case Op::kAttribute:
      case Op::kRequest: return leaf(node).flag;
      default: return compare(node, leaf(nodes_[node.left]), leaf(nodes_[node.right]));
    }
  }

 private:
  Value leaf(const ExpressionNode& node) const {
    if (node.op == Op::kAttribute) return attribute_of(node.attribute, query_);
    if (node.op == Op::kRequest) return request_value(node, query_);
    if (node.op != Op::kLiteral) {
      // A comparison as an operand: (a == b) == c.
      Value value;
      value.flag = truth(static_cast<uint16_t>(&node - nodes_.data()));
      return value;
    }
    Value value = node.type == ValueType::kTexts ? views(node.texts) : Value();
    value.flag = node.flag;
    value.number = node.number;
    value.text = node.text;
    return value;
  }

  bool equal(const ExpressionNode& node, const Value& a, const Value& b) const {
    switch (nodes_[node.left].type) {
      case ValueType::kBool: return a.flag == b.flag;
      case ValueType::kNumber: return a.number == b.number;
      case ValueType::kText: return a.text == b.text;
      default: return a.texts == b.texts;
    }
  }

  bool compare(const ExpressionNode& node, const Value& a, const Value& b) const {
    switch (node.op) {
      case Op::kEqual: return equal(node, a, b);
      case Op::kNotEqual: return !equal(node, a, b);
      case Op::kLess: return a.number < b.number;
      case Op::kLessOrEqual: return a.number <= b.number;
      case Op::kMore: return a.number > b.number;
      case Op::kMoreOrEqual: return a.number >= b.number;
      case Op::kIn: return std::ranges::find(b.texts, a.text) != b.texts.end();
      case Op::kContains: return std::ranges::find(a.texts, b.text) != a.texts.end();
      case Op::kLike: return glob_matches(b.text, a.text);
      case Op::kInNetwork: {
        std::array<unsigned char, 16> address{};
        return parse_address(a.text, address) && nodes_[node.right].network.contains(address);
      }
      default: return false;
    }
  }

  const std::vector<ExpressionNode>& nodes_;
  const AccessQuery& query_;
};

}  // namespace

bool Network::contains(const std::array<unsigned char, 16>& other) const {
  for (int bit = 0; bit < bits; ++bit) {
    const int shift = 7 - bit % 8;
    if (((address[static_cast<size_t>(bit / 8)] ^ other[static_cast<size_t>(bit / 8)]) >> shift & 1) != 0) return false;
  }
  return true;
}

bool parse_address(std::string_view text, std::array<unsigned char, 16>& out) {
  if (text.starts_with('[')) {
    text = text.substr(1, text.find(']') == std::string_view::npos ? 0 : text.find(']') - 1);
  } else if (std::ranges::count(text, ':') == 1) {
    text = text.substr(0, text.find(':'));
  }
  const std::string host(text.substr(0, text.find('%')));
  if (inet_pton(AF_INET6, host.c_str(), out.data()) == 1) return true;
  out = {};
  out[10] = out[11] = 0xff;
  return inet_pton(AF_INET, host.c_str(), out.data() + 12) == 1;
}

bool parse_network(std::string_view text, Network& out) {
  const size_t slash = text.find('/');
  const std::string host(text.substr(0, slash));
  const bool v6 = host.find(':') != std::string::npos;
  const bool has_port = host.find('[') != std::string::npos || std::ranges::count(host, ':') == 1;
  if (has_port || !parse_address(host, out.address)) return false;
  out.bits = 128;
  if (slash == std::string_view::npos) return true;
  const std::string_view digits = text.substr(slash + 1);
  int bits = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
  if (error != std::errc() || end != digits.data() + digits.size() || bits < 0 || bits > (v6 ? 128 : 32)) return false;
  out.bits = v6 ? bits : 96 + bits;
  return true;
}

bool Expression::holds(const AccessQuery& query) const {
  return Evaluation(*this, query).truth(static_cast<uint16_t>(nodes.size() - 1));
}

}  // namespace uccp::call
