#include "services/cluster/cluster_reconciler.h"

#include "base/log.h"

namespace uccp::cluster {
namespace {

std::string_view step_name(MembershipStep step) {
  switch (step) {
    case MembershipStep::kAddLearner: return "add learner";
    case MembershipStep::kPromote: return "promote";
    case MembershipStep::kRemove: break;
  }
  return "remove";
}

}  // namespace

void ClusterReconciler::tick(const std::vector<internal::v1::MemberRow>& members) {
  for (const ReplicaState& group : groups_.replicas()) {
    if (group.leads && !group.changing && !(*busy_)[group.id]) step(group, members);
  }
}

void ClusterReconciler::step(const ReplicaState& group, const std::vector<internal::v1::MemberRow>& members) {
  using enum internal::v1::MemberGoal;
  for (const internal::v1::MemberRow& row : members) {
    const NodeId node(row.node());
    const bool voter = group.voters.contains(node);
    const bool learner = group.learners.contains(node);
    if (row.goal() == MEMBER_GOAL_REMOVED) {
      if (!voter && !learner) continue;
      if (node != self_) return change(group, MembershipStep::kRemove, node);
      for (const NodeId heir : group.voters) {
        if (heir == self_) continue;
        const auto row_of_heir = std::ranges::find(members, heir.value, &internal::v1::MemberRow::node);
        if (row_of_heir != members.end() && row_of_heir->goal() == MEMBER_GOAL_REMOVED) continue;
        (*busy_)[group.id] = true;
        log::info("handing the leadership over before leaving", {{"group", group.name}, {"to", node_name(heir)}});
        return groups_.transfer(group.id, heir, [busy = busy_, id = group.id](Status) { (*busy)[id] = false; });
      }
      continue;
    }
    // Frames travel only to nodes whose address is known.
    if (!voter && !learner && row.incarnation() != 0) return change(group, MembershipStep::kAddLearner, node);
    if (learner && row.goal() == MEMBER_GOAL_VOTER) return change(group, MembershipStep::kPromote, node);
  }
}

void ClusterReconciler::change(const ReplicaState& group, MembershipStep step, NodeId node) {
  (*busy_)[group.id] = true;
  groups_.change(group.id, step, node, [busy = busy_, id = group.id, name = group.name, step, node](Status status) {
    (*busy)[id] = false;
    if (status.is_ok()) {
      log::info("membership changed", {{"group", name}, {"step", step_name(step)}, {"node", node_name(node)}});
    } else if (status.code() != Code::kFailedPrecondition && status.code() != Code::kNotLeader) {
      log::warn(
          "membership could not be changed",
          {{"group", name}, {"step", step_name(step)}, {"node", node_name(node)}, {"reason", status.to_string()}});
    }
  });
}

}  // namespace uccp::cluster
