// Parsing of conditions, with types.
#include <algorithm>
#include <array>
#include <utility>

#include "call/contract.h"
#include "call/policy/policy_expression.h"
#include "call/policy/policy_language.h"
#include "call/policy/words.h"

namespace uccp::call {
namespace {

using Op = ExpressionNode::Op;

struct NamedAttribute {
  std::string_view object, name;
  Attribute attribute;
  ValueType type;
};
constexpr auto kAttributes = std::to_array<NamedAttribute>({
    {"principal", "name", Attribute::kPrincipalName, ValueType::kText},
    {"principal", "tenant", Attribute::kPrincipalTenant, ValueType::kText},
    {"principal", "kind", Attribute::kPrincipalKind, ValueType::kText},
    {"principal", "credential", Attribute::kPrincipalCredential, ValueType::kText},
    {"principal", "groups", Attribute::kPrincipalGroups, ValueType::kTexts},
    {"principal", "roles", Attribute::kPrincipalRoles, ValueType::kTexts},
    {"principal", "namespaces", Attribute::kPrincipalNamespaces, ValueType::kTexts},
    {"resource", "name", Attribute::kResourceName, ValueType::kText},
    {"resource", "namespace", Attribute::kResourceNamespace, ValueType::kText},
    {"context", "address", Attribute::kContextAddress, ValueType::kText},
    {"context", "door", Attribute::kContextDoor, ValueType::kText},
    {"context", "hour", Attribute::kContextHour, ValueType::kNumber},
    {"context", "weekday", Attribute::kContextWeekday, ValueType::kNumber},
});

constexpr auto kComparisons = std::to_array<std::pair<std::string_view, Op>>({
    {"==", Op::kEqual},
    {"!=", Op::kNotEqual},
    {"<", Op::kLess},
    {"<=", Op::kLessOrEqual},
    {">", Op::kMore},
    {">=", Op::kMoreOrEqual},
    {"in", Op::kIn},
    {"like", Op::kLike},
});

// The type of a field as conditions see it; nothing for what they cannot look at.
Result<ValueType> type_of(const FieldPlan& field, Place at) {
  if (field.redact) return policy_error(at, "'" + field.json_name + "' is a secret, which conditions cannot look at");
  if (field.is_repeated()) {
    if (field.kind == Kind::kString) return ValueType::kTexts;
  } else if (!field.is_map()) {
    switch (field.kind) {
      case Kind::kBool: return ValueType::kBool;
      case Kind::kString:
      case Kind::kEnum: return ValueType::kText;
      case Kind::kMessage:
        if (field.message->well_known == WellKnown::kDuration || field.message->well_known == WellKnown::kTimestamp) {
          return ValueType::kNumber;
        }
        break;
      case Kind::kBytes: break;
      default: return ValueType::kNumber;
    }
  }
  return policy_error(at, "'" + field.json_name +
                              "' is neither a text, a number, a truth value, a time nor a list of " +
                              "texts; ask only whether it is there: has request...");
}

class ConditionParser {
 public:
  ConditionParser(Lexer& lexer, const std::vector<bool>& methods) : lexer_(lexer), methods_(methods) {}

  Result<Expression> parse() {
    UCCP_RETURN_IF_ERROR(expect("{"));
    UCCP_TRY(const Token first, lexer_.peek());
    UCCP_TRY(const uint16_t root, disjunction());
    UCCP_RETURN_IF_ERROR(demand(root, ValueType::kBool, first.at));
    UCCP_RETURN_IF_ERROR(expect("}"));
    return std::move(out_);
  }

 private:
  Status expect(std::string_view sign) {
    UCCP_TRY(const Token token, lexer_.next());
    if (token.is(sign)) return Status::ok();
    return policy_error(token.at, "'" + std::string(sign) + "' belongs here, not " + token.shown()).error();
  }

  Status demand(uint16_t node, ValueType type, Place at) const {
    if (out_.nodes[node].type == type) return Status::ok();
    return policy_error(at, "this is " + std::string(type_name(out_.nodes[node].type)) + ", and " +
                                std::string(type_name(type)) + " is needed")
        .error();
  }

  Result<uint16_t> add(ExpressionNode node, Place at) {
    if (out_.nodes.size() >= kExpressionNodesMax) {
      return policy_error(at, "the condition has more than " + std::to_string(kExpressionNodesMax) + " parts");
    }
    out_.nodes.push_back(std::move(node));
    return static_cast<uint16_t>(out_.nodes.size() - 1);
  }
  Result<uint16_t> join(Op op, uint16_t left, uint16_t right, Place at) {
    ExpressionNode node;
    node.op = op;
    node.type = ValueType::kBool;
    node.left = left;
    node.right = right;
    return add(std::move(node), at);
  }

  template <typename Operand>
  Result<uint16_t> chain(std::string_view sign, Op op, Operand operand) {
    UCCP_TRY(Token at, lexer_.peek());
    UCCP_TRY(uint16_t left, (this->*operand)());
    for (;;) {
      UCCP_TRY(const Token token, lexer_.peek());
      if (!token.is(sign)) return left;
      UCCP_RETURN_IF_ERROR(demand(left, ValueType::kBool, at.at));
      UCCP_RETURN_IF_ERROR(lexer_.next());
      UCCP_TRY(at, lexer_.peek());
      UCCP_TRY(const uint16_t right, (this->*operand)());
      UCCP_RETURN_IF_ERROR(demand(right, ValueType::kBool, at.at));
      UCCP_TRY(left, join(op, left, right, token.at));
    }
  }
  Result<uint16_t> disjunction() { return chain("||", Op::kOr, &ConditionParser::conjunction); }
  Result<uint16_t> conjunction() { return chain("&&", Op::kAnd, &ConditionParser::unary); }

  Result<uint16_t> unary() {
    UCCP_TRY(const Token token, lexer_.peek());
    if (depth_ >= kExpressionDepthMax) {
      return policy_error(token.at, "the condition is nested deeper than " + std::to_string(kExpressionDepthMax));
    }
    if (!token.is("!")) return comparison();
    UCCP_RETURN_IF_ERROR(lexer_.next());
    ++depth_;
    UCCP_TRY(const uint16_t operand, unary());
    --depth_;
    UCCP_RETURN_IF_ERROR(demand(operand, ValueType::kBool, token.at));
    return join(Op::kNot, operand, operand, token.at);
  }

  Result<uint16_t> comparison() {
    UCCP_TRY(const uint16_t left, primary());
    UCCP_TRY(const Token token, lexer_.peek());
    const auto found = std::ranges::find_if(kComparisons, [&](const auto& c) { return token.is(c.first); });
    if (found == kComparisons.end()) return left;
    UCCP_RETURN_IF_ERROR(lexer_.next());
    UCCP_TRY(const Token at, lexer_.peek());
    UCCP_TRY(const uint16_t right, primary());
    return compare(found->second, left, right, token, at);
  }

  Result<uint16_t> compare(Op op, uint16_t left, uint16_t right, const Token& sign, const Token& at) {
    const ValueType a = out_.nodes[left].type;
    const ValueType b = out_.nodes[right].type;
    if (op == Op::kIn && b == ValueType::kNetwork) {
      UCCP_RETURN_IF_ERROR(demand(left, ValueType::kText, sign.at));
      return join(Op::kInNetwork, left, right, sign.at);
    }
    if (op == Op::kIn) {
      UCCP_RETURN_IF_ERROR(demand(left, ValueType::kText, sign.at));
      UCCP_RETURN_IF_ERROR(demand(right, ValueType::kTexts, at.at));
    } else if (op == Op::kLike) {
      UCCP_RETURN_IF_ERROR(demand(left, ValueType::kText, sign.at));
      UCCP_RETURN_IF_ERROR(demand(right, ValueType::kText, at.at));
    } else if (op == Op::kEqual || op == Op::kNotEqual) {
      if (a == ValueType::kNetwork) return policy_error(sign.at, "a network is compared with 'in'");
      UCCP_RETURN_IF_ERROR(demand(right, a, at.at));
      UCCP_RETURN_IF_ERROR(check_enum_words(left, right, at));
      UCCP_RETURN_IF_ERROR(check_enum_words(right, left, sign));
    } else {
      UCCP_RETURN_IF_ERROR(demand(left, ValueType::kNumber, sign.at));
      UCCP_RETURN_IF_ERROR(demand(right, ValueType::kNumber, at.at));
    }
    return join(op, left, right, sign.at);
  }

  // A word that the enum has not would never be equal: that is a slip.
  Status check_enum_words(uint16_t field, uint16_t literal, const Token& at) const {
    const ExpressionNode& f = out_.nodes[field];
    const ExpressionNode& word = out_.nodes[literal];
    if (f.op != Op::kRequest || word.op != Op::kLiteral || f.fields.empty()) return Status::ok();
    const EnumPlan* plan = f.fields.begin()->second.leaf().enumeration;
    if (plan == nullptr || plan->by_name(word.text) != nullptr) return Status::ok();
    return policy_error(at.at, "'" + word.text.substr(0, 40) + "' is not one of " + plan->names()).error();
  }

  Result<uint16_t> primary() {
    UCCP_TRY(const Token token, lexer_.next());
    ExpressionNode node;
    if (token.kind == Token::Kind::kString) {
      node.type = ValueType::kText;
      node.text = token.text;
      return add(std::move(node), token.at);
    }
    if (token.kind == Token::Kind::kNumber) {
      node.type = ValueType::kNumber;
      node.number = token.number;
      return add(std::move(node), token.at);
    }
    if (token.is("-")) {
      UCCP_TRY(const Token number, lexer_.next());
      if (number.kind != Token::Kind::kNumber)
        return policy_error(number.at, "a number belongs here, not " + number.shown());
      node.type = ValueType::kNumber;
      node.number = -number.number;
      return add(std::move(node), token.at);
    }
    if (token.is("true") || token.is("false")) {
      node.flag = token.is("true");
      return add(std::move(node), token.at);
    }
    if (token.is("(")) return in_parentheses();
    if (token.is("[")) return list(token);
    if (token.is("ip")) return network(token);
    if (token.is("has")) return presence(token);
    if (token.kind == Token::Kind::kWord) return attribute(token);
    return policy_error(token.at, "a value belongs here, not " + token.shown());
  }

  Result<uint16_t> in_parentheses() {
    ++depth_;
    UCCP_TRY(const uint16_t inner, disjunction());
    --depth_;
    UCCP_RETURN_IF_ERROR(expect(")"));
    return inner;
  }

  Result<uint16_t> list(const Token& at) {
    ExpressionNode node;
    node.type = ValueType::kTexts;
    for (;;) {
      UCCP_TRY(const Token token, lexer_.next());
      if (token.is("]") && node.texts.empty()) break;
      if (token.kind != Token::Kind::kString)
        return policy_error(token.at, "a list holds strings, not " + token.shown());
      node.texts.push_back(token.text);
      UCCP_TRY(const Token after, lexer_.next());
      if (after.is("]")) break;
      if (!after.is(",")) return policy_error(after.at, "',' or ']' belongs here, not " + after.shown());
    }
    return add(std::move(node), at.at);
  }

  Result<uint16_t> network(const Token& at) {
    UCCP_TRY(const Token token, lexer_.next());
    ExpressionNode node;
    node.type = ValueType::kNetwork;
    if (token.kind != Token::Kind::kString || !parse_network(token.text, node.network)) {
      return policy_error(token.at, token.shown() + " is no block of addresses such as \"10.0.0.0/8\"");
    }
    return add(std::move(node), at.at);
  }

  // "a.b.c" behind the first word.
  Result<std::vector<Token>> path() {
    std::vector<Token> words;
    for (;;) {
      UCCP_TRY(const Token dot, lexer_.peek());
      if (!dot.is(".")) return words;
      UCCP_RETURN_IF_ERROR(lexer_.next());
      UCCP_TRY(Token word, lexer_.next());
      if (word.kind != Token::Kind::kWord) return policy_error(word.at, "a name belongs here, not " + word.shown());
      words.push_back(std::move(word));
    }
  }

  Result<uint16_t> presence(const Token& at) {
    UCCP_TRY(const Token object, lexer_.next());
    if (!object.is("request"))
      return policy_error(object.at, "only fields of the request may be absent: has request.FIELD");
    UCCP_TRY(const std::vector<Token> words, path());
    ExpressionNode node;
    node.op = Op::kHas;
    UCCP_RETURN_IF_ERROR(find_field(words, object.at, node));
    node.type = ValueType::kBool;
    return add(std::move(node), at.at);
  }

  Result<uint16_t> attribute(const Token& object) {
    UCCP_TRY(std::vector<Token> words, path());
    UCCP_TRY(const Token after, lexer_.peek());
    const bool asks = after.is("(") && !words.empty() && words.back().text == "contains";
    if (asks) words.pop_back();
    ExpressionNode node;
    if (object.text == "request") {
      node.op = Op::kRequest;
      UCCP_RETURN_IF_ERROR(find_field(words, object.at, node));
      UCCP_TRY(node.type, type_of(node.fields.begin()->second.leaf(), object.at));
    } else {
      UCCP_RETURN_IF_ERROR(find_attribute(object, words, node));
    }
    UCCP_TRY(const uint16_t left, add(std::move(node), object.at));
    if (!asks) return left;
    UCCP_RETURN_IF_ERROR(demand(left, ValueType::kTexts, object.at));
    UCCP_RETURN_IF_ERROR(lexer_.next());
    UCCP_TRY(const Token item, lexer_.peek());
    UCCP_TRY(const uint16_t right, primary());
    UCCP_RETURN_IF_ERROR(demand(right, ValueType::kText, item.at));
    UCCP_RETURN_IF_ERROR(expect(")"));
    return join(Op::kContains, left, right, after.at);
  }

  static Status find_attribute(const Token& object, const std::vector<Token>& words, ExpressionNode& node) {
    std::vector<std::string> known;
    for (const NamedAttribute& a : kAttributes) known.push_back(std::string(a.object) + "." + std::string(a.name));
    std::string name = object.text;
    for (const Token& word : words) name += "." + word.text;
    const auto found = std::ranges::find(known, name);
    if (found == known.end()) {
      const std::string near = nearest_word(name, known);
      return policy_error(object.at, "there is no attribute '" + name.substr(0, 60) + "'" +
                                         (near.empty() ? "; there are request.FIELD and those of docs/policies.md"
                                                       : "; did you mean '" + near + "'?"))
          .error();
    }
    const NamedAttribute& a = kAttributes[static_cast<size_t>(found - known.begin())];
    node.op = Op::kAttribute;
    node.attribute = a.attribute;
    node.type = a.type;
    return Status::ok();
  }

  Status find_field(const std::vector<Token>& words, Place at, ExpressionNode& node) const {
    if (methods_.empty()) {
      return policy_error(at, "a rule that looks at the request has to name its methods: action == \"ScheduleTask\"")
          .error();
    }
    if (words.empty()) return policy_error(at, "the name of a field belongs behind 'request'").error();
    std::string name;
    for (const Token& word : words) name += (name.empty() ? "" : ".") + word.text;
    for (const Method& method : Contract::get().methods()) {
      if (!methods_[method.index]) continue;
      auto path = FieldPath::compile(*method.request, name);
      if (!path) {
        std::string message = "the request of " + method.name + " has no field '" + name.substr(0, 60) + "'";
        const auto& fields = path.error().detail().fields;
        if (!fields.empty() && !fields.front().example.empty()) message += "; " + fields.front().example;
        return policy_error(words.front().at, message).error();
      }
      const auto first = node.fields.begin();
      if (first != node.fields.end() &&
          (first->second.leaf().kind != path->leaf().kind || first->second.leaf().shape != path->leaf().shape)) {
        return policy_error(words.front().at, "'" + name.substr(0, 60) +
                                                  "' has different types in the methods of this rule; "
                                                  "write a rule for each")
            .error();
      }
      node.fields.emplace(method.index, std::move(*path));
    }
    return Status::ok();
  }

  Lexer& lexer_;
  const std::vector<bool>& methods_;
  Expression out_;
  int depth_ = 0;
};

}  // namespace

std::string_view type_name(ValueType type) {
  static constexpr std::string_view kNames[] = {"true or false", "a number", "a text", "a list of texts",
                                                "a block of addresses"};
  return kNames[static_cast<size_t>(type)];
}

Result<Expression> parse_condition(Lexer& lexer, const std::vector<bool>& methods) {
  return ConditionParser(lexer, methods).parse();
}

}  // namespace uccp::call
