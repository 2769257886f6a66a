// TasksService, the part about graphs of tasks, checkpoints, and tasks that begin anew.
#include <algorithm>

#include "call/command.h"
#include "call/validate.h"
#include "services/feature_types.h"
#include "services/tasks/task_arrays.h"
#include "services/tasks/task_checks.h"
#include "services/tasks/task_graph.h"
#include "services/tasks/tasks_service.h"

namespace uccp::tasks {
namespace {

using call::CallPtr;
using internal::v1::TaskRow;
using v1::Task;

// A checkpoint is in the row of its task, which is written with each change: larger states go by reference.
constexpr size_t kCheckpointBytesMax = 64u << 10;
// Inputs of a task of a graph, those from other tasks of it included.
constexpr int kGraphInputsMax = 1'024;

// What the checks of one task say, with which of them it is.
Status of_task(const Status& status, int place, const std::string& key) {
  Status named(status.code(), status.reason(),
               "tasks[" + std::to_string(place) + "] (" + key + "): " + status.message());
  for (const auto& field : status.detail().fields) {
    named = std::move(named).with_field("tasks[" + std::to_string(place) + "]." + field.field, field.description,
                                        field.example);
  }
  return named;
}

void add_input(const std::string& path, const std::string& source, const std::string& file, v1::Task& task) {
  v1::Input& input = *task.add_inputs();
  input.set_path(path);
  input.mutable_task_output()->set_task_id(source);
  input.mutable_task_output()->set_path(file);
}

// Of an array each element hands on its own file, which gets into a folder named by the index.
Status add_dependencies(const v1::GraphTask& item, const std::map<std::string, const Task*>& earlier, Task& task) {
  for (const v1::GraphDependency& after : item.after()) {
    const Task& source = *earlier.at(after.key());
    v1::Dependency& dependency = *task.add_dependencies();
    dependency.set_task_id(source.id());
    dependency.set_condition(after.condition());
    const int64_t inputs = task.inputs_size() + int64_t{after.files_size()} * std::max(1, source.array().size());
    if (inputs > kGraphInputsMax) {
      return invalid_field("after", "makes " + std::to_string(inputs) +
                                        " inputs, one for each file and element; at most " +
                                        std::to_string(kGraphInputsMax) + " are taken");
    }
    for (const std::string& file : after.files()) {
      if (!source.has_array()) add_input(file, source.id(), file, task);
      for (uint32_t i = 0; i < static_cast<uint32_t>(source.array().size()); ++i)
        add_input(std::to_string(i) + "/" + file, element_id(source.id(), i), file, task);
    }
  }
  return Status::ok();
}

}  // namespace

Result<internal::v1::ScheduleGraphCommand> TasksService::graph_of(const CallPtr& call,
                                                                  const v1::ScheduleTaskGraphRequest& request) {
  UCCP_TRY(const std::vector<int> order, order_of(request));
  internal::v1::ScheduleGraphCommand command;
  std::map<std::string, const Task*> earlier;
  for (const int place : order) {
    const v1::GraphTask& item = request.tasks(place);
    TaskRow& row = *command.add_rows();
    row.set_cancel_grace_ms(-1);
    v1::Task& task = *row.mutable_task();
    UCCP_TRY(const std::string canonical,
             call::canonical(call::Contract::get().plan("uccp.v1.Task"), item.task().SerializeAsString()));
    (void)task.ParseFromString(canonical);
    if (Status status = add_dependencies(item, earlier, task); !status.is_ok())
      return fail(of_task(status, place, item.key()));
    if (Status status = prepare(task, call->name_space); !status.is_ok())
      return fail(of_task(status, place, item.key()));
    if (task.has_trigger()) {
      const Status status = env_.may_subscribe(*call, task.trigger().topic());
      if (!status.is_ok()) return fail(of_task(status, place, item.key()));
    }
    task.set_principal(call->principal.name);
    earlier[item.key()] = &task;
  }
  return command;
}

void TasksService::schedule_graph(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::ScheduleTaskGraphRequest>(bytes);
  if (!request) return call->finish(request.error());
  if (Status level = services::check_feature_level(env_.feature_level(), services::kSchedulingLevel); !level.is_ok())
    return call->finish(std::move(level));
  auto command = graph_of(call, *request);
  if (!command) return call->finish(command.error());
  if (request->validate_only()) {
    v1::ScheduleTaskGraphResponse response;
    for (TaskRow& row : *command->mutable_rows()) *response.add_tasks() = std::move(*row.mutable_task());
    return call->reply(response.SerializeAsString());
  }
  store(call, std::move(*command->mutable_rows()), [this, call, bytes = std::move(bytes)](Rows rows) {
    internal::v1::ScheduleGraphCommand stored;
    *stored.mutable_rows() = std::move(rows);
    propose(call, call::make_envelope(*call, bytes, "tasks.schedule_graph", stored.SerializeAsString()));
  });
}

void TasksService::resume(const CallPtr& call, std::string bytes) {
  if (Status level = services::check_feature_level(env_.feature_level(), services::kSchedulingLevel); !level.is_ok())
    return call->finish(std::move(level));
  propose(call, call::make_envelope(*call, bytes, "tasks.resume", bytes));
}

void TasksService::save_checkpoint(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::SaveCheckpointRequest>(bytes);
  if (!request) return call->finish(request.error());
  if (Status level = services::check_feature_level(env_.feature_level(), services::kSchedulingLevel); !level.is_ok())
    return call->finish(std::move(level));
  const v1::Payload& state = request->checkpoint().state();
  if (!state.has_data() && !state.has_text() && !state.has_json())
    return call->finish(invalid_field("checkpoint.state", "needs text, json or data", R"({"text":"1000"})"));
  if (state.ByteSizeLong() > kCheckpointBytesMax) {
    return call->finish(Status(Code::kInvalid, "CHECKPOINT_TOO_LARGE",
                               "checkpoint.state has more than " + std::to_string(kCheckpointBytesMax >> 10) +
                                   " KiB; keep it as an artifact or elsewhere, and its name here")
                            .with_field("checkpoint.state", "is too large"));
  }
  read_task(call, request->id(),
            [this, call, bytes = std::move(bytes), request = std::move(*request)](Result<TaskRow> row) mutable {
              if (!row) return call->finish(row.error());
              const auto live = env_.live.find({call->principal.tenant, call->name_space, request.id()});
              if (!live || !live->started) {
                return call->finish(Status(Code::kFailedPrecondition, "TASK_NOT_RUNNING",
                                           "no attempt of the task runs; checkpoints are of what runs"));
              }
              request.mutable_checkpoint()->set_attempt(live->id.attempt_number());
              propose(call, call::make_envelope(*call, bytes, "tasks.checkpoint", request.SerializeAsString()));
            });
}

}  // namespace uccp::tasks
