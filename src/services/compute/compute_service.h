// Functions of ComputeExecution: register, read, list, remove, call. Handlers run on door threads; must outlive every
// call.
#pragma once

#include <mutex>

#include "services/compute/compute_calls.h"
#include "services/compute/function_call.h"

namespace uccp::compute {

struct ComputeOptions {
  uint64_t function_versions_max = 100'000;  // in a namespace
};

class ComputeService {
 public:
  ComputeService(ComputeOptions options, ComputeEnvironment environment)
      : options_(options), env_(std::move(environment)) {}
  void add_handlers(call::HandlerTable& handlers);

 private:
  void register_function(const call::CallPtr& call, std::string bytes);
  void get(const call::CallPtr& call, const v1::GetFunctionRequest& request);
  void list(const call::CallPtr& call, const std::string& bytes);
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
