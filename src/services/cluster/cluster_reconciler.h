// Brings the membership of the groups that this node leads to the goals in the table of members.
//
// Loop thread only; tick() is cheap and re-runnable. One step a group at a time; a step that fails is tried again.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>

#include "services/cluster/cluster_ports.h"
#include "services/cluster/cluster_state.h"

namespace uccp::cluster {

class ClusterReconciler {
 public:
  // Everything must outlive the reconciler.
  ClusterReconciler(NodeId self, GroupControl& groups) : self_(self), groups_(groups) {}

  void tick(const std::vector<internal::v1::MemberRow>& members);

 private:
  void step(const ReplicaState& group, const std::vector<internal::v1::MemberRow>& members);
  void change(const ReplicaState& group, MembershipStep step, NodeId node);

  const NodeId self_;
  GroupControl& groups_;
  // Shared with callbacks that may come after the end.
  std::shared_ptr<std::map<GroupId, bool>> busy_ = std::make_shared<std::map<GroupId, bool>>();
};

}  // namespace uccp::cluster
