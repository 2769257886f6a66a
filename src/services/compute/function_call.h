// From a request to run a function to a task of the scheduler. Pure.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "services/function_types.h"
#include "services/object_types.h"
#include "uccp/v1/compute.pb.h"
#include "uccp/v1/tasks.pb.h"

namespace uccp::compute {

// Arguments up to this size stay inside the task; larger ones become blobs.
inline constexpr size_t kInlineArgumentBytes = 4u << 10;

// An argument whose content belongs into the blob store, and the input that will hold it.
struct LargeArgument {
  v1::Payload* payload = nullptr;  // inside the task
  std::string input;
};

// Arguments that are objects of stores become the blobs that hold them, since objects change and calls do not. Errors:
// those of referred_object().
Status use_objects(const machine::KeyReader& state, const machine::Scope& scope, int64_t now_ms,
                   const objectstores::MayRead& may_read, v1::SubmitTaskRequest& request);
// The task that calls `row`, without an id. What the request does not say, the function says.
v1::Task task_of(const v1::SubmitTaskRequest& request, const internal::v1::FunctionRow& row);
// The arguments of a task that are to become blobs.
std::vector<LargeArgument> large_arguments(v1::Task& task);
// The argument is the blob from here on.
void refer_to_blob(v1::Task& task, const LargeArgument& argument, const v1::Blob& blob);

}  // namespace uccp::compute
