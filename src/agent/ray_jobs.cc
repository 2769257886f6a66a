#include "agent/ray_jobs.h"

namespace uccp::agent {
namespace {

constexpr const char* kTokenName = "RAY_AUTH_TOKEN";

}  // namespace

RayJobExecutor::RayJobExecutor(RayJobOptions options, ExecutorSink& sink)
    : WrappingExecutor("uccp-ray-job: ", sink), options_(std::move(options)) {}

std::optional<std::vector<std::string>> RayJobExecutor::command_of(AttemptSpec& spec) {
  if (!spec.ray_job) return std::nullopt;
  // Whoever may run jobs may do at Ray what the agent may.
  if (!options_.token.empty()) spec.env.try_emplace(kTokenName, options_.token);
  std::vector<std::string> command = {options_.python,
                                      "-m",
                                      "uccp_ray_job",
                                      "--address",
                                      options_.address,
                                      "--attempt",
                                      spec.key,
                                      "--cpu-millis",
                                      std::to_string(spec.limits.cpu_millis),
                                      "--memory",
                                      std::to_string(spec.limits.memory_bytes),
                                      "--folder-bytes-max",
                                      std::to_string(options_.folder_bytes_max)};
  for (const auto& [name, value] : spec.env) {
    // What a job is given is shown by Ray to everybody.
    if (name != "UCCP_TASK_TOKEN" && name != kTokenName) command.insert(command.end(), {"--env", name});
  }
  if (!spec.outputs.empty()) command.emplace_back("--has-outputs");
  if (!spec.stdin_bytes.empty()) command.emplace_back("--has-stdin");
  command.emplace_back("--");
  command.insert(command.end(), spec.command.begin(), spec.command.end());
  return command;
}

}  // namespace uccp::agent
