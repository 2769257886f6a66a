// Schemas: what events must be, what a schema may become, and what is no schema.
#include "services/events/event_schema.h"

#include <google/protobuf/descriptor.pb.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "services/events/json_schema.h"
#include "services/events/json_value.h"

namespace uccp::events {
namespace {

struct Case {
  const char* schema;
  const char* value;
  bool fits;
};

TEST(JsonSchema, AcceptsWhatItsRulesAllow) {
  const Case cases[] = {
      {"true", "1", true},
      {"false", "1", false},
      {R"({"type":"integer"})", "3.0", true},
      {R"({"type":"integer"})", "3.5", false},
      {R"({"type":["string","null"]})", "null", true},
      {R"({"const":{"a":[1,2]}})", R"({"a":[1,2]})", true},
      {R"({"enum":["a","b"]})", R"("c")", false},
      {R"({"minimum":2,"exclusiveMaximum":4})", "4", false},
      {R"({"minimum":2,"exclusiveMaximum":4})", R"("no number")", true},
      {R"({"multipleOf":0.1})", "0.3", true},
      {R"({"maxLength":3})", "\"\u00e4\u00e4\u00e4\"", true},
      {R"({"pattern":"^a+$"})", R"("aab")", false},
      {R"({"required":["a"]})", R"({"b":1})", false},
      {R"({"properties":{"a":{"type":"string"}}})", R"({"a":1})", false},
      {R"({"properties":{"a":{}},"additionalProperties":false})", R"({"a":1,"b":1})", false},
      {R"({"patternProperties":{"^x-":true},"additionalProperties":false})", R"({"x-y":1})", true},
      {R"({"propertyNames":{"maxLength":2}})", R"({"abc":1})", false},
      {R"({"dependentRequired":{"a":["b"]}})", R"({"a":1})", false},
      {R"({"prefixItems":[{"type":"number"}],"items":{"type":"string"}})", R"([1,"a"])", true},
      {R"({"prefixItems":[{"type":"number"}],"items":{"type":"string"}})", R"([1,2])", false},
      {R"({"contains":{"const":1},"maxContains":1})", "[1,1]", false},
      {R"({"contains":{"const":1}})", "[2]", false},
      {R"({"uniqueItems":true})", R"([{"a":1},{"a":1}])", false},
      {R"({"allOf":[{"minimum":1},{"maximum":2}]})", "3", false},
      {R"({"anyOf":[{"type":"string"},{"minimum":5}]})", "7", true},
      {R"({"oneOf":[{"minimum":1},{"minimum":2}]})", "3", false},
      {R"({"not":{"type":"string"}})", R"("a")", false},
      {R"({"if":{"required":["a"]},"then":{"required":["b"]}})", R"({"a":1})", false},
      {R"({"$defs":{"n":{"type":"number"}},"properties":{"a":{"$ref":"#/$defs/n"}}})", R"({"a":"x"})", false},
      {R"({"properties":{"next":{"$ref":"#"}},"required":["v"]})", R"({"v":1,"next":{"v":2,"next":{}}})", false},
  };
  for (const Case& one : cases) {
    const auto schema = JsonSchema::parse(one.schema);
    ASSERT_TRUE(schema.has_value()) << one.schema << schema.error().to_string();
    const Status status = (*schema)->check(*parse_json(one.value));
    EXPECT_EQ(status.is_ok(), one.fits) << one.schema << " " << one.value << " " << status.to_string();
    if (!one.fits) EXPECT_EQ(status.reason(), "SCHEMA_MISMATCH");
  }
}

TEST(JsonSchema, SaysWhereAValueIsWrong) {
  const auto schema = JsonSchema::parse(R"({"properties":{"items":{"items":{"required":["sku"]}}}})");
  const Status status = (*schema)->check(*parse_json(R"({"items":[{"sku":1},{}]})"));
  EXPECT_EQ(status.message(), "'/items/1' lacks 'sku'");
}

TEST(JsonSchema, WhatIsNotUnderstoodIsRefusedNotPassedOver) {
  for (const char* text : {"{", "1", R"({"type":"text"})", R"({"unevaluatedProperties":false})", R"({"pattern":"("})",
                           R"({"$ref":"#/$defs/none"})", R"({"$ref":"http://elsewhere/"})", R"({"required":"a"})",
                           R"({"properties":{"a":3}})", R"({"minimum":"1"})"}) {
    const auto schema = JsonSchema::parse(text);
    ASSERT_FALSE(schema.has_value()) << text;
    EXPECT_EQ(schema.error().reason(), "SCHEMA_INVALID");
  }
}

TEST(JsonSchema, ACheckComesToAnEnd) {
  // Each level asks for the next one twice.
  std::string text = R"({"$defs":{"d0":{"type":"number"})";
  for (int i = 1; i < 40; ++i) {
    const std::string inner = R"({"$ref":"#/$defs/d)" + std::to_string(i - 1) + R"("})";
    text += R"(,"d)" + std::to_string(i) + R"(":{"allOf":[)" + inner + "," + inner + "]}";
  }
  const auto schema = JsonSchema::parse(text + R"(},"$ref":"#/$defs/d39"})");
  ASSERT_TRUE(schema.has_value()) << schema.error().to_string();
  EXPECT_FALSE((*schema)->check(*parse_json("1")).is_ok());
  const auto endless = JsonSchema::parse(R"({"$ref":"#"})");
  EXPECT_FALSE((*endless)->check(*parse_json("1")).is_ok());
}

v1::EventSchema json(const std::string& definition, v1::SchemaCompatibility compatibility) {
  v1::EventSchema schema;
  schema.set_format(v1::SCHEMA_FORMAT_JSON);
  schema.set_definition(definition);
  schema.set_compatibility(compatibility);
  return schema;
}

TEST(Schemas, MayBecomeWhatTheirCompatibilityAllows) {
  constexpr auto kBackward = v1::SCHEMA_COMPATIBILITY_BACKWARD;
  constexpr auto kForward = v1::SCHEMA_COMPATIBILITY_FORWARD;
  constexpr auto kFull = v1::SCHEMA_COMPATIBILITY_FULL;
  const std::string base = R"({"type":"object","properties":{"a":{"type":"integer","minimum":0}},"required":["a"]})";
  const std::string optional =
      R"({"type":"object","properties":{"a":{"type":"integer","minimum":0},"b":{"type":"string"}},"required":["a"]})";
  const std::string required =
      R"({"type":"object","properties":{"a":{"type":"integer","minimum":0},"b":{}},"required":["a","b"]})";
  const std::string wider = R"({"type":"object","properties":{"a":{"type":"number"}},"required":["a"]})";
  const std::string other = R"({"type":"object","properties":{"a":{"type":"string"}},"required":["a"]})";
  const auto follows = [](const std::string& before, const std::string& after, v1::SchemaCompatibility compatibility) {
    return may_follow({json(before, compatibility)}, json(after, compatibility)).is_ok();
  };
  EXPECT_TRUE(follows(base, optional, kFull));
  EXPECT_FALSE(follows(base, required, kBackward)) << "old events lack b";
  EXPECT_TRUE(follows(base, required, kForward));
  EXPECT_TRUE(follows(base, wider, kBackward));
  EXPECT_FALSE(follows(base, wider, kForward)) << "old readers know integers alone";
  EXPECT_FALSE(follows(base, wider, kFull));
  EXPECT_FALSE(follows(base, other, kBackward));
  EXPECT_TRUE(follows(base, other, v1::SCHEMA_COMPATIBILITY_NONE));
  EXPECT_FALSE(follows(base, R"({"type":"object","additionalProperties":false})", kBackward)) << "a is not allowed";
  EXPECT_FALSE(follows(R"({"$defs":{"n":{"type":"number"}},"$ref":"#/$defs/n"})",
                       R"({"$defs":{"n":{"type":"string"}},"$ref":"#/$defs/n"})", kBackward));
  EXPECT_EQ(may_follow({json(base, kBackward)}, json(other, kBackward)).reason(), "SCHEMA_INCOMPATIBLE");
}

v1::EventSchema protobuf(google::protobuf::FieldDescriptorProto::Type type) {
  google::protobuf::FileDescriptorSet files;
  auto& file = *files.add_file();
  file.set_name("a.proto");
  file.set_package("shop");
  file.set_syntax("proto3");
  auto& message = *file.add_message_type();
  message.set_name("Order");
  auto& field = *message.add_field();
  field.set_name("number");
  field.set_number(1);
  field.set_type(type);
  field.set_label(google::protobuf::FieldDescriptorProto::LABEL_OPTIONAL);
  v1::EventSchema schema;
  schema.set_format(v1::SCHEMA_FORMAT_PROTOBUF);
  schema.set_definition(to_base64(files.SerializeAsString()));
  schema.set_message_type("shop.Order");
  return schema;
}

TEST(Schemas, AProtobufEventIsAMessageOfItsType) {
  const auto schema = CompiledSchema::make(protobuf(google::protobuf::FieldDescriptorProto::TYPE_STRING));
  ASSERT_TRUE(schema.has_value()) << schema.error().to_string();
  v1::Event event;
  event.set_data(
      "\x0a\x03"
      "abc");
  EXPECT_TRUE((*schema)->check(event).is_ok());
  event.set_data(
      "\x0a\x09"
      "abc");
  EXPECT_EQ((*schema)->check(event).reason(), "SCHEMA_MISMATCH") << "it is cut off";
  event.set_text("abc");
  EXPECT_FALSE((*schema)->check(event).is_ok());
  const auto text = protobuf(google::protobuf::FieldDescriptorProto::TYPE_STRING);
  const auto number = protobuf(google::protobuf::FieldDescriptorProto::TYPE_INT64);
  EXPECT_TRUE(may_follow({text}, text).is_ok());
  EXPECT_EQ(may_follow({text}, number).reason(), "SCHEMA_INCOMPATIBLE");
  EXPECT_FALSE(may_follow({json("{}", v1::SCHEMA_COMPATIBILITY_BACKWARD)}, text).is_ok());
  auto wrong = text;
  wrong.set_message_type("shop.Other");
  EXPECT_EQ(CompiledSchema::make(wrong).error().reason(), "SCHEMA_INVALID");
  wrong.set_definition("no base64!");
  EXPECT_FALSE(CompiledSchema::make(wrong).has_value());
}

// Of each format three versions: the last fits the second, and not the first.
struct Versions {
  const char* name;
  v1::EventSchema first, second, third;
};

std::vector<Versions> versions_of_each_format() {
  constexpr auto kType = google::protobuf::FieldDescriptorProto::TYPE_STRING;
  v1::EventSchema no_field = protobuf(kType);
  google::protobuf::FileDescriptorSet files;
  files.ParseFromString(*from_base64(no_field.definition()));
  files.mutable_file(0)->mutable_message_type(0)->clear_field();
  no_field.set_definition(to_base64(files.SerializeAsString()));
  const auto avro = [](const std::string& fields) {
    v1::EventSchema schema;
    schema.set_format(v1::SCHEMA_FORMAT_AVRO);
    schema.set_definition(R"({"type":"record","name":"Order","fields":[)" + fields + "]}");
    return schema;
  };
  constexpr auto kNone = v1::SCHEMA_COMPATIBILITY_NONE;
  return {
      {"JSON", json(R"({"properties":{"a":{"type":"string"}}})", kNone), json("{}", kNone),
       json(R"({"properties":{"a":{"type":"integer"}}})", kNone)},
      {"PROTOBUF", protobuf(kType), no_field, protobuf(google::protobuf::FieldDescriptorProto::TYPE_INT64)},
      {"AVRO", avro(R"({"name":"a","type":"string","default":""})"), avro(""),
       avro(R"({"name":"a","type":"int","default":0})")},
  };
}

TEST(Schemas, ATransitiveLevelLooksAtAllVersions) {
  const auto follows = [](const Versions& v, v1::SchemaCompatibility level) {
    v1::EventSchema third = v.third;
    third.set_compatibility(level);
    return may_follow({v.first, v.second}, third);
  };
  for (const Versions& v : versions_of_each_format()) {
    SCOPED_TRACE(v.name);
    EXPECT_TRUE(follows(v, v1::SCHEMA_COMPATIBILITY_BACKWARD).is_ok());
    EXPECT_TRUE(follows(v, v1::SCHEMA_COMPATIBILITY_FORWARD).is_ok());
    EXPECT_TRUE(follows(v, v1::SCHEMA_COMPATIBILITY_NONE).is_ok());
    for (const auto level : {v1::SCHEMA_COMPATIBILITY_BACKWARD_TRANSITIVE, v1::SCHEMA_COMPATIBILITY_FORWARD_TRANSITIVE,
                             v1::SCHEMA_COMPATIBILITY_FULL_TRANSITIVE}) {
      EXPECT_EQ(follows(v, level).reason(), "SCHEMA_INCOMPATIBLE") << level;
    }
  }
}

}  // namespace
}  // namespace uccp::events
