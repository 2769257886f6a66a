#include "server/compute_side.h"

namespace uccp::server {
namespace {

constexpr int64_t kFunctionVersionsMax = 1'000'000;

}  // namespace

Result<std::unique_ptr<compute::ComputeService>> make_compute(const Config& config, compute::ComputeEnvironment environment) {
  compute::ComputeOptions options;
  UCCP_TRY(options.function_versions_max, config.integer_between("function_versions_max", 1, kFunctionVersionsMax));
  return std::make_unique<compute::ComputeService>(options, std::move(environment));
}

}  // namespace uccp::server
