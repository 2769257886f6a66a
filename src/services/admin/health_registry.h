// HealthRegistry: what a node consists of, and whether each part works. GetHealth and the health endpoints of the doors
// are answered from it alone.
//
// Parts are added while the node is put together; afterwards it is read only. Probes run on the asking thread: any
// thread, several at once, and they must not block.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "uccp/v1/types.pb.h"

namespace uccp::admin {

struct ComponentState {
  v1::HealthStatus status = v1::HEALTH_STATUS_HEALTHY;
  std::string reason;  // why it is not healthy, in one sentence
};

// What the rest of the world concludes from a part that is unhealthy.
struct ComponentRole {
  bool needed_to_be_ready = true;  // the node takes no calls
  bool needed_to_live = false;     // the process should be started anew
};

class HealthRegistry {
 public:
  using Probe = std::function<ComponentState()>;

  // Requires: no part has this name yet.
  void add(std::string name, ComponentRole role, Probe probe);

  struct Component {
    std::string name;
    ComponentState state;
  };
  struct Report {
    // The worst of the parts that readiness needs; other parts that fail make it degraded.
    v1::HealthStatus status = v1::HEALTH_STATUS_HEALTHY;
    std::string reason;  // of the part that decided
    bool ready = true;
    bool live = true;
    std::vector<Component> components;
  };
  Report report() const;

 private:
  struct Part {
    std::string name;
    ComponentRole role;
    Probe probe;
  };
  std::vector<Part> parts_;
};

}  // namespace uccp::admin
