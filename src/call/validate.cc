#include "call/validate.h"

#include <fmt/format.h>
#include <re2/re2.h>
#include <simdjson.h>

#include <cmath>

#include "base/limits.h"
#include "call/json_codec_text.h"
#include "call/validate_trail.h"
#include "call/wire.h"

namespace uccp::call {
namespace {

std::string number_text(double value) {
  return std::trunc(value) == value && std::fabs(value) < 1e15 ? fmt::format("{}", static_cast<int64_t>(value))
                                                               : fmt::format("{}", value);
}

bool matches(const re2::RE2& pattern, std::string_view text) {
  return re2::RE2::FullMatch(re2::StringPiece(text.data(), text.size()), pattern);
}

class Validator {
 public:
  // `partial`: the request changes a resource by a mask, so the resource need not be whole.
  explicit Validator(bool partial) : partial_(partial) {}
  // False: the bytes are not a message of this type, or too deep; what() says which.
  bool message(const MessagePlan& plan, std::string_view bytes, int depth);
  Status status() const { return trail_.status(); }
  const std::string& what() const { return what_; }

 private:
  bool fields(const MessagePlan& plan, size_t base, int depth);
  bool field(const FieldPlan& field, size_t& at, size_t end, int depth);
  bool repeated(const FieldPlan& field, size_t& at, size_t end, int depth);
  bool map(const FieldPlan& field, size_t& at, size_t end, int depth);
  bool item(const FieldPlan& rule, const FieldPlan& type, const WireField& value, int depth);
  bool nested(const FieldPlan& rule, const MessagePlan& plan, std::string_view bytes, int depth);
  void absent(const FieldPlan& field, int depth);
  void text(const FieldPlan& rule, const FieldPlan& type, std::string_view value);
  void number(const FieldPlan& rule, double value);
  void counts(const FieldPlan& field, size_t items, size_t bytes);
  void violate(const FieldPlan& rule, std::string what, std::string_view value);
  bool not_a(const MessagePlan& plan) {
    what_ = "the bytes are not a " + plan.full_name;
    return false;
  }

  const bool partial_;
  Trail trail_;
  std::vector<WireEntry> entries_;  // a stack shared by all levels
  std::string what_;
};

void Validator::violate(const FieldPlan& rule, std::string what, std::string_view value) {
  if (!trail_.redacted()) what.append(", not ").append(excerpt(value));
  trail_.violate(std::move(what), rule.example);
}

bool Validator::message(const MessagePlan& plan, std::string_view bytes, int depth) {
  if (depth > kDepthMax) {
    what_ = fmt::format("the message is nested more than {} levels deep", kDepthMax);
    return false;
  }
  const size_t base = entries_.size();
  if (!scan_message(plan, bytes, UnknownFields::kKeep, entries_)) return not_a(plan);
  const bool good = fields(plan, base, depth);
  entries_.resize(base);
  return good;
}

bool Validator::fields(const MessagePlan& plan, size_t base, int depth) {
  size_t at = base;
  const size_t end = entries_.size();
  for (const FieldPlan& candidate : plan.fields) {
    for (; at < end && entries_[at].value.number < candidate.number; ++at) {
      trail_.violate(fmt::format("has the unknown field number {} in {}", entries_[at].value.number, plan.name));
    }
    if (at < end && entries_[at].field == &candidate) {
      if (!field(candidate, at, end, depth)) return false;
      ++at;
    } else {
      absent(candidate, depth);
    }
    if (trail_.full()) return true;
  }
  for (; at < end; ++at) {
    trail_.violate(fmt::format("has the unknown field number {} in {}", entries_[at].value.number, plan.name));
  }
  return true;
}

void Validator::absent(const FieldPlan& field, int depth) {
  if (!field.required || field.output_only || (partial_ && depth > 1)) return;
  trail_.push(field);
  trail_.violate("is required", field.example);
  trail_.pop();
}

bool Validator::field(const FieldPlan& field, size_t& at, size_t end, int depth) {
  const WireField value = entries_[at].value;
  if (field.output_only) {
    while (at + 1 < end && entries_[at + 1].field == &field) ++at;
    return true;
  }
  if (field.shape == Shape::kSingular && !field.presence) {
    const bool zero = value.type == WireType::kBytes ? value.bytes.empty() : is_zero(field.kind, value.value);
    if (zero) {
      absent(field, depth);
      return true;
    }
  }
  trail_.push(field);
  bool good = true;
  if (field.shape == Shape::kRepeated) {
    good = repeated(field, at, end, depth);
  } else if (field.shape == Shape::kMap) {
    good = map(field, at, end, depth);
  } else if (field.kind == Kind::kMessage) {
    std::string storage;
    const std::string_view bytes = merged_message(entries_, at, end, storage);
    good = nested(field, *field.message, bytes, depth);
  } else if (value.type != WireType::kBytes || !value.bytes.empty()) {
    good = item(field, field, value, depth);
  } else if (field.required && field.kind == Kind::kString) {
    trail_.violate("is required", field.example);
  }
  trail_.pop();
  return good;
}

bool Validator::nested(const FieldPlan& rule, const MessagePlan& plan, std::string_view bytes, int depth) {
  const bool point = plan.well_known == WellKnown::kTimestamp;
  if (!point && plan.well_known != WellKnown::kDuration) {
    // A Struct or list below a Value adds a level; the Value itself and map entries do not, as in the JSON form.
    const bool counted = plan.well_known != WellKnown::kStruct && plan.well_known != WellKnown::kListValue;
    return message(plan, bytes, depth + (counted ? 1 : 0));
  }
  SecondsNanos time;
  if (!read_time(bytes, time)) return not_a(plan);
  if (!(point ? timestamp_in_range(time) : duration_in_range(time))) {
    trail_.violate(point ? "is outside the years 1 to 9999" : "is not a valid duration", rule.example);
    return true;
  }
  if (!point) number(rule, static_cast<double>(time.seconds) + time.nanos * 1e-9);
  return true;
}

// `rule` carries the limits: the field itself, or the map that `type` is the value of.
bool Validator::item(const FieldPlan& rule, const FieldPlan& type, const WireField& value, int depth) {
  switch (type.kind) {
    case Kind::kMessage: return nested(rule, *type.message, value.bytes, depth);
    case Kind::kString:
    case Kind::kBytes: text(rule, type, value.bytes); return true;
    case Kind::kBool: return true;
    case Kind::kEnum:
      if (type.enumeration->by_number(static_cast<int32_t>(value.value)) == nullptr) {
        trail_.violate(
            fmt::format("must be one of {}, not {}", type.enumeration->names(), static_cast<int32_t>(value.value)),
            rule.example);
      }
      return true;
    default: number(rule, to_double(type.kind, value.value)); return true;
  }
}

void Validator::text(const FieldPlan& rule, const FieldPlan& type, std::string_view value) {
  if (type.kind == Kind::kString && !simdjson::validate_utf8(value.data(), value.size())) {
    return trail_.violate("is not UTF-8", rule.example);
  }
  if (rule.max_length > 0 && value.size() > rule.max_length) {
    return trail_.violate(fmt::format("has {} bytes, at most {} are allowed", value.size(), rule.max_length),
                          rule.example);
  }
  if (rule.pattern_re && type.kind == Kind::kString && !matches(*rule.pattern_re, value)) {
    violate(rule, "must match " + rule.pattern, value);
  }
}

void Validator::number(const FieldPlan& rule, double value) {
  // Written so that NaN breaks a limit; what is endless breaks any.
  const bool low = rule.min && !(value >= *rule.min), high = rule.max && !(value <= *rule.max);
  if (!low && !high && !((rule.min || rule.max) && std::isinf(value))) return;
  std::string what = rule.min && rule.max
                         ? fmt::format("must be from {} to {}", number_text(*rule.min), number_text(*rule.max))
                     : rule.min ? fmt::format("must be at least {}", number_text(*rule.min))
                                : fmt::format("must be at most {}", number_text(*rule.max));
  if (std::isinf(value)) what.append(" and finite");
  if (!trail_.redacted()) what.append(", not ").append(number_text(value));
  trail_.violate(std::move(what), rule.example);
}

void Validator::counts(const FieldPlan& field, size_t items, size_t bytes) {
  if (field.max_items > 0 && items > field.max_items) {
    trail_.violate(fmt::format("has {} items, at most {} are allowed", items, field.max_items));
  }
  if (field.max_total_length > 0 && bytes > field.max_total_length) {
    trail_.violate(fmt::format("has {} bytes in all, at most {} are allowed", bytes, field.max_total_length));
  }
}

bool Validator::repeated(const FieldPlan& field, size_t& at, size_t end, int depth) {
  size_t items = 0, bytes = 0;
  const WireType type = wire_type(field.kind);
  for (;; ++at) {
    const WireField value = entries_[at].value;
    if (value.type == WireType::kBytes && type != WireType::kBytes) {
      WireReader reader(value.bytes);
      WireField single{value.number, type, 0, {}};
      while (!reader.at_end()) {
        const bool good = type == WireType::kFixed32   ? reader.next_fixed32(single.value)
                          : type == WireType::kFixed64 ? reader.next_fixed64(single.value)
                                                       : reader.next_varint(single.value);
        if (!good) {
          what_ = "the bytes of " + trail_.text() + " are malformed";
          return false;
        }
        trail_.set_index(items++);
        if (!trail_.full()) item(field, field, single, depth);
      }
    } else {
      trail_.set_index(items++);
      bytes += value.bytes.size();
      if (!trail_.full() && !item(field, field, value, depth)) return false;
    }
    if (at + 1 >= end || entries_[at + 1].field != &field) break;
  }
  trail_.pop();
  trail_.push(field);
  counts(field, items, bytes);
  if (items == 0 && field.required) trail_.violate("is required", field.example);
  return true;
}

bool Validator::map(const FieldPlan& field, size_t& at, size_t end, int depth) {
  size_t items = 0, bytes = 0;
  for (;; ++at, ++items) {
    WireReader reader(entries_[at].value.bytes);
    WireField part, key{1, wire_type(field.map_key->kind), 0, {}}, value{2, wire_type(field.map_value->kind), 0, {}};
    while (reader.next(part)) {
      if (part.number > 2) continue;
      WireField& slot = part.number == 1 ? key : value;
      if (part.type != slot.type) return not_a(*field.message);
      slot = part;
    }
    if (!reader.ok()) return not_a(*field.message);
    bytes += key.bytes.size() + value.bytes.size();
    trail_.set_key(key.bytes);
    if (!trail_.full()) {
      if (key.type == WireType::kBytes && !simdjson::validate_utf8(key.bytes.data(), key.bytes.size())) {
        trail_.violate("has a key that is not UTF-8");
      } else if (field.key_pattern_re && !matches(*field.key_pattern_re, key.bytes)) {
        trail_.violate("has a key that does not match " + field.key_pattern);
      }
      if (!item(field, *field.map_value, value, depth)) return false;
    }
    if (at + 1 >= end || entries_[at + 1].field != &field) break;
  }
  trail_.pop();
  trail_.push(field);
  counts(field, items + 1, bytes);
  return true;
}

}  // namespace

Status validate(const MessagePlan& plan, std::string_view wire) {
  if (wire.size() > limits::kMessageBytesMax) {
    return {Code::kInvalid, "REQUEST_TOO_LARGE",
            fmt::format("the request has {} bytes, at most {} are taken", wire.size(), limits::kMessageBytesMax)};
  }
  Validator validator(plan.by_name("update_mask") != nullptr);
  if (!validator.message(plan, wire, 1)) return {Code::kInvalid, "WIRE_INVALID", validator.what()};
  return validator.status();
}

}  // namespace uccp::call
