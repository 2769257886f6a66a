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
//
// Below a field that is any JSON value the path goes through its objects (json.order.total). What is found there is
// compared as what it is: a number with a number, a text with any value, true, false and null with these words; all
// else is unequal and in no order. Time is bounded by the comparisons, each of which goes through the value once.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "call/plan.h"
#include "call/wire.h"

namespace uccp::call {

inline constexpr size_t kFilterBytesMax = 4096;
inline constexpr size_t kFilterTermsMax = 64;
inline constexpr size_t kFilterJsonTermsMax = 16;
inline constexpr int kFilterDepthMax = 16;

// What is at one place of a JSON value.
struct JsonLeaf {
  enum class Kind : uint8_t { kAbsent, kNull, kBool, kNumber, kText, kList, kObject };
  Kind kind = Kind::kAbsent;
  bool boolean = false;
  double number = 0;
  std::string_view text;
};

// A JSON value that a filter looks into, however it is stored.
class JsonDocument {
 public:
  virtual ~JsonDocument() = default;
  // What the keys lead to through objects; of a list, `item` gets each item until it answers false.
  using VisitItem = std::function<bool(const JsonLeaf& item)>;
  virtual JsonLeaf find(std::span<const std::string> keys, const VisitItem& item) const = 0;
};

// One in the bytes of a google.protobuf.Value, which must outlive it.
class WireJson final : public JsonDocument {
 public:
  explicit WireJson(std::string_view value) : value_(value) {}
  JsonLeaf find(std::span<const std::string> keys, const VisitItem& item) const override;

 private:
  const std::string_view value_;
};

class Filter {
 public:
  Filter() = default;
  // Errors: invalid FILTER_INVALID, with the position and, for an unknown field, the fields that can be used.
  static Result<Filter> compile(const MessagePlan& item, std::string_view text);

  // True: it matches everything.
  bool empty() const { return nodes_.empty(); }
  // `json` stands for the item's field that is a JSON value; null: what is in the item.
  bool matches(std::string_view item, const JsonDocument* json = nullptr) const;
  bool reads_json() const { return json_terms_ > 0; }

 private:
  friend class FilterParser;
  enum class Operator : uint8_t { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kHas };
  // How the two sides are compared; follows from the type of the field.
  enum class Type : uint8_t {
    kText,
    kSigned,
    kUnsigned,
    kReal,
    kBool,
    kEnum,
    kTime,
    kList,
    kMapKey,
    kMapValue,
    kSet,
    kJson
  };
  struct Comparison {
    FieldPath path;
    Type type = Type::kText;
    Operator op = Operator::kEqual;
    std::string map_key;
    std::vector<std::string> keys;  // kJson
    std::string text;               // kText, kList, kMapKey, kMapValue, kJson
    bool any_prefix = false;        // the value began with '*'
    bool any_suffix = false;
    int64_t signed_value = 0;  // kSigned, kBool, kEnum; seconds of kTime
    uint64_t unsigned_value = 0;
    double real = 0;
    int32_t nanos = 0;
    // kJson: what the value may be besides a text.
    JsonLeaf::Kind also = JsonLeaf::Kind::kText;
  };
  struct Node {
    enum class Kind : uint8_t { kAnd, kOr, kNot, kComparison };
    Kind kind;
    uint32_t left;  // node; of kComparison: in comparisons_
    uint32_t right;
  };

  bool eval(uint32_t node, std::string_view item, const JsonDocument* json) const;
  static bool compare(const Comparison& c, std::string_view item, const JsonDocument* json);
  static bool compare_json(const Comparison& c, const JsonDocument& json);
  static bool compare_leaf(const Comparison& c, const JsonLeaf& leaf);
  static bool compare_text(const Comparison& c, std::string_view value);
  static bool compare_map(const Comparison& c, std::string_view item);
  static bool compare_scalar(const Comparison& c, std::string_view item);

  std::vector<Node> nodes_;  // the root is the last
  std::vector<Comparison> comparisons_;
  size_t json_terms_ = 0;
};

// Names of the fields of `plan` for which `wanted` holds, with those of nested messages, at most 40: for errors.
std::string usable_fields(const MessagePlan& plan, bool (*wanted)(const FieldPlan&));

}  // namespace uccp::call
