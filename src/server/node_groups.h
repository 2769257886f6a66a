// The groups of the node as the cluster service sees them: GroupControl over node::Node.
#pragma once

#include "node/node.h"
#include "services/cluster/cluster_ports.h"

namespace uccp::server {

class NodeGroups final : public cluster::GroupControl {
 public:
  NodeGroups(NodeId self, node::Node& node) : self_(self), node_(node) {}

  std::vector<cluster::ReplicaState> replicas() const override;
  void change(GroupId group, cluster::MembershipStep step, NodeId node, Done done) override;
  void transfer(GroupId group, NodeId to, Done done) override;
  // The voter to lead the group next: of those that follow, the one with the most of the log. 0: there is none.
  NodeId heir(GroupId group) const;

 private:
  const NodeId self_;
  node::Node& node_;
};

}  // namespace uccp::server
