// For tests: a message type with a field of every kind, built at run time, and random messages by reflection.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/empty.pb.h>
#include <google/protobuf/field_mask.pb.h>
#include <google/protobuf/message.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/timestamp.pb.h>
#include <google/protobuf/wrappers.pb.h>

#include <random>
#include <string>

#include "call/plan.h"

namespace uccp::call {

// Type "test.Sink" in a pool of its own on top of the generated one.
class TestTypes {
 public:
  TestTypes() : pool_(google::protobuf::DescriptorPool::generated_pool()), factory_(&pool_) {
    // Referred to, so that the linker keeps the files.
    (void)google::protobuf::Struct::descriptor();
    (void)google::protobuf::Timestamp::descriptor();
    (void)google::protobuf::Duration::descriptor();
    (void)google::protobuf::FieldMask::descriptor();
    (void)google::protobuf::Int64Value::descriptor();
    (void)google::protobuf::Empty::descriptor();
    build();
    plans_.compile(sink());
  }

  const google::protobuf::Descriptor& sink() const { return *pool_.FindMessageTypeByName("test.Sink"); }
  const MessagePlan& plan() const { return *plans_.find("test.Sink"); }
  std::unique_ptr<google::protobuf::Message> make() const {
    return std::unique_ptr<google::protobuf::Message>(factory_.GetPrototype(&sink())->New());
  }

  static const TestTypes& get() {
    static const TestTypes types;
    return types;
  }

 private:
  using Field = google::protobuf::FieldDescriptorProto;

  Field* add(google::protobuf::DescriptorProto* type, const std::string& name, int number, Field::Type kind,
             const std::string& of = {}, bool repeated = false) {
    Field* field = type->add_field();
    field->set_name(name);
    field->set_number(number);
    field->set_type(kind);
    field->set_label(repeated ? Field::LABEL_REPEATED : Field::LABEL_OPTIONAL);
    if (!of.empty()) field->set_type_name(of);
    return field;
  }

  void add_map(google::protobuf::DescriptorProto* type, const std::string& name, const std::string& entry, int number,
               Field::Type key, Field::Type value, const std::string& of = {}) {
    google::protobuf::DescriptorProto* nested = type->add_nested_type();
    nested->set_name(entry);
    nested->mutable_options()->set_map_entry(true);
    add(nested, "key", 1, key);
    add(nested, "value", 2, value, of);
    add(type, name, number, Field::TYPE_MESSAGE, ".test.Sink." + entry, true);
  }

  void build() {
    google::protobuf::FileDescriptorProto file;
    file.set_name("test/sink.proto");
    file.set_package("test");
    file.set_syntax("proto3");
    for (const char* name : {"struct", "timestamp", "duration", "field_mask", "wrappers", "empty"}) {
      file.add_dependency(std::string("google/protobuf/") + name + ".proto");
    }
    google::protobuf::EnumDescriptorProto* color = file.add_enum_type();
    color->set_name("Color");
    for (const char* name : {"NONE", "RED", "GREEN"}) {
      google::protobuf::EnumValueDescriptorProto* value = color->add_value();
      value->set_name(name);
      value->set_number(color->value_size() - 1);
    }
    google::protobuf::DescriptorProto* type = file.add_message_type();
    type->set_name("Sink");
    static constexpr struct {
      const char* name;
      Field::Type type;
    } kScalars[] = {
        {"a_double", Field::TYPE_DOUBLE},     {"a_float", Field::TYPE_FLOAT},   {"an_int64", Field::TYPE_INT64},
        {"a_uint64", Field::TYPE_UINT64},     {"an_int32", Field::TYPE_INT32},  {"a_fixed64", Field::TYPE_FIXED64},
        {"a_fixed32", Field::TYPE_FIXED32},   {"a_bool", Field::TYPE_BOOL},     {"a_string", Field::TYPE_STRING},
        {"a_bytes", Field::TYPE_BYTES},       {"a_uint32", Field::TYPE_UINT32}, {"a_sfixed32", Field::TYPE_SFIXED32},
        {"a_sfixed64", Field::TYPE_SFIXED64}, {"a_sint32", Field::TYPE_SINT32}, {"a_sint64", Field::TYPE_SINT64}};
    int number = 1;
    for (const auto& scalar : kScalars) add(type, scalar.name, number++, scalar.type);
    for (const auto& scalar : kScalars) add(type, std::string("many_") + scalar.name, number++, scalar.type, {}, true);
    add(type, "color", 40, Field::TYPE_ENUM, ".test.Color");
    add(type, "colors", 41, Field::TYPE_ENUM, ".test.Color", true);
    add(type, "child", 42, Field::TYPE_MESSAGE, ".test.Sink");
    add(type, "children", 43, Field::TYPE_MESSAGE, ".test.Sink", true);
    add_map(type, "by_name", "ByNameEntry", 44, Field::TYPE_STRING, Field::TYPE_INT32);
    add_map(type, "by_number", "ByNumberEntry", 45, Field::TYPE_INT64, Field::TYPE_STRING);
    add_map(type, "by_flag", "ByFlagEntry", 46, Field::TYPE_BOOL, Field::TYPE_MESSAGE, ".test.Sink");
    type->add_oneof_decl()->set_name("choice");
    add(type, "text_choice", 47, Field::TYPE_STRING)->set_oneof_index(0);
    add(type, "number_choice", 48, Field::TYPE_INT32)->set_oneof_index(0);
    add(type, "message_choice", 49, Field::TYPE_MESSAGE, ".test.Sink")->set_oneof_index(0);
    add(type, "when", 50, Field::TYPE_MESSAGE, ".google.protobuf.Timestamp");
    add(type, "how_long", 51, Field::TYPE_MESSAGE, ".google.protobuf.Duration");
    add(type, "anything", 52, Field::TYPE_MESSAGE, ".google.protobuf.Struct");
    add(type, "value", 53, Field::TYPE_MESSAGE, ".google.protobuf.Value");
    add(type, "list", 54, Field::TYPE_MESSAGE, ".google.protobuf.ListValue");
    add(type, "mask", 55, Field::TYPE_MESSAGE, ".google.protobuf.FieldMask");
    add(type, "wrapped", 56, Field::TYPE_MESSAGE, ".google.protobuf.Int64Value");
    add(type, "wrapped_text", 57, Field::TYPE_MESSAGE, ".google.protobuf.StringValue");
    add(type, "nothing", 58, Field::TYPE_MESSAGE, ".google.protobuf.Empty");
    type->add_oneof_decl()->set_name("_maybe");
    Field* maybe = add(type, "maybe", 2000, Field::TYPE_INT32);
    maybe->set_oneof_index(1);
    maybe->set_proto3_optional(true);
    pool_.BuildFile(file);
  }

  google::protobuf::DescriptorPool pool_;
  mutable google::protobuf::DynamicMessageFactory factory_;
  PlanSet plans_;
};

// Fills messages with random content that has a JSON form.
class RandomMessages {
 public:
  explicit RandomMessages(uint32_t seed) : random_(seed) {}

  void fill(google::protobuf::Message& message, int depth = 0) {
    const google::protobuf::Descriptor& type = *message.GetDescriptor();
    if (fill_well_known(message, depth)) return;
    for (int i = 0; i < type.field_count(); ++i) {
      const google::protobuf::FieldDescriptor& field = *type.field(i);
      if (below(3) != 0) continue;
      if (field.message_type() != nullptr && depth >= 3 && !field.is_map()) continue;
      if (field.is_map() && depth >= 2) continue;
      const int count = field.is_repeated() ? static_cast<int>(below(4)) : 1;
      for (int k = 0; k < count; ++k) set(message, field, depth);
    }
  }

  uint64_t below(uint64_t bound) { return random_() % bound; }
  std::string text() {
    static constexpr const char* kParts[] = {"a", "Z9", "\"", "\\", "\n", "\t",        "\x01",
                                             "/", "é",  "漢", "😀", " ",  "</script>", "\x7f"};
    std::string text;
    for (uint64_t n = below(12); n > 0; --n) text += kParts[below(std::size(kParts))];
    return text;
  }

 private:
  bool fill_well_known(google::protobuf::Message& message, int depth) {
    const std::string& name = message.GetDescriptor()->full_name();
    if (name == "google.protobuf.Timestamp") {
      time(message, static_cast<int64_t>(below(315537897600)) - 62135596800, false);
    } else if (name == "google.protobuf.Duration") {
      time(message, static_cast<int64_t>(below(2 * 315576000000)) - 315576000000, true);
    } else if (name == "google.protobuf.FieldMask") {
      const auto* paths = message.GetDescriptor()->field(0);
      for (uint64_t n = below(3); n > 0; --n)
        message.GetReflection()->AddString(&message, paths, below(2) ? "create_time" : "a.b_c");
    } else if (name == "google.protobuf.Value") {
      const int kind = static_cast<int>(below(depth >= 4 ? 4 : 6));
      const auto* field = message.GetDescriptor()->field(kind);
      if (kind == 1) {
        message.GetReflection()->SetDouble(&message, field, static_cast<double>(below(1000000)) / 7);
      } else {
        set(message, *field, depth);
      }
    } else {
      return false;
    }
    return true;
  }

  void time(google::protobuf::Message& message, int64_t seconds, bool signed_nanos) {
    static constexpr int32_t kUnits[] = {0, 1000000, 1000, 1};
    int32_t nanos = static_cast<int32_t>(below(1000)) * kUnits[below(4)];
    if (signed_nanos && seconds < 0) nanos = -nanos;
    message.GetReflection()->SetInt64(&message, message.GetDescriptor()->FindFieldByNumber(1), seconds);
    message.GetReflection()->SetInt32(&message, message.GetDescriptor()->FindFieldByNumber(2), nanos);
  }

  uint64_t number() {
    switch (below(4)) {
      case 0: return below(100);
      case 1: return random_();
      case 2: return ~below(100);
      default: return 0;
    }
  }

  double real() {
    switch (below(5)) {
      case 0: return 0;
      case 1: return std::numeric_limits<double>::infinity();
      case 2: return static_cast<double>(below(1000)) / 8;
      case 3: return -static_cast<double>(random_()) * 1e-7;
      default: return 1e300 / static_cast<double>(1 + below(1000));
    }
  }

  void set(google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field, int depth) {
    using D = google::protobuf::FieldDescriptor;
    const google::protobuf::Reflection& r = *message.GetReflection();
    const bool many = field.is_repeated();
    google::protobuf::Message* m = &message;
    const D* f = &field;
    switch (field.cpp_type()) {
      case D::CPPTYPE_BOOL: many ? r.AddBool(m, f, below(2)) : r.SetBool(m, f, below(2)); break;
      case D::CPPTYPE_INT32: {
        const auto v = static_cast<int32_t>(number());
        many ? r.AddInt32(m, f, v) : r.SetInt32(m, f, v);
        break;
      }
      case D::CPPTYPE_INT64: {
        const auto v = static_cast<int64_t>(number());
        many ? r.AddInt64(m, f, v) : r.SetInt64(m, f, v);
        break;
      }
      case D::CPPTYPE_UINT32: {
        const auto v = static_cast<uint32_t>(number());
        many ? r.AddUInt32(m, f, v) : r.SetUInt32(m, f, v);
        break;
      }
      case D::CPPTYPE_UINT64: {
        const uint64_t v = number();
        many ? r.AddUInt64(m, f, v) : r.SetUInt64(m, f, v);
        break;
      }
      case D::CPPTYPE_FLOAT: {
        const auto v = static_cast<float>(below(1000)) / 7;
        many ? r.AddFloat(m, f, v) : r.SetFloat(m, f, v);
        break;
      }
      case D::CPPTYPE_DOUBLE: {
        const double v = real();
        many ? r.AddDouble(m, f, v) : r.SetDouble(m, f, v);
        break;
      }
      case D::CPPTYPE_STRING: {
        const std::string v = text();
        many ? r.AddString(m, f, v) : r.SetString(m, f, v);
        break;
      }
      case D::CPPTYPE_ENUM: {
        const int v = field.enum_type()
                          ->value(static_cast<int>(below(static_cast<uint64_t>(field.enum_type()->value_count()))))
                          ->number();
        many ? r.AddEnumValue(m, f, v) : r.SetEnumValue(m, f, v);
        break;
      }
      case D::CPPTYPE_MESSAGE:
        if (field.is_map()) return set_map(message, field, depth);
        fill(many ? *r.AddMessage(m, f) : *r.MutableMessage(m, f), depth + 1);
        break;
    }
  }

  // A map through its entries. Equal keys are taken back: dynamic messages keep both.
  void set_map(google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field, int depth) {
    const google::protobuf::Reflection& reflection = *message.GetReflection();
    google::protobuf::Message* entry = reflection.AddMessage(&message, &field);
    const auto* key = field.message_type()->FindFieldByNumber(1);
    set(*entry, *key, depth + 1);
    const auto text = [&](const google::protobuf::Message& of) {
      std::string text;
      google::protobuf::TextFormat::PrintFieldValueToString(of, key, -1, &text);
      return text;
    };
    for (int i = 0; i + 1 < reflection.FieldSize(message, &field); ++i) {
      if (text(reflection.GetRepeatedMessage(message, &field, i)) != text(*entry)) continue;
      reflection.RemoveLast(&message, &field);
      return;
    }
    set(*entry, *field.message_type()->FindFieldByNumber(2), depth + 1);
  }

  std::mt19937_64 random_;
};

}  // namespace uccp::call
