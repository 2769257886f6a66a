// Who belongs to a group, and how that changes: by joint consensus, or in one step if at most one voter differs.
//
// A configuration is in force as soon as its entry is in the log (Ongaro 2014, sections 4.1 and 4.3), committed or not,
// so everything here is a pure function of the configuration before. While joint, a decision needs a majority of the
// voters and a majority of the outgoing voters.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/status.h"

namespace uccp::raft {

// Members of one group, learners included.
inline constexpr size_t kMembersMax = 64;

struct Membership {
  std::set<NodeId> voters;
  std::set<NodeId> outgoing;  // the voters before a joint change; empty unless joint
  std::set<NodeId> learners;  // receive the log, do not vote; disjoint from both

  bool joint() const { return !outgoing.empty(); }
  // Votes in one of the two majorities.
  bool is_voter(NodeId node) const { return voters.contains(node) || outgoing.contains(node); }
  bool is_learner(NodeId node) const { return learners.contains(node); }
  bool contains(NodeId node) const { return is_voter(node) || is_learner(node); }
  // Everyone who is sent the log.
  std::set<NodeId> members() const;
  // True if `node` alone is a majority.
  bool is_only_voter(NodeId node) const { return !joint() && voters.size() == 1 && voters.contains(node); }

  bool operator==(const Membership&) const = default;
};

enum class MembershipAction : uint8_t { kAddVoter = 1, kAddLearner = 2, kPromote = 3, kRemove = 4 };

struct MembershipStep {
  MembershipAction action = MembershipAction::kAddVoter;
  NodeId node;

  bool operator==(const MembershipStep&) const = default;
};

// Steps that take effect together.
struct MembershipChange {
  std::vector<MembershipStep> steps;

  bool operator==(const MembershipChange&) const = default;
};

// The configuration that follows `current`: joint if more than one voter differs. A joint one has to be followed by
// leave_joint() of it. Errors: invalid for an empty change, node 0, a node named twice or too many members;
// already_exists for adding a member; not_found for promoting or removing a stranger; failed_precondition for a change
// of a joint configuration, promoting a voter, or removing the last voter.
Result<Membership> apply_change(const Membership& current, const MembershipChange& change);
// Requires joint.
Membership leave_joint(const Membership& joint);

// The data of a configuration entry. One membership has one encoding.
std::string encode_membership(const Membership& membership);
// Errors: invalid MEMBERSHIP_MALFORMED for everything that encode_membership does not write, a group without voters
// included.
Result<Membership> decode_membership(std::string_view bytes);

// "voters=1,2,3 outgoing=1,2 learners=4", without the empty ones.
std::string to_string(const Membership& membership);

}  // namespace uccp::raft
