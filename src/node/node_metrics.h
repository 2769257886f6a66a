// What a node tells Prometheus about its groups: who leads, how far logs and states are, how far the others are behind.
//
// Loop thread only.
#pragma once

#include <map>
#include <string>

#include "base/ids.h"
#include "base/metrics.h"
#include "raft/core.h"

namespace uccp::node {

struct GroupStatus;

class NodeMetrics {
 public:
  explicit NodeMetrics(MetricsRegistry& registry);

  void update(GroupId group, const std::string& name, const GroupStatus& status, bool serves);
  enum class State : uint8_t { kReady, kCatchingUp, kNoLeader, kNoSpace };
  void set_state(State state);

 private:
  struct GroupGauges {
    Gauge* leader;
    Gauge* leads;
    Gauge* serves;
    Gauge* term;
    Gauge* commit;
    Gauge* applied;
    Gauge* last;
    Gauge* apply_lag;
    Gauge* feature_level;
    Gauge* read_only;
    Counter* leader_changes;
    std::map<NodeId, Gauge*> peer_lag;
    NodeId known_leader;
  };
  GroupGauges& gauges(GroupId group, const std::string& name);
  void update_lag(const std::string& name, GroupGauges& gauges, const GroupStatus& status);

  MetricsRegistry& registry_;
  std::map<GroupId, GroupGauges> groups_;
  std::map<State, Gauge*> states_;
};

}  // namespace uccp::node
