// The mathematics of majorities, single and joint. Pure; proven against a naive version in quorum_test.cc.
//
// A set without voters agrees to everything, so that a membership that is not joint is the joint one with an empty
// half.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <set>
#include <vector>

#include "base/check.h"
#include "base/ids.h"
#include "raft/membership.h"
#include "raft/planted.h"

namespace uccp::raft {

enum class VoteResult : uint8_t { kPending, kWon, kLost };

inline constexpr size_t majority_of(size_t voters) { return voters / 2 + 1; }

// The greatest value that a majority of `voters` has reached; UINT64_MAX without voters. `value_of` maps a NodeId to a
// uint64_t. Does not allocate.
template <typename ValueOf>
uint64_t majority_value(const std::set<NodeId>& voters, ValueOf&& value_of) {
  if (voters.empty()) return UINT64_MAX;
  UCCP_CHECK(voters.size() <= kMembersMax, "a group has at most kMembersMax voters");
  std::array<uint64_t, kMembersMax> values;
  size_t count = 0;
  for (NodeId voter : voters) values[count++] = value_of(voter);
  auto* const pivot = values.begin() + (count - majority_of(count));
  std::nth_element(values.begin(), pivot, values.begin() + count);
  return *pivot;
}

// The greatest value that a majority of both halves has reached.
template <typename ValueOf>
uint64_t quorum_value(const Membership& membership, ValueOf&& value_of) {
  if (UCCP_PLANTED(new_quorum_alone)) return majority_value(membership.voters, value_of);
  return std::min(majority_value(membership.voters, value_of), majority_value(membership.outgoing, value_of));
}

// `vote_of` maps a NodeId to kWon (granted), kLost (refused) or kPending (not answered).
template <typename VoteOf>
VoteResult majority_vote(const std::set<NodeId>& voters, VoteOf&& vote_of) {
  if (voters.empty()) return VoteResult::kWon;
  size_t granted = 0;
  size_t refused = 0;
  for (NodeId voter : voters) {
    const VoteResult vote = vote_of(voter);
    granted += vote == VoteResult::kWon ? 1 : 0;
    refused += vote == VoteResult::kLost ? 1 : 0;
  }
  if (granted >= majority_of(voters.size())) return VoteResult::kWon;
  if (voters.size() - refused < majority_of(voters.size())) return VoteResult::kLost;
  return VoteResult::kPending;
}

template <typename VoteOf>
VoteResult quorum_vote(const Membership& membership, VoteOf&& vote_of) {
  if (UCCP_PLANTED(new_quorum_alone)) return majority_vote(membership.voters, vote_of);
  const VoteResult incoming = majority_vote(membership.voters, vote_of);
  const VoteResult outgoing = majority_vote(membership.outgoing, vote_of);
  if (incoming == VoteResult::kLost || outgoing == VoteResult::kLost) return VoteResult::kLost;
  return incoming == outgoing ? incoming : VoteResult::kPending;
}

}  // namespace uccp::raft
