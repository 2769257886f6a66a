#include "server/compute_side.h"

namespace uccp::server {
namespace {

constexpr int64_t kFunctionVersionsMax = 1'000'000;

}  // namespace

Result<std::unique_ptr<compute::ComputeService>> make_compute(const Config& config, call::HandlerTable& handlers,
                                                              compute::ComputeEnvironment environment) {
  compute::ComputeOptions options;
  UCCP_TRY(options.function_versions_max, config.integer_between("function_versions_max", 1, kFunctionVersionsMax));
  auto service = std::make_unique<compute::ComputeService>(options, std::move(environment));
  service->add_handlers(handlers);
  return service;
}

}  // namespace uccp::server
