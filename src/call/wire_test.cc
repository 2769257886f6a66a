#include "call/wire.h"

#include <gtest/gtest.h>

#include "call/contract.h"
#include "call/json_codec.h"
#include "uccp/v1/discovery.pb.h"
#include "uccp/v1/tasks.pb.h"

namespace uccp::call {
namespace {

const MessagePlan& plan(const char* name) { return Contract::get().plan(std::string("uccp.v1.") + name); }
FieldPath path(const char* type, std::string_view text) { return *FieldPath::compile(plan(type), text); }

TEST(Wire, LengthsOfAllSizesNest) {
  for (const size_t size : {0, 1, 127, 128, 16383, 16384, 300000}) {
    std::string out;
    const size_t outer = begin_bytes(out, 1), inner = begin_bytes(out, 2);
    out.append(size, 'x');
    end_bytes(out, inner);
    end_bytes(out, outer);
    std::string expected, nested;
    put_bytes(nested, 2, std::string(size, 'x'));
    put_bytes(expected, 1, nested);
    EXPECT_EQ(out, expected);
  }
}

TEST(Wire, ReaderRefusesMalformedBytes) {
  const std::string cases[] = {std::string("\x08", 1),     std::string("\x0a\x05x", 3),
                               std::string("\x00\x01", 2), std::string("\x0b", 1),
                               std::string("\x0d\x01", 2), std::string("\x09\x01", 2),
                               std::string(11, '\xff'),    std::string("\x08") + std::string(9, '\xff') + "\x02"};
  for (const std::string& bytes : cases) {
    WireReader reader(bytes);
    WireField field;
    while (reader.next(field)) {}
    EXPECT_FALSE(reader.ok());
  }
}

TEST(FieldPath, ReadsAndSetsNestedFields) {
  uccp::v1::ScheduleTaskRequest request;
  request.mutable_task()->set_name("train");
  request.mutable_task()->set_priority(0);
  std::string bytes = request.SerializeAsString();
  EXPECT_EQ(get_string(path("ScheduleTaskRequest", "task.name"), bytes), "train");
  EXPECT_EQ(get_string(path("ScheduleTaskRequest", "task.namespace"), bytes), std::nullopt);
  EXPECT_EQ(get_uint(path("ScheduleTaskRequest", "task.priority"), bytes), 0u);
  EXPECT_TRUE(has_field(path("ScheduleTaskRequest", "task.priority"), bytes));
  EXPECT_FALSE(has_field(path("ScheduleTaskRequest", "requestId"), bytes));

  set_string(path("ScheduleTaskRequest", "task.namespace"), bytes, "blue");
  set_string(path("ScheduleTaskRequest", "request_id"), bytes, "r1");
  set_string(path("ScheduleTaskRequest", "task.name"), bytes, "other");
  ASSERT_TRUE(request.ParseFromString(bytes));
  EXPECT_EQ(request.task().name(), "other");
  EXPECT_EQ(request.task().namespace_(), "blue");
  EXPECT_EQ(request.request_id(), "r1");
  EXPECT_EQ(get_string(path("ScheduleTaskRequest", "task.name"), bytes), "other");
  EXPECT_EQ(get_text(path("ScheduleTaskRequest", "task.priority"), bytes), "0");
}

TEST(FieldPath, UnknownNamesAreRefusedWithASuggestion) {
  const auto wrong = FieldPath::compile(plan("ScheduleTaskRequest"), "task.namespce");
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().reason(), "FIELD_INVALID");
  EXPECT_EQ(wrong.error().detail().fields.at(0).example, "did you mean namespace?");
  EXPECT_FALSE(FieldPath::compile(plan("ScheduleTaskRequest"), "task.labels.a"));
  EXPECT_FALSE(FieldPath::compile(plan("ScheduleTaskRequest"), ""));
  EXPECT_EQ(path("ScheduleTaskRequest", "request_id").text(), "requestId");
}

TEST(FieldPath, AnotherMemberOfAOneofClears) {
  std::string bytes;
  put_bytes(bytes, 2, "text");  // Payload.text
  EXPECT_EQ(get_string(path("Payload", "text"), bytes), "text");
  put_bytes(bytes, 3, "data");
  EXPECT_EQ(get_string(path("Payload", "text"), bytes), std::nullopt);
  EXPECT_EQ(get_string(path("Payload", "data"), bytes), "data");
}

TEST(FieldPath, ItemsAndMergedMessages) {
  uccp::v1::DiscoverResponse response;
  response.add_services()->set_id("a");
  response.add_services()->set_id("b");
  const auto items = get_items(path("DiscoverResponse", "services"), response.SerializeAsString());
  EXPECT_EQ(items.size(), 2u);

  std::string bytes;
  set_string(path("ScheduleTaskRequest", "task.name"), bytes, "n");
  set_string(path("ScheduleTaskRequest", "task.id"), bytes, "i");
  uccp::v1::Task task;
  ASSERT_TRUE(task.ParseFromString(*get_message(path("ScheduleTaskRequest", "task"), bytes)));
  EXPECT_EQ(task.name() + task.id(), "ni");
}

TEST(FieldTree, ProjectsAMessage) {
  uccp::v1::ListServicesResponse response;
  response.set_next_page_token("next");
  response.add_services()->set_id("a");
  response.mutable_services(0)->set_address("10.0.0.1");
  response.mutable_services(0)->mutable_ttl()->set_seconds(30);
  (*response.mutable_services(0)->mutable_labels())["tier"] = "web";
  const std::vector<std::string> fields = {"services.id", "services.labels", "services.ttl", "nextPageToken"};
  const auto tree = FieldTree::compile(plan("ListServicesResponse"), fields);
  ASSERT_TRUE(tree);
  const auto bytes = project(plan("ListServicesResponse"), response.SerializeAsString(), *tree);
  ASSERT_TRUE(bytes);
  EXPECT_EQ(*wire_to_json(plan("ListServicesResponse"), *bytes, {.emit = Emit::kSet}),
            R"({"services":[{"id":"a","labels":{"tier":"web"},"ttl":"30s"}],"nextPageToken":"next"})");
  EXPECT_EQ(
      *wire_to_json(plan("ListServicesResponse"), response.SerializeAsString(), {.emit = Emit::kSet, .only = &*tree}),
      *wire_to_json(plan("ListServicesResponse"), *bytes, {.emit = Emit::kSet}));
}

TEST(FieldTree, RefusesUnknownFields) {
  const std::vector<std::string> wrong = {"services.nope"}, scalar = {"services.id.x"}, all = {"*"},
                                 map = {"services.labels.tier"};
  EXPECT_FALSE(FieldTree::compile(plan("ListServicesResponse"), wrong));
  EXPECT_FALSE(FieldTree::compile(plan("ListServicesResponse"), scalar));
  EXPECT_TRUE(FieldTree::compile(plan("ListServicesResponse"), map));
  const auto everything = FieldTree::compile(plan("ListServicesResponse"), all);
  ASSERT_TRUE(everything);
  uccp::v1::ListServicesResponse response;
  response.add_services()->set_id("a");
  EXPECT_EQ(*project(plan("ListServicesResponse"), response.SerializeAsString(), *everything),
            response.SerializeAsString());
}

TEST(Scan, SortsReducesAndMerges) {
  std::string bytes;
  put_bytes(bytes, 4, "late");   // DiscoverRequest.region
  put_bytes(bytes, 1, "first");  // name
  put_bytes(bytes, 1, "last");
  put_uint(bytes, 9999, 1);  // unknown
  std::vector<WireEntry> entries;
  ASSERT_TRUE(scan_message(plan("DiscoverRequest"), bytes, UnknownFields::kKeep, entries));
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].value.bytes, "last");
  EXPECT_EQ(entries[1].value.bytes, "late");
  EXPECT_EQ(entries[2].field, nullptr);
  std::string wrong_type;
  put_uint(wrong_type, 1, 5);
  EXPECT_FALSE(scan_message(plan("DiscoverRequest"), wrong_type, UnknownFields::kSkip, entries));
}

}  // namespace
}  // namespace uccp::call
