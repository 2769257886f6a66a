// Plans: what the descriptors say about a message, compiled once into flat tables.
//
// Everything that looks at request and response bytes at run time (JSON codec, validator, field paths, routes) walks
// these tables over the serialized form. No reflection and no generated message type is touched after start-up. Plans
// are immutable once Contract::get() has returned and may be read from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace google::protobuf {
class Descriptor;
}
namespace re2 {
class RE2;
}

namespace uccp::call {

// Nesting of messages (and of JSON arrays in a Value) beyond which input is refused.
inline constexpr int kDepthMax = 32;
// Wrong fields reported in one status.
inline constexpr size_t kViolationsMax = 20;

enum class Kind : uint8_t {
  kBool,
  kInt32,
  kSint32,
  kSfixed32,
  kInt64,
  kSint64,
  kSfixed64,
  kUint32,
  kFixed32,
  kUint64,
  kFixed64,
  kFloat,
  kDouble,
  kString,
  kBytes,
  kEnum,
  kMessage,
};

enum class Shape : uint8_t { kSingular, kRepeated, kMap };

// Messages whose JSON form is not an object of their fields.
enum class WellKnown : uint8_t {
  kNone,
  kTimestamp,
  kDuration,
  kStruct,
  kValue,
  kListValue,
  kFieldMask,
  kEmpty,
  kWrapper,
};

// Wire types of the protobuf encoding.
enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

WireType wire_type(Kind kind);
bool is_number(Kind kind);  // integers and floats; not bool, not enum

struct EnumValue {
  std::string name;       // "SUCCEEDED", as in JSON
  std::string full_name;  // "TASK_STATUS_SUCCEEDED"
  int32_t number = 0;
};

struct EnumPlan {
  std::string full_name;  // "uccp.v1.TaskStatus"
  std::vector<EnumValue> values;

  // By JSON name or full name, exact case. Null if there is none.
  const EnumValue* by_name(std::string_view name) const;
  const EnumValue* by_number(int32_t number) const;
  // "PENDING, QUEUED, ..." for messages, without the UNSPECIFIED value.
  std::string names() const;
};

struct MessagePlan;

struct FieldPlan {
  uint32_t number = 0;
  uint16_t index = 0;         // in MessagePlan::fields
  Kind kind = Kind::kString;  // of an item, if repeated; kMessage if a map
  Shape shape = Shape::kSingular;
  bool packed = false;
  bool presence = false;  // tells "absent" from "zero": optional, oneof member or message
  int16_t oneof = -1;     // index of the real oneof it belongs to, or -1
  std::string name;       // proto name, "service_name"
  std::string json_name;  // "serviceName"
  std::string json_key;   // "\"serviceName\":", ready to append

  const MessagePlan* message = nullptr;   // kMessage, and the entry type of a map
  const EnumPlan* enumeration = nullptr;  // kEnum
  const FieldPlan* map_key = nullptr;     // of a map
  const FieldPlan* map_value = nullptr;

  // From (uccp.v1.field).
  bool byte_size = false;
  bool json_number = false;
  bool text = false;  // bytes that JSON shows as text where they are UTF-8
  bool redact = false;
  bool required = false;
  bool immutable = false;
  bool output_only = false;
  bool filterable = false;
  bool sortable = false;
  bool deprecated = false;
  std::optional<double> min;
  std::optional<double> max;
  uint32_t max_length = 0;  // 0: none
  uint32_t max_items = 0;
  uint32_t max_total_length = 0;
  std::string pattern;  // as written; empty: none
  std::string key_pattern;
  std::shared_ptr<const re2::RE2> pattern_re;
  std::shared_ptr<const re2::RE2> key_pattern_re;
  std::string example;

  bool is_map() const { return shape == Shape::kMap; }
  bool is_repeated() const { return shape == Shape::kRepeated; }
  bool is_message() const { return shape == Shape::kSingular && kind == Kind::kMessage; }
};

struct MessagePlan {
  std::string full_name;  // "uccp.v1.Task"
  std::string name;       // "Task"
  WellKnown well_known = WellKnown::kNone;
  std::vector<FieldPlan> fields;         // ascending by number
  std::vector<std::string> oneof_names;  // real oneofs, by FieldPlan::oneof

  const FieldPlan* by_number(uint32_t number) const {
    if (number < dense_.size()) return dense_[number] < 0 ? nullptr : &fields[static_cast<size_t>(dense_[number])];
    return by_large_number(number);
  }
  // By JSON name or proto name. Null if there is none.
  const FieldPlan* by_name(std::string_view name) const;
  // The field whose name is nearest to `name`, for "did you mean"; null if none is near.
  const FieldPlan* nearest(std::string_view name) const;

  // For the compiler only, when `fields` is complete.
  void build_lookup();

 private:
  const FieldPlan* by_large_number(uint32_t number) const;

  std::vector<int16_t> dense_;    // number -> index in fields or -1, for small numbers
  std::vector<uint16_t> hashed_;  // open addressing: 0 is empty, else 1 + 2 * index, + 1 for the proto name
};

// Owns plans; compiles a type with everything it reaches. Not thread-safe while compiling.
class PlanSet {
 public:
  PlanSet();
  ~PlanSet();
  PlanSet(const PlanSet&) = delete;
  PlanSet& operator=(const PlanSet&) = delete;

  // Aborts on a contract that cannot be compiled (bad pattern, 2^14 fields, ...): that is a defect of the build.
  const MessagePlan& compile(const google::protobuf::Descriptor& type);
  // Null if the type was not reached by any compile().
  const MessagePlan* find(std::string_view full_name) const;

 private:
  struct Tables;
  std::unique_ptr<Tables> tables_;
};

// Parses "64Mi", "1.5Gi", "10k", "512" (suffixes k M G T P E and Ki Mi Gi Ti Pi Ei, optionally followed by B) into
// bytes, rounded up to a whole byte. Errors: invalid FIELD_INVALID.
Result<uint64_t> parse_byte_size(std::string_view text);

}  // namespace uccp::call
