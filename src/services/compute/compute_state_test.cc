#include "services/compute/compute_state.h"

#include <gtest/gtest.h>

#include "services/compute/function_call.h"

namespace uccp::compute {
namespace {

internal::v1::FunctionRow row_of(const std::string& name, const std::string& version) {
  internal::v1::FunctionRow row;
  row.mutable_function()->set_name(name);
  row.mutable_function()->set_version(version);
  row.mutable_function()->set_runtime("python3.11");
  row.mutable_bundle()->set_sha256(std::string(64, 'a'));
  row.mutable_bundle()->set_size(10);
  return row;
}

v1::SubmitTaskRequest request_of(const std::string& name) {
  v1::SubmitTaskRequest request;
  request.mutable_function()->set_name(name);
  return request;
}

TEST(FunctionCall, WhatTheRequestDoesNotSayTheFunctionSays) {
  auto row = row_of("f", "1");
  row.mutable_function()->mutable_resources()->set_cpu(3);
  row.mutable_function()->mutable_retry()->set_max_attempts(4);
  (*row.mutable_function()->mutable_env())["A"] = "function";
  (*row.mutable_function()->mutable_env())["B"] = "function";
  auto request = request_of("f");
  (*request.mutable_env())["B"] = "call";
  const auto task = task_of(request, row);
  EXPECT_EQ(task.type(), v1::TASK_TYPE_FUNCTION);
  EXPECT_EQ(task.executor(), v1::EXECUTOR_FUNCTION);
  EXPECT_EQ(task.function().version(), "1");
  EXPECT_EQ(task.resources().cpu(), 3);
  EXPECT_EQ(task.resources().memory(), 256u << 20) << "a default where neither says it";
  EXPECT_EQ(task.retry().max_attempts(), 4);
  EXPECT_EQ(task.timeout().seconds(), 300);
  EXPECT_EQ(task.env().at("A"), "function");
  EXPECT_EQ(task.env().at("B"), "call");
  EXPECT_EQ(task.node_selector().at("uccp/functions"), "python3.11");
  ASSERT_EQ(task.inputs_size(), 1);
  EXPECT_EQ(task.inputs(0).path(), "function");
  EXPECT_EQ(task.inputs(0).blob().sha256(), std::string(64, 'a'));
}

TEST(FunctionCall, ValuesOfTasksBecomeDependenciesOnce) {
  auto request = request_of("f");
  for (int i = 0; i < 2; ++i) {
    auto& object = *request.mutable_function()->add_args()->mutable_object();
    object.set_store("tasks");
    object.set_key("task_1");
  }
  auto& named = *(*request.mutable_function()->mutable_kwargs())["x"].mutable_object();
  named.set_store("tasks");
  named.set_key("task_2");
  const auto task = task_of(request, row_of("f", "1"));
  ASSERT_EQ(task.dependencies_size(), 2);
  EXPECT_EQ(task.dependencies(0).task_id(), "task_1");
  EXPECT_EQ(task.dependencies(1).task_id(), "task_2");
}

TEST(FunctionCall, LargeArgumentsBecomeBlobsAndInputs) {
  auto request = request_of("f");
  request.mutable_function()->add_args()->set_data(std::string(kInlineArgumentBytes, 'x'));
  request.mutable_function()->add_args()->set_data(std::string(kInlineArgumentBytes + 1, 'x'));
  (*request.mutable_function()->mutable_kwargs())["t"].set_text(std::string(kInlineArgumentBytes + 1, 'x'));
  auto task = task_of(request, row_of("f", "1"));
  v1::Blob blob;
  blob.set_sha256(std::string(64, 'b'));
  const auto large = large_arguments(task);
  ASSERT_EQ(large.size(), 2u);
  EXPECT_EQ(large[0].input, "args/1");
  EXPECT_EQ(large[1].input, "kwargs/t");
  for (const LargeArgument& one : large) refer_to_blob(task, one, blob);
  EXPECT_TRUE(large_arguments(task).empty());
  EXPECT_TRUE(task.function().args(0).has_data());
  EXPECT_EQ(task.function().args(1).blob().sha256(), std::string(64, 'b'));
  EXPECT_EQ(task.function().kwargs().at("t").content_type(), "text/plain; charset=utf-8");
  ASSERT_EQ(task.inputs_size(), 3);
  EXPECT_EQ(task.inputs(2).path(), "kwargs/t");
}

}  // namespace
}  // namespace uccp::compute
