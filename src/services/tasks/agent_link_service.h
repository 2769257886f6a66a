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
  struct Questions {
    std::function<bool()> disk_is_full;  // nothing is to be stored now; may be empty
    // The caller may have streams of several workers on one connection; empty: nobody may.
    std::function<bool(const call::Principal&)> may_multiplex;
  };
  // `blob_io` runs blocking reads of blobs. Everything must outlive the doors.
  AgentLinkService(Executor& loop, Executor& blob_io, WorkRuntime& runtime, objects::BlobStore& blobs,
                   Questions questions);
  void register_handlers(call::HandlerTable& handlers);

 private:
  void connect(const call::CallPtr& call);
  void put_blob(const call::CallPtr& call);
  void get_blob(const call::CallPtr& call, const internal::v1::GetBlobRequest& request);

  Executor& loop_;
  Executor& blob_io_;
  WorkRuntime& runtime_;
  objects::BlobStore& blobs_;
  const Questions questions_;
};

}  // namespace uccp::tasks
