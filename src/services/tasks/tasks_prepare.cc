// TasksService, the part that checks and completes a task before it is proposed.
#include <algorithm>
#include <cmath>

#include "call/listing.h"
#include "services/container_names.h"
#include "services/feature_types.h"
#include "services/ray_names.h"
#include "services/tasks/cron.h"
#include "services/tasks/task_arrays.h"
#include "services/tasks/task_checks.h"
#include "services/tasks/tasks_service.h"
#include "uccp/v1/events.pb.h"

namespace uccp::tasks {
namespace {

// The last part of a path as a task's name: what a name may not hold becomes '-', and it begins with a letter or digit.
std::string name_of(std::string_view program) {
  constexpr size_t kNameBytesMax = 128;
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); };
  while (program.ends_with('/')) program.remove_suffix(1);
  std::string name(program.substr(program.rfind('/') + 1));
  for (char& c : name) {
    if (!plain(c) && c != '.' && c != '_') c = '-';
  }
  name.erase(name.begin(), std::ranges::find_if(name, plain));
  if (name.size() > kNameBytesMax) name.resize(kNameBytesMax);
  return name.empty() ? "task" : name;
}

Status check_share(const v1::Task& task) {
  const v1::GpuRequest& gpu = task.resources().gpu();
  if (gpu.count() != std::round(gpu.count() * 100) / 100) {
    return invalid_field("task.resources.gpu.count", "below 1 must be a multiple of 0.01", "0.25");
  }
  if (gpu.sharing() != v1::GPU_SHARING_TIME_SLICE) {
    return Status(Code::kInvalid, "GPU_SHARE_EXCLUSIVE",
                  "a share of a GPU is used by turns with other tasks of the namespace, which can read and fill its "
                  "memory; ask for TIME_SLICE to allow that, or for a whole GPU")
        .with_field("task.resources.gpu.sharing", "must be TIME_SLICE with a count below 1", "TIME_SLICE");
  }
  if (task.has_gang())
    return invalid_field("task.resources.gpu.count", "must be whole in a gang, whose tasks do not take turns", "1");
  return Status::ok();
}

// What is asked of devices and is not built is refused: placed without it, the task would run on the wrong ones.
Status check_devices(const v1::Task& task) {
  const v1::GpuRequest& gpu = task.resources().gpu();
  if (gpu.sharing() == v1::GPU_SHARING_MPS || gpu.sharing() == v1::GPU_SHARING_MIG || !gpu.mig_profile().empty()) {
    return Status(Code::kInvalid, "GPU_FEATURE_UNIMPLEMENTED",
                  "MPS and MIG partitions are not built yet; whole GPUs and shares by TIME_SLICE are");
  }
  if (gpu.count() > 0 && gpu.count() < 1) return check_share(task);
  if (gpu.count() != std::floor(gpu.count()))
    return invalid_field("task.resources.gpu.count", "above 1 must be a whole number", "2");
  if (gpu.sharing() != v1::GPU_SHARING_TIME_SLICE) return Status::ok();
  return invalid_field("task.resources.gpu.sharing", "can be TIME_SLICE only with a count below 1", "EXCLUSIVE");
}

Status check_selector(const std::string& text, const std::string& field) {
  const auto selector = call::LabelSelector::compile(text, field);
  return selector ? Status::ok() : selector.error();
}

Status check_affinity(const v1::Affinity& affinity) {
  const std::string field = "task.affinity.";
  const auto item = [&](const char* list, int i) { return field + list + "[" + std::to_string(i) + "]"; };
  for (int i = 0; i < affinity.worker_required_size(); ++i) {
    UCCP_RETURN_IF_ERROR(check_selector(affinity.worker_required(i), item("workerRequired", i)));
  }
  for (int i = 0; i < affinity.worker_preferred_size(); ++i) {
    UCCP_RETURN_IF_ERROR(
        check_selector(affinity.worker_preferred(i).selector(), item("workerPreferred", i) + ".selector"));
  }
  for (int i = 0; i < affinity.near_tasks_size(); ++i) {
    UCCP_RETURN_IF_ERROR(check_selector(affinity.near_tasks(i).selector(), item("nearTasks", i) + ".selector"));
  }
  for (int i = 0; i < affinity.away_from_tasks_size(); ++i) {
    UCCP_RETURN_IF_ERROR(
        check_selector(affinity.away_from_tasks(i).selector(), item("awayFromTasks", i) + ".selector"));
  }
  return Status::ok();
}

Status check_type(const v1::Task& task) {
  switch (task.type()) {
    case v1::TASK_TYPE_BATCH:
    case v1::TASK_TYPE_SERVICE:
    case v1::TASK_TYPE_STREAMING:
    case v1::TASK_TYPE_INTERACTIVE:
    case v1::TASK_TYPE_PIPELINE:
    case v1::TASK_TYPE_MAP_REDUCE:
    case v1::TASK_TYPE_CRON:
    case v1::TASK_TYPE_EVENT:
    case v1::TASK_TYPE_SYSTEM: break;
    default:
      return Status(Code::kInvalid, "TASK_TYPE_UNIMPLEMENTED",
                    "tasks of type " + v1::TaskType_Name(task.type()).substr(10) +
                        " are not built yet; BATCH, SERVICE, STREAMING, INTERACTIVE, PIPELINE, MAP_REDUCE, CRON, EVENT "
                        "and SYSTEM are")
          .with_field("task.type", "is not built yet", "BATCH");
  }
  if (task.has_trigger() != (task.type() == v1::TASK_TYPE_EVENT)) {
    return task.has_trigger()
               ? invalid_field("task.trigger", "is only for tasks of type EVENT")
               : invalid_field("task.trigger", "is needed by tasks of type EVENT", R"({"topic":"orders.*"})");
  }
  if (task.has_schedule() == (task.type() == v1::TASK_TYPE_CRON)) return Status::ok();
  return task.has_schedule()
             ? invalid_field("task.schedule", "is only for tasks of type CRON")
             : invalid_field("task.schedule", "is needed by tasks of type CRON", R"({"cron":"@daily"})");
}

// What an array may not say: its elements share one row, and their ids are its own with an index.
Status check_array(const v1::Task& task) {
  constexpr size_t kArrayIdBytesMax = 121;
  if (!task.has_array()) return Status::ok();
  if (task.type() != v1::TASK_TYPE_BATCH && task.type() != v1::TASK_TYPE_MAP_REDUCE)
    return invalid_field("task.array", "is only for tasks of type BATCH and MAP_REDUCE");
  if (task.has_gang()) return invalid_field("task.gang", "is not for arrays, whose elements start one by one");
  if (task.has_queue_timeout())
    return invalid_field("task.queueTimeout", "is not for arrays, whose elements wait for each other; deadline is");
  if (task.id().size() <= kArrayIdBytesMax) return Status::ok();
  return invalid_field("task.id", "has more than " + std::to_string(kArrayIdBytesMax) +
                                      " characters, and the elements of the array get longer ones");
}

Status check_gang(const v1::Gang& gang) {
  if (gang.min_size() > gang.size())
    return invalid_field("task.gang.minSize", "is greater than the size of the gang", std::to_string(gang.size()));
  if (!gang.fail_together()) return Status::ok();
  return Status(Code::kInvalid, "TASK_FEATURE_UNIMPLEMENTED", "gangs whose tasks fail together are not built yet")
      .with_field("task.gang.failTogether", "must be absent or false");
}

Status check_filter(const v1::EventTrigger& trigger) {
  const auto filter = call::Filter::compile(call::Contract::get().plan("uccp.v1.Event"), trigger.filter());
  return filter ? Status::ok() : filter.error();
}

// What a task that makes tasks may not say: it never runs itself, and the ids of those that it makes are its own with a
// number.
Status check_maker(const v1::Task& task, WallTime now) {
  constexpr size_t kMakerIdBytesMax = 100;
  if (!work::makes_tasks(task.type())) return Status::ok();
  if (task.id().size() > kMakerIdBytesMax) {
    return invalid_field("task.id", "has more than " + std::to_string(kMakerIdBytesMax) +
                                        " characters, and the tasks that it makes get longer ones");
  }
  if (task.dependencies_size() > 0 || task.has_gang() || task.has_deadline() || task.has_queue_timeout()) {
    return Status(Code::kInvalid, "TASK_MAKER_LIMITED",
                  "a task of type " + v1::TaskType_Name(task.type()).substr(10) +
                      " makes tasks and waits for none: dependencies, gang, deadline and queueTimeout are not for it")
        .with_field("task", "must have no dependencies, gang, deadline and queueTimeout");
  }
  if (task.has_trigger() && !task.stdin().empty())
    return invalid_field("task.stdin", "is the content of the event in tasks that it triggers");
  if (task.has_trigger()) return check_filter(task.trigger());
  if (!task.has_schedule()) return Status::ok();
  const auto cron = check_schedule(task.schedule(), now.us);
  return cron ? Status::ok() : cron.error();
}

Status check_executor(v1::Task& task) {
  if (task.executor() == v1::EXECUTOR_UNSPECIFIED)
    task.set_executor(task.has_container() ? v1::EXECUTOR_CONTAINER : v1::EXECUTOR_PROCESS);
  if (task.executor() != v1::EXECUTOR_PROCESS && task.executor() != v1::EXECUTOR_CONTAINER &&
      task.executor() != v1::EXECUTOR_RAY) {
    return Status(Code::kInvalid, "EXECUTOR_UNIMPLEMENTED",
                  "tasks of the executor " + v1::Executor_Name(task.executor()).substr(9) +
                      " are not built; PROCESS, CONTAINER and RAY are, functions are called by SubmitTask");
  }
  const bool in_container = task.executor() == v1::EXECUTOR_CONTAINER;
  if (task.has_function()) return invalid_field("task.function", "is for SubmitTask; this method runs commands");
  if (task.has_container() != in_container)
    return invalid_field("task.container",
                         in_container ? "is required by the executor CONTAINER" : "needs the executor CONTAINER");
  if (task.command().empty() ? !in_container : task.command(0).empty())
    return invalid_field("task.command", "must name a program", R"(["sh","-c","echo hello"])");
  if (task.executor() == v1::EXECUTOR_RAY)
    (*task.mutable_node_selector())[std::string(ray::kLabel)] = std::string(ray::kJobs);
  if (!in_container) return Status::ok();
  const std::string& user = task.container().user();
  if (!user.empty() && user != "root" && user != "0" && user != "0:0") {
    return invalid_field("task.container.user",
                         "can only be root: containers have one user, which has no rights outside of them", "root");
  }
  (*task.mutable_node_selector())[std::string(containers::kLabel)] = std::string(containers::kOci);
  return Status::ok();
}

}  // namespace

Status TasksService::check_level(const v1::Task& task) const {
  const bool is_new = task.type() != v1::TASK_TYPE_BATCH || task.has_deadline() || task.has_array() ||
                      task.has_gang() || task.retry().has_budget() || task.retry().non_retryable_size() > 0;
  return is_new ? services::check_feature_level(env_.feature_level(), services::kSchedulingLevel) : Status::ok();
}

// Checks what field options cannot say, and fills defaults.
Status TasksService::prepare(v1::Task& task, const std::string& name_space) {
  if (task.type() == v1::TASK_TYPE_UNSPECIFIED) task.set_type(v1::TASK_TYPE_BATCH);
  UCCP_RETURN_IF_ERROR(check_type(task));
  UCCP_RETURN_IF_ERROR(check_executor(task));
  UCCP_RETURN_IF_ERROR(check_gang(task.gang()));
  if (!task.working_dir().empty() && !stays_inside(task.working_dir())) {
    return invalid_field("task.workingDir", "must be relative and stay inside the task's folder", "src");
  }
  for (int i = 0; i < task.outputs_size(); ++i) {
    if (!stays_inside(task.outputs(i))) {
      return invalid_field("task.outputs[" + std::to_string(i) + "]",
                           "must be relative and stay inside the task's folder", "out/**");
    }
  }
  if (task.name().empty()) task.set_name(name_of(task.command().empty() ? task.container().image() : task.command(0)));
  task.set_namespace_(name_space);
  if (!task.has_priority()) task.set_priority(work::kPriorityDefault);
  if (task.id().empty()) task.set_id(make_id());
  UCCP_RETURN_IF_ERROR(check_maker(task, env_.clock.wall()));
  UCCP_RETURN_IF_ERROR(check_array(task));
  for (const v1::Dependency& dependency : task.dependencies()) {
    if (dependency.task_id() != task.id()) continue;
    return Status(Code::kInvalid, "DEPENDENCY_CYCLE",
                  "the task would wait for itself: " + task.id() + " -> " + task.id())
        .with_field("task.dependencies", "names the task itself");
  }
  for (int i = 0; i < task.inputs_size(); ++i) {
    UCCP_RETURN_IF_ERROR(check_input(task, i));
    if (!task.inputs(i).has_task_output()) continue;
    const std::string& source = task.inputs(i).task_output().task_id();
    const auto element = element_of(source);
    const auto depends = [&](const v1::Dependency& d) {
      return d.task_id() == source || (element && d.task_id() == element->array);
    };
    if (std::ranges::none_of(task.dependencies(), depends)) task.add_dependencies()->set_task_id(source);
  }
  for (int i = 0; i < task.tolerations_size(); ++i) {
    if (!task.tolerations(i).has_duration()) continue;
    return Status(Code::kInvalid, "TOLERATION_DURATION_UNIMPLEMENTED", "tolerations for a time are not built yet")
        .with_field("task.tolerations[" + std::to_string(i) + "].duration", "must be absent");
  }
  UCCP_RETURN_IF_ERROR(check_affinity(task.affinity()));
  return check_devices(task);
}

}  // namespace uccp::tasks
