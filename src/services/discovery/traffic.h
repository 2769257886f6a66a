// How traffic is shared among the instances of a service that are of one priority: by effective weight, after the
// shares that rollouts ask for. Pure.
//
// A role that has instances with a traffic percentage gets the greatest of these; what is left goes to all others. Blue
// and green: 100 for the side that is live, nothing for the other one. Canary: 5 for the canaries.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "uccp/v1/discovery.pb.h"

namespace uccp::discovery {

// The mark of an instance.
struct RolloutMark {
  v1::DeploymentRole role = v1::DEPLOYMENT_ROLE_STABLE;
  std::string_view name;
  double percent = 0;  // 0: none
};
// From a serialized Deployment.
RolloutMark read_mark(std::string_view deployment);

struct TrafficMember {
  int32_t weight = 0;
  RolloutMark mark;
};
// The share of each member, between 0 and 1; they sum up to 1 if anybody has a weight.
std::vector<double> traffic_shares(const std::vector<TrafficMember>& members);

}  // namespace uccp::discovery
