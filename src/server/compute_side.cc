#include "server/compute_side.h"

namespace uccp::server {
namespace {

constexpr int64_t kFunctionVersionsMax = 1'000'000;

}  // namespace

Result<ComputeServices> make_compute(const Config& config, call::HandlerTable& handlers,
                                     compute::ComputeEnvironment environment) {
  compute::ComputeOptions options;
  UCCP_TRY(options.function_versions_max, config.integer_between("function_versions_max", 1, kFunctionVersionsMax));
  ComputeServices services;
  services.objects = std::make_unique<compute::ObjectService>(environment);
  services.functions = std::make_unique<compute::ComputeService>(options, std::move(environment));
  services.objects->add_handlers(handlers);
  services.functions->add_handlers(handlers);
  return services;
}

}  // namespace uccp::server
