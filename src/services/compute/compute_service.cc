#include "services/compute/compute_service.h"

#include <algorithm>
#include <cctype>

#include "base/bytes.h"
#include "base/hash.h"
#include "call/command.h"
#include "machine/resource_id.h"
#include "services/compute/compute_state.h"
#include "services/feature_types.h"
#include "services/work_types.h"

namespace uccp::compute {
namespace {

using call::CallPtr;
using internal::v1::FunctionRow;
using machine::Applied;
using machine::GroupView;

Status not_built(const std::string& what, const std::string& instead) {
  return Status(Code::kInvalid, "FUNCTION_FEATURE_UNIMPLEMENTED", what + " is not built yet; " + instead);
}

// What can be registered and run. The runtime is given where none is named.
Status check_function(v1::Function& function) {
  if (function.runtime().empty()) function.set_runtime(std::string(functions::kRuntimeDefault));
  if (!function.runtime().starts_with("python")) {
    return not_built("the runtime " + function.runtime(), "python3.11 is")
        .with_field("function.runtime", "is not built");
  }
  if (function.has_archive() || function.has_image()) return not_built("code as an archive or image", "`source` is");
  if (function.source().empty()) {
    return Status(Code::kInvalid, "FIELD_INVALID", "function.source must hold the code of the function")
        .with_field("function.source", "must not be empty", "def handler(x): return x + 1");
  }
  for (int i = 0; i < function.requirements_size(); ++i) {
    const std::string& one = function.requirements(i);
    const bool named = !one.empty() && std::isalnum(static_cast<unsigned char>(one.front())) != 0;
    if (named && std::ranges::none_of(one, [](unsigned char c) { return std::iscntrl(c) != 0; })) continue;
    return Status(Code::kInvalid, "FIELD_INVALID", "function.requirements must name packages, not options")
        .with_field("function.requirements[" + std::to_string(i) + "]", "must begin with the name of a package",
                    "numpy==1.26.4");
  }
  if (function.concurrency() > 1) return not_built("more than one call at a time in a worker", "a concurrency of 1 is");
  if (function.warm_min() > 0)
    return not_built("a least number of warm workers", "workers stay warm for a while by themselves");
  return Status::ok();
}

// What a worker needs of a function, the same bytes for the same function.
std::string bundle_of(const v1::Function& function) {
  v1::Function bundle;
  bundle.set_name(function.name());
  bundle.set_runtime(function.runtime());
  bundle.set_entry_point(function.entry_point());
  bundle.set_source(function.source());
  *bundle.mutable_requirements() = function.requirements();
  return bundle.SerializeAsString();
}

}  // namespace

void ComputeService::add_handlers(call::HandlerTable& handlers) {
  const std::string service = "uccp.v1.ComputeExecution/";
  handlers.add(service + "RegisterFunction",
               [this](const CallPtr& call, std::string bytes) { register_function(call, std::move(bytes)); });
  handlers.add_parsed<v1::GetFunctionRequest>(service + "GetFunction",
                                              [this](const CallPtr& call, const auto& request) { get(call, request); });
  handlers.add(service + "ListFunctions", [this](const CallPtr& call, const std::string& bytes) { list(call, bytes); });
  handlers.add(service + "DeleteFunction",
               [this](const CallPtr& call, std::string bytes) { remove(call, std::move(bytes)); });
  handlers.add(service + "SubmitTask",
               [this](const CallPtr& call, std::string bytes) { submit(call, std::move(bytes)); });
}

std::string ComputeService::make_task_id() {
  std::lock_guard lock(random_mutex_);
  return machine::make_id("task", env_.clock.wall(), env_.random);
}

// Blocks on disk.
Result<v1::Blob> ComputeService::put_blob(std::string_view content) {
  if (env_.disk_is_full()) {
    return fail(Status(Code::kExhausted, "NO_SPACE",
                       "the disk of this node is nearly full: code and arguments are not stored; free disk space. "
                       "Nothing was changed")
                    .with_retry_after_ms(5000)
                    .with_help("runbooks.md#disk-full"));
  }
  UCCP_TRY(const objects::BlobInfo info, env_.blobs.put(content));
  v1::Blob blob;
  blob.set_sha256(info.sha256);
  blob.set_size(info.size);
  return blob;
}

void ComputeService::register_function(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::RegisterFunctionRequest>(bytes);
  if (!request) return call->finish(request.error());
  if (Status level = services::check_feature_level(env_.feature_level(), functions::kLevel); !level.is_ok()) {
    return call->finish(std::move(level));
  }
  internal::v1::RegisterFunctionCommand command;
  FunctionRow& row = *command.mutable_row();
  v1::Function& function = *row.mutable_function();
  function = request->function();
  if (Status status = check_function(function); !status.is_ok()) return call->finish(std::move(status));
  const std::string bundle = bundle_of(function);
  const std::string digest = to_hex(sha256(bundle));
  if (function.version().empty()) function.set_version(digest.substr(0, 16));
  function.set_sha256(to_hex(sha256(function.source())));
  function.set_namespace_(call->name_space);
  function.clear_code();
  if (request->validate_only()) return call->reply(function.SerializeAsString());
  command.set_versions_max(options_.function_versions_max);
  env_.blob_io.post([this, call, bytes = std::move(bytes), command = std::move(command), bundle]() mutable {
    auto blob = put_blob(bundle);
    if (!blob) return call->finish(std::move(blob.error()));
    *command.mutable_row()->mutable_bundle() = *blob;
    propose_command(env_, call, bytes, "compute.register", command.SerializeAsString());
  });
}

void ComputeService::get(const CallPtr& call, const v1::GetFunctionRequest& request) {
  env_.reader.read(kWorkGroup, call->read_level, [this, call, request](Result<GroupView> view) {
    if (!view) return call->finish(std::move(view.error()));
    auto row = find_function(*view, scope_of(*call), request.name(), request.version());
    if (!row) return call->finish(std::move(row.error()));
    put_session(call, view->applied());
    env_.blob_io.post([this, call, row = std::move(*row)]() mutable {
      auto content = env_.blobs.read(row.bundle().sha256(), 0, row.bundle().size());
      if (!content) return call->finish(std::move(content.error()));
      v1::Function bundle;
      (void)bundle.ParseFromString(*content);
      row.mutable_function()->set_source(bundle.source());
      call->reply(row.function().SerializeAsString());
    });
  });
}

void ComputeService::list(const CallPtr& call, const std::string& bytes) {
  list_rows(env_, call, bytes, "name",
            [scope = scope_of(*call)](const GroupView& view, std::string_view after, const call::VisitRow& visit) {
              const std::string from = after.empty() ? std::string() : std::string(after) + '\0';
              functions::kNewest.scan(view, scope, "", from, [&](std::string_view name, std::string_view version) {
                const auto row = functions::kVersions.get(view, scope, version_key(name, version));
                return !row || visit(name, row->function().SerializeAsString());
              });
              return Status::ok();
            });
}

void ComputeService::remove(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::DeleteFunctionRequest>(bytes);
  if (!request) return call->finish(request.error());
  internal::v1::RemoveFunctionCommand command;
  command.set_name(request->name());
  command.set_version(request->version());
  propose_command(env_, call, bytes, "compute.remove", command.SerializeAsString(),
                  v1::DeleteFunctionResponse().SerializeAsString());
}

void ComputeService::submit(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::SubmitTaskRequest>(bytes);
  if (!request) return call->finish(request.error());
  env_.reader.read(
      kWorkGroup, machine::ReadLevel::linearizable(),
      [this, call, bytes = std::move(bytes), request = std::move(*request)](Result<GroupView> view) mutable {
        if (!view) return call->finish(std::move(view.error()));
        const auto row = find_function(*view, scope_of(*call), request.function().name(), request.function().version());
        if (!row) return call->finish(row.error());
        const auto may_read = [&](const v1::GetObjectRequest& read) { return env_.may_read_object(*call, read); };
        Status found = use_objects(*view, scope_of(*call), view->machine_time_ms(), may_read, request);
        if (!found.is_ok()) return call->finish(std::move(found));
        v1::Task task = task_of(request, *row);
        task.set_namespace_(call->name_space);
        task.set_principal(call->principal.name);
        task.set_id(make_task_id());
        if (!task.has_priority()) task.set_priority(work::kPriorityDefault);
        if (request.validate_only()) return call->reply(task.SerializeAsString());
        store(call, std::move(bytes), std::move(task));
      });
}

void ComputeService::store(const CallPtr& call, std::string bytes, v1::Task task) {
  if (large_arguments(task).empty()) return propose(call, bytes, task);
  env_.blob_io.post([this, call, bytes = std::move(bytes), task = std::move(task)]() mutable {
    for (const LargeArgument& argument : large_arguments(task)) {
      const v1::Payload& payload = *argument.payload;
      auto blob = put_blob(payload.has_text() ? payload.text() : payload.data());
      if (!blob) return call->finish(std::move(blob.error()));
      refer_to_blob(task, argument, *blob);
    }
    propose(call, bytes, task);
  });
}

void ComputeService::propose(const CallPtr& call, std::string_view bytes, const v1::Task& task) {
  internal::v1::TaskRow row;
  *row.mutable_task() = task;
  row.set_cancel_grace_ms(-1);
  propose_command(env_, call, bytes, "tasks.schedule", row.SerializeAsString());
}

}  // namespace uccp::compute
