#include "server/cluster_member.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <thread>

#include "base/log.h"
#include "server/node_names.h"

namespace uccp::server {
namespace {

using internal::v1::MemberRow;

constexpr std::string_view kAnnounce = "uccp.internal.v1.NodeLink/Announce";
constexpr int64_t kAskMs = 2'000;
constexpr int64_t kAnnounceEveryMs = 500;
// Without a leader for so long, the others are asked whether this node still is a member.
constexpr int64_t kLonelyMs = 3'000;
constexpr int64_t kJoinPauseMs = 200;

Status refused(std::string_view address, const Status& why) {
  return Status(why.code(), why.reason(),
                "the cluster at " + std::string(address) + " refuses this node: " + why.message());
}

bool is_final(const Status& status) {
  return status.code() == Code::kFailedPrecondition || status.code() == Code::kUnauthenticated ||
         status.code() == Code::kPermission || status.reason() == "TLS_FAILED";
}

}  // namespace

ClusterMember::ClusterMember(ClusterMemberOptions options, PeerLinks& links, runtime::PeerNetwork* network,
                             const Clock& clock, std::function<void(Status)> fatal)
    : options_(std::move(options)),
      links_(links),
      network_(network),
      clock_(clock),
      fatal_(std::move(fatal)),
      peers_(options_.initial_members) {
  if (network_ != nullptr) network_->set_peers(peers_);
}

void ClusterMember::set_own(MemberRow own) {
  own.set_node(options_.self.value);
  own.set_incarnation(options_.incarnation.value);
  std::lock_guard lock(mutex_);
  own_ = std::move(own);
}

void ClusterMember::attach(std::function<machine::GroupView()> core, cluster::GroupControl& groups,
                           cluster::ClusterService& service) {
  core_ = std::move(core);
  groups_ = &groups;
  service_ = &service;
  reconciler_ = std::make_unique<cluster::ClusterReconciler>(options_.self, groups);
}

internal::v1::AnnounceRequest ClusterMember::announcement() const {
  internal::v1::AnnounceRequest request;
  std::lock_guard lock(mutex_);
  *request.mutable_member() = own_;
  request.set_join(!options_.founder);
  return request;
}

// What a member's table says about this node, also if that member does not lead.
Status ClusterMember::check(const std::vector<MemberRow>& members) const {
  const std::string name = cluster::node_name(options_.self);
  for (const MemberRow& row : members) {
    if (row.node() != options_.self.value) continue;
    const auto& removed = row.removed_incarnations();
    if (std::ranges::find(removed, options_.incarnation.value) != removed.end()) {
      return Status(Code::kFailedPrecondition, "NODE_REMOVED",
                    name +
                        " was removed from the cluster and its data directory may not come back; start it with an "
                        "empty data directory and join_address to add it again");
    }
    if (row.goal() == internal::v1::MEMBER_GOAL_REMOVED || row.incarnation() == 0) continue;
    if (row.incarnation() != options_.incarnation.value) {
      return Status(Code::kFailedPrecondition, "NODE_ID_TAKEN",
                    name + " is a member with another data directory, last seen at " + row.raft_address() +
                        "; start it with that directory, choose another node id, or remove the member first: uccp-cli "
                        "cluster remove " +
                        name);
    }
  }
  return Status::ok();
}

Result<internal::v1::AnnounceResponse> ClusterMember::ask(const std::string& address) {
  auto promise = std::make_shared<std::promise<Result<std::string>>>();
  auto answer = promise->get_future();
  links_.call_at(address, kAnnounce, announcement().SerializeAsString(), kAskMs,
                 [promise](Result<std::string> bytes) { promise->set_value(std::move(bytes)); });
  UCCP_TRY(const std::string bytes, answer.get());
  internal::v1::AnnounceResponse response;
  if (!response.ParseFromString(bytes)) return fail(Code::kInternal, "WIRE_INVALID", "malformed AnnounceResponse");
  return response;
}

Status ClusterMember::join(bool fresh) {
  if (network_ == nullptr || options_.join_addresses.empty()) return Status::ok();
  const BootTime began = clock_.boot();
  const bool must_join = !options_.founder && fresh;
  Status last;
  while (true) {
    std::vector<std::string> targets = options_.join_addresses;
    for (size_t i = 0; i < targets.size(); ++i) {
      auto answer = ask(targets[i]);
      if (!answer) {
        if (is_final(answer.error())) return refused(targets[i], answer.error());
        last = answer.error();
        continue;
      }
      const std::vector<MemberRow> members(answer->members().begin(), answer->members().end());
      if (Status status = check(members); !status.is_ok()) return refused(targets[i], status);
      if (answer->accepted() || (!must_join && !members.empty())) {
        take(members);
        return Status::ok();
      }
      const std::string& leader = answer->leader_address();
      if (!leader.empty() && std::ranges::find(targets, leader) == targets.end()) targets.push_back(leader);
    }
    if (!must_join) return Status::ok();
    if (clock_.boot().ms_since(began) > options_.join_timeout_ms) {
      return Status(
          Code::kUnavailable, "JOIN_FAILED",
          "no node of the cluster answered at the addresses in join_address; the last said: " + last.message());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(kJoinPauseMs));
  }
}

bool ClusterMember::admits(NodeId peer, Incarnation incarnation) const {
  std::lock_guard lock(mutex_);
  const auto known = incarnations_.find(peer);
  return known == incarnations_.end() || known->second == 0 || known->second == incarnation.value;
}

void ClusterMember::take(const std::vector<MemberRow>& members) {
  std::map<NodeId, runtime::PeerAddress> peers;
  std::map<NodeId, std::string> addresses;
  std::map<NodeId, uint64_t> incarnations;
  for (const auto& [node, address] : options_.initial_members) peers.emplace(node, address);
  for (const MemberRow& row : members) {
    const NodeId node(row.node());
    if (row.goal() == internal::v1::MEMBER_GOAL_REMOVED) {
      const bool still_member = groups_ != nullptr && std::ranges::any_of(groups_->replicas(), [&](const auto& group) {
                                  return group.voters.contains(node) || group.learners.contains(node);
                                });
      if (!still_member) {
        peers.erase(node);
        continue;
      }
    }
    incarnations.emplace(node, row.incarnation());
    if (auto address = parse_address(row.raft_address())) peers[node] = std::move(*address);
    if (!row.grpc_address().empty()) addresses.emplace(node, row.grpc_address());
  }
  {
    std::lock_guard lock(mutex_);
    incarnations_ = std::move(incarnations);
  }
  links_.set_addresses(std::move(addresses));
  // Where the configuration says that a founder is, it may be again: all of them may have moved at once.
  if (network_ != nullptr && peers != peers_) network_->set_peers(peers, options_.initial_members);
  peers_ = std::move(peers);
}

void ClusterMember::tick() {
  const machine::GroupView view = core_();
  for (const cluster::ReplicaState& group : groups_->replicas()) {
    links_.set_leader(group.id, group.leader);
  }
  std::vector<MemberRow> members;
  if (view.applied() > LogIndex(0)) members = cluster::members_of(view);
  // A node that is being filled knows less than what it was told when it joined.
  const bool has_own = std::ranges::find(members, options_.self.value, &MemberRow::node) != members.end();
  if (has_own) take(members);
  reconciler_->tick(members);
  announce_if_due(members);
}

void ClusterMember::announce_if_due(const std::vector<MemberRow>& members) {
  const BootTime now = clock_.boot();
  const auto groups = groups_->replicas();
  const auto core = std::ranges::find(groups, kCoreGroup, &cluster::ReplicaState::id);
  const auto row = std::ranges::find(members, options_.self.value, &MemberRow::node);
  const internal::v1::AnnounceRequest request = announcement();
  const MemberRow& own = request.member();
  known_ = row != members.end() && row->goal() != internal::v1::MEMBER_GOAL_REMOVED &&
           row->incarnation() == own.incarnation() && row->raft_address() == own.raft_address() &&
           row->grpc_address() == own.grpc_address() && row->https_address() == own.https_address() &&
           row->metrics_address() == own.metrics_address() && row->etcd_address() == own.etcd_address() &&
           row->version() == own.version();
  const bool lonely = network_ != nullptr && (core == groups.end() || !core->leader);
  if (known_ && !lonely) {
    next_announcement_ = now.plus_ms(kLonelyMs);
    return;
  }
  if (lonely && next_announcement_.us == 0) next_announcement_ = now.plus_ms(kLonelyMs);
  if (now < next_announcement_ && (known_ || lonely)) return;
  if (now < next_announcement_ && next_announcement_.ms_since(now) <= kAnnounceEveryMs) return;
  next_announcement_ = now.plus_ms(kAnnounceEveryMs);
  if (core != groups.end() && core->leads) {
    return service_->announce(request, [](Status status) {
      if (!status.is_ok()) log::warn("own addresses could not be stored", {{"reason", status.to_string()}});
    });
  }
  std::vector<std::string> targets;
  {
    std::lock_guard lock(mutex_);
    if (asking_) return;
    if (!leader_address_.empty()) targets.push_back(std::exchange(leader_address_, {}));
  }
  auto addresses = links_.addresses();
  // A founder without join_address has nobody's address until the table has come here; its own row is not needed for
  // that.
  for (const MemberRow& member : members) {
    if (!member.grpc_address().empty()) addresses.try_emplace(NodeId(member.node()), member.grpc_address());
  }
  if (targets.empty() && core != groups.end() && core->leader) {
    const auto known = addresses.find(core->leader);
    if (known != addresses.end()) targets.push_back(known->second);
  }
  if (targets.empty()) {
    for (const auto& [node, address] : addresses) {
      if (node != options_.self) targets.push_back(address);
    }
    for (const std::string& address : options_.join_addresses) targets.push_back(address);
    if (targets.empty()) return;
    targets = {targets[next_target_++ % targets.size()]};
  }
  {
    std::lock_guard lock(mutex_);
    asking_ = true;
  }
  links_.call_at(targets.front(), kAnnounce, request.SerializeAsString(), kAskMs,
                 [this](Result<std::string> answer) { announced(std::move(answer)); });
}

void ClusterMember::announced(Result<std::string> answer) {
  Status status;
  {
    std::lock_guard lock(mutex_);
    asking_ = false;
    internal::v1::AnnounceResponse response;
    if (answer && response.ParseFromString(*answer)) {
      if (!response.accepted()) leader_address_ = response.leader_address();
      status = check({response.members().begin(), response.members().end()});
    } else if (!answer && answer.error().code() == Code::kFailedPrecondition) {
      status = answer.error();
    }
  }
  if (!status.is_ok()) fatal_(std::move(status));
}

}  // namespace uccp::server
