#include "services/tasks/function_values.h"

#include <string>

#include "services/function_types.h"
#include "services/work_types.h"

namespace uccp::tasks {
namespace {

Status resolve(const machine::KeyReader& state, const TaskRef& ref, v1::Payload& payload, const std::string& input,
               internal::v1::LaunchAttempt& launch) {
  if (!payload.has_object() || payload.object().store() != functions::kTaskValueStore) return Status::ok();
  const auto row = work::kTasks.get(state, {ref.tenant, ref.name_space}, payload.object().key());
  if (!row || row->task().status() != v1::TASK_STATUS_SUCCEEDED) {
    return Status(Code::kFailedPrecondition, "INPUT_MISSING",
                  "the argument " + input + " is the value of task " + payload.object().key() +
                      (row ? ", which did not succeed" : ", which is not kept any more"));
  }
  const v1::Payload value = row->task().value();
  payload = value;
  if (!payload.has_blob()) return Status::ok();
  auto& resolved = *launch.add_inputs();
  resolved.set_path(input);
  *resolved.mutable_blob() = payload.blob();
  return Status::ok();
}

}  // namespace

Status resolve_values(const machine::KeyReader& state, const TaskRef& ref, internal::v1::LaunchAttempt& launch) {
  if (!launch.task().has_function()) return Status::ok();
  v1::FunctionCall& call = *launch.mutable_task()->mutable_function();
  for (int i = 0; i < call.args_size(); ++i) {
    UCCP_RETURN_IF_ERROR(
        resolve(state, ref, *call.mutable_args(i), functions::argument_input(static_cast<size_t>(i)), launch));
  }
  for (auto& [name, payload] : *call.mutable_kwargs()) {
    UCCP_RETURN_IF_ERROR(resolve(state, ref, payload, functions::argument_input(name), launch));
  }
  return Status::ok();
}

}  // namespace uccp::tasks
