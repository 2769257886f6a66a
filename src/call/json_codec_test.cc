#include "call/json_codec.h"

#include <gtest/gtest.h>

#include "call/contract.h"
#include "call/plan_test_types.h"
#include "uccp/v1/discovery.pb.h"
#include "uccp/v1/tasks.pb.h"

namespace uccp::call {
namespace {

const MessagePlan& plan(const char* name) { return Contract::get().plan(std::string("uccp.v1.") + name); }
const MessagePlan& sink() { return TestTypes::get().plan(); }

// JSON in, through the wire, canonical JSON out.
std::string through(const MessagePlan& plan, std::string_view json, const JsonOptions& options = {.emit = Emit::kSet}) {
  const auto wire = json_to_wire(plan, json);
  if (!wire) return wire.error().to_string();
  const auto back = wire_to_json(plan, *wire, options);
  return back ? *back : back.error().to_string();
}

TEST(JsonCodec, EveryKindHasItsForm) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"aDouble":1.5,"aFloat":0.1,"anInt64":"-9223372036854775808","aUint64":18446744073709551615})",
       R"({"aDouble":1.5,"aFloat":0.1,"anInt64":"-9223372036854775808","aUint64":"18446744073709551615"})"},
      {R"({"an_int32":-1,"aFixed64":"7","aFixed32":7,"aBool":true,"aString":"h\u00e9\n\"","aBytes":"aGk="})",
       R"({"anInt32":-1,"aFixed64":"7","aFixed32":7,"aBool":true,"aString":"hé\n\"","aBytes":"aGk="})"},
      {R"({"aUint32":4294967295,"aSfixed32":-2,"aSfixed64":"-3","aSint32":-2147483648,"aSint64":"-5"})",
       R"({"aUint32":4294967295,"aSfixed32":-2,"aSfixed64":"-3","aSint32":-2147483648,"aSint64":"-5"})"},
      {R"({"manyAnInt32":[1,-2,3],"manyAString":["a",""],"manyABool":[],"colors":["RED","NONE"]})",
       R"({"manyAnInt32":[1,-2,3],"manyAString":["a",""],"colors":["RED","NONE"]})"},
      {R"({"anInt32":1.0,"anInt64":1e3,"aDouble":"NaN","aFloat":"-Infinity","aUint32":"12"})",
       R"({"aDouble":"NaN","aFloat":"-Infinity","anInt64":"1000","anInt32":1,"aUint32":12})"},
      {R"({"byName":{"b":2,"a":1},"byNumber":{"10":"x","-1":"y"},"byFlag":{"true":{"aBool":true},"false":{}}})",
       R"({"byName":{"a":1,"b":2},"byNumber":{"10":"x","-1":"y"},"byFlag":{"false":{},"true":{"aBool":true}}})"},
      {R"({"textChoice":"","child":{"child":{}},"children":[{},{"aBool":true}]})",
       R"({"child":{"child":{}},"children":[{},{"aBool":true}],"textChoice":""})"},
      {R"({"maybe":0,"anInt32":0,"aString":"","aBool":false,"color":"NONE"})", R"({"maybe":0})"},
      {R"({"when":"2026-01-31T12:00:00.5+02:00","howLong":"1.5s"})",
       R"({"when":"2026-01-31T10:00:00.500Z","howLong":"1.500s"})"},
      {R"({"when":"1969-12-31T23:59:59.000001Z","howLong":"-1h30m"})",
       R"({"when":"1969-12-31T23:59:59.000001Z","howLong":"-5400s"})"},
      {R"({"howLong":"250ms","mask":"a.bC,createTime","wrapped":"5","wrappedText":"","nothing":{}})",
       R"({"howLong":"0.250s","mask":"a.bC,createTime","wrapped":"5","wrappedText":"","nothing":{}})"},
      {R"({"anything":{"b":[1,null,{"c":true}],"a":"x"},"value":null,"list":[{},[]]})",
       R"({"anything":{"a":"x","b":[1,null,{"c":true}]},"value":null,"list":[{},[]]})"},
      {R"({"aString":null,"child":null,"children":null,"byName":null})", "{}"},
      {"", "{}"},
      {"  \n", "{}"},
  };
  for (const auto& [in, out] : cases) EXPECT_EQ(through(sink(), in), out);
}

TEST(JsonCodec, OutputOfJsonToWireIsDeterministic) {
  EXPECT_EQ(*json_to_wire(sink(), R"({"byName":{"a":1,"b":2},"aBool":true,"maybe":1})"),
            *json_to_wire(sink(), R"({"maybe":1,"byName":{"b":2,"a":1},"a_bool":true,"aString":""})"));
}

TEST(JsonCodec, ATaskAsTheContractShowsIt) {
  const auto wire = json_to_wire(plan("Task"), R"({"name":"t","command":["sh","-c","echo"],"env":{"B":"2","A":"1"},
      "resources":{"cpu":1,"memory":"64Mi"},"timeout":"600s","type":"TASK_TYPE_BATCH","status":"RUNNING","createTime":"ignored"})");
  ASSERT_TRUE(wire) << wire.error().to_string();
  EXPECT_EQ(
      *wire_to_json(plan("Task"), *wire, {.emit = Emit::kSet}),
      R"({"name":"t","type":"BATCH","command":["sh","-c","echo"],"env":{"A":"1","B":"2"},"resources":{"cpu":1,"memory":67108864},"timeout":"600s"})");
}

TEST(JsonCodec, FactsOfTheServerAreAlwaysWritten) {
  uccp::v1::ServiceRegistration service;
  service.set_id("svc_1");
  const std::string json = *wire_to_json(plan("ServiceRegistration"), service.SerializeAsString());
  EXPECT_EQ(json, R"({"id":"svc_1","healthy":false,"healthScore":0,"revision":0,"effectiveWeight":0})");
  const std::string all =
      *wire_to_json(plan("ServiceRegistration"), service.SerializeAsString(), {.emit = Emit::kNumbers});
  EXPECT_NE(all.find(R"("port":0)"), std::string::npos) << all;
  EXPECT_NE(all.find(R"("draining":false)"), std::string::npos) << all;
  EXPECT_EQ(all.find("region"), std::string::npos) << all;
}

TEST(JsonCodec, TheItemsOfAnEmptyListAreWritten) {
  const MessagePlan& response = plan("DiscoverResponse");
  EXPECT_EQ(*wire_to_json(response, "", {.always = response.by_name("services")}), R"({"services":[]})");
  const Method* discover = Contract::get().find("uccp.v1.ServiceDiscovery/Discover");
  EXPECT_EQ(discover->items, response.by_name("services"));
}

TEST(JsonCodec, SecretsAreNotWritten) {
  const auto wire =
      *json_to_wire(plan("ScheduleTaskRequest"), R"({"task":{"name":"t","env":{"TOKEN":"s3cret"},"stdin":"czNjcmV0",
      "inputs":[{"path":"a","data":"czNjcmV0"}]}})");
  const Method* method = Contract::get().find("uccp.v1.TaskScheduling/ScheduleTask");
  const std::string json =
      *wire_to_json(plan("ScheduleTaskRequest"), wire, {.redact = true, .redact_also = &method->redact});
  EXPECT_EQ(json.find("czNjcmV0"), std::string::npos) << json;
  EXPECT_EQ(json.find("s3cret"), std::string::npos) << json;
  EXPECT_NE(json.find(R"("env":"[redacted]")"), std::string::npos) << json;
  EXPECT_NE(json.find(R"("data":"[redacted]")"), std::string::npos) << json;
}

TEST(JsonCodec, PrettyIndentsByTwo) {
  EXPECT_EQ(through(sink(), R"({"anInt32":1,"manyAnInt32":[1,2],"child":{},"anything":{"a":[]}})",
                    {.emit = Emit::kSet, .pretty = true}),
            "{\n  \"anInt32\": 1,\n  \"manyAnInt32\": [\n    1,\n    2\n  ],\n  \"child\": {},\n  \"anything\": {\n    "
            "\"a\": []\n  }\n}");
}

TEST(JsonCodec, NumbersAboveTwoToThe53AreStrings) {
  EXPECT_EQ(through(plan("Resources"), R"({"memory":9007199254740992})"), R"({"memory":9007199254740992})");
  EXPECT_EQ(through(plan("Resources"), R"({"memory":"9007199254740993"})"), R"({"memory":"9007199254740993"})");
}

struct Wrong {
  const char* json;
  const char* field;
  const char* says;
};

TEST(JsonCodec, WrongFieldsAreNamed) {
  const Wrong cases[] = {
      {R"({"task":{"resources":{"cpu":"many"}}})", "task.resources.cpu", "must be a number, not \"many\""},
      {R"({"task":{"resources":{"memory":"64MB!"}}})", "task.resources.memory", "must be a size in bytes"},
      {R"({"task":{"resources":{"memory":-1}}})", "task.resources.memory", "must not be negative"},
      {R"({"task":{"naem":"x"}})", "task.naem", "did you mean name?"},
      {R"({"task":{"name":"a","name":"b"}})", "task.name", "is given twice"},
      {R"({"requestId":"a","request_id":"b"})", "requestId", "is given twice"},
      {R"({"task":{"type":"batch"}})", "task.type", "must be one of BATCH"},
      {R"({"task":{"type":1}})", "task.type", "must be one of"},
      {R"({"task":{"priority":2147483648}})", "task.priority", "must be from -2147483648 to 2147483647"},
      {R"({"task":{"priority":1.5}})", "task.priority", "must be a whole number"},
      {R"({"task":{"priority":true}})", "task.priority", "must be a number, not a boolean"},
      {R"({"task":{"command":"sh"}})", "task.command", "must be a list, not a string"},
      {R"({"task":{"command":["sh",1]}})", "task.command[1]", "must be a string, not a number"},
      {R"({"task":{"command":["sh",null]}})", "task.command[1]", "must be a string, not null"},
      {R"({"task":{"env":{"A":1}}})", "task.env[\"A\"]", "must be a string, not a number"},
      {R"({"task":{"env":{"A":"1","A":"2"}}})", "task.env[\"A\"]", "is given twice"},
      {R"({"task":{"env":[]}})", "task.env", "must be an object, not a list"},
      {R"({"task":{"timeout":600}})", "task.timeout", "must be a duration"},
      {R"({"task":{"timeout":"600"}})", "task.timeout", "must be a duration"},
      {R"({"task":{"stdin":"***"}})", "task.stdin", "must be base64"},
      {R"({"task":[]})", "task", "must be an object, not a list"},
      {R"({"validateOnly":"true"})", "validateOnly", "must be true or false, not a string"},
      {R"([])", "", "must be an object"},
  };
  for (const Wrong& wrong : cases) {
    const auto result = json_to_wire(plan("ScheduleTaskRequest"), wrong.json);
    ASSERT_FALSE(result) << wrong.json;
    EXPECT_EQ(result.error().code(), Code::kInvalid);
    EXPECT_EQ(result.error().reason(), "FIELD_INVALID");
    const FieldViolation& field = result.error().detail().fields.at(0);
    EXPECT_EQ(field.field, wrong.field) << wrong.json;
    EXPECT_NE(field.description.find(wrong.says), std::string::npos) << wrong.json << " -> " << field.description;
  }
}

TEST(JsonCodec, WhatIsNotJsonIsRefused) {
  std::string deep;
  for (int i = 0; i < 40; ++i) deep += R"({"child":)";
  deep += "{}" + std::string(40, '}');
  EXPECT_EQ(json_to_wire(sink(), deep).error().reason(), "FIELD_INVALID");
  std::string lists(100, '[');
  lists += std::string(100, ']');
  EXPECT_EQ(json_to_wire(sink(), "{\"value\":" + lists + "}").error().reason(), "FIELD_INVALID");
  const std::string cases[] = {"{",
                               "nul",
                               "{\"a\":}",
                               "{'a':1}",
                               "{\"aString\":\"\xff\"}",
                               "{} {}",
                               "{\"anInt64\":1e999}",
                               "{\"aString\":\"\n\"}",
                               std::string(5000, '['),
                               "{\"aString\":\"\\ud800\"}"};
  for (const std::string& json : cases) {
    const auto result = json_to_wire(sink(), json);
    ASSERT_FALSE(result) << json;
    EXPECT_EQ(result.error().reason(), "JSON_INVALID") << json << result.error().to_string();
  }
}

TEST(JsonCodec, SeveralWrongFieldsAreReportedAtOnce) {
  const auto result = json_to_wire(plan("ScheduleTaskRequest"), R"({"task":{"name":1,"command":"x","foo":1},"bar":2})");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().detail().fields.size(), 4u);
  std::string many = "{";
  for (int i = 0; i < 100; ++i) many += (i == 0 ? "\"x" : ",\"x") + std::to_string(i) + "\":1";
  EXPECT_EQ(json_to_wire(sink(), many + "}").error().detail().fields.size(), kViolationsMax);
}

TEST(JsonCodec, SecretsAreNotQuotedInErrors) {
  const FieldPlan* env = plan("Task").by_name("env");
  ASSERT_TRUE(env->redact);
  FieldPlan number = *TestTypes::get().plan().by_name("an_int32");
  number.redact = true;
  std::string out;
  EXPECT_EQ(text_to_field(number, "s3cret", "x", out).message().find("s3cret"), std::string::npos);
}

TEST(JsonCodec, OneofMembersExcludeEachOther) {
  EXPECT_FALSE(json_to_wire(sink(), R"({"textChoice":"a","numberChoice":1})"));
  EXPECT_TRUE(json_to_wire(sink(), R"({"textChoice":"a","numberChoice":null})"));
}

TEST(JsonCodec, MalformedWireIsAnErrorNotACrash) {
  const std::string deep_child = [] {
    std::string bytes;
    for (int i = 0; i < 64; ++i) {
      std::string outer;
      put_bytes(outer, 42, bytes);
      bytes = outer;
    }
    return bytes;
  }();
  std::string bad_time, wrong_type, packed;
  put_bytes(bad_time, 50, std::string("\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f"));
  put_uint(wrong_type, 9, 1);
  put_bytes(packed, 20, std::string("\xff"));
  for (const std::string& bytes : {deep_child, bad_time, wrong_type, packed, std::string("\x0a")}) {
    const auto json = wire_to_json(sink(), bytes);
    ASSERT_FALSE(json);
    EXPECT_EQ(json.error().reason(), "WIRE_INVALID");
  }
}

TEST(JsonCodec, LastScalarCountsAndMessagesMerge) {
  std::string bytes, first, second;
  put_bytes(first, 9, "a");
  put_uint(second, 5, 7);
  put_bytes(bytes, 42, first);
  put_uint(bytes, 5, 1);
  put_bytes(bytes, 42, second);
  put_uint(bytes, 5, 2);
  put_bytes(bytes, 47, "gone");
  put_uint(bytes, 48, 3);
  EXPECT_EQ(*wire_to_json(sink(), bytes, {.emit = Emit::kSet}),
            R"({"anInt32":2,"child":{"anInt32":7,"aString":"a"},"numberChoice":3})");
}

TEST(TextToField, TakesWhatAQueryHas) {
  const auto text = [](const char* type, const char* field, std::string_view value) {
    std::string out;
    const FieldPlan& plan_of = *plan(type).by_name(field);
    const Status status = text_to_field(plan_of, value, plan_of.json_name, out);
    return status.is_ok() ? *wire_to_json(plan(type), out, {.emit = Emit::kSet}) : status.to_string();
  };
  EXPECT_EQ(text("DiscoverRequest", "health", "any"), R"({"health":"ANY"})");
  EXPECT_EQ(text("DiscoverRequest", "health", "ANY"), R"({"health":"ANY"})");
  EXPECT_EQ(text("DiscoverRequest", "limit", "7"), R"({"limit":7})");
  EXPECT_EQ(text("GetTaskStatusRequest", "wait", "1500ms"), R"({"wait":"1.500s"})");
  EXPECT_EQ(text("ListServicesRequest", "fields", "id,serviceName"), R"({"fields":"id,serviceName"})");
  EXPECT_EQ(text("GetTaskLogsRequest", "follow", "true"), R"({"follow":true})");
  EXPECT_NE(text("GetTaskLogsRequest", "follow", "yes").find("must be true or false"), std::string::npos);
  EXPECT_NE(text("ScheduleTaskRequest", "task", "x").find("use the body"), std::string::npos);
  EXPECT_NE(text("DiscoverRequest", "name", "\xff").find("UTF-8"), std::string::npos);
}

// Bytes that are usually text are a string where they can be, and come back as they were in any case.
TEST(JsonCodecText, BytesAsText) {
  const MessagePlan& pair = plan("KeyValuePair");
  const auto round = [&](const std::string& key) {
    std::string wire;
    put_bytes(wire, 1, key);
    const std::string json = *wire_to_json(pair, wire, {.emit = Emit::kSet});
    EXPECT_EQ(json_to_wire(pair, json), wire) << json;
    return json;
  };
  EXPECT_EQ(round("a/b \"x\""), R"({"key":"a/b \"x\""})");
  EXPECT_EQ(round("h\xc3\xa9"), "{\"key\":\"h\xc3\xa9\"}");
  EXPECT_EQ(round("\xff"), R"({"key":{"base64":"/w=="}})");
  for (const char* wrong : {R"({"key":3})", R"({"key":{"base64":"*"}})", R"({"key":{"base64":"","x":1}})",
                            R"({"key":{}})", R"({"key":{"base64":3}})"}) {
    const auto refused = json_to_wire(pair, wrong);
    ASSERT_FALSE(refused) << wrong;
    EXPECT_EQ(refused.error().reason(), "FIELD_INVALID") << wrong;
  }
  std::string from_text;
  ASSERT_TRUE(text_to_field(*pair.by_name("key"), "\xff", "key", from_text).is_ok()) << "a path takes any bytes";
  EXPECT_EQ(from_text, std::string("\x0a\x01\xff"));
}

}  // namespace
}  // namespace uccp::call
