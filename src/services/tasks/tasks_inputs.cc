// The inputs of tasks before these are stored: checked, and all of them blobs or outputs of other tasks.
#include <algorithm>

#include "call/listing.h"
#include "services/object_types.h"
#include "services/tasks/task_checks.h"
#include "services/tasks/tasks_service.h"

namespace uccp::tasks {
namespace {

using call::CallPtr;
using internal::v1::TaskRow;
using machine::GroupView;

template <class Predicate>
bool has_input(const google::protobuf::RepeatedPtrField<TaskRow>& rows, Predicate predicate) {
  return std::ranges::any_of(rows,
                             [&](const TaskRow& row) { return std::ranges::any_of(row.task().inputs(), predicate); });
}

}  // namespace

void TasksService::store(const CallPtr& call, Rows rows, OnStored done) {
  if (!has_input(rows, [](const v1::Input& input) { return input.has_object(); }))
    return store_content(call, std::move(rows), std::move(done));
  auto shared = std::make_shared<OnStored>(std::move(done));
  env_.reader.read(kWorkGroup, machine::ReadLevel::linearizable(),
                   [this, call, rows = std::move(rows), shared](Result<GroupView> view) mutable {
                     if (!view) return call->finish(std::move(view.error()));
                     for (TaskRow& row : rows) {
                       Status status = use_objects(*call, *view, *row.mutable_task());
                       if (!status.is_ok()) return call->finish(std::move(status));
                     }
                     store_content(call, std::move(rows), std::move(*shared));
                   });
}

void TasksService::store_content(const CallPtr& call, Rows rows, OnStored done) {
  if (!has_input(rows, [](const v1::Input& input) { return input.has_data() || input.has_blob(); }))
    return done(std::move(rows));
  env_.blob_io.post([this, call, rows = std::move(rows), done = std::move(done)]() mutable {
    for (TaskRow& row : rows) {
      if (Status status = store_inputs(*row.mutable_task()); !status.is_ok()) return call->finish(std::move(status));
    }
    done(std::move(rows));
  });
}

Status TasksService::use_objects(const call::Call& call, const GroupView& view, v1::Task& task) const {
  for (v1::Input& input : *task.mutable_inputs()) {
    if (!input.has_object()) continue;
    UCCP_TRY(const auto row, objectstores::referred_object(
                                 view, {call.principal.tenant, call.name_space}, input.object(), view.machine_time_ms(),
                                 [&](const v1::GetObjectRequest& read) { return env_.may_read_object(call, read); }));
    *input.mutable_blob() = row.blob();
  }
  return {};
}

Status TasksService::check_input(const v1::Task& task, int index) const {
  const v1::Input& input = task.inputs(index);
  const std::string field = "task.inputs[" + std::to_string(index) + "]";
  if (!stays_inside(input.path())) {
    return invalid_field(field + ".path", "must be relative and stay inside the task's folder", "in/data.csv");
  }
  if (input.source_case() == v1::Input::SOURCE_NOT_SET)
    return invalid_field(field, "needs one of data, object, taskOutput or blob");
  return Status::ok();
}

Status TasksService::store_inputs(v1::Task& task) {
  for (int i = 0; i < task.inputs_size(); ++i) {
    v1::Input& input = *task.mutable_inputs(i);
    if (input.has_blob()) {
      // Asked for by whoever is about to refer to it: from here on it stays for a while, referred to or not.
      const auto info = env_.logs.blobs.stat(input.blob().sha256());
      if (info) {
        input.mutable_blob()->set_size(info->size);
        continue;
      }
      if (info.error().code() != Code::kNotFound) return info.error();
      return Status(Code::kFailedPrecondition, "BLOB_NOT_FOUND",
                    "task.inputs[" + std::to_string(i) + "]: there is no blob " + input.blob().sha256() +
                        "; blobs go when no task refers to them any more. Give the content as data");
    }
    if (!input.has_data()) continue;
    if (env_.disk_is_full && env_.disk_is_full()) {
      return Status(Code::kExhausted, "NO_SPACE",
                    "the disk of this node is nearly full: inputs are not stored; free disk space. Nothing was changed")
          .with_retry_after_ms(5000)
          .with_help("runbooks.md#disk-full");
    }
    UCCP_TRY(const objects::BlobInfo info, env_.logs.blobs.put(input.data()));
    v1::Blob blob;
    blob.set_sha256(info.sha256);
    blob.set_size(info.size);
    *input.mutable_blob() = std::move(blob);
  }
  return Status::ok();
}

}  // namespace uccp::tasks
