// The service of functions of a node, with its settings. Built on the main thread; the environment must outlive it.
#pragma once

#include <memory>

#include "server/config.h"
#include "services/compute/compute_service.h"
#include "services/compute/object_service.h"

namespace uccp::server {

// With its handlers added. Errors: invalid, for settings out of range.
// Functions and objects.
struct ComputeServices {
  std::unique_ptr<compute::ComputeService> functions;
  std::unique_ptr<compute::ObjectService> objects;
};
Result<ComputeServices> make_compute(const Config& config, call::HandlerTable& handlers,
                                     compute::ComputeEnvironment environment);

}  // namespace uccp::server
