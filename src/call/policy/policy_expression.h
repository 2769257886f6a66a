// Conditions of the policy language, compiled. Private to this folder.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "call/policy/access.h"
#include "call/policy/policy_lexer.h"

namespace uccp::call {

enum class ValueType : uint8_t { kBool, kNumber, kText, kTexts, kNetwork };
std::string_view type_name(ValueType type);

// A block of addresses. IPv4 is kept as IPv4-mapped IPv6.
struct Network {
  std::array<unsigned char, 16> address{};
  int bits = 0;
  bool contains(const std::array<unsigned char, 16>& other) const;
};
// "10.0.0.0/8", "::1". False if it is neither.
bool parse_network(std::string_view text, Network& out);
// "10.1.2.3:50", "[::1]:50", "10.1.2.3".
bool parse_address(std::string_view text, std::array<unsigned char, 16>& out);

enum class Attribute : uint8_t {
  kPrincipalName,
  kPrincipalTenant,
  kPrincipalKind,
  kPrincipalCredential,
  kPrincipalGroups,
  kPrincipalRoles,
  kPrincipalNamespaces,
  kResourceName,
  kResourceNamespace,
  kContextAddress,
  kContextDoor,
  kContextHour,
  kContextWeekday,
};

struct ExpressionNode {
  enum class Op : uint8_t {
    kLiteral,
    kAttribute,
    kRequest,
    kHas,  // leaves
    kNot,
    kAnd,
    kOr,  // of bools
    kEqual,
    kNotEqual,
    kLess,
    kLessOrEqual,
    kMore,
    kMoreOrEqual,
    kIn,
    kLike,
    kContains,
    kInNetwork,
  };
  Op op = Op::kLiteral;
  ValueType type = ValueType::kBool;
  uint16_t left = 0;
  uint16_t right = 0;
  // Literals.
  bool flag = false;
  double number = 0;
  std::string text;
  std::vector<std::string> texts;
  Network network;
  Attribute attribute = Attribute::kPrincipalName;
  // The field in the request of each method that the statement covers, by Method::index.
  std::map<uint16_t, FieldPath> fields;
};

struct Expression {
  std::vector<ExpressionNode> nodes;  // children before parents; the last is the root

  bool holds(const AccessQuery& query) const;
};

// Parses `{ ... }` up to the brace, for a statement that covers `methods` (empty: all).
Result<Expression> parse_condition(Lexer& lexer, const std::vector<bool>& methods);

}  // namespace uccp::call
