#include "server/node_groups.h"

namespace uccp::server {

std::vector<cluster::ReplicaState> NodeGroups::replicas() const {
  std::vector<cluster::ReplicaState> out;
  for (const auto& [id, status] : node_.status()) {
    cluster::ReplicaState state;
    state.id = id;
    state.name = status.name;
    state.role =
        status.group.membership.is_learner(self_) ? "learner" : std::string(raft::role_name(status.group.role));
    state.leader = status.group.leader;
    state.leads = status.leads;
    state.ready = status.ready;
    state.term = status.group.term;
    state.commit = status.group.commit;
    state.applied = status.group.applied;
    state.last = status.group.last;
    state.voters = status.group.membership.voters;
    state.learners = status.group.membership.learners;
    state.changing = status.group.membership.joint();
    state.digest = status.group.digest.to_string();
    state.feature_level = status.group.feature_level;
    out.push_back(std::move(state));
  }
  return out;
}

void NodeGroups::change(GroupId group, cluster::MembershipStep step, NodeId node, Done done) {
  raft::MembershipStep one{.node = node};
  switch (step) {
    case cluster::MembershipStep::kAddLearner: one.action = raft::MembershipAction::kAddLearner; break;
    case cluster::MembershipStep::kPromote: one.action = raft::MembershipAction::kPromote; break;
    case cluster::MembershipStep::kRemove: one.action = raft::MembershipAction::kRemove; break;
  }
  node_.change_membership(group, {.steps = {one}}, [done = std::move(done)](Result<LogIndex> index) mutable {
    done(index ? Status::ok() : std::move(index.error()));
  });
}

void NodeGroups::transfer(GroupId group, NodeId to, Done done) { node_.transfer(group, to, std::move(done)); }

NodeId NodeGroups::heir(GroupId group) const {
  const auto groups = node_.status();
  const auto at = groups.find(group);
  if (at == groups.end()) return {};
  NodeId best;
  LogIndex most;
  for (const auto& [node, match] : at->second.group.match) {
    if (node == self_ || !at->second.group.membership.voters.contains(node) || match < most) continue;
    best = node;
    most = match;
  }
  return best;
}

}  // namespace uccp::server
