// The methods of Administration about the cluster, and those of NodeLink that keep its table.
//
// Threads: handlers run on any thread; what waits does so on the executor given. Must outlive every call.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/executor.h"
#include "call/handler.h"
#include "machine/ports.h"
#include "services/cluster/cluster_ports.h"
#include "services/cluster/cluster_state.h"
#include "uccp/v1/admin.pb.h"

namespace uccp::cluster {

// Everything must outlive the service.
struct ClusterEnvironment {
  NodeId self;
  std::string cluster_id;
  std::string version;
  machine::Proposer& proposer;
  std::function<machine::GroupView()> core;  // newest applied state of the core group
  GroupControl& groups;
  Peers& peers;
  Executor& timers;
  const Clock& clock;
  std::function<bool()> ready;
  uint32_t feature_level_max = 1;  // that this node supports
};

class ClusterService {
 public:
  explicit ClusterService(ClusterEnvironment environment) : env_(std::move(environment)) {}
  void add_handlers(call::HandlerTable& handlers);

  // Stores a member's own entry; requires that this node leads the core group. `done` comes on the loop.
  void announce(const internal::v1::AnnounceRequest& request, std::move_only_function<void(Status)> done);

 private:
  struct StatusGathering;

  void status(const call::CallPtr& call);
  void finish_status(StatusGathering& gathering);
  void add(const call::CallPtr& call, const std::string& bytes);
  void promote(const call::CallPtr& call, const std::string& bytes);
  void remove(const call::CallPtr& call, const std::string& bytes);
  void transfer(const call::CallPtr& call, const v1::TransferGroupLeadershipRequest& request);
  void set_goal(const call::CallPtr& call, const std::string& bytes, internal::v1::SetGoalCommand command);
  void wait_for_goal(const call::CallPtr& call, NodeId node);
  bool reached(const internal::v1::MemberRow& row) const;

  void on_announce(const call::CallPtr& call, const internal::v1::AnnounceRequest& request);
  void on_transfer(const call::CallPtr& call, const internal::v1::TransferRequest& request);
  internal::v1::GetReplicasResponse own_replicas() const;
  internal::v1::AnnounceResponse answer(bool accepted) const;

  const ClusterEnvironment env_;
};

// The row as the contract shows it.
v1::ClusterMember public_member(const internal::v1::MemberRow& row);

}  // namespace uccp::cluster
