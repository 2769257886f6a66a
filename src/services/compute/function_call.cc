#include "services/compute/function_call.h"

#include <algorithm>
#include <functional>

#include "services/compute/object_state.h"

namespace uccp::compute {
namespace {

constexpr double kCpuDefault = 1;
constexpr uint64_t kMemoryDefault = 256ull << 20;
constexpr int64_t kTimeoutDefaultS = 300;

void for_each_argument(v1::FunctionCall& call, const std::function<void(v1::Payload&, std::string)>& visit) {
  for (int i = 0; i < call.args_size(); ++i) {
    visit(*call.mutable_args(i), functions::argument_input(static_cast<size_t>(i)));
  }
  for (auto& [name, payload] : *call.mutable_kwargs()) visit(payload, functions::argument_input(name));
}

// What has to end first: what the request names, and the tasks whose values are arguments.
void add_dependencies(v1::Task& task) {
  for_each_argument(*task.mutable_function(), [&](v1::Payload& payload, const std::string& input) {
    if (payload.has_blob()) {
      v1::Input& added = *task.add_inputs();
      added.set_path(input);
      *added.mutable_blob() = payload.blob();
    }
    if (!payload.has_object()) return;
    const v1::ObjectRef& object = payload.object();
    const auto depends = [&](const v1::Dependency& d) { return d.task_id() == object.key(); };
    if (std::ranges::none_of(task.dependencies(), depends)) task.add_dependencies()->set_task_id(object.key());
  });
}

}  // namespace

Status use_objects(const machine::KeyReader& state, const machine::Scope& scope, int64_t now_ms,
                   const objectstores::MayRead& may_read, v1::SubmitTaskRequest& request) {
  Status status;
  for_each_argument(*request.mutable_function(), [&](v1::Payload& payload, const std::string&) {
    if (!status.is_ok() || !payload.has_object() || payload.object().store() == functions::kTaskValueStore) return;
    const auto row = objectstores::referred_object(state, scope, payload.object(), now_ms, may_read);
    if (!row) {
      status = row.error();
      return;
    }
    *payload.mutable_blob() = row->blob();
    if (payload.content_type().empty()) payload.set_content_type(row->object().content_type());
  });
  return status;
}

v1::Task task_of(const v1::SubmitTaskRequest& request, const internal::v1::FunctionRow& row) {
  const v1::Function& function = row.function();
  v1::Task task;
  task.set_type(v1::TASK_TYPE_FUNCTION);
  task.set_executor(v1::EXECUTOR_FUNCTION);
  task.set_name(request.name().empty() ? function.name() : request.name());
  if (request.has_priority()) task.set_priority(request.priority());
  *task.mutable_function() = request.function();
  task.mutable_function()->set_version(function.version());
  *task.mutable_resources() = request.has_resources() ? request.resources() : function.resources();
  if (task.resources().cpu() == 0) task.mutable_resources()->set_cpu(kCpuDefault);
  if (task.resources().memory() == 0) task.mutable_resources()->set_memory(kMemoryDefault);
  if (request.has_retry()) *task.mutable_retry() = request.retry();
  else if (function.has_retry()) *task.mutable_retry() = function.retry();
  if (request.has_timeout()) *task.mutable_timeout() = request.timeout();
  else if (function.has_timeout()) *task.mutable_timeout() = function.timeout();
  else if (!request.function().has_actor()) task.mutable_timeout()->set_seconds(kTimeoutDefaultS);
  task.mutable_dependencies()->CopyFrom(request.dependencies());
  *task.mutable_env() = function.env();
  for (const auto& [name, value] : request.env()) (*task.mutable_env())[name] = value;
  *task.mutable_labels() = request.labels();
  (*task.mutable_node_selector())[std::string(functions::kRuntimeLabel)] = function.runtime();
  v1::Input& bundle = *task.add_inputs();
  bundle.set_path(std::string(functions::kBundleInput));
  *bundle.mutable_blob() = row.bundle();
  add_dependencies(task);
  return task;
}

std::vector<LargeArgument> large_arguments(v1::Task& task) {
  std::vector<LargeArgument> large;
  for_each_argument(*task.mutable_function(), [&](v1::Payload& payload, std::string input) {
    if (payload.data().size() + payload.text().size() <= kInlineArgumentBytes) return;
    large.push_back({.payload = &payload, .input = std::move(input)});
  });
  return large;
}

void refer_to_blob(v1::Task& task, const LargeArgument& argument, const v1::Blob& blob) {
  if (argument.payload->has_text()) argument.payload->set_content_type("text/plain; charset=utf-8");
  *argument.payload->mutable_blob() = blob;
  v1::Input& added = *task.add_inputs();
  added.set_path(argument.input);
  *added.mutable_blob() = blob;
}

}  // namespace uccp::compute
