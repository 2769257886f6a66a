#include "services/cluster/cluster_state.h"

#include <algorithm>
#include <charconv>

#include "base/bytes.h"
#include "machine/stable_bytes.h"
#include "services/message_types.h"

namespace uccp::cluster {
namespace {

using internal::v1::MemberRow;
using machine::ApplyContext;
using machine::ApplyResult;
using services::parse;
using services::set_wall;

std::string store(ApplyContext& c, MemberRow& row, MemberChange kind) {
  set_wall(row.mutable_update_time(), c.envelope().wall);
  if (!row.has_create_time()) set_wall(row.mutable_create_time(), c.envelope().wall);
  const NodeId node(row.node());
  kMembers.put(c.state(), kSystemScope, member_key(node), row);
  c.emit_in(kSystemScope, kMemberTopic, node_name(node), static_cast<uint8_t>(kind), machine::stable_bytes(row));
  return machine::stable_bytes(row);
}

bool was_removed(const MemberRow& row, uint64_t incarnation) {
  return std::ranges::find(row.removed_incarnations(), incarnation) != row.removed_incarnations().end();
}

std::unexpected<Status> removed(NodeId node) {
  return fail(Code::kFailedPrecondition, "NODE_REMOVED",
              node_name(node) +
                  " was removed from the cluster and its data directory may not come back; start it with an "
                  "empty data directory and join_address to add it again");
}

Status check_incarnation(const MemberRow& row, const MemberRow& announced, bool join) {
  const NodeId node(row.node());
  if (was_removed(row, announced.incarnation())) return removed(node).error();
  if (row.goal() == internal::v1::MEMBER_GOAL_REMOVED) return join ? Status::ok() : removed(node).error();
  if (row.incarnation() == 0 || row.incarnation() == announced.incarnation()) return Status::ok();
  return Status(Code::kFailedPrecondition, "NODE_ID_TAKEN",
                node_name(node) + " is a member with another data directory (incarnation " +
                    to_hex(ByteWriter().u64(row.incarnation()).data()) + ", last seen at " + row.raft_address() +
                    "); start it with that directory, choose another node id, or remove the member first: uccp-cli "
                    "cluster remove " +
                    node_name(node));
}

}  // namespace

std::string member_key(NodeId node) { return ByteWriter().u64(node.value).take(); }

std::string node_name(NodeId node) { return "n" + std::to_string(node.value); }

NodeId parse_node_name(std::string_view name) {
  uint64_t number = 0;
  if (!name.starts_with('n')) return {};
  const auto [end, error] = std::from_chars(name.data() + 1, name.data() + name.size(), number);
  return error == std::errc() && end == name.data() + name.size() ? NodeId(number) : NodeId();
}

std::vector<MemberRow> members_of(const machine::KeyReader& core) {
  std::vector<MemberRow> rows;
  kMembers.scan(core, kSystemScope, "", "", [&](std::string_view, MemberRow row) {
    rows.push_back(std::move(row));
    return true;
  });
  std::ranges::sort(rows, {}, [](const MemberRow& row) { return row.node(); });
  return rows;
}

std::optional<MemberRow> member_of(const machine::KeyReader& core, NodeId node) {
  return kMembers.get(core, kSystemScope, member_key(node));
}

std::map<std::string, machine::ApplyFunction, std::less<>> ClusterState::commands() {
  return {{"announce", announce}, {"set_goal", set_goal}};
}

ApplyResult ClusterState::announce(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::AnnounceRequest>(payload);
  const MemberRow& told = command.member();
  auto row = member_of(c.state(), NodeId(told.node()));
  if (row) {
    UCCP_RETURN_IF_ERROR(check_incarnation(*row, told, command.join()));
  } else {
    row.emplace();
    row->set_node(told.node());
  }
  if (row->goal() == internal::v1::MEMBER_GOAL_UNSPECIFIED || row->goal() == internal::v1::MEMBER_GOAL_REMOVED) {
    row->set_goal(internal::v1::MEMBER_GOAL_VOTER);
    row->clear_create_time();
  }
  row->set_incarnation(told.incarnation());
  row->set_raft_address(told.raft_address());
  row->set_grpc_address(told.grpc_address());
  row->set_https_address(told.https_address());
  row->set_metrics_address(told.metrics_address());
  row->set_etcd_address(told.etcd_address());
  row->set_version(told.version());
  return store(c, *row, MemberChange::kAnnounced);
}

ApplyResult ClusterState::set_goal(ApplyContext& c, std::string_view payload) {
  using enum internal::v1::MemberGoal;
  const auto command = parse<internal::v1::SetGoalCommand>(payload);
  const NodeId node(command.node());
  auto row = member_of(c.state(), node);
  const bool member = row && row->goal() != MEMBER_GOAL_REMOVED;
  if (command.create()) {
    if (member) {
      return fail(Status(Code::kAlreadyExists, "MEMBER_EXISTS", node_name(node) + " is a member already")
                      .with_resource("member", node_name(node)));
    }
    if (!row) row.emplace();
    row->set_node(command.node());
    row->set_incarnation(0);
    row->clear_create_time();
    row->set_raft_address(command.raft_address());
    row->clear_grpc_address();
    row->clear_https_address();
    row->clear_metrics_address();
    row->clear_etcd_address();
    row->clear_version();
  } else if (!row || (!member && command.goal() != MEMBER_GOAL_REMOVED)) {
    return fail(Status(Code::kNotFound, "MEMBER_NOT_FOUND", "there is no member " + node_name(node))
                    .with_resource("member", node_name(node)));
  }
  if (command.goal() == MEMBER_GOAL_REMOVED && member) {
    const auto rows = members_of(c.state());
    const bool others = std::ranges::any_of(rows, [&](const MemberRow& other) {
      return other.node() != command.node() && other.goal() == MEMBER_GOAL_VOTER && other.incarnation() != 0;
    });
    if (!others) {
      return fail(Code::kFailedPrecondition, "LAST_VOTER",
                  node_name(node) + " is the last voter; add another one first");
    }
    if (row->incarnation() != 0) row->add_removed_incarnations(row->incarnation());
  }
  if (row->goal() == command.goal() && !command.create()) return machine::stable_bytes(*row);
  row->set_goal(command.goal());
  return store(c, *row, MemberChange::kGoal);
}

}  // namespace uccp::cluster
