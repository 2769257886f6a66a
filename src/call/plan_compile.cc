// From descriptors to plans. The only file, with contract.cc, that reads protobuf descriptors in production.
#include <google/protobuf/descriptor.h>
#include <re2/re2.h>

#include <algorithm>
#include <map>

#include "base/check.h"
#include "base/json.h"
#include "call/plan.h"
#include "uccp/v1/options.pb.h"

namespace uccp::call {
namespace {

namespace pb = google::protobuf;

// More real oneofs in one message than any type of ours has; scan_message keeps a slot for each.
constexpr int kOneofsMax = 16;

Kind kind_of(pb::FieldDescriptor::Type type) {
  switch (type) {
    case pb::FieldDescriptor::TYPE_BOOL: return Kind::kBool;
    case pb::FieldDescriptor::TYPE_INT32: return Kind::kInt32;
    case pb::FieldDescriptor::TYPE_SINT32: return Kind::kSint32;
    case pb::FieldDescriptor::TYPE_SFIXED32: return Kind::kSfixed32;
    case pb::FieldDescriptor::TYPE_INT64: return Kind::kInt64;
    case pb::FieldDescriptor::TYPE_SINT64: return Kind::kSint64;
    case pb::FieldDescriptor::TYPE_SFIXED64: return Kind::kSfixed64;
    case pb::FieldDescriptor::TYPE_UINT32: return Kind::kUint32;
    case pb::FieldDescriptor::TYPE_FIXED32: return Kind::kFixed32;
    case pb::FieldDescriptor::TYPE_UINT64: return Kind::kUint64;
    case pb::FieldDescriptor::TYPE_FIXED64: return Kind::kFixed64;
    case pb::FieldDescriptor::TYPE_FLOAT: return Kind::kFloat;
    case pb::FieldDescriptor::TYPE_DOUBLE: return Kind::kDouble;
    case pb::FieldDescriptor::TYPE_STRING: return Kind::kString;
    case pb::FieldDescriptor::TYPE_BYTES: return Kind::kBytes;
    case pb::FieldDescriptor::TYPE_ENUM: return Kind::kEnum;
    case pb::FieldDescriptor::TYPE_MESSAGE: return Kind::kMessage;
    case pb::FieldDescriptor::TYPE_GROUP: break;
  }
  UCCP_CHECK(false, "the contract uses a group");
  return Kind::kString;
}

WellKnown well_known_of(const pb::Descriptor& type) {
  switch (type.well_known_type()) {
    case pb::Descriptor::WELLKNOWNTYPE_TIMESTAMP: return WellKnown::kTimestamp;
    case pb::Descriptor::WELLKNOWNTYPE_DURATION: return WellKnown::kDuration;
    case pb::Descriptor::WELLKNOWNTYPE_STRUCT: return WellKnown::kStruct;
    case pb::Descriptor::WELLKNOWNTYPE_VALUE: return WellKnown::kValue;
    case pb::Descriptor::WELLKNOWNTYPE_LISTVALUE: return WellKnown::kListValue;
    case pb::Descriptor::WELLKNOWNTYPE_FIELDMASK: return WellKnown::kFieldMask;
    case pb::Descriptor::WELLKNOWNTYPE_ANY:
      UCCP_CHECK(false, "the contract uses google.protobuf.Any, which the codec does not know");
      return WellKnown::kNone;
    case pb::Descriptor::WELLKNOWNTYPE_UNSPECIFIED:
      return type.full_name() == "google.protobuf.Empty" ? WellKnown::kEmpty : WellKnown::kNone;
    default: return WellKnown::kWrapper;
  }
}

// "TaskStatus" -> "TASK_STATUS_".
std::string enum_prefix(const std::string& name) {
  std::string prefix;
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    const bool upper = c >= 'A' && c <= 'Z';
    if (upper && i > 0 && prefix.back() != '_') {
      const bool after_lower = name[i - 1] >= 'a';
      const bool before_lower = i + 1 < name.size() && name[i + 1] >= 'a';
      if (after_lower || before_lower) prefix.push_back('_');
    }
    prefix.push_back(c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c);
  }
  prefix.push_back('_');
  return prefix;
}

std::unique_ptr<EnumPlan> compile_enum(const pb::EnumDescriptor& type) {
  auto plan = std::make_unique<EnumPlan>();
  plan->full_name = type.full_name();
  const std::string prefix = enum_prefix(type.name());
  for (int i = 0; i < type.value_count(); ++i) {
    const pb::EnumValueDescriptor& value = *type.value(i);
    std::string_view name = value.name();
    if (name.starts_with(prefix) && name.size() > prefix.size()) name.remove_prefix(prefix.size());
    plan->values.push_back({std::string(name), value.name(), value.number()});
  }
  return plan;
}

std::shared_ptr<const re2::RE2> compile_pattern(const std::string& pattern, const pb::FieldDescriptor& field) {
  if (pattern.empty()) return nullptr;
  auto re = std::make_shared<re2::RE2>(pattern, re2::RE2::Quiet);
  UCCP_CHECK(re->ok(), "bad pattern of field " + field.full_name() + ": " + re->error());
  return re;
}

void compile_policy(const pb::FieldDescriptor& field, FieldPlan& plan) {
  plan.deprecated = field.options().deprecated();
  if (!field.options().HasExtension(uccp::v1::field)) return;
  const uccp::v1::FieldPolicy& policy = field.options().GetExtension(uccp::v1::field);
  plan.byte_size = policy.byte_size();
  plan.json_number = policy.json_number() || policy.byte_size();
  plan.text = policy.text();
  plan.redact = policy.redact();
  plan.required = policy.required();
  plan.immutable = policy.immutable();
  plan.output_only = policy.output_only();
  plan.filterable = policy.filterable();
  plan.sortable = policy.sortable();
  if (policy.has_min()) plan.min = policy.min();
  if (policy.has_max()) plan.max = policy.max();
  plan.max_length = policy.max_length();
  plan.max_items = policy.max_items();
  plan.max_total_length = policy.max_total_length();
  plan.pattern = policy.pattern();
  plan.key_pattern = policy.key_pattern();
  plan.pattern_re = compile_pattern(plan.pattern, field);
  plan.key_pattern_re = compile_pattern(plan.key_pattern, field);
  plan.example = policy.example();
}

}  // namespace

struct PlanSet::Tables {
  std::map<std::string, std::unique_ptr<MessagePlan>, std::less<>> messages;
  std::map<std::string, std::unique_ptr<EnumPlan>, std::less<>> enums;

  const MessagePlan* message(const pb::Descriptor& type);
  const EnumPlan* enumeration(const pb::EnumDescriptor& type);
  void field(const pb::FieldDescriptor& descriptor, FieldPlan& plan);
};

PlanSet::PlanSet() : tables_(std::make_unique<Tables>()) {}
PlanSet::~PlanSet() = default;

const MessagePlan& PlanSet::compile(const pb::Descriptor& type) { return *tables_->message(type); }

const MessagePlan* PlanSet::find(std::string_view full_name) const {
  const auto at = tables_->messages.find(full_name);
  return at == tables_->messages.end() ? nullptr : at->second.get();
}

const MessagePlan* PlanSet::Tables::message(const pb::Descriptor& type) {
  auto& slot = messages[type.full_name()];
  // A type under construction is returned as well: types refer to each other.
  if (slot) return slot.get();
  slot = std::make_unique<MessagePlan>();
  MessagePlan& plan = *slot;
  plan.full_name = type.full_name();
  plan.name = type.name();
  plan.well_known = well_known_of(type);
  UCCP_CHECK(type.real_oneof_decl_count() <= kOneofsMax, "too many oneofs in " + plan.full_name);
  for (int i = 0; i < type.real_oneof_decl_count(); ++i) plan.oneof_names.push_back(type.oneof_decl(i)->name());

  std::vector<const pb::FieldDescriptor*> descriptors;
  for (int i = 0; i < type.field_count(); ++i) descriptors.push_back(type.field(i));
  std::sort(descriptors.begin(), descriptors.end(),
            [](const auto* a, const auto* b) { return a->number() < b->number(); });
  // Sized before it is filled: other plans keep pointers into it.
  plan.fields.resize(descriptors.size());
  for (size_t i = 0; i < descriptors.size(); ++i) {
    plan.fields[i].index = static_cast<uint16_t>(i);
    field(*descriptors[i], plan.fields[i]);
  }
  plan.build_lookup();
  return &plan;
}

const EnumPlan* PlanSet::Tables::enumeration(const pb::EnumDescriptor& type) {
  auto& slot = enums[type.full_name()];
  if (!slot) slot = compile_enum(type);
  return slot.get();
}

void PlanSet::Tables::field(const pb::FieldDescriptor& descriptor, FieldPlan& plan) {
  plan.number = static_cast<uint32_t>(descriptor.number());
  plan.kind = kind_of(descriptor.type());
  plan.shape = descriptor.is_map() ? Shape::kMap : descriptor.is_repeated() ? Shape::kRepeated : Shape::kSingular;
  plan.packed = descriptor.is_packed();
  plan.presence = descriptor.has_presence();
  if (const pb::OneofDescriptor* oneof = descriptor.real_containing_oneof()) {
    plan.oneof = static_cast<int16_t>(oneof->index());
  }
  plan.name = descriptor.name();
  plan.json_name = descriptor.json_name();
  append_json_string(plan.json_key, plan.json_name);
  plan.json_key.push_back(':');
  compile_policy(descriptor, plan);
  UCCP_CHECK(!plan.text || (plan.kind == Kind::kBytes && !descriptor.is_map()),
             "only bytes can be shown as text: " + descriptor.full_name());
  if (plan.kind == Kind::kEnum) plan.enumeration = enumeration(*descriptor.enum_type());
  if (plan.kind == Kind::kMessage) plan.message = message(*descriptor.message_type());
  if (plan.shape == Shape::kMap) {
    plan.map_key = &plan.message->fields[0];
    plan.map_value = &plan.message->fields[1];
  }
}

}  // namespace uccp::call
