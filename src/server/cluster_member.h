// This node as a member: it joins, tells its addresses, keeps the addresses of the others, and as a leader brings
// groups to the goals of the table of members.
//
// join() blocks and comes before the node runs; tick() runs on the loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "runtime/peer_network.h"
#include "server/peer_links.h"
#include "services/cluster/cluster_reconciler.h"
#include "services/cluster/cluster_service.h"

namespace uccp::server {

struct ClusterMemberOptions {
  NodeId self;
  Incarnation incarnation;
  std::map<NodeId, runtime::PeerAddress> initial_members;
  std::vector<std::string> join_addresses;  // host:port of gRPC APIs
  bool founder = true;                      // named in initial_members
  int64_t join_timeout_ms = 60'000;
};

class ClusterMember {
 public:
  // Everything must outlive the member. `network` may be null: a cluster of one.
  ClusterMember(ClusterMemberOptions options, PeerLinks& links, runtime::PeerNetwork* network, const Clock& clock,
                std::function<void(Status)> fatal);

  // What this node tells the others. Any thread.
  void set_own(internal::v1::MemberRow own);
  // Asks the cluster that runs already, if one does. `fresh`: the groups of this node have no history; one that is no
  // founder then waits until it is taken in. Errors: failed_precondition NODE_ID_TAKEN or NODE_REMOVED, unavailable
  // JOIN_FAILED, and those of a refused certificate.
  Status join(bool fresh);
  // Before tick(): what the node has of the table, and its services.
  void attach(std::function<machine::GroupView()> core, cluster::GroupControl& groups,
              cluster::ClusterService& service);
  void tick();
  // Whether a peer with this incarnation may connect. Any thread.
  bool admits(NodeId peer, Incarnation incarnation) const;

 private:
  internal::v1::AnnounceRequest announcement() const;
  Status check(const std::vector<internal::v1::MemberRow>& members) const;
  Result<internal::v1::AnnounceResponse> ask(const std::string& address);
  void take(const std::vector<internal::v1::MemberRow>& members);
  void announce_if_due(const std::vector<internal::v1::MemberRow>& members);
  void announced(Result<std::string> answer);

  const ClusterMemberOptions options_;
  PeerLinks& links_;
  runtime::PeerNetwork* const network_;
  const Clock& clock_;
  const std::function<void(Status)> fatal_;
  std::function<machine::GroupView()> core_;
  cluster::GroupControl* groups_ = nullptr;
  cluster::ClusterService* service_ = nullptr;
  std::unique_ptr<cluster::ClusterReconciler> reconciler_;
  std::map<NodeId, runtime::PeerAddress> peers_;
  LogIndex seen_;
  bool known_ = false;  // the table names this node as it is
  BootTime next_announcement_;
  size_t next_target_ = 0;

  mutable std::mutex mutex_;
  internal::v1::MemberRow own_;
  std::map<NodeId, uint64_t> incarnations_;
  std::string leader_address_;
  bool asking_ = false;
};

}  // namespace uccp::server
