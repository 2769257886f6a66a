// Where Ray is, and by which of its doors it is used.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace uccp::agent {

enum class RayDoor : uint8_t {
  kNone,    // no Ray: functions run natively
  kDriver,  // auto, HOST:PORT: a driver on a node of the cluster
  kClient,  // ray://HOST:PORT: a driver behind a proxy of the cluster
  kJobs,    // http://HOST:PORT, https://...: whole programs, by the job API
};

struct RayAddress {
  RayDoor door = RayDoor::kNone;
  std::string text;  // without a slash at the end
};

// Reads RAY_ADDRESS. Errors: invalid RAY_ADDRESS_INVALID.
Result<RayAddress> parse_ray_address(const std::string& text);

// Value of the label uccp/ray: cluster, client or jobs; empty for none.
std::string ray_label_of(RayDoor door);

}  // namespace uccp::agent
