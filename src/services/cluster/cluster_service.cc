#include "services/cluster/cluster_service.h"

#include <algorithm>

#include "base/bytes.h"
#include "call/command.h"

namespace uccp::cluster {
namespace {

using call::CallPtr;
using internal::v1::MemberRow;
using enum internal::v1::MemberGoal;

constexpr int64_t kAskMs = 1'500;
constexpr int64_t kPollMs = 50;
constexpr int64_t kTransferMs = 10'000;

std::string goal_name(internal::v1::MemberGoal goal) {
  switch (goal) {
    case MEMBER_GOAL_LEARNER: return "learner";
    case MEMBER_GOAL_REMOVED: return "removed";
    default: return "voter";
  }
}

Status no_such_member(std::string_view id) {
  return Status(Code::kNotFound, "MEMBER_NOT_FOUND", "there is no member " + std::string(id))
      .with_resource("member", std::string(id));
}

bool is_node(const CallPtr& call) {
  if (call->principal.kind == call::Principal::Kind::kNode) return true;
  call->finish(Status(Code::kPermission, "NODES_ONLY", "only nodes of the cluster call this"));
  return false;
}

}  // namespace

v1::ClusterMember public_member(const MemberRow& row) {
  v1::ClusterMember member;
  member.set_id(node_name(NodeId(row.node())));
  member.set_goal(goal_name(row.goal()));
  member.set_raft_address(row.raft_address());
  member.set_grpc_address(row.grpc_address());
  member.set_https_address(row.https_address());
  member.set_metrics_address(row.metrics_address());
  member.set_etcd_address(row.etcd_address());
  if (row.incarnation() != 0) member.set_incarnation(to_hex(ByteWriter().u64(row.incarnation()).data()));
  member.set_version(row.version());
  if (row.has_create_time()) *member.mutable_create_time() = row.create_time();
  if (row.has_update_time()) *member.mutable_update_time() = row.update_time();
  return member;
}

void ClusterService::add_handlers(call::HandlerTable& handlers) {
  const std::string admin = "uccp.v1.Administration/";
  handlers.add(admin + "GetClusterStatus", [this](const CallPtr& c, const std::string&) { status(c); });
  handlers.add(admin + "AddMember", [this](const CallPtr& c, const std::string& bytes) { add(c, bytes); });
  handlers.add(admin + "PromoteMember", [this](const CallPtr& c, const std::string& bytes) { promote(c, bytes); });
  handlers.add(admin + "RemoveMember", [this](const CallPtr& c, const std::string& bytes) { remove(c, bytes); });
  handlers.add_parsed<v1::TransferGroupLeadershipRequest>(
      admin + "TransferGroupLeadership", [this](const CallPtr& c, const auto& request) { transfer(c, request); });
  const std::string link = "uccp.internal.v1.NodeLink/";
  handlers.add_parsed<internal::v1::AnnounceRequest>(
      link + "Announce", [this](const CallPtr& c, const auto& request) { on_announce(c, request); });
  handlers.add_parsed<internal::v1::TransferRequest>(
      link + "Transfer", [this](const CallPtr& c, const auto& request) { on_transfer(c, request); });
  handlers.add(link + "GetReplicas", [this](const CallPtr& c, const std::string&) {
    if (is_node(c)) c->reply(own_replicas().SerializeAsString());
  });
}

// --- status ---------------------------------------------------------------------------------------------------------

struct ClusterService::StatusGathering {
  CallPtr call;
  std::vector<MemberRow> rows;
  // Touched on the executor of timers only.
  std::map<NodeId, Result<internal::v1::GetReplicasResponse>> answers;
};

internal::v1::GetReplicasResponse ClusterService::own_replicas() const {
  internal::v1::GetReplicasResponse response;
  response.set_ready(env_.ready());
  response.set_version(env_.version);
  response.set_feature_level_max(env_.feature_level_max);
  for (const ReplicaState& state : env_.groups.replicas()) {
    v1::ClusterReplica& replica = *response.add_replicas();
    replica.set_node_id(node_name(env_.self));
    replica.set_group(state.name);
    replica.set_role(state.role);
    replica.set_status(state.ready ? v1::HEALTH_STATUS_HEALTHY : v1::HEALTH_STATUS_UNHEALTHY);
    if (!state.ready) replica.set_status_reason("its state of the group is not current");
    replica.set_term(state.term.value);
    replica.set_commit_index(state.commit.value);
    replica.set_applied_index(state.applied.value);
    if (state.leader) replica.set_leader_id(node_name(state.leader));
    for (const NodeId node : state.voters) replica.add_members(node_name(node));
    for (const NodeId node : state.learners) {
      replica.add_members(node_name(node));
      replica.add_learners(node_name(node));
    }
    replica.set_digest(state.digest);
  }
  return response;
}

void ClusterService::status(const CallPtr& call) {
  auto gathering = std::make_shared<StatusGathering>();
  gathering->call = call;
  for (MemberRow& row : members_of(env_.core())) {
    if (row.goal() != MEMBER_GOAL_REMOVED) gathering->rows.push_back(std::move(row));
  }
  // Before the first announcement of this node is committed.
  if (std::ranges::find(gathering->rows, env_.self.value, &MemberRow::node) == gathering->rows.end()) {
    MemberRow own;
    own.set_node(env_.self.value);
    own.set_version(env_.version);
    gathering->rows.push_back(std::move(own));
  }
  const auto take = [this, gathering](NodeId node, Result<internal::v1::GetReplicasResponse> answer) {
    env_.timers.post([this, gathering, node, answer = std::move(answer)]() mutable {
      gathering->answers.emplace(node, std::move(answer));
      if (gathering->answers.size() == gathering->rows.size()) finish_status(*gathering);
    });
  };
  for (const MemberRow& row : gathering->rows) {
    const NodeId node(row.node());
    if (node == env_.self) {
      take(node, own_replicas());
      continue;
    }
    env_.peers.call(node, "uccp.internal.v1.NodeLink/GetReplicas", {}, kAskMs, [take, node](Result<std::string> bytes) {
      internal::v1::GetReplicasResponse answer;
      if (!bytes) return take(node, std::unexpected(std::move(bytes.error())));
      (void)answer.ParseFromString(*bytes);
      take(node, std::move(answer));
    });
  }
}

void ClusterService::finish_status(StatusGathering& gathering) {
  v1::ClusterStatus out;
  out.set_cluster_id(env_.cluster_id);
  out.set_node_id(node_name(env_.self));
  std::map<std::string, uint64_t> newest;
  for (const auto& [node, answer] : gathering.answers) {
    if (!answer) continue;
    for (const auto& replica : answer->replicas()) {
      newest[replica.group()] = std::max<uint64_t>(newest[replica.group()], replica.applied_index());
    }
  }
  for (const MemberRow& row : gathering.rows) {
    const auto& answer = gathering.answers.find(NodeId(row.node()))->second;
    v1::ClusterMember& member = *out.add_members();
    member = public_member(row);
    member.set_status(answer && answer->ready() ? v1::HEALTH_STATUS_HEALTHY : v1::HEALTH_STATUS_UNHEALTHY);
    const auto add_replica = [&](v1::ClusterReplica replica) {
      replica.set_node_id(member.id());
      replica.set_address(member.grpc_address());
      replica.set_goal(member.goal());
      replica.set_version(member.version());
      replica.set_lag(newest[replica.group()] - replica.applied_index());
      *out.add_replicas() = std::move(replica);
    };
    if (!answer) {
      v1::ClusterReplica replica;
      replica.set_status(v1::HEALTH_STATUS_UNHEALTHY);
      replica.set_status_reason("does not answer: " + answer.error().message());
      add_replica(std::move(replica));
      continue;
    }
    for (const auto& replica : answer->replicas()) add_replica(replica);
  }
  gathering.call->reply(out.SerializeAsString());
}

// --- goals ----------------------------------------------------------------------------------------------------------

void ClusterService::add(const CallPtr& call, const std::string& bytes) {
  auto request = call::parse_request<v1::AddMemberRequest>(bytes);
  if (!request) return call->finish(request.error());
  internal::v1::SetGoalCommand command;
  command.set_node(parse_node_name(request->id()).value);
  command.set_goal(request->learner() ? MEMBER_GOAL_LEARNER : MEMBER_GOAL_VOTER);
  command.set_raft_address(request->raft_address());
  command.set_create(true);
  set_goal(call, bytes, std::move(command));
}

void ClusterService::promote(const CallPtr& call, const std::string& bytes) {
  auto request = call::parse_request<v1::PromoteMemberRequest>(bytes);
  if (!request) return call->finish(request.error());
  internal::v1::SetGoalCommand command;
  command.set_node(parse_node_name(request->id()).value);
  command.set_goal(MEMBER_GOAL_VOTER);
  set_goal(call, bytes, std::move(command));
}

void ClusterService::remove(const CallPtr& call, const std::string& bytes) {
  auto request = call::parse_request<v1::RemoveMemberRequest>(bytes);
  if (!request) return call->finish(request.error());
  const NodeId node = parse_node_name(request->id());
  if (node == env_.self) {
    // Who leaves cannot see that it has left: another leader does it, to whom the call is handed again.
    for (const ReplicaState& group : env_.groups.replicas()) {
      if (group.id != kCoreGroup || !group.leads) continue;
      for (const NodeId heir : group.voters) {
        if (heir == env_.self) continue;
        return env_.groups.transfer(kCoreGroup, heir, [call](Status status) {
          call->finish(status.is_ok() ? Status(Code::kNotLeader, "NOT_LEADER", "the leadership is handed over; retry")
                                      : std::move(status));
        });
      }
    }
  }
  internal::v1::SetGoalCommand command;
  command.set_node(node.value);
  command.set_goal(MEMBER_GOAL_REMOVED);
  set_goal(call, bytes, std::move(command));
}

void ClusterService::set_goal(const CallPtr& call, const std::string& bytes, internal::v1::SetGoalCommand command) {
  const NodeId node(command.node());
  const bool create = command.create();
  machine::Envelope envelope = call::make_envelope(*call, bytes, "cluster.set_goal", command.SerializeAsString());
  env_.proposer.propose(kCoreGroup, std::move(envelope), [this, call, node, create](Result<machine::Applied> applied) {
    if (!applied) return call->finish(applied.error());
    if (!create) return wait_for_goal(call, node);
    MemberRow row;
    (void)row.ParseFromString(applied->response);
    call->reply(public_member(row).SerializeAsString());
  });
}

bool ClusterService::reached(const MemberRow& row) const {
  const NodeId node(row.node());
  return std::ranges::all_of(env_.groups.replicas(), [&](const ReplicaState& group) {
    if (group.changing) return false;
    if (row.goal() == MEMBER_GOAL_REMOVED) return !group.voters.contains(node) && !group.learners.contains(node);
    return row.goal() == MEMBER_GOAL_LEARNER ? group.learners.contains(node) : group.voters.contains(node);
  });
}

void ClusterService::wait_for_goal(const CallPtr& call, NodeId node) {
  if (call->finished()) return;
  const auto row = member_of(env_.core(), node);
  if (row && reached(*row)) return call->reply(public_member(*row).SerializeAsString());
  if (call->deadline && call->deadline->ms_since(env_.clock.boot()) < 4 * kPollMs) {
    return call->finish(Status(Code::kDeadline, "MEMBERSHIP_PENDING",
                               node_name(node) + " has not reached its goal yet; the cluster goes on to try, see "
                                                 "uccp-cli cluster status")
                            .with_help("cluster.md#members"));
  }
  env_.timers.post_after(kPollMs, [this, call, node] { wait_for_goal(call, node); });
}

// --- leadership -----------------------------------------------------------------------------------------------------

void ClusterService::transfer(const CallPtr& call, const v1::TransferGroupLeadershipRequest& request) {
  const NodeId to = parse_node_name(request.node_id());
  const auto groups = env_.groups.replicas();
  const auto group = std::ranges::find(groups, request.group(), &ReplicaState::name);
  if (group == groups.end()) {
    return call->finish(Status(Code::kNotFound, "GROUP_NOT_FOUND", "there is no group " + request.group())
                            .with_resource("group", request.group()));
  }
  if (!group->voters.contains(to)) {
    const bool known = member_of(env_.core(), to).has_value();
    return call->finish(known ? Status(Code::kFailedPrecondition, "NOT_A_VOTER",
                                       request.node_id() + " is no voter of the group " + request.group())
                              : no_such_member(request.node_id()));
  }
  const auto reply = [call, name = request.group(), id = request.node_id()](Status status) {
    if (!status.is_ok()) return call->finish(std::move(status));
    v1::TransferGroupLeadershipResponse response;
    response.set_group(name);
    response.set_leader_id(id);
    call->reply(response.SerializeAsString());
  };
  if (group->leader == to) return reply(Status::ok());
  if (group->leads) return env_.groups.transfer(group->id, to, reply);
  if (!group->leader) {
    return call->finish(
        Status(Code::kUnavailable, "NO_LEADER", "the group " + request.group() + " has no leader just now"));
  }
  internal::v1::TransferRequest order;
  order.set_group(request.group());
  order.set_node(to.value);
  env_.peers.call(group->leader, "uccp.internal.v1.NodeLink/Transfer", order.SerializeAsString(), kTransferMs,
                  [reply](Result<std::string> answer) { reply(answer ? Status::ok() : std::move(answer.error())); });
}

void ClusterService::on_transfer(const CallPtr& call, const internal::v1::TransferRequest& request) {
  if (!is_node(call)) return;
  const auto groups = env_.groups.replicas();
  const auto group = std::ranges::find(groups, request.group(), &ReplicaState::name);
  if (group == groups.end() || !group->leads) {
    return call->finish(Status(Code::kNotLeader, "NOT_LEADER", "this node does not lead the group " + request.group()));
  }
  env_.groups.transfer(group->id, NodeId(request.node()), [call, node = request.node()](Status status) {
    if (!status.is_ok()) return call->finish(std::move(status));
    internal::v1::TransferResponse response;
    response.set_leader(node);
    call->reply(response.SerializeAsString());
  });
}

// --- announcements --------------------------------------------------------------------------------------------------

internal::v1::AnnounceResponse ClusterService::answer(bool accepted) const {
  internal::v1::AnnounceResponse response;
  response.set_accepted(accepted);
  NodeId leader;
  for (const ReplicaState& group : env_.groups.replicas()) {
    if (group.id == kCoreGroup) leader = group.leader;
  }
  for (MemberRow& row : members_of(env_.core())) {
    if (leader && row.node() == leader.value) response.set_leader_address(row.grpc_address());
    *response.add_members() = std::move(row);
  }
  return response;
}

void ClusterService::on_announce(const CallPtr& call, const internal::v1::AnnounceRequest& request) {
  if (!is_node(call)) return;
  if (call->principal.name != node_name(NodeId(request.member().node()))) {
    return call->finish(Status(Code::kPermission, "NODE_CERTIFICATE_MISMATCH",
                               "the certificate is that of " + call->principal.name + ", not of " +
                                   node_name(NodeId(request.member().node()))));
  }
  const auto groups = env_.groups.replicas();
  const auto core = std::ranges::find(groups, kCoreGroup, &ReplicaState::id);
  if (core == groups.end() || !core->leads) return call->reply(answer(false).SerializeAsString());
  announce(request, [this, call](Status status) {
    if (!status.is_ok()) return call->finish(std::move(status));
    call->reply(answer(true).SerializeAsString());
  });
}

void ClusterService::announce(const internal::v1::AnnounceRequest& request,
                              std::move_only_function<void(Status)> done) {
  const NodeId node(request.member().node());
  const auto row = member_of(env_.core(), node);
  const auto groups = env_.groups.replicas();
  const auto core = std::ranges::find(groups, kCoreGroup, &ReplicaState::id);
  const bool founder = core != groups.end() && (core->voters.contains(node) || core->learners.contains(node));
  if (!row && !founder && !request.join()) {
    return done(Status(
        Code::kFailedPrecondition, "NOT_A_MEMBER",
        node_name(node) + " is no member of cluster " + env_.cluster_id + "; start it with join_address to add it"));
  }
  machine::Envelope envelope;
  envelope.principal = node_name(node);
  envelope.command = "cluster.announce";
  envelope.resource = node_name(node);
  envelope.payload = request.SerializeAsString();
  env_.proposer.propose(kCoreGroup, std::move(envelope),
                        [done = std::move(done)](Result<machine::Applied> applied) mutable {
                          done(applied ? Status::ok() : std::move(applied.error()));
                        });
}

}  // namespace uccp::cluster
