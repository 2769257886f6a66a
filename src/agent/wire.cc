#include "agent/wire.h"

#include <google/protobuf/util/json_util.h>

#include <cmath>

#include "agent/task_folder.h"
#include "services/function_names.h"

namespace uccp::agent {
namespace {

constexpr int64_t kGraceMs = 10'000;
constexpr int64_t kPidsDefault = 4096;
constexpr std::string_view kCheckpointFile = ".checkpoint";

int64_t cpu_millis(double cores) { return static_cast<int64_t>(std::llround(cores * 1000)); }

void add_checkpoint(const api::Checkpoint& checkpoint, AttemptSpec& spec) {
  spec.env.try_emplace("UCCP_CHECKPOINT_NAME", checkpoint.name());
  InputFile file{.path = std::string(kCheckpointFile), .mode = 0600};
  if (checkpoint.state().has_text()) file.data = checkpoint.state().text();
  if (checkpoint.state().has_data()) file.data = checkpoint.state().data();
  spec.env.try_emplace("UCCP_CHECKPOINT_FILE", std::string(kCheckpointFile));
  spec.inputs.push_back(std::move(file));
}

std::string json_of(const google::protobuf::Value& value) {
  std::string text;
  return google::protobuf::util::MessageToJsonString(value, &text).ok() ? text : "null";
}

FunctionArgument argument_of(const api::Payload& payload, std::string name, std::string input) {
  using Kind = FunctionArgument::Kind;
  FunctionArgument argument{.name = std::move(name), .content_type = payload.content_type()};
  if (payload.has_json()) {
    argument.kind = Kind::kJson;
    argument.content = json_of(payload.json());
  } else if (payload.has_text()) {
    argument.kind = Kind::kText;
    argument.content = payload.text();
  } else if (payload.has_data()) {
    argument.kind = Kind::kData;
    argument.content = payload.data();
  } else if (payload.has_blob()) {
    argument.kind = Kind::kFile;
    argument.input = std::move(input);
  }
  return argument;
}

FunctionCallSpec call_of(const api::FunctionCall& call) {
  FunctionCallSpec spec{.name = call.name()};
  for (int i = 0; i < call.args_size(); ++i) {
    spec.arguments.push_back(argument_of(call.args(i), "", functions::argument_input(static_cast<size_t>(i))));
  }
  for (const auto& [name, payload] : call.kwargs()) {
    spec.arguments.push_back(argument_of(payload, name, functions::argument_input(name)));
  }
  spec.actor = call.has_actor();
  spec.owner_timeout_ms = ms_of(call.actor().has_owner_timeout() ? &call.actor().owner_timeout() : nullptr, 0);
  return spec;
}

}  // namespace

AttemptKey key_of(const wire::AttemptId& id) {
  return id.task_id() + "." + std::to_string(id.term()) + "." + std::to_string(id.sequence()) + "." +
         std::to_string(id.attempt_number());
}

bool is_valid(const wire::AttemptId& id) {
  return !id.task_id().empty() && id.task_id().size() <= 128 && is_inner_path(id.task_id()) &&
         id.task_id().find('/') == std::string::npos && !id.namespace_().empty();
}

AttemptSpec spec_of(const wire::LaunchAttempt& launch) {
  const api::Task& task = launch.task();
  AttemptSpec spec;
  spec.key = key_of(launch.attempt());
  spec.identity = launch.attempt().SerializeAsString();
  spec.task_id = launch.attempt().task_id();
  spec.tenant = launch.attempt().tenant();
  spec.namespace_name = launch.attempt().namespace_();
  spec.attempt_number = launch.attempt().attempt_number();
  spec.command.assign(task.command().begin(), task.command().end());
  spec.env.insert(task.env().begin(), task.env().end());
  if (!launch.task_token().empty()) spec.env["UCCP_TASK_TOKEN"] = launch.task_token();
  if (task.executor() == api::EXECUTOR_FUNCTION) spec.function = call_of(task.function());
  if (task.executor() == api::EXECUTOR_CONTAINER) {
    spec.container = ContainerSpec{.image = task.container().image(),
                                   .read_only = task.container().read_only(),
                                   .host_network = task.container().host_network()};
  }
  spec.ray_job = task.executor() == api::EXECUTOR_RAY;
  spec.working_dir = task.working_dir();
  spec.stdin_bytes = task.stdin();
  spec.outputs.assign(task.outputs().begin(), task.outputs().end());
  for (const api::Input& input : task.inputs()) {
    if (!input.has_data()) continue;
    spec.inputs.push_back(
        {.path = input.path(), .data = input.data(), .mode = input.mode() == 0 ? 0644 : input.mode()});
  }
  if (launch.has_checkpoint()) add_checkpoint(launch.checkpoint(), spec);
  spec.limits.cpu_millis = cpu_millis(task.resources().cpu());
  spec.limits.memory_bytes = task.resources().memory();
  spec.limits.disk_bytes = task.resources().disk();
  spec.limits.pids = task.resources().pids() > 0 ? task.resources().pids() : kPidsDefault;
  spec.timeout_ms = ms_of(task.has_timeout() ? &task.timeout() : nullptr, 0);
  spec.grace_ms = ms_of(task.has_grace_period() ? &task.grace_period() : nullptr, kGraceMs);
  return spec;
}

api::AttemptOutcomeKind kind_of(EndKind kind) {
  switch (kind) {
    case EndKind::kExited: return api::ATTEMPT_OUTCOME_KIND_EXITED;
    case EndKind::kSignalled: return api::ATTEMPT_OUTCOME_KIND_SIGNALLED;
    case EndKind::kTimedOut: return api::ATTEMPT_OUTCOME_KIND_TIMED_OUT;
    case EndKind::kCancelled: return api::ATTEMPT_OUTCOME_KIND_CANCELLED;
    case EndKind::kLaunchFailed: return api::ATTEMPT_OUTCOME_KIND_LAUNCH_FAILED;
    case EndKind::kLost: return api::ATTEMPT_OUTCOME_KIND_LOST;
    case EndKind::kPreempted: return api::ATTEMPT_OUTCOME_KIND_PREEMPTED;
  }
  return api::ATTEMPT_OUTCOME_KIND_UNSPECIFIED;
}

EndKind kind_from(api::AttemptOutcomeKind kind) {
  if (kind == api::ATTEMPT_OUTCOME_KIND_TIMED_OUT) return EndKind::kTimedOut;
  if (kind == api::ATTEMPT_OUTCOME_KIND_PREEMPTED) return EndKind::kPreempted;
  if (kind == api::ATTEMPT_OUTCOME_KIND_LOST) return EndKind::kLost;
  return EndKind::kCancelled;
}

api::Usage usage_of(const AttemptUse& use, WallTime now) {
  api::Usage usage;
  usage.set_cpu_seconds(use.cpu_seconds);
  usage.set_memory(use.memory_bytes);
  usage.set_memory_peak_bytes(use.memory_peak_bytes);
  usage.set_disk_read_bytes(use.disk_read_bytes);
  usage.set_disk_write_bytes(use.disk_write_bytes);
  *usage.mutable_measure_time() = timestamp_of(now);
  return usage;
}

// What a function returned, as a payload; content in an artifact is named by its digest.
api::Payload payload_of(const AttemptValue& value) {
  api::Payload payload;
  payload.set_content_type(value.content_type);
  const bool is_json = value.content_type == "application/json";
  if (is_json && google::protobuf::util::JsonStringToMessage(value.data, payload.mutable_json()).ok()) {
    payload.clear_content_type();
  } else {
    payload.set_data(value.data);
  }
  return payload;
}

api::Payload payload_of(const AttemptEnd& end) {
  const AttemptValue& value = *end.value;
  if (!value.is_artifact) return payload_of(value);
  api::Payload payload;
  payload.set_content_type(value.content_type);
  for (const CollectedArtifact& artifact : end.artifacts) {
    if (artifact.path != functions::kValueArtifact) continue;
    payload.mutable_blob()->set_sha256(artifact.sha256);
    payload.mutable_blob()->set_size(artifact.size);
  }
  return payload;
}

google::protobuf::Timestamp timestamp_of(WallTime time) {
  google::protobuf::Timestamp stamp;
  stamp.set_seconds(time.us / 1'000'000);
  stamp.set_nanos(static_cast<int32_t>(time.us % 1'000'000 * 1000));
  return stamp;
}

google::protobuf::Duration duration_of(int64_t ms) {
  google::protobuf::Duration duration;
  duration.set_seconds(ms / 1000);
  duration.set_nanos(static_cast<int32_t>(ms % 1000 * 1'000'000));
  return duration;
}

int64_t ms_of(const google::protobuf::Duration* duration, int64_t absent_ms) {
  return duration == nullptr ? absent_ms : duration->seconds() * 1000 + duration->nanos() / 1'000'000;
}

}  // namespace uccp::agent
