// Operators of the simulated cluster: they say who shall belong to it, and repeat what is needed until it is so. Also
// transfers of leaderships and rolling restarts.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/random.h"
#include "raft/membership.h"
#include "sim/cluster/sim_cluster.h"

namespace uccp::sim {

class SimOperator {
 public:
  SimOperator(SimCluster& cluster, uint64_t seed) : cluster_(cluster), random_(seed) {}

  // The members at the beginning.
  void founded(const std::vector<NodeId>& founders);
  // Orders. False if it cannot be done now: the last order is not carried out yet, or there is no room for it.
  bool grow();
  bool shrink();
  bool replace();
  bool add_learner();
  bool transfer();
  bool rolling_restart();
  // Of all groups to the newest feature level; repeated until it is so.
  bool upgrade();
  // The node at `place` may lose what it synced: then a minority of each group is hit, and no more of a run.
  bool may_lose(size_t place) const;
  // The log of the node is damaged, and what that means shows when it starts; nothing is ordered before.
  void damaged(NodeId id) { doubtful_.insert(id); }
  // It started with all it had.
  void undamaged(NodeId id) { doubtful_.erase(id); }
  // `old` lost its disk; a machine without data has the id `fresh`.
  void lost(NodeId old, NodeId fresh);

  // The memberships of all groups are as ordered.
  bool settled() const { return settled_; }
  bool upgraded() const { return upgraded_; }
  // A rolling restart is under way.
  bool restarting() const { return restarting_; }
  const std::set<NodeId>& voters() const { return voters_; }
  std::set<NodeId> members() const;

 private:
  bool takes_orders() const { return settled_ && doubtful_.empty(); }
  void order();
  void look();
  // True if the membership of the group is as ordered; else takes the next step towards it.
  bool settle(GroupId group);
  std::optional<raft::MembershipChange> next_change(const raft::Membership& now);
  void restart_next();
  void raise_levels();
  void later(int64_t ms, std::function<void()> work);
  NodeId any_voter();

  SimCluster& cluster_;
  SeededRandom random_;
  std::set<NodeId> voters_;
  std::set<NodeId> learners_;
  size_t losses_max_ = 0;  // of a run
  size_t losses_ = 0;
  size_t lost_now_ = 0;  // not replaced yet
  std::set<NodeId> doubtful_;
  // Groups whose membership is as ordered: the leader's term and last entry when that was first seen.
  std::map<GroupId, std::pair<Term, LogIndex>> as_ordered_;
  bool settled_ = true;
  bool looking_ = false;
  bool upgraded_ = false;  // or at it
  std::vector<NodeId> to_restart_;
  bool restarting_ = false;
};

}  // namespace uccp::sim
