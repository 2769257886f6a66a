// Functions of ComputeExecution: register, read, list, remove, call. Handlers run on door threads; must outlive every
// call.
#pragma once

#include <functional>
#include <mutex>

#include "base/clock.h"
#include "base/executor.h"
#include "base/random.h"
#include "call/handler.h"
#include "call/listing.h"
#include "machine/ports.h"
#include "services/compute/function_call.h"
#include "services/objects/blob_store.h"

namespace uccp::compute {

struct ComputeOptions {
  uint64_t function_versions_max = 100'000;  // in a namespace
};

struct ComputeEnvironment {
  machine::Proposer& proposer;
  machine::Reader& reader;
  objects::BlobStore& blobs;
  Executor& blob_io;                   // stores code and arguments
  std::function<bool()> disk_is_full;  // nothing is to be stored now
  const Clock& clock;
  Random& random;  // used under a lock of the service
  const call::PageTokenSigner& page_tokens;
  std::function<uint32_t()> feature_level;
};

// Says to the client what its next reads have to see.
void put_session(const call::CallPtr& call, LogIndex index);

class ComputeService {
 public:
  ComputeService(ComputeOptions options, ComputeEnvironment environment)
      : options_(options), env_(std::move(environment)) {}
  void add_handlers(call::HandlerTable& handlers);

 private:
  void register_function(const call::CallPtr& call, std::string bytes);
  void get(const call::CallPtr& call, const v1::GetFunctionRequest& request);
  void list(const call::CallPtr& call, std::string bytes);
  void remove(const call::CallPtr& call, std::string bytes);
  void submit(const call::CallPtr& call, std::string bytes);
  // Stores large arguments, then proposes.
  void store(const call::CallPtr& call, std::string bytes, v1::Task task);
  void propose(const call::CallPtr& call, std::string_view bytes, const v1::Task& task);
  Result<v1::Blob> put_blob(std::string_view content);
  std::string make_task_id();

  const ComputeOptions options_;
  ComputeEnvironment env_;
  std::mutex random_mutex_;
};

}  // namespace uccp::compute
