#include "call/validate.h"

#include <gtest/gtest.h>

#include "base/limits.h"
#include "call/contract.h"
#include "call/json_codec.h"
#include "call/wire.h"
#include "uccp/v1/discovery.pb.h"
#include "uccp/v1/tasks.pb.h"

namespace uccp::call {
namespace {

const MessagePlan& plan(const char* name) { return Contract::get().plan(std::string("uccp.v1.") + name); }

Status check(const char* type, std::string_view json) {
  const auto wire = json_to_wire(plan(type), json);
  EXPECT_TRUE(wire) << wire.error().to_string();
  return validate(plan(type), *wire);
}

// "field: description" of each violation.
std::string said(const Status& status) {
  std::string text;
  for (const FieldViolation& field : status.detail().fields) text += field.field + " " + field.description + "\n";
  return text;
}

TEST(Validate, AMinimalRequestPasses) {
  EXPECT_TRUE(check("RegisterRequest", R"({"service":{"serviceName":"a","address":"h","port":80}})").is_ok());
  EXPECT_TRUE(check("ScheduleTaskRequest", R"({"task":{"command":["true"]}})").is_ok());
}

TEST(Validate, MissingFieldsAreListed) {
  const Status status = check("RegisterRequest", R"({"service":{"address":""}})");
  EXPECT_EQ(status.reason(), "FIELD_INVALID");
  EXPECT_EQ(said(status), "service.serviceName is required\nservice.address is required\nservice.port is required\n");
  EXPECT_EQ(said(check("RegisterRequest", "{}")), "service is required\n");
}

TEST(Validate, LimitsAreChecked) {
  const auto service = [](std::string_view more) {
    return said(check("RegisterRequest",
                      R"({"service":{"serviceName":"a","address":"h","port":80,)" + std::string(more) + "}}"));
  };
  EXPECT_EQ(said(check("RegisterRequest", R"({"service":{"serviceName":"-a","address":"h","port":70000}})")),
            "service.serviceName must match ^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$, not \"-a\"\nservice.port must be from "
            "1 to 65535, not 70000\n");
  EXPECT_EQ(service(R"("ttl":"0.5s")"), "service.ttl must be from 1 to 86400, not 0.5\n");
  EXPECT_EQ(service(R"("ports":{"a":0})"), "service.ports[\"a\"] must be from 1 to 65535, not 0\n");
  EXPECT_EQ(service(R"("ports":{"A B":1})").substr(0, 46), "service.ports[\"A B\"] has a key that does not m");
  EXPECT_EQ(service("\"region\":\"" + std::string(64, 'x') + "\""),
            "service.region has 64 bytes, at most 63 are allowed\n");
  EXPECT_EQ(service(R"("capabilities":["ok","-bad"])").substr(0, 34), "service.capabilities[1] must match");
  std::string many;
  for (int i = 0; i < 17; ++i) many += i == 0 ? "\"p\"" : ",\"p\"";
  EXPECT_EQ(service("\"protocols\":[" + many + "]"), "service.protocols has 17 items, at most 16 are allowed\n");
  EXPECT_EQ(service(R"("weight":0)").size(), 0u);
}

TEST(Validate, NumbersWithALimitEnd) {
  const auto price = [](std::string_view text) {
    return said(check("Worker", R"({"name":"w","pricePerHour":)" + std::string(text) + "}"));
  };
  EXPECT_EQ(price("2.5"), "");
  EXPECT_EQ(price("-1"), "pricePerHour must be at least 0, not -1\n");
  EXPECT_EQ(price("\"Infinity\""), "pricePerHour must be at least 0 and finite, not inf\n");
  EXPECT_EQ(price("\"NaN\""), "pricePerHour must be at least 0, not nan\n");
}

TEST(Validate, PresenceSatisfiesRequired) {
  EXPECT_TRUE(check("UpdateTaskPriorityRequest", R"({"id":"task_1","priority":0})").is_ok());
  EXPECT_EQ(said(check("UpdateTaskPriorityRequest", R"({"id":"task_1"})")), "priority is required\n");
  EXPECT_EQ(said(check("UpdateTaskPriorityRequest", R"({"id":"task_1","priority":101})")),
            "priority must be from 0 to 100, not 101\n");
}

TEST(Validate, SecretsAreNotQuoted) {
  const Status status = check("ScheduleTaskRequest", R"({"task":{"command":["x"],"env":{"bad key":"s3cret"}}})");
  EXPECT_FALSE(status.is_ok());
  EXPECT_EQ(said(status).find("s3cret"), std::string::npos);
}

TEST(Validate, TotalLengthIsChecked) {
  EXPECT_EQ(said(check("ScheduleTaskRequest", R"({"task":{"command":[")" + std::string(140000, 'x') + R"("]}})")),
            "task.command has 140000 bytes in all, at most 131072 are allowed\n");
}

TEST(Validate, OutputOnlyFieldsAreIgnored) {
  uccp::v1::RegisterRequest request;
  request.mutable_service()->set_service_name("a");
  request.mutable_service()->set_address("h");
  request.mutable_service()->set_port(1);
  request.mutable_service()->set_etag(std::string(100, 'x'));
  EXPECT_TRUE(validate(plan("RegisterRequest"), request.SerializeAsString()).is_ok());
  EXPECT_EQ(canonical(plan("RegisterRequest"), request.SerializeAsString())->find("xxxx"), std::string::npos);
}

TEST(Validate, WhatTheWireCanHoldAndJsonCannot) {
  std::string unknown, enumeration, text, time;
  put_uint(unknown, 777, 1);
  EXPECT_EQ(said(validate(plan("DiscoverRequest"), unknown)), " has the unknown field number 777 in DiscoverRequest\n");
  put_uint(enumeration, 8, 99);
  EXPECT_EQ(said(validate(plan("DiscoverRequest"), enumeration)), "health must be one of HEALTHY, ANY, not 99\n");
  put_bytes(text, 4, "\xff\xfe");
  EXPECT_EQ(said(validate(plan("DiscoverRequest"), text)), "region is not UTF-8\n");
  put_bytes(time, 3, std::string("\x08\x01\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"));
  EXPECT_EQ(said(validate(plan("GetTaskStatusRequest"), time)), "id is required\nwait is not a valid duration\n");
  EXPECT_EQ(validate(plan("DiscoverRequest"), "\x0a\x05x").reason(), "WIRE_INVALID");
  EXPECT_EQ(validate(plan("DiscoverRequest"), std::string(limits::kMessageBytesMax + 1, 'x')).reason(),
            "REQUEST_TOO_LARGE");
}

TEST(Validate, MergedMessagesAreCheckedAsOne) {
  std::string bytes;
  for (const char* path : {"service.service_name", "service.address"}) {
    set_string(*FieldPath::compile(plan("RegisterRequest"), path), bytes, "a");
  }
  set_uint(*FieldPath::compile(plan("RegisterRequest"), "service.port"), bytes, 80);
  EXPECT_TRUE(validate(plan("RegisterRequest"), bytes).is_ok());
  EXPECT_EQ(*canonical(plan("RegisterRequest"), bytes),
            *json_to_wire(plan("RegisterRequest"), R"({"service":{"serviceName":"a","address":"a","port":80}})"));
}

TEST(Validate, AtMostTwentyViolations) {
  std::string bytes;
  for (uint32_t i = 0; i < 50; ++i) put_uint(bytes, 1000 + i, 1);
  const Status status = validate(plan("DiscoverRequest"), bytes);
  EXPECT_EQ(status.detail().fields.size(), kViolationsMax);
  EXPECT_NE(status.message().find("49 more"), std::string::npos);
}

}  // namespace
}  // namespace uccp::call
