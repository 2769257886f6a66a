#include "raft/membership.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "base/bytes.h"
#include "base/check.h"

namespace uccp::raft {
namespace {

constexpr uint8_t kMembershipVersion = 1;

Status apply_step(Membership& next, const MembershipStep& step) {
  const NodeId node = step.node;
  const std::string resource = std::to_string(node.value);
  switch (step.action) {
    case MembershipAction::kAddVoter:
    case MembershipAction::kAddLearner:
      if (next.contains(node)) {
        return Status(Code::kAlreadyExists, "MEMBER_EXISTS",
                      fmt::format("adding node {}: it is a {} already{}", node.value,
                                  next.is_voter(node) ? "voter" : "learner",
                                  next.is_voter(node) ? "" : "; promote it to make it a voter"))
            .with_resource("member", resource);
      }
      (step.action == MembershipAction::kAddVoter ? next.voters : next.learners).insert(node);
      return Status::ok();
    case MembershipAction::kPromote:
      if (next.voters.contains(node)) {
        return Status(Code::kFailedPrecondition, "MEMBER_IS_VOTER",
                      fmt::format("promoting node {}: it is a voter already", node.value));
      }
      if (next.learners.erase(node) == 0) break;
      next.voters.insert(node);
      return Status::ok();
    case MembershipAction::kRemove:
      if (next.voters.erase(node) + next.learners.erase(node) == 0) break;
      return Status::ok();
    default:
      return Status(Code::kInvalid, "MEMBERSHIP_ACTION_UNKNOWN",
                    fmt::format("changing node {}: action {} is not known", node.value, static_cast<int>(step.action)));
  }
  return Status(Code::kNotFound, "MEMBER_NOT_FOUND",
                fmt::format("changing node {}: it is not a member of the group", node.value))
      .with_resource("member", resource);
}

size_t count_differing(const std::set<NodeId>& a, const std::set<NodeId>& b) {
  std::vector<NodeId> differing;
  std::set_symmetric_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(differing));
  return differing.size();
}

void write_nodes(ByteWriter& out, const std::set<NodeId>& nodes) {
  out.varint(nodes.size());
  for (NodeId node : nodes) out.varint(node.value);
}

std::set<NodeId> read_nodes(ByteReader& in) {
  std::set<NodeId> nodes;
  const uint64_t count = in.varint();
  for (uint64_t i = 0; i < count && in.ok(); ++i) nodes.insert(NodeId(in.varint()));
  return nodes;
}

}  // namespace

std::set<NodeId> Membership::members() const {
  std::set<NodeId> all = voters;
  all.insert(outgoing.begin(), outgoing.end());
  all.insert(learners.begin(), learners.end());
  return all;
}

Result<Membership> apply_change(const Membership& current, const MembershipChange& change) {
  if (current.joint()) {
    return fail(Code::kFailedPrecondition, "MEMBERSHIP_JOINT",
                "changing the membership: the change before is not complete (" + to_string(current) + ")");
  }
  if (change.steps.empty())
    return fail(Code::kInvalid, "MEMBERSHIP_CHANGE_EMPTY", "changing the membership: no steps are given");
  Membership next = current;
  std::set<NodeId> named;
  for (const MembershipStep& step : change.steps) {
    if (!step.node) return fail(Code::kInvalid, "NODE_ID_ZERO", "changing the membership: node id 0 means nobody");
    if (!named.insert(step.node).second) {
      return fail(Code::kInvalid, "MEMBER_NAMED_TWICE",
                  fmt::format("changing the membership: node {} is named twice in one change", step.node.value));
    }
    UCCP_RETURN_IF_ERROR(apply_step(next, step));
  }
  if (next.voters.empty()) {
    return fail(Code::kFailedPrecondition, "LAST_VOTER", "changing the membership: no voter would be left");
  }
  if (next.members().size() > kMembersMax) {
    return fail(
        Code::kInvalid, "TOO_MANY_MEMBERS",
        fmt::format("changing the membership: {} members, at most {} are allowed", next.members().size(), kMembersMax));
  }
  // Majorities of sets that differ in one voter always overlap; with more, both have to agree for a while.
  if (count_differing(current.voters, next.voters) > 1) next.outgoing = current.voters;
  return next;
}

Membership leave_joint(const Membership& joint) {
  UCCP_CHECK(joint.joint(), "only a joint membership is left");
  Membership next = joint;
  next.outgoing.clear();
  return next;
}

std::string encode_membership(const Membership& membership) {
  ByteWriter out;
  out.u8(kMembershipVersion);
  write_nodes(out, membership.voters);
  write_nodes(out, membership.outgoing);
  write_nodes(out, membership.learners);
  return out.take();
}

Result<Membership> decode_membership(std::string_view bytes) {
  const auto malformed = [](std::string_view why) {
    return fail(Code::kInvalid, "MEMBERSHIP_MALFORMED", fmt::format("decoding a membership: {}", why));
  };
  ByteReader in(bytes);
  if (in.u8() != kMembershipVersion) return malformed("its version is not known here");
  Membership membership;
  membership.voters = read_nodes(in);
  membership.outgoing = read_nodes(in);
  membership.learners = read_nodes(in);
  if (!in.at_end()) return malformed("it is cut short, or bytes follow its end");
  // Covers repeated and unsorted nodes and overlong numbers.
  if (encode_membership(membership) != bytes) return malformed("it is not in canonical form");
  if (membership.voters.empty()) return malformed("it has no voters");
  if (membership.contains(NodeId(0))) return malformed("node id 0 means nobody");
  for (NodeId node : membership.learners) {
    if (membership.is_voter(node)) return malformed("a node is a voter and a learner");
  }
  return membership;
}

std::string to_string(const Membership& membership) {
  std::string out;
  const auto list = [&out](std::string_view name, const std::set<NodeId>& nodes) {
    if (nodes.empty()) return;
    if (!out.empty()) out += ' ';
    out += name;
    char separator = '=';
    for (NodeId node : nodes) {
      out += separator;
      out += std::to_string(node.value);
      separator = ',';
    }
  };
  list("voters", membership.voters);
  list("outgoing", membership.outgoing);
  list("learners", membership.learners);
  return out;
}

}  // namespace uccp::raft
