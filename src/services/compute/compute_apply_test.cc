// The commands of functions, applied by a machine.
#include <gtest/gtest.h>

#include "machine/machine.h"
#include "services/compute/compute_state.h"
#include "storage/memory/memory_kv.h"

namespace uccp::compute {
namespace {

class ComputeStateTest : public ::testing::Test {
 protected:
  ComputeStateTest() : machine_(kWorkGroup, kv_, {&compute_}) { EXPECT_TRUE(machine_.open().is_ok()); }

  machine::ApplyResult apply(std::string command, std::string payload, std::string name_space = "n") {
    machine::Envelope e;
    e.scope = {"t", std::move(name_space)};
    e.principal = "alice";
    e.command = std::move(command);
    e.payload = std::move(payload);
    e.boot = {1'000'000};
    const Entry entry{Term(1), machine_.applied().next(), EntryKind::kCommand, machine::encode_envelope(e)};
    auto batch = machine_.apply({&entry, 1});
    EXPECT_TRUE(batch.has_value());
    EXPECT_TRUE(machine_.verify_digest().is_ok());
    return std::move(batch->results[0].result);
  }
  machine::ApplyResult add(const std::string& name, const std::string& version, char content,
                           uint64_t versions_max = 100, const std::string& name_space = "n") {
    internal::v1::RegisterFunctionCommand command;
    command.mutable_row()->mutable_function()->set_name(name);
    command.mutable_row()->mutable_function()->set_version(version);
    command.mutable_row()->mutable_bundle()->set_sha256(std::string(64, content));
    command.set_versions_max(versions_max);
    return apply("compute.register", command.SerializeAsString(), name_space);
  }
  machine::ApplyResult remove(const std::string& name, const std::string& version = "") {
    internal::v1::RemoveFunctionCommand command;
    command.set_name(name);
    command.set_version(version);
    return apply("compute.remove", command.SerializeAsString());
  }
  // The version that a call without one gets; empty: there is no such function.
  std::string newest(const std::string& name, const std::string& name_space = "n") {
    const auto row = find_function(machine_.view(), {"t", name_space}, name, "");
    return row ? row->function().version() : "";
  }

  storage::MemoryKv kv_;
  ComputeState compute_;
  machine::Machine machine_;
};

TEST_F(ComputeStateTest, TheNewestVersionIsTheOneStoredLast) {
  ASSERT_TRUE(add("f", "2", 'a'));
  ASSERT_TRUE(add("f", "1", 'b'));
  EXPECT_EQ(newest("f"), "1");
  ASSERT_TRUE(add("f", "2", 'a')) << "the same again is no new one";
  EXPECT_EQ(newest("f"), "1");
  EXPECT_EQ(find_function(machine_.view(), {"t", "n"}, "f", "2")->bundle().sha256(), std::string(64, 'a'));
}

TEST_F(ComputeStateTest, AVersionNeverChanges) {
  ASSERT_TRUE(add("f", "1", 'a'));
  EXPECT_EQ(add("f", "1", 'b').error().reason(), "FUNCTION_VERSION_EXISTS");
  EXPECT_EQ(find_function(machine_.view(), {"t", "n"}, "f", "1")->bundle().sha256(), std::string(64, 'a'));
}

TEST_F(ComputeStateTest, RemovingTheNewestLeavesTheOneBeforeIt) {
  ASSERT_TRUE(add("f", "b", 'a'));
  ASSERT_TRUE(add("f", "c", 'b'));
  ASSERT_TRUE(add("f", "a", 'c'));
  ASSERT_TRUE(remove("f", "a"));
  EXPECT_EQ(newest("f"), "c");
  ASSERT_TRUE(remove("f", "b"));
  EXPECT_EQ(newest("f"), "c");
  ASSERT_TRUE(remove("f"));
  EXPECT_EQ(newest("f"), "");
  EXPECT_EQ(remove("f").error().reason(), "FUNCTION_NOT_FOUND");
}

TEST_F(ComputeStateTest, NamesThatBeginAlikeAreApart) {
  ASSERT_TRUE(add("f", "1", 'a'));
  ASSERT_TRUE(add("f.more", "1", 'b'));
  ASSERT_TRUE(remove("f"));
  EXPECT_EQ(newest("f.more"), "1");
}

TEST_F(ComputeStateTest, NamespacesAreApartAndHaveALimitEach) {
  ASSERT_TRUE(add("f", "1", 'a', 2));
  ASSERT_TRUE(add("g", "1", 'a', 2));
  EXPECT_EQ(add("h", "1", 'a', 2).error().reason(), "FUNCTIONS_EXHAUSTED");
  ASSERT_TRUE(add("g", "1", 'a', 2)) << "what is there already needs no place";
  ASSERT_TRUE(add("h", "1", 'a', 2, "other"));
  EXPECT_EQ(newest("g", "other"), "");
  ASSERT_TRUE(remove("f"));
  EXPECT_TRUE(add("h", "1", 'a', 2)) << "a removal makes place";
}

}  // namespace
}  // namespace uccp::compute
