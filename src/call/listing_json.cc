// Looking into the bytes of a google.protobuf.Value. Declared in listing_filter.h.
#include <google/protobuf/struct.pb.h>

#include <cstring>
#include <optional>

#include "call/listing_filter.h"

namespace uccp::call {
namespace {

using google::protobuf::ListValue;
using google::protobuf::Struct;
using google::protobuf::Value;

// Of a oneof the last member counts.
WireField member_of(std::string_view value) {
  WireField last, field;
  WireReader reader(value);
  while (reader.next(field)) last = field;
  return last;
}

JsonLeaf leaf_of(std::string_view value) {
  const WireField field = member_of(value);
  JsonLeaf leaf;
  switch (field.number) {
    case Value::kNullValueFieldNumber: leaf.kind = JsonLeaf::Kind::kNull; break;
    case Value::kNumberValueFieldNumber:
      leaf.kind = JsonLeaf::Kind::kNumber;
      std::memcpy(&leaf.number, &field.value, sizeof leaf.number);
      break;
    case Value::kStringValueFieldNumber:
      leaf.kind = JsonLeaf::Kind::kText;
      leaf.text = field.bytes;
      break;
    case Value::kBoolValueFieldNumber:
      leaf.kind = JsonLeaf::Kind::kBool;
      leaf.boolean = field.value != 0;
      break;
    case Value::kStructValueFieldNumber: leaf.kind = JsonLeaf::Kind::kObject; break;
    case Value::kListValueFieldNumber: leaf.kind = JsonLeaf::Kind::kList; break;
    default: break;
  }
  return leaf;
}

// The value under `key` of an object.
std::optional<std::string_view> value_under(std::string_view object, const std::string& key) {
  std::optional<std::string_view> found;
  WireReader fields(object);
  for (WireField entry; fields.next(entry);) {
    if (entry.number != Struct::kFieldsFieldNumber) continue;
    std::string_view name, value;
    WireReader parts(entry.bytes);
    for (WireField part; parts.next(part);) (part.number == 1 ? name : value) = part.bytes;
    if (name == key) found = value;
  }
  return found;
}

}  // namespace

JsonLeaf WireJson::find(std::span<const std::string> keys, const VisitItem& item) const {
  std::string_view at = value_;
  for (const std::string& key : keys) {
    const WireField field = member_of(at);
    if (field.number != Value::kStructValueFieldNumber) return {};
    const auto value = value_under(field.bytes, key);
    if (!value) return {};
    at = *value;
  }
  const JsonLeaf leaf = leaf_of(at);
  if (leaf.kind != JsonLeaf::Kind::kList) return leaf;
  WireReader items(member_of(at).bytes);
  for (WireField one; items.next(one);) {
    if (one.number == ListValue::kValuesFieldNumber && !item(leaf_of(one.bytes))) break;
  }
  return leaf;
}

}  // namespace uccp::call
