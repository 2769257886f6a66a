// json_to_wire: JSON, parsed by simdjson, into protobuf bytes.
#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>

#include "base/bytes.h"
#include "base/limits.h"
#include "call/json_codec.h"
#include "call/json_codec_text.h"
#include "call/validate_trail.h"

namespace uccp::call {
namespace {

using simdjson::dom::element;
using simdjson::dom::element_type;

std::string_view type_name(const element& value) {
  switch (value.type()) {
    case element_type::ARRAY: return "a list";
    case element_type::OBJECT: return "an object";
    case element_type::INT64:
    case element_type::UINT64:
    case element_type::DOUBLE: return "a number";
    case element_type::STRING: return "a string";
    case element_type::BOOL: return "a boolean";
    case element_type::NULL_VALUE: return "null";
  }
  return "something else";
}

// Accessors for a type that was checked before.
std::string_view text_of(const element& value) { return value.get_string().value_unsafe(); }

class Reader {
 public:
  Reader(const JsonInput& input, std::string& out) : input_(input), out_(out), trail_(input.path_prefix) {}

  void message(const MessagePlan& plan, const element& value, int depth);
  void field(const FieldPlan& field, const element& value, int depth);
  Trail& trail() { return trail_; }

 private:
  struct Member {
    const FieldPlan* field;
    element value;
  };
  struct Pair {
    std::string_view key;
    uint64_t bits;  // of a key that is not a string
    element value;
  };

  void object(const MessagePlan& plan, const element& value, int depth);
  void check_members(const MessagePlan& plan, size_t base);
  void unknown_key(const MessagePlan& plan, std::string_view key);
  void map(const FieldPlan& field, const element& value, int depth);
  bool collect_pairs(const FieldPlan& field, const element& value, std::vector<Pair>& pairs);
  void repeated(const FieldPlan& field, const element& value, int depth);
  void singular(const FieldPlan& field, const element& value, int depth, bool keep_zero);
  bool string_value(const FieldPlan& field, const element& value, bool keep_zero);
  bool text_value(const FieldPlan& field, const element& value, bool keep_zero);
  bool bits(const FieldPlan& field, const element& value, uint64_t& bits);
  void well_known(const MessagePlan& plan, const element& value, int depth);
  void any_value(const MessagePlan& plan, const element& value, int depth);
  void struct_fields(const MessagePlan& plan, const element& value, int depth);
  void list_values(const MessagePlan& plan, const element& value, int depth);
  void violate(const FieldPlan& field, std::string what, const element& value);
  void wrong(std::string_view wanted, const element& value, std::string example = {});

  const JsonInput& input_;
  std::string& out_;
  Trail trail_;
  std::vector<Member> members_;  // a stack shared by all levels
};

void Reader::wrong(std::string_view wanted, const element& value, std::string example) {
  trail_.violate(fmt::format("must be {}, not {}", wanted, type_name(value)), std::move(example));
}

void Reader::violate(const FieldPlan& field, std::string what, const element& value) {
  if (value.is_string() && !trail_.redacted()) what.append(", not ").append(excerpt(text_of(value)));
  trail_.violate(std::move(what), field.example);
}

void Reader::message(const MessagePlan& plan, const element& value, int depth) {
  if (depth > kDepthMax) return trail_.violate(fmt::format("is nested more than {} levels deep", kDepthMax));
  if (plan.well_known != WellKnown::kNone) return well_known(plan, value, depth);
  if (!value.is_object()) return wrong("an object", value);
  object(plan, value, depth);
}

void Reader::unknown_key(const MessagePlan& plan, std::string_view key) {
  const FieldPlan* near = plan.nearest(key);
  std::string path = trail_.text();
  if (!path.empty()) path.push_back('.');
  path.append(key.substr(0, 64));
  trail_.violate_at(std::move(path), near == nullptr
                                         ? "is not a known field"
                                         : fmt::format("is not a known field; did you mean {}?", near->json_name));
}

void Reader::object(const MessagePlan& plan, const element& value, int depth) {
  const size_t base = members_.size();
  bool sorted = true;
  for (const auto& [key, item] : value.get_object().value_unsafe()) {
    const FieldPlan* field = plan.by_name(key);
    if (field == nullptr) {
      unknown_key(plan, key);
      continue;
    }
    sorted &= members_.size() == base || members_.back().field->number < field->number;
    members_.push_back({field, item});
  }
  if (!sorted) {
    std::sort(members_.begin() + static_cast<ptrdiff_t>(base), members_.end(),
              [](const Member& a, const Member& b) { return a.field->number < b.field->number; });
  }
  check_members(plan, base);
  for (size_t i = base; i < members_.size(); ++i) {
    const Member member = members_[i];  // the stack may move below
    if (member.field->output_only && !input_.keep_output_only) continue;
    field(*member.field, member.value, depth);
  }
  members_.resize(base);
}

// Refuses fields given twice, under one name or two, and several members of one oneof.
void Reader::check_members(const MessagePlan& plan, size_t base) {
  uint32_t seen = 0;
  for (size_t i = base; i < members_.size(); ++i) {
    const FieldPlan& field = *members_[i].field;
    trail_.push(field);
    if (i > base && members_[i - 1].field == &field) trail_.violate("is given twice");
    if (field.oneof >= 0 && !members_[i].value.is_null()) {
      const uint32_t bit = 1u << field.oneof;
      if ((seen & bit) != 0) {
        std::string names;
        for (const FieldPlan& other : plan.fields) {
          if (other.oneof == field.oneof) names.append(names.empty() ? "" : ", ").append(other.json_name);
        }
        trail_.violate("only one of these may be given: " + names);
      }
      seen |= bit;
    }
    trail_.pop();
  }
}

void Reader::field(const FieldPlan& field, const element& value, int depth) {
  const bool is_value = field.kind == Kind::kMessage && field.message->well_known == WellKnown::kValue;
  // null means absent, but for a Value it is a value.
  if (value.is_null() && !(is_value && field.shape == Shape::kSingular)) return;
  trail_.push(field);
  switch (field.shape) {
    case Shape::kMap: map(field, value, depth); break;
    case Shape::kRepeated: repeated(field, value, depth); break;
    case Shape::kSingular: singular(field, value, depth, field.presence); break;
  }
  trail_.pop();
}

bool Reader::collect_pairs(const FieldPlan& field, const element& value, std::vector<Pair>& pairs) {
  const bool text_keys = field.map_key->kind == Kind::kString;
  for (const auto& [key, item] : value.get_object().value_unsafe()) {
    Pair pair{key, 0, item};
    trail_.set_key(key);
    if (!text_keys) {
      std::string what = text_to_bits(*field.map_key, key, pair.bits);
      if (!what.empty()) trail_.violate("has a key that " + what);
    }
    pairs.push_back(pair);
  }
  const auto before = [&](const Pair& a, const Pair& b) { return text_keys ? a.key < b.key : a.bits < b.bits; };
  std::sort(pairs.begin(), pairs.end(), before);
  for (size_t i = 1; i < pairs.size(); ++i) {
    if (before(pairs[i - 1], pairs[i])) continue;
    trail_.set_key(pairs[i].key);
    trail_.violate("is given twice");
  }
  return trail_.clean();
}

void Reader::map(const FieldPlan& field, const element& value, int depth) {
  if (!value.is_object()) return wrong("an object", value, field.example);
  std::vector<Pair> pairs;
  if (!collect_pairs(field, value, pairs)) return;
  const FieldPlan& key = *field.map_key;
  for (const Pair& pair : pairs) {
    trail_.set_key(pair.key);
    const size_t mark = begin_bytes(out_, field.number);
    if (key.kind == Kind::kString) {
      put_bytes(out_, 1, pair.key);
    } else {
      put_tag(out_, 1, wire_type(key.kind));
      put_scalar(out_, key.kind, pair.bits);
    }
    singular(*field.map_value, pair.value, depth, true);
    end_bytes(out_, mark);
    if (trail_.full()) return;
  }
}

void Reader::repeated(const FieldPlan& field, const element& value, int depth) {
  if (!value.is_array()) return wrong("a list", value, field.example);
  const auto items = value.get_array().value_unsafe();
  if (items.begin() == items.end()) return;
  size_t index = 0;
  const size_t mark = field.packed ? begin_bytes(out_, field.number) : 0;
  for (const element item : items) {
    trail_.set_index(index++);
    if (field.packed) {
      if (uint64_t value_bits = 0; bits(field, item, value_bits)) put_scalar(out_, field.kind, value_bits);
    } else {
      singular(field, item, depth, true);
    }
    if (trail_.full()) return;
  }
  if (field.packed) end_bytes(out_, mark);
}

void Reader::singular(const FieldPlan& field, const element& value, int depth, bool keep_zero) {
  if (field.kind == Kind::kMessage) {
    const size_t mark = begin_bytes(out_, field.number);
    message(*field.message, value, depth + 1);
    end_bytes(out_, mark);
    return;
  }
  if (field.kind == Kind::kString || field.kind == Kind::kBytes) {
    string_value(field, value, keep_zero);
    return;
  }
  uint64_t value_bits = 0;
  if (!bits(field, value, value_bits)) return;
  if (!keep_zero && is_zero(field.kind, value_bits)) return;
  put_tag(out_, field.number, wire_type(field.kind));
  put_scalar(out_, field.kind, value_bits);
}

// Bytes that are usually text: a string, or {"base64": "..."} for what is none.
bool Reader::text_value(const FieldPlan& field, const element& value, bool keep_zero) {
  std::string_view bytes;
  std::string decoded;
  if (value.is_string()) {
    bytes = text_of(value);
  } else {
    element inner;
    const bool form = value.is_object() && value.get_object().value_unsafe().size() == 1 &&
                      value["base64"].get(inner) == simdjson::SUCCESS && inner.is_string();
    if (!form) {
      wrong("a string or {\"base64\": \"...\"}", value, field.example);
      return false;
    }
    Result<std::string> raw = from_base64(text_of(inner));
    if (!raw) {
      trail_.violate("must hold base64", "{\"base64\":\"aGVsbG8=\"}");
      return false;
    }
    decoded = std::move(*raw);
    bytes = decoded;
  }
  if (!bytes.empty() || keep_zero) put_bytes(out_, field.number, bytes);
  return true;
}

bool Reader::string_value(const FieldPlan& field, const element& value, bool keep_zero) {
  if (field.text) return text_value(field, value, keep_zero);
  if (!value.is_string()) {
    wrong(field.kind == Kind::kString ? "a string" : "a base64 string", value, field.example);
    return false;
  }
  const std::string_view text = text_of(value);
  if (text.empty() && !keep_zero) return true;
  if (field.kind == Kind::kString) {
    put_bytes(out_, field.number, text);
    return true;
  }
  const Result<std::string> decoded = from_base64(text);
  if (!decoded) {
    trail_.violate("must be base64", "aGVsbG8=");
    return false;
  }
  put_bytes(out_, field.number, *decoded);
  return true;
}

bool Reader::bits(const FieldPlan& field, const element& value, uint64_t& bits) {
  std::string what;
  const bool numeric = is_number(field.kind);
  switch (value.type()) {
    case element_type::BOOL:
      if (field.kind == Kind::kBool) {
        bits = value.get_bool().value_unsafe() ? 1 : 0;
        return true;
      }
      break;
    case element_type::INT64:
      if (numeric) {
        const int64_t number = value.get_int64().value_unsafe();
        if (field.kind == Kind::kFloat || field.kind == Kind::kDouble) {
          what = double_to_bits(field, static_cast<double>(number), bits);
        } else {
          what = integer_to_bits(field, number < 0,
                                 number < 0 ? 0 - static_cast<uint64_t>(number) : static_cast<uint64_t>(number), bits);
        }
        if (what.empty()) return true;
      }
      break;
    case element_type::UINT64:
      if (numeric) {
        const uint64_t number = value.get_uint64().value_unsafe();
        const bool real = field.kind == Kind::kFloat || field.kind == Kind::kDouble;
        what = real ? double_to_bits(field, static_cast<double>(number), bits)
                    : integer_to_bits(field, false, number, bits);
        if (what.empty()) return true;
      }
      break;
    case element_type::DOUBLE:
      if (numeric) {
        what = double_to_bits(field, value.get_double().value_unsafe(), bits);
        if (what.empty()) return true;
      }
      break;
    case element_type::STRING:
      if (numeric || field.kind == Kind::kEnum) {
        what = text_to_bits(field, text_of(value), bits);
        if (what.empty()) return true;
      }
      break;
    default: break;
  }
  if (!what.empty()) {
    violate(field, std::move(what), value);
  } else if (field.kind == Kind::kEnum) {
    wrong("one of " + field.enumeration->names(), value, field.example);
  } else {
    wrong(field.kind == Kind::kBool ? "true or false"
          : field.byte_size         ? "a size in bytes"
                                    : "a number",
          value, field.example);
  }
  return false;
}

void Reader::well_known(const MessagePlan& plan, const element& value, int depth) {
  SecondsNanos time;
  switch (plan.well_known) {
    case WellKnown::kTimestamp:
      if (!value.is_string()) return wrong("a time in RFC 3339", value, "2026-01-31T12:00:00Z");
      if (!parse_timestamp(text_of(value), time))
        return trail_.violate("must be a time in RFC 3339, not " + excerpt(text_of(value)), "2026-01-31T12:00:00Z");
      return put_time(out_, time);
    case WellKnown::kDuration:
      if (!value.is_string()) return wrong("a duration as a string with its unit", value, "30s");
      if (!parse_duration(text_of(value), time))
        return trail_.violate("must be a duration with its unit, not " + excerpt(text_of(value)), "30s");
      return put_time(out_, time);
    case WellKnown::kFieldMask:
      if (!value.is_string()) return wrong("a string of field names", value, "id,name");
      if (!put_field_mask(out_, text_of(value)))
        trail_.violate("must be field names with commas between them", "id,name");
      return;
    case WellKnown::kEmpty:
      if (!value.is_object()) return wrong("an object", value, "{}");
      return object(plan, value, depth);
    case WellKnown::kWrapper: return singular(plan.fields[0], value, depth, false);
    case WellKnown::kStruct: return struct_fields(plan, value, depth);
    case WellKnown::kListValue: return list_values(plan, value, depth);
    case WellKnown::kValue: return any_value(plan, value, depth);
    case WellKnown::kNone: break;
  }
}

// google.protobuf.Value: null_value 1, number_value 2, string_value 3, bool_value 4, struct_value 5, list_value 6.
void Reader::any_value(const MessagePlan& plan, const element& value, int depth) {
  switch (value.type()) {
    case element_type::NULL_VALUE: return put_uint(out_, 1, 0);
    case element_type::BOOL: return put_uint(out_, 4, value.get_bool().value_unsafe() ? 1 : 0);
    case element_type::STRING: return put_bytes(out_, 3, text_of(value));
    case element_type::OBJECT:
    case element_type::ARRAY: {
      const FieldPlan& field = *plan.by_number(value.is_object() ? 5 : 6);
      const size_t mark = begin_bytes(out_, field.number);
      message(*field.message, value, depth + 1);
      return end_bytes(out_, mark);
    }
    default: {
      put_tag(out_, 2, WireType::kFixed64);
      put_scalar(out_, Kind::kDouble, std::bit_cast<uint64_t>(value.get_double().value()));
    }
  }
}

void Reader::struct_fields(const MessagePlan& plan, const element& value, int depth) {
  if (!value.is_object()) return wrong("an object", value);
  const FieldPlan& field = plan.fields[0];
  std::vector<std::pair<std::string_view, element>> pairs;
  for (const auto& [key, item] : value.get_object().value_unsafe()) pairs.emplace_back(key, item);
  std::sort(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t i = 0; i < pairs.size() && !trail_.full(); ++i) {
    trail_.push_key(pairs[i].first);
    if (i > 0 && pairs[i - 1].first == pairs[i].first) trail_.violate("is given twice");
    const size_t entry = begin_bytes(out_, field.number);
    put_bytes(out_, 1, pairs[i].first);
    const size_t mark = begin_bytes(out_, 2);
    any_value(*field.map_value->message, pairs[i].second, depth);
    end_bytes(out_, mark);
    end_bytes(out_, entry);
    trail_.pop();
  }
}

void Reader::list_values(const MessagePlan& plan, const element& value, int depth) {
  if (!value.is_array()) return wrong("a list", value);
  const FieldPlan& field = plan.fields[0];
  size_t index = 0;
  for (const element item : value.get_array().value_unsafe()) {
    if (trail_.full()) return;
    trail_.push_index(index++);
    const size_t mark = begin_bytes(out_, field.number);
    any_value(*field.message, item, depth);
    end_bytes(out_, mark);
    trail_.pop();
  }
}

// Documents up to here are parsed with a parser that the thread keeps; a larger one would keep ten times its size.
constexpr size_t kKeptParserBytes = 64u << 10;

template <typename Use>
Result<std::string> with_document(std::string_view json, const JsonInput& input, Use use) {
  if (json.size() > limits::kMessageBytesMax) {
    return fail(Code::kInvalid, "JSON_INVALID",
                fmt::format("the JSON has {} bytes, at most {} are taken", json.size(), limits::kMessageBytesMax));
  }
  if (json.find_first_not_of(" \t\r\n") == std::string_view::npos) json = "{}";
  static thread_local simdjson::dom::parser kept;
  simdjson::dom::parser once;
  simdjson::dom::parser& parser = json.size() <= kKeptParserBytes ? kept : once;
  element document;
  if (const auto error = parser.parse(json.data(), json.size()).get(document)) {
    return fail(Code::kInvalid, "JSON_INVALID", fmt::format("not valid JSON: {}", simdjson::error_message(error)));
  }
  std::string out;
  out.reserve(json.size());
  Reader reader(input, out);
  use(reader, document);
  if (!reader.trail().clean()) return std::unexpected(reader.trail().status());
  return out;
}

}  // namespace

Result<std::string> json_to_wire(const MessagePlan& plan, std::string_view json, const JsonInput& input) {
  return with_document(json, input, [&](Reader& reader, const element& value) { reader.message(plan, value, 1); });
}

Result<std::string> json_to_field(const FieldPlan& field, std::string_view json, const JsonInput& input) {
  return with_document(json, input, [&](Reader& reader, const element& value) { reader.field(field, value, 1); });
}

Status text_to_field(const FieldPlan& field, std::string_view text, std::string_view path, std::string& out) {
  Trail trail(path);
  const auto show = [&](std::string what) {
    if (!field.redact) what.append(", not ").append(excerpt(text));
    trail.violate(std::move(what), field.example);
    return trail.status();
  };
  if (field.text) {
    put_bytes(out, field.number, text);
    return Status::ok();
  }
  if (!simdjson::validate_utf8(text.data(), text.size())) {
    trail.violate("must be UTF-8");
    return trail.status();
  }
  if (field.kind == Kind::kString) {
    put_bytes(out, field.number, text);
    return Status::ok();
  }
  if (field.kind == Kind::kBytes) {
    const Result<std::string> decoded = from_base64(text);
    if (!decoded) return show("must be base64");
    put_bytes(out, field.number, *decoded);
    return Status::ok();
  }
  if (field.kind != Kind::kMessage) {
    uint64_t bits = 0;
    std::string what = text_to_bits(field, text, bits);
    if (!what.empty() && field.kind == Kind::kEnum) {
      // People write "any" and "timed-out" in a query or on a command line.
      std::string upper(text);
      for (char& c : upper) c = c == '-' ? '_' : c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
      what = text_to_bits(field, upper, bits);
    }
    if (!what.empty()) return show(std::move(what));
    put_tag(out, field.number, wire_type(field.kind));
    put_scalar(out, field.kind, bits);
    return Status::ok();
  }
  const size_t mark = begin_bytes(out, field.number);
  SecondsNanos time;
  switch (field.is_map() ? WellKnown::kNone : field.message->well_known) {
    case WellKnown::kTimestamp:
      if (!parse_timestamp(text, time)) return show("must be a time in RFC 3339 such as 2026-01-31T12:00:00Z");
      put_time(out, time);
      break;
    case WellKnown::kDuration:
      if (!parse_duration(text, time)) return show("must be a duration with its unit such as 30s");
      put_time(out, time);
      break;
    case WellKnown::kFieldMask:
      if (!put_field_mask(out, text)) return show("must be field names such as id,name");
      break;
    case WellKnown::kWrapper: UCCP_RETURN_IF_ERROR(text_to_field(field.message->fields[0], text, path, out)); break;
    default: trail.violate("cannot be given as text: it is an object; use the body"); return trail.status();
  }
  end_bytes(out, mark);
  return Status::ok();
}

}  // namespace uccp::call
