#include "raft/quorum.h"

#include <gtest/gtest.h>

#include <map>

#include "base/random.h"

namespace uccp::raft {
namespace {

// Straight from the definition: a value is reached if more than half of the voters are at it or beyond.
uint64_t naive_value(const std::set<NodeId>& voters, const std::map<NodeId, uint64_t>& values) {
  if (voters.empty()) return UINT64_MAX;
  uint64_t best = 0;
  for (const auto& [node, value] : values) {
    size_t reached = 0;
    for (NodeId voter : voters) reached += values.at(voter) >= value ? 1 : 0;
    if (2 * reached > voters.size()) best = std::max(best, value);
  }
  return best;
}

VoteResult naive_vote(const std::set<NodeId>& voters, const std::map<NodeId, VoteResult>& votes) {
  size_t won = 0;
  size_t possible = 0;
  for (NodeId voter : voters) {
    won += votes.at(voter) == VoteResult::kWon ? 1 : 0;
    possible += votes.at(voter) != VoteResult::kLost ? 1 : 0;
  }
  if (voters.empty() || 2 * won > voters.size()) return VoteResult::kWon;
  return 2 * possible > voters.size() ? VoteResult::kPending : VoteResult::kLost;
}

struct Case {
  Membership membership;
  std::map<NodeId, uint64_t> values;
  std::map<NodeId, VoteResult> votes;
};

Case random_case(SeededRandom& random) {
  Case result;
  for (uint64_t id = 1; id <= 9; ++id) {
    if (random.chance(0.6)) result.membership.voters.insert(NodeId(id));
    if (random.chance(0.3)) result.membership.outgoing.insert(NodeId(id));
    result.values[NodeId(id)] = random.below(6);
    result.votes[NodeId(id)] = static_cast<VoteResult>(random.below(3));
  }
  return result;
}

TEST(QuorumTest, ValueAgreesWithTheDefinition) {
  SeededRandom random(1);
  for (int i = 0; i < 20000; ++i) {
    const Case c = random_case(random);
    const uint64_t expected =
        std::min(naive_value(c.membership.voters, c.values), naive_value(c.membership.outgoing, c.values));
    ASSERT_EQ(quorum_value(c.membership, [&](NodeId node) { return c.values.at(node); }), expected);
  }
}

TEST(QuorumTest, VoteAgreesWithTheDefinition) {
  SeededRandom random(2);
  for (int i = 0; i < 20000; ++i) {
    const Case c = random_case(random);
    const VoteResult incoming = naive_vote(c.membership.voters, c.votes);
    const VoteResult outgoing = naive_vote(c.membership.outgoing, c.votes);
    VoteResult expected = VoteResult::kPending;
    if (incoming == VoteResult::kWon && outgoing == VoteResult::kWon) expected = VoteResult::kWon;
    if (incoming == VoteResult::kLost || outgoing == VoteResult::kLost) expected = VoteResult::kLost;
    ASSERT_EQ(quorum_vote(c.membership, [&](NodeId node) { return c.votes.at(node); }), expected);
  }
}

TEST(QuorumTest, EveryVoterOfTheLargestGroupCounts) {
  Membership membership;
  for (uint64_t id = 1; id <= kMembersMax; ++id) membership.voters.insert(NodeId(id));
  EXPECT_EQ(quorum_value(membership, [](NodeId node) { return node.value; }), kMembersMax / 2);
}

}  // namespace
}  // namespace uccp::raft
