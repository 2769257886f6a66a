// wire_to_json: protobuf bytes into JSON, in one walk and without an allocation a field.
#include <algorithm>

#include "base/bytes.h"
#include "call/json_codec.h"
#include "call/json_codec_text.h"

namespace uccp::call {
namespace {

using Node = FieldTree::Node;

class Writer {
 public:
  explicit Writer(const JsonOptions& options) : options_(options) {}

  bool message(const MessagePlan& plan, std::string_view bytes, const Node* only, const Node* redact, int depth);
  std::string take() { return std::move(out_); }
  void reserve(size_t size) { out_.reserve(size); }

 private:
  struct MapItem {
    std::string_view key;
    uint64_t bits = 0;
    std::string_view value;  // of a string, bytes or message value
    uint64_t value_bits = 0;
    bool has_value = false;
    uint32_t order = 0;
  };
  // Where the walk stands: which part of the message is wanted and which is secret.
  struct Scope {
    const Node* only;
    const Node* redact;
    int depth;
  };

  bool object(const MessagePlan& plan, std::string_view bytes, const Scope& scope);
  bool entries(const MessagePlan& plan, size_t base, const Scope& scope);
  bool narrow(const FieldPlan& field, const Scope& scope, Scope& inner, bool& secret);
  bool field(const FieldPlan& field, size_t& at, size_t end, const Scope& scope, bool& first);
  bool repeated(const FieldPlan& field, size_t& at, size_t end, const Scope& scope);
  bool packed(const FieldPlan& field, std::string_view bytes, bool& first);
  bool map(const FieldPlan& field, size_t& at, size_t end, const Scope& scope);
  bool read_map_item(const FieldPlan& field, std::string_view entry, MapItem& item);
  bool item(const FieldPlan& field, const WireField& value, const Scope& scope);
  void bits(const FieldPlan& field, uint64_t bits);
  bool well_known(const MessagePlan& plan, std::string_view bytes, const Scope& scope);
  bool any_value(const MessagePlan& plan, std::string_view bytes, const Scope& scope);
  void absent(const FieldPlan& field, const Scope& scope, bool& first);

  void open(char c) {
    out_.push_back(c);
    ++indent_;
  }
  void close(char c, bool empty) {
    --indent_;
    if (!empty) line();
    out_.push_back(c);
  }
  void next(bool& first) {
    if (!first) out_.push_back(',');
    first = false;
    line();
  }
  void line() {
    if (!options_.pretty) return;
    out_.push_back('\n');
    out_.append(2 * indent_, ' ');
  }
  void key(std::string_view quoted_with_colon) {
    out_.append(quoted_with_colon);
    if (options_.pretty) out_.push_back(' ');
  }

  const JsonOptions& options_;
  std::string out_;
  size_t indent_ = 0;
  std::vector<WireEntry> entries_;  // a stack shared by all levels
  std::vector<MapItem> items_;      // the same
};

bool Writer::message(const MessagePlan& plan, std::string_view bytes, const Node* only, const Node* redact, int depth) {
  if (depth > kDepthMax) return false;
  const Scope scope{only, redact, depth};
  return plan.well_known == WellKnown::kNone ? object(plan, bytes, scope) : well_known(plan, bytes, scope);
}

bool Writer::object(const MessagePlan& plan, std::string_view bytes, const Scope& scope) {
  const size_t base = entries_.size();
  if (!scan_message(plan, bytes, UnknownFields::kSkip, entries_)) return false;
  const bool good = entries(plan, base, scope);
  entries_.resize(base);
  return good;
}

bool Writer::entries(const MessagePlan& plan, size_t base, const Scope& scope) {
  bool first = true;
  open('{');
  size_t at = base;
  const size_t end = entries_.size();
  const bool fill = options_.emit != Emit::kSet || (scope.depth == 1 && options_.always != nullptr);
  if (!fill) {
    for (; at < end; ++at) {
      if (!field(*entries_[at].field, at, end, scope, first)) return false;
    }
  } else {
    for (const FieldPlan& candidate : plan.fields) {
      if (at < end && entries_[at].field == &candidate) {
        if (!field(candidate, at, end, scope, first)) return false;
        ++at;
      } else {
        absent(candidate, scope, first);
      }
    }
  }
  close('}', first);
  return true;
}

// Finds what is wanted and what is secret below `field`. False: the field is not wanted.
bool Writer::narrow(const FieldPlan& field, const Scope& scope, Scope& inner, bool& secret) {
  inner = {nullptr, nullptr, scope.depth};
  if (options_.only != nullptr && (scope.depth == 1 || scope.only != nullptr)) {
    inner.only = options_.only->child(scope.depth == 1 ? nullptr : scope.only, field);
    if (inner.only == nullptr) return false;
  }
  secret = options_.redact && field.redact;
  if (options_.redact_also != nullptr && (scope.depth == 1 || scope.redact != nullptr)) {
    inner.redact = options_.redact_also->child(scope.depth == 1 ? nullptr : scope.redact, field);
    if (inner.redact != nullptr && inner.redact->whole) secret = true;
  }
  return true;
}

void Writer::absent(const FieldPlan& field, const Scope& scope, bool& first) {
  const bool always = scope.depth == 1 && options_.always == &field;
  const bool fact = options_.emit == Emit::kNumbers || (options_.emit == Emit::kFacts && field.output_only);
  const bool zero = fact && field.shape == Shape::kSingular && !field.presence &&
                    (field.kind == Kind::kBool || is_number(field.kind));
  if (!always && !zero) return;
  Scope inner;
  bool secret = false;
  if (!narrow(field, scope, inner, secret)) return;
  next(first);
  key(field.json_key);
  if (field.shape == Shape::kSingular) {
    bits(field, 0);
  } else {
    out_.append(field.is_map() ? "{}" : "[]");
  }
}

bool Writer::field(const FieldPlan& field, size_t& at, size_t end, const Scope& scope, bool& first) {
  const WireField value = entries_[at].value;
  if (field.shape == Shape::kSingular && !field.presence) {
    // A zero on the wire means the same as nothing on the wire.
    const bool zero = value.type == WireType::kBytes ? value.bytes.empty() : is_zero(field.kind, value.value);
    if (zero) {
      absent(field, scope, first);
      return true;
    }
  }
  Scope inner;
  bool secret = false;
  const bool wanted = narrow(field, scope, inner, secret);
  if (!wanted || secret) {
    while (at + 1 < end && entries_[at + 1].field == &field) ++at;
    if (!wanted) return true;
    next(first);
    key(field.json_key);
    out_.append("\"[redacted]\"");
    return true;
  }
  next(first);
  key(field.json_key);
  if (field.shape == Shape::kRepeated) return repeated(field, at, end, inner);
  if (field.shape == Shape::kMap) return map(field, at, end, inner);
  if (field.kind != Kind::kMessage) return item(field, value, inner);
  std::string storage;
  const std::string_view bytes = merged_message(entries_, at, end, storage);
  return message(*field.message, bytes, inner.only, inner.redact, inner.depth + 1);
}

bool Writer::item(const FieldPlan& field, const WireField& value, const Scope& scope) {
  switch (field.kind) {
    case Kind::kMessage: return message(*field.message, value.bytes, scope.only, scope.redact, scope.depth + 1);
    case Kind::kString: append_quoted(out_, value.bytes); return true;
    case Kind::kBytes:
      if (field.text && is_utf8(value.bytes)) {
        append_quoted(out_, value.bytes);
        return true;
      }
      if (field.text) out_.append("{\"base64\":");
      out_.push_back('"');
      out_.append(to_base64(value.bytes));
      out_.push_back('"');
      if (field.text) out_.push_back('}');
      return true;
    default: bits(field, value.value); return true;
  }
}

void Writer::bits(const FieldPlan& field, uint64_t bits) {
  const bool quoted = quoted_in_json(field, bits);
  if (quoted) out_.push_back('"');
  append_scalar_text(field, bits, out_);
  if (quoted) out_.push_back('"');
}

bool Writer::packed(const FieldPlan& field, std::string_view bytes, bool& first) {
  WireReader reader(bytes);
  while (!reader.at_end()) {
    uint64_t value = 0;
    const WireType type = wire_type(field.kind);
    const bool good = type == WireType::kFixed32   ? reader.next_fixed32(value)
                      : type == WireType::kFixed64 ? reader.next_fixed64(value)
                                                   : reader.next_varint(value);
    if (!good) return false;
    next(first);
    bits(field, value);
  }
  return true;
}

bool Writer::repeated(const FieldPlan& field, size_t& at, size_t end, const Scope& scope) {
  bool first = true;
  open('[');
  for (;; ++at) {
    const WireField value = entries_[at].value;
    if (value.type == WireType::kBytes && wire_type(field.kind) != WireType::kBytes) {
      if (!packed(field, value.bytes, first)) return false;
    } else {
      next(first);
      if (!item(field, value, scope)) return false;
    }
    if (at + 1 >= end || entries_[at + 1].field != &field) break;
  }
  close(']', first);
  return true;
}

bool Writer::read_map_item(const FieldPlan& field, std::string_view entry, MapItem& item) {
  WireReader reader(entry);
  WireField part;
  while (reader.next(part)) {
    if (part.number > 2) continue;
    const FieldPlan& plan = part.number == 1 ? *field.map_key : *field.map_value;
    if (part.type != wire_type(plan.kind)) return false;
    if (part.number == 1) {
      item.key = part.bytes;
      item.bits = part.value;
    } else {
      item.value = part.bytes;
      item.value_bits = part.value;
      item.has_value = true;
    }
  }
  return reader.ok();
}

bool Writer::map(const FieldPlan& field, size_t& at, size_t end, const Scope& scope) {
  const size_t base = items_.size();
  for (;; ++at) {
    MapItem item;
    item.order = static_cast<uint32_t>(at);
    if (!read_map_item(field, entries_[at].value.bytes, item)) return false;
    items_.push_back(item);
    if (at + 1 >= end || entries_[at + 1].field != &field) break;
  }
  const auto same = [](const MapItem& a, const MapItem& b) { return a.key == b.key && a.bits == b.bits; };
  std::sort(items_.begin() + static_cast<ptrdiff_t>(base), items_.end(), [&](const MapItem& a, const MapItem& b) {
    if (same(a, b)) return a.order < b.order;
    return a.key != b.key ? a.key < b.key : a.bits < b.bits;
  });
  bool first = true;
  open('{');
  const size_t items_end = items_.size();
  for (size_t i = base; i < items_end; ++i) {
    const MapItem item = items_[i];  // the stack may move below
    if (i + 1 < items_end && same(item, items_[i + 1])) continue;
    next(first);
    if (field.map_key->kind == Kind::kString) {
      append_quoted(out_, item.key);
    } else {
      out_.push_back('"');
      append_scalar_text(*field.map_key, item.bits, out_);
      out_.push_back('"');
    }
    key(":");
    const WireField value{2, wire_type(field.map_value->kind), item.value_bits, item.value};
    if (!this->item(*field.map_value, value, scope)) return false;
  }
  items_.resize(base);
  close('}', first);
  return true;
}

bool Writer::well_known(const MessagePlan& plan, std::string_view bytes, const Scope& scope) {
  SecondsNanos time;
  const Scope inner{nullptr, nullptr, scope.depth};
  switch (plan.well_known) {
    case WellKnown::kTimestamp:
    case WellKnown::kDuration: {
      const bool point = plan.well_known == WellKnown::kTimestamp;
      if (!read_time(bytes, time) || !(point ? timestamp_in_range(time) : duration_in_range(time))) return false;
      out_.push_back('"');
      point ? append_timestamp(out_, time) : append_duration(out_, time);
      out_.push_back('"');
      return true;
    }
    case WellKnown::kFieldMask: {
      std::string text;
      if (!append_field_mask(text, bytes)) return false;
      append_quoted(out_, text);
      return true;
    }
    case WellKnown::kWrapper:
    case WellKnown::kStruct:
    case WellKnown::kListValue: {
      const FieldPlan& field = plan.fields[0];
      const size_t base = entries_.size();
      if (!scan_message(plan, bytes, UnknownFields::kSkip, entries_)) return false;
      size_t at = base;
      const size_t end = entries_.size();
      bool good = true;
      if (plan.well_known == WellKnown::kWrapper) {
        const WireField zero{1, wire_type(field.kind), 0, {}};
        good = item(field, at == end ? zero : WireField(entries_[at].value), inner);
      } else if (at == end) {
        out_.append(field.is_map() ? "{}" : "[]");
      } else {
        good = field.is_map() ? map(field, at, end, inner) : repeated(field, at, end, inner);
      }
      entries_.resize(base);
      return good;
    }
    case WellKnown::kValue: return any_value(plan, bytes, inner);
    case WellKnown::kEmpty:
    case WellKnown::kNone: return object(plan, bytes, inner);
  }
  return false;
}

bool Writer::any_value(const MessagePlan& plan, std::string_view bytes, const Scope& scope) {
  const size_t base = entries_.size();
  if (!scan_message(plan, bytes, UnknownFields::kSkip, entries_)) return false;
  if (entries_.size() == base || entries_[base].field->number == 1) {
    entries_.resize(base);
    out_.append("null");
    return true;
  }
  size_t at = base;
  const FieldPlan& field = *entries_[base].field;
  const WireField value = entries_[base].value;
  bool good = true;
  if (field.kind == Kind::kMessage) {
    std::string storage;
    const std::string_view merged = merged_message(entries_, at, entries_.size(), storage);
    good = message(*field.message, merged, nullptr, nullptr, scope.depth);
  } else {
    good = item(field, value, scope);
  }
  entries_.resize(base);
  return good;
}

}  // namespace

Result<std::string> wire_to_json(const MessagePlan& plan, std::string_view wire, const JsonOptions& options) {
  Writer writer(options);
  writer.reserve(wire.size() * 2 + 64);
  if (!writer.message(plan, wire, nullptr, nullptr, 1)) {
    return fail(Code::kInvalid, "WIRE_INVALID", "the bytes are not a " + plan.full_name);
  }
  return writer.take();
}

}  // namespace uccp::call
