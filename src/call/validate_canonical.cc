// canonical(): one byte form for equal requests.
#include <algorithm>

#include "call/json_codec_text.h"
#include "call/validate.h"
#include "call/wire.h"

namespace uccp::call {
namespace {

class Canonical {
 public:
  bool message(const MessagePlan& plan, std::string_view bytes, int depth, std::string& out);

 private:
  bool field(const FieldPlan& field, size_t& at, size_t end, int depth, std::string& out);
  bool map(const FieldPlan& field, size_t& at, size_t end, int depth, std::string& out);
  bool value(const FieldPlan& field, const WireField& value, int depth, std::string& out);
  bool repeated_scalar(const FieldPlan& field, size_t& at, size_t end, std::string& out);

  std::vector<WireEntry> entries_;  // a stack shared by all levels
};

bool Canonical::message(const MessagePlan& plan, std::string_view bytes, int depth, std::string& out) {
  // Value, Struct, its entries and ListValue are levels here: three times the depth of the JSON form.
  if (depth > 3 * kDepthMax) return false;
  const size_t base = entries_.size();
  if (!scan_message(plan, bytes, UnknownFields::kSkip, entries_)) return false;
  const size_t end = entries_.size();
  for (size_t at = base; at < end; ++at) {
    const FieldPlan& known = *entries_[at].field;
    if (known.output_only) continue;
    if (!field(known, at, end, depth, out)) return false;
  }
  entries_.resize(base);
  return true;
}

bool Canonical::value(const FieldPlan& field, const WireField& value, int depth, std::string& out) {
  if (field.kind == Kind::kMessage) {
    const size_t mark = begin_bytes(out, field.number);
    if (!message(*field.message, value.bytes, depth + 1, out)) return false;
    end_bytes(out, mark);
  } else if (value.type == WireType::kBytes) {
    put_bytes(out, field.number, value.bytes);
  } else {
    put_tag(out, field.number, value.type);
    put_scalar(out, field.kind, value.value);
  }
  return true;
}

bool Canonical::repeated_scalar(const FieldPlan& field, size_t& at, size_t end, std::string& out) {
  // Always packed, whatever came: one form.
  const size_t mark = begin_bytes(out, field.number);
  const WireType type = wire_type(field.kind);
  for (;; ++at) {
    const WireField& entry = entries_[at].value;
    if (entry.type != WireType::kBytes) {
      put_scalar(out, field.kind, entry.value);
    } else {
      WireReader reader(entry.bytes);
      uint64_t bits = 0;
      while (!reader.at_end()) {
        const bool good = type == WireType::kFixed32   ? reader.next_fixed32(bits)
                          : type == WireType::kFixed64 ? reader.next_fixed64(bits)
                                                       : reader.next_varint(bits);
        if (!good) return false;
        put_scalar(out, field.kind, bits);
      }
    }
    if (at + 1 >= end || entries_[at + 1].field != &field) break;
  }
  end_bytes(out, mark);
  // An empty packed field is an absent one.
  if (out.size() == mark) out.resize(mark - (field.number < 16 ? 2 : field.number < 2048 ? 3 : 4));
  return true;
}

bool Canonical::map(const FieldPlan& field, size_t& at, size_t end, int depth, std::string& out) {
  struct Item {
    std::string key;    // encoded
    std::string value;  // encoded
    size_t order;
  };
  std::vector<Item> items;
  for (;; ++at) {
    WireReader reader(entries_[at].value.bytes);
    WireField part, key{1, wire_type(field.map_key->kind), 0, {}}, val{2, wire_type(field.map_value->kind), 0, {}};
    while (reader.next(part)) {
      if (part.number > 2) continue;
      WireField& slot = part.number == 1 ? key : val;
      if (part.type != slot.type) return false;
      slot = part;
    }
    if (!reader.ok()) return false;
    Item item;
    item.order = at;
    if (!value(*field.map_key, key, depth, item.key) || !value(*field.map_value, val, depth, item.value)) return false;
    items.push_back(std::move(item));
    if (at + 1 >= end || entries_[at + 1].field != &field) break;
  }
  std::sort(items.begin(), items.end(),
            [](const Item& a, const Item& b) { return a.key != b.key ? a.key < b.key : a.order < b.order; });
  for (size_t i = 0; i < items.size(); ++i) {
    if (i + 1 < items.size() && items[i].key == items[i + 1].key) continue;
    put_bytes(out, field.number, items[i].key + items[i].value);
  }
  return true;
}

bool Canonical::field(const FieldPlan& field, size_t& at, size_t end, int depth, std::string& out) {
  if (field.is_map()) return map(field, at, end, depth, out);
  if (field.is_repeated()) {
    if (wire_type(field.kind) != WireType::kBytes) return repeated_scalar(field, at, end, out);
    return value(field, WireField(entries_[at].value), depth, out);
  }
  WireField single = entries_[at].value;
  if (field.kind == Kind::kMessage) {
    std::string storage;
    single.bytes = merged_message(entries_, at, end, storage);
    return value(field, single, depth, out);
  }
  if (!field.presence) {
    const bool zero = single.type == WireType::kBytes ? single.bytes.empty() : is_zero(field.kind, single.value);
    if (zero) return true;
  }
  return value(field, single, depth, out);
}

}  // namespace

Result<std::string> canonical(const MessagePlan& plan, std::string_view wire) {
  std::string out;
  out.reserve(wire.size());
  Canonical walk;
  if (!walk.message(plan, wire, 1, out))
    return fail(Code::kInvalid, "WIRE_INVALID", "the bytes are not a " + plan.full_name);
  return out;
}

}  // namespace uccp::call
