// Runs commands as jobs of a Ray cluster, by a program that submits one through Ray's job API, follows it and ends as
// it does (python/uccp_ray_job.py). Thread: the reactor's.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/wrapping_executor.h"

namespace uccp::agent {

struct RayJobOptions {
  std::string python;   // of the package uccp
  std::string address;  // http://HOST:PORT of the job API
  std::string token;    // that Ray asks for; empty: none
  uint64_t folder_bytes_max = 100ull << 20;
};

class RayJobExecutor final : public WrappingExecutor {
 public:
  // `sink` gets what becomes of all attempts; it must outlive the executor.
  RayJobExecutor(RayJobOptions options, ExecutorSink& sink);

 private:
  std::optional<std::vector<std::string>> command_of(AttemptSpec& spec) override;

  const RayJobOptions options_;
};

}  // namespace uccp::agent
