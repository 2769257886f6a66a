// The filter grammar: the subset of AIP-160 (https://google.aip.dev/160) that all lists share.
//
//   filter   = sequence { AND sequence }         AND also stands between two factors that only a space separates
//   sequence = factor { OR factor }              OR binds stronger than AND, as AIP-160 has it
//   factor   = [NOT | -] ( comparison | "(" filter ")" )
//   comparison = path ( "=" | "!=" | "<" | "<=" | ">" | ">=" | ":" ) value
//   path     = field { "." field }, of a map: labels.key or labels."any key"
//   value    = word | "quoted" | 'quoted'; a string value may begin or end with '*' after = and !=
//
// ':' asks whether a list has the item, a map the key (labels:tier), a text the part, and with '*' whether the field is
// set. An absent field is compared as its zero value; an absent time, duration or label is equal to nothing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "call/plan.h"
#include "call/wire.h"

namespace uccp::call {

inline constexpr size_t kFilterBytesMax = 4096;
inline constexpr size_t kFilterTermsMax = 64;
inline constexpr int kFilterDepthMax = 16;

class Filter {
 public:
  Filter() = default;
  // Errors: invalid FILTER_INVALID, with the position and, for an unknown field, the fields that can be used.
  static Result<Filter> compile(const MessagePlan& item, std::string_view text);

  // True: it matches everything.
  bool empty() const { return nodes_.empty(); }
  bool matches(std::string_view item) const;

 private:
  friend class FilterParser;
  enum class Operator : uint8_t { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kHas };
  // How the two sides are compared; follows from the type of the field.
  enum class Type : uint8_t { kText, kSigned, kUnsigned, kReal, kBool, kEnum, kTime, kList, kMapKey, kMapValue, kSet };
  struct Comparison {
    FieldPath path;
    Type type = Type::kText;
    Operator op = Operator::kEqual;
    std::string map_key;
    std::string text;         // kText, kList, kMapKey, kMapValue
    bool any_prefix = false;  // the value began with '*'
    bool any_suffix = false;
    int64_t signed_value = 0;  // kSigned, kBool, kEnum; seconds of kTime
    uint64_t unsigned_value = 0;
    double real = 0;
    int32_t nanos = 0;
  };
  struct Node {
    enum class Kind : uint8_t { kAnd, kOr, kNot, kComparison };
    Kind kind;
    uint32_t left;  // node; of kComparison: in comparisons_
    uint32_t right;
  };

  bool eval(uint32_t node, std::string_view item) const;
  static bool compare(const Comparison& c, std::string_view item);
  static bool compare_text(const Comparison& c, std::string_view value);
  static bool compare_map(const Comparison& c, std::string_view item);
  static bool compare_scalar(const Comparison& c, std::string_view item);

  std::vector<Node> nodes_;  // the root is the last
  std::vector<Comparison> comparisons_;
};

// Names of the fields of `plan` for which `wanted` holds, with those of nested messages, at most 40: for errors.
std::string usable_fields(const MessagePlan& plan, bool (*wanted)(const FieldPlan&));

}  // namespace uccp::call
