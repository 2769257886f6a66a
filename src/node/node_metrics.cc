#include "node/node_metrics.h"

#include <algorithm>

#include "node/group.h"

namespace uccp::node {

NodeMetrics::NodeMetrics(MetricsRegistry& registry) : registry_(registry) {
  for (const auto& [state, name] : {std::pair{State::kReady, "ready"},
                                    {State::kCatchingUp, "catching_up"},
                                    {State::kNoLeader, "no_leader"},
                                    {State::kNoSpace, "no_space"}}) {
    states_[state] =
        &registry.gauge("uccp_node_state", "1 for the state that the node is in, 0 for the others", {{"state", name}});
  }
}

NodeMetrics::GroupGauges& NodeMetrics::gauges(GroupId group, const std::string& name) {
  const auto found = groups_.find(group);
  if (found != groups_.end()) return found->second;
  const Labels labels{{"group", name}};
  const auto gauge = [&](std::string_view metric, std::string_view help) {
    return &registry_.gauge(metric, help, labels);
  };
  GroupGauges made{
      .leader = gauge("uccp_raft_leader", "Number of the node that leads the group as far as this one knows; 0: none"),
      .leads = gauge("uccp_raft_is_leader", "1 if this node leads the group with a current state"),
      .serves = gauge("uccp_raft_serving", "1 if the state of the group here is current"),
      .term = gauge("uccp_raft_term", "Term of the group"),
      .commit = gauge("uccp_raft_commit_index", "Last index known to be committed"),
      .applied = gauge("uccp_raft_applied_index", "Last index in the state"),
      .last = gauge("uccp_raft_last_index", "Last index of the log"),
      .apply_lag = gauge("uccp_raft_apply_lag_entries", "Committed entries that are not in the state yet"),
      .feature_level = gauge("uccp_raft_feature_level", "Feature level of the group's state"),
      .read_only = gauge("uccp_raft_read_only", "1 if replicas differ and the group takes no changes"),
      .leader_changes = &registry_.counter("uccp_raft_leader_changes_total",
                                           "Times that another node became known as the leader", labels),
      .peer_lag = {},
      .known_leader = {},
  };
  return groups_.emplace(group, std::move(made)).first->second;
}

void NodeMetrics::update(GroupId group, const std::string& name, const GroupStatus& status, bool serves) {
  GroupGauges& g = gauges(group, name);
  const bool leads = status.role == raft::Role::kLeader;
  if (status.leader && status.leader != g.known_leader) {
    g.known_leader = status.leader;
    g.leader_changes->add(1);
  }
  g.leader->set(static_cast<double>(status.leader.value));
  g.leads->set(leads && serves ? 1 : 0);
  g.serves->set(serves ? 1 : 0);
  g.term->set(static_cast<double>(status.term.value));
  g.commit->set(static_cast<double>(status.commit.value));
  g.applied->set(static_cast<double>(status.applied.value));
  g.last->set(static_cast<double>(status.last.value));
  const uint64_t applied = std::min(status.applied.value, status.commit.value);
  g.apply_lag->set(static_cast<double>(status.commit.value - applied));
  g.feature_level->set(status.feature_level);
  g.read_only->set(status.read_only ? 1 : 0);
  update_lag(name, g, status);
}

// Only a leader knows how far the others are; elsewhere the gauges say 0.
void NodeMetrics::update_lag(const std::string& name, GroupGauges& g, const GroupStatus& status) {
  for (const auto& [peer, match] : status.match) {
    Gauge*& gauge = g.peer_lag[peer];
    if (gauge == nullptr) {
      gauge = &registry_.gauge("uccp_raft_peer_lag_entries", "On the leader: entries that a member lacks",
                               {{"group", name}, {"peer", "n" + std::to_string(peer.value)}});
    }
    gauge->set(static_cast<double>(status.last.value - std::min(match.value, status.last.value)));
  }
  for (auto& [peer, gauge] : g.peer_lag) {
    if (!status.match.contains(peer)) gauge->set(0);
  }
}

void NodeMetrics::set_state(State state) {
  for (auto& [each, gauge] : states_) gauge->set(each == state ? 1 : 0);
}

}  // namespace uccp::node
