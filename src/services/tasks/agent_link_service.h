// The agents' way in: one stream for control, two methods for content. Handlers run on door threads; everything about
// attempts is handed to the loop.
#pragma once

#include "base/executor.h"
#include "call/handler.h"
#include "services/objects/blob_store.h"
#include "services/tasks/work_runtime.h"

namespace uccp::tasks {

class AgentLinkService {
 public:
  // `blob_io` runs blocking reads of blobs. Everything must outlive the doors.
  AgentLinkService(Executor& loop, Executor& blob_io, WorkRuntime& runtime, objects::BlobStore& blobs,
                   std::function<bool()> disk_is_full);
  void register_handlers(call::HandlerTable& handlers);

 private:
  void connect(const call::CallPtr& call);
  void put_blob(const call::CallPtr& call);
  void get_blob(const call::CallPtr& call, const internal::v1::GetBlobRequest& request);

  Executor& loop_;
  Executor& blob_io_;
  WorkRuntime& runtime_;
  objects::BlobStore& blobs_;
  const std::function<bool()> disk_is_full_;  // nothing is to be stored now; may be empty
};

}  // namespace uccp::tasks
