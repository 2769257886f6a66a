// The commands of object stores, applied by a machine.
#include "services/compute/object_state.h"

#include <gtest/gtest.h>

#include "machine/machine.h"
#include "services/compute/compute_state.h"
#include "services/compute/function_call.h"
#include "storage/memory/memory_kv.h"

namespace uccp::compute {
namespace {

class ObjectStateTest : public ::testing::Test {
 protected:
  ObjectStateTest() : machine_(kWorkGroup, kv_, {&compute_}) { EXPECT_TRUE(machine_.open().is_ok()); }

  machine::ApplyResult apply(const std::string& command, const google::protobuf::Message& payload) {
    machine::Envelope e;
    e.scope = scope_;
    e.principal = "alice";
    e.command = "compute." + command;
    e.payload = payload.SerializeAsString();
    e.boot = {boot_us_};
    const Entry entry{Term(1), machine_.applied().next(), EntryKind::kCommand, machine::encode_envelope(e)};
    auto batch = machine_.apply({&entry, 1});
    EXPECT_TRUE(batch.has_value());
    EXPECT_TRUE(machine_.verify_digest().is_ok());
    return std::move(batch->results[0].result);
  }
  machine::ApplyResult create(const std::string& name, const std::function<void(v1::ObjectStore&)>& change = {}) {
    internal::v1::PutObjectStoreCommand command;
    command.mutable_store()->set_name(name);
    if (change) change(*command.mutable_store());
    command.set_stores_max(3);
    return apply("put_store", command);
  }
  machine::ApplyResult put(const std::string& key, uint64_t size = 10, const std::string& if_match = "", int ttl_s = 0,
                           const std::string& store = "default") {
    internal::v1::PutObjectCommand command;
    command.mutable_object()->set_store(store);
    command.mutable_object()->set_key(key);
    if (ttl_s > 0) command.mutable_object()->mutable_ttl()->set_seconds(ttl_s);
    command.mutable_blob()->set_size(size);
    command.mutable_blob()->set_sha256(std::string(64, 'a'));
    command.set_if_match(if_match);
    command.set_objects_max(4);
    return apply("put_object", command);
  }
  machine::ApplyResult remove(const std::string& key, const std::string& version = "",
                              const std::string& store = "default") {
    internal::v1::RemoveObjectCommand command;
    command.set_store(store);
    command.set_key(key);
    command.set_version(version);
    return apply("remove_object", command);
  }
  std::optional<internal::v1::ObjectRow> find(const std::string& key, const std::string& version = "",
                                              const std::string& store = "default") {
    const auto view = machine_.view();
    return objectstores::find_object(view, scope_, store, key, version, view.machine_time_ms());
  }
  v1::ObjectStore store(const std::string& name = "default") { return *find_store(machine_.view(), scope_, name); }
  static v1::Object parsed(const machine::ApplyResult& result) {
    v1::Object object;
    EXPECT_TRUE(result.has_value() && object.ParseFromString(*result));
    return object;
  }
  void pass_s(int64_t seconds) { boot_us_ += seconds * 1'000'000; }

  int64_t boot_us_ = 1'000'000;
  machine::Scope scope_{"t", "n"};
  storage::MemoryKv kv_;
  ComputeState compute_;
  machine::Machine machine_;
};

TEST_F(ObjectStateTest, TheDefaultStoreIsThereAndCounts) {
  EXPECT_EQ(store().objects(), 0);
  ASSERT_TRUE(put("a", 10));
  ASSERT_TRUE(put("b", 20));
  ASSERT_TRUE(put("a", 5)) << "another content takes the place of the one before";
  EXPECT_EQ(store().objects(), 2);
  EXPECT_EQ(store().size(), 25u);
  ASSERT_TRUE(remove("a"));
  EXPECT_EQ(store().objects(), 1);
  EXPECT_EQ(store().size(), 20u);
  EXPECT_EQ(remove("a").error().reason(), "OBJECT_NOT_FOUND");
}

TEST_F(ObjectStateTest, AnEtagGuardsAChange) {
  const v1::Object first = parsed(put("a"));
  EXPECT_EQ(put("a", 10, "wrong").error().reason(), "ETAG_MISMATCH");
  EXPECT_EQ(put("b", 10, first.etag()).error().reason(), "ETAG_MISMATCH");
  EXPECT_TRUE(put("a", 10, first.etag()));
}

TEST_F(ObjectStateTest, VersionsAreKeptAndTheOneBeforeComesBack) {
  ASSERT_TRUE(create("v", [](v1::ObjectStore& s) { s.set_versioning(true); }));
  const std::string one = parsed(put("a", 1, "", 0, "v")).version();
  const std::string two = parsed(put("a", 2, "", 0, "v")).version();
  const std::string three = parsed(put("a", 4, "", 0, "v")).version();
  EXPECT_EQ(find("a", one, "v")->blob().size(), 1u);
  EXPECT_EQ(find("a", "", "v")->object().version(), three);
  EXPECT_EQ(store("v").size(), 7u);
  EXPECT_EQ(store("v").objects(), 1);
  ASSERT_TRUE(remove("a", three, "v"));
  EXPECT_EQ(find("a", "", "v")->object().version(), two);
  ASSERT_TRUE(remove("a", one, "v"));
  EXPECT_FALSE(find("a", one, "v"));
  EXPECT_EQ(store("v").size(), 2u);
  ASSERT_TRUE(remove("a", "", "v"));
  EXPECT_EQ(store("v").objects(), 0);
  EXPECT_EQ(store("v").size(), 0u);
}

TEST_F(ObjectStateTest, WithoutVersioningThereIsOne) {
  const std::string one = parsed(put("a", 1)).version();
  ASSERT_TRUE(put("a", 2));
  EXPECT_FALSE(find("a", one));
}

TEST_F(ObjectStateTest, WhatIsOverIsNotThereAndGoes) {
  ASSERT_TRUE(create("short", [](v1::ObjectStore& s) { s.mutable_object_ttl()->set_seconds(100); }));
  ASSERT_TRUE(put("a", 10, "", 10));
  ASSERT_TRUE(put("b", 10, "", 0, "short"));
  ASSERT_TRUE(put("forever"));
  EXPECT_TRUE(find("a"));
  pass_s(11);
  ASSERT_TRUE(put("x"));
  EXPECT_FALSE(find("a"));
  EXPECT_EQ(store().objects(), 3) << "its row is there still";
  ASSERT_TRUE(apply("remove_over", internal::v1::RemoveObjectCommand()));
  EXPECT_EQ(store().objects(), 2);
  EXPECT_TRUE(find("b", "", "short"));
  pass_s(100);
  ASSERT_TRUE(apply("remove_over", internal::v1::RemoveObjectCommand()));
  EXPECT_EQ(store("short").objects(), 0);
  EXPECT_TRUE(find("forever"));
}

TEST_F(ObjectStateTest, LimitsHold) {
  ASSERT_TRUE(create("small", [](v1::ObjectStore& s) { s.set_bytes_max(100); }));
  ASSERT_TRUE(put("a", 60, "", 0, "small"));
  EXPECT_EQ(put("b", 41, "", 0, "small").error().reason(), "OBJECT_STORE_FULL");
  EXPECT_TRUE(put("a", 100, "", 0, "small")) << "what it replaces makes room";
  for (const char* key : {"1", "2", "3", "4"}) ASSERT_TRUE(put(key));
  EXPECT_EQ(put("5").error().reason(), "OBJECTS_EXHAUSTED");
  EXPECT_TRUE(put("4")) << "what is there already needs no place";
  ASSERT_TRUE(create("two"));
  EXPECT_EQ(create("three").error().reason(), "OBJECT_STORES_EXHAUSTED");
}

TEST_F(ObjectStateTest, StoresWithObjectsGoOnlyByForce) {
  ASSERT_TRUE(create("s"));
  EXPECT_EQ(create("s").error().reason(), "OBJECT_STORE_EXISTS");
  EXPECT_EQ(create("default").error().reason(), "OBJECT_STORE_EXISTS");
  ASSERT_TRUE(put("a", 1, "", 0, "s"));
  internal::v1::RemoveObjectStoreCommand command;
  command.set_name("s");
  EXPECT_EQ(apply("remove_store", command).error().reason(), "OBJECT_STORE_NOT_EMPTY");
  command.set_force(true);
  ASSERT_TRUE(apply("remove_store", command));
  EXPECT_FALSE(find("a", "", "s"));
  EXPECT_EQ(put("a", 1, "", 0, "s").error().reason(), "OBJECT_STORE_NOT_FOUND");
  command.set_name("default");
  EXPECT_EQ(apply("remove_store", command).error().reason(), "OBJECT_STORE_DEFAULT");
}

TEST_F(ObjectStateTest, NamesThatBeginAlikeAreApart) {
  ASSERT_TRUE(create("s"));
  ASSERT_TRUE(create("s2"));
  ASSERT_TRUE(put("a", 1, "", 0, "s2"));
  internal::v1::RemoveObjectStoreCommand command;
  command.set_name("s");
  ASSERT_TRUE(apply("remove_store", command)) << "it is empty";
  EXPECT_TRUE(find("a", "", "s2"));
}

TEST_F(ObjectStateTest, ArgumentsBecomeTheBlobsThatHoldThem) {
  ASSERT_TRUE(put("a", 33));
  v1::SubmitTaskRequest request;
  request.mutable_function()->add_args()->mutable_object()->set_key("a");
  const auto view = machine_.view();
  const auto may = [](const v1::GetObjectRequest&) { return Status::ok(); };
  const auto may_not = [](const v1::GetObjectRequest&) { return Status(Code::kPermission, "DENIED", "no"); };
  v1::SubmitTaskRequest refused = request;
  EXPECT_EQ(use_objects(view, scope_, view.machine_time_ms(), may_not, refused).reason(), "DENIED");
  ASSERT_TRUE(use_objects(view, scope_, view.machine_time_ms(), may, request).is_ok());
  EXPECT_EQ(request.function().args(0).blob().size(), 33u);
  request.mutable_function()->add_args()->mutable_object()->set_key("none");
  EXPECT_EQ(use_objects(view, scope_, view.machine_time_ms(), may, request).reason(), "OBJECT_NOT_FOUND");
}

}  // namespace
}  // namespace uccp::compute
