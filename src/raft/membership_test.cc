#include "raft/membership.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "base/random.h"
#include "raft/quorum.h"

namespace uccp::raft {
namespace {

std::set<NodeId> ids(std::initializer_list<uint64_t> values) {
  std::set<NodeId> result;
  for (uint64_t value : values) result.insert(NodeId(value));
  return result;
}

Membership of(std::initializer_list<uint64_t> voters, std::initializer_list<uint64_t> learners = {}) {
  return {ids(voters), {}, ids(learners)};
}

MembershipChange change(std::initializer_list<MembershipStep> steps) { return {steps}; }

MembershipStep step(MembershipAction action, uint64_t node) { return {action, NodeId(node)}; }

std::string outcome(const Membership& from, const MembershipChange& what) {
  const Result<Membership> result = apply_change(from, what);
  return result ? to_string(*result) : result.error().reason().data();
}

TEST(MembershipTest, ChangesOfOneVoterOrOfLearnersNeedNoJointConfiguration) {
  EXPECT_EQ(outcome(of({1, 2, 3}), change({step(MembershipAction::kAddVoter, 4)})), "voters=1,2,3,4");
  EXPECT_EQ(outcome(of({1, 2, 3}), change({step(MembershipAction::kRemove, 3)})), "voters=1,2");
  EXPECT_EQ(outcome(of({1}, {2}), change({step(MembershipAction::kPromote, 2)})), "voters=1,2");
  EXPECT_EQ(outcome(of({1}), change({step(MembershipAction::kAddLearner, 2), step(MembershipAction::kAddLearner, 3)})),
            "voters=1 learners=2,3");
}

TEST(MembershipTest, ChangesOfMoreVotersAreJointAndThenLeft) {
  const Result<Membership> joint =
      apply_change(of({1, 2}), change({step(MembershipAction::kAddVoter, 3), step(MembershipAction::kRemove, 1)}));
  ASSERT_TRUE(joint.has_value());
  EXPECT_EQ(to_string(*joint), "voters=2,3 outgoing=1,2");
  EXPECT_EQ(to_string(leave_joint(*joint)), "voters=2,3");
  EXPECT_EQ(outcome(*joint, change({step(MembershipAction::kAddVoter, 5)})), "MEMBERSHIP_JOINT");
}

TEST(MembershipTest, SenselessChangesAreRefusedWithAReason) {
  const Membership group = of({1, 2}, {3});
  EXPECT_EQ(outcome(group, change({})), "MEMBERSHIP_CHANGE_EMPTY");
  EXPECT_EQ(outcome(group, change({step(MembershipAction::kAddVoter, 0)})), "NODE_ID_ZERO");
  EXPECT_EQ(outcome(group, change({step(MembershipAction::kAddVoter, 3)})), "MEMBER_EXISTS");
  EXPECT_EQ(outcome(group, change({step(MembershipAction::kAddLearner, 1)})), "MEMBER_EXISTS");
  EXPECT_EQ(outcome(group, change({step(MembershipAction::kPromote, 1)})), "MEMBER_IS_VOTER");
  EXPECT_EQ(outcome(group, change({step(MembershipAction::kPromote, 9)})), "MEMBER_NOT_FOUND");
  EXPECT_EQ(outcome(group, change({step(MembershipAction::kRemove, 9)})), "MEMBER_NOT_FOUND");
  EXPECT_EQ(outcome(group, change({step(MembershipAction::kRemove, 1), step(MembershipAction::kAddLearner, 1)})),
            "MEMBER_NAMED_TWICE");
  EXPECT_EQ(outcome(group, change({step(MembershipAction::kRemove, 1), step(MembershipAction::kRemove, 2)})),
            "LAST_VOTER");
  EXPECT_EQ(outcome(group, change({step(static_cast<MembershipAction>(9), 4)})), "MEMBERSHIP_ACTION_UNKNOWN");
  MembershipChange many;
  for (uint64_t id = 10; id < 10 + kMembersMax; ++id) many.steps.push_back(step(MembershipAction::kAddLearner, id));
  EXPECT_EQ(outcome(group, many), "TOO_MANY_MEMBERS");
}

// The reason for joint consensus, by enumeration: whatever decides before a change and whatever decides after it
// overlap.
TEST(MembershipTest, MajoritiesOfConsecutiveConfigurationsOverlap) {
  SeededRandom random(7);
  const auto decides = [](const Membership& membership, uint64_t mask) {
    return quorum_vote(membership, [mask](NodeId node) {
             return (mask >> node.value & 1) != 0 ? VoteResult::kWon : VoteResult::kLost;
           }) == VoteResult::kWon;
  };
  Membership now = of({1, 2, 3});
  for (int i = 0; i < 300; ++i) {
    MembershipChange what;
    for (uint64_t id = 1; id <= 6; ++id) {
      if (random.chance(0.3)) what.steps.push_back(step(static_cast<MembershipAction>(1 + random.below(4)), id));
    }
    Result<Membership> next = now.joint() ? Result<Membership>(leave_joint(now)) : apply_change(now, what);
    if (!next) continue;
    for (uint64_t mask = 0; mask < 128; mask += 2) {
      ASSERT_FALSE(decides(now, mask) && decides(*next, ~mask & 126))
          << to_string(now) << " then " << to_string(*next) << " by " << mask;
    }
    now = *next;
  }
}

// Straight from the definition: a place for each node, steps one after the other, refused as a whole if one makes no
// sense. Nothing if the change is refused.
using Places = std::map<uint64_t, char>;  // 'v' a voter, 'l' a learner

std::optional<Places> naive_change(Places places, const MembershipChange& what) {
  std::set<uint64_t> named;
  for (const MembershipStep& one : what.steps) {
    const uint64_t node = one.node.value;
    const char now = places.contains(node) ? places[node] : ' ';
    const char next = one.action == MembershipAction::kRemove       ? ' '
                      : one.action == MembershipAction::kAddLearner ? 'l'
                                                                    : 'v';
    const bool adds = one.action == MembershipAction::kAddVoter || one.action == MembershipAction::kAddLearner;
    const bool makes_sense = adds ? now == ' ' : one.action == MembershipAction::kPromote ? now == 'l' : now != ' ';
    if (!makes_sense || !named.insert(node).second) return std::nullopt;
    if (next == ' ') places.erase(node);
    else places[node] = next;
  }
  const auto votes = [](const auto& place) { return place.second == 'v'; };
  if (what.steps.empty() || std::ranges::none_of(places, votes)) return std::nullopt;
  return places;
}

TEST(MembershipTest, ChangesAgreeWithTheDefinition) {
  SeededRandom random(11);
  Places places = {{1, 'v'}, {2, 'v'}, {3, 'v'}};
  Membership now = of({1, 2, 3});
  int refused = 0, single = 0, joint = 0;
  for (int i = 0; i < 20'000; ++i) {
    MembershipChange what;
    for (uint64_t left = random.below(4); left > 0; --left) {
      what.steps.push_back(step(static_cast<MembershipAction>(1 + random.below(4)), 1 + random.below(7)));
    }
    const auto expected = naive_change(places, what);
    const Result<Membership> next = apply_change(now, what);
    ASSERT_EQ(next.has_value(), expected.has_value()) << to_string(now);
    if (!next) {
      ++refused;
      continue;
    }
    std::set<NodeId> voters, learners;
    size_t differ = 0;
    for (uint64_t node = 1; node <= 7; ++node) {
      const bool before = places.contains(node) && places[node] == 'v';
      const auto found = expected->find(node);
      const bool after = found != expected->end() && found->second == 'v';
      if (after) voters.insert(NodeId(node));
      else if (found != expected->end()) learners.insert(NodeId(node));
      differ += before != after ? 1 : 0;
    }
    ASSERT_EQ(next->voters, voters);
    ASSERT_EQ(next->learners, learners);
    ASSERT_EQ(next->outgoing, differ > 1 ? now.voters : std::set<NodeId>());
    ++(differ > 1 ? joint : single);
    places = *expected;
    now = next->joint() ? leave_joint(*next) : *next;
  }
  EXPECT_GT(std::min({refused, single, joint}), 200);
}

TEST(MembershipTest, EncodingIsStable) {
  Membership membership = of({1, 300}, {4});
  membership.outgoing = ids({1, 2});
  const std::string bytes = encode_membership(membership);
  EXPECT_EQ(bytes, std::string("\x01\x02\x01\xac\x02\x02\x01\x02\x01\x04", 10));
  EXPECT_EQ(decode_membership(bytes).value(), membership);
}

TEST(MembershipTest, OnlyTheCanonicalEncodingIsRead) {
  const std::string good = encode_membership(of({1, 2}, {3}));
  for (size_t cut = 0; cut < good.size(); ++cut) EXPECT_FALSE(decode_membership(good.substr(0, cut)));
  EXPECT_FALSE(decode_membership(good + '\0'));
  EXPECT_FALSE(decode_membership(std::string("\x02\x01\x01\x00\x00", 5)));      // version
  EXPECT_FALSE(decode_membership(std::string("\x01\x00\x00\x00", 4)));          // no voters
  EXPECT_FALSE(decode_membership(std::string("\x01\x02\x02\x01\x00\x00", 6)));  // unsorted
  EXPECT_FALSE(decode_membership(std::string("\x01\x02\x01\x01\x00\x00", 6)));  // repeated
  EXPECT_FALSE(decode_membership(std::string("\x01\x01\x00\x00\x00", 5)));      // node 0
  EXPECT_FALSE(decode_membership(std::string("\x01\x01\x81\x00\x00\x00", 6)));  // overlong number
  EXPECT_FALSE(decode_membership(std::string("\x01\x01\x01\x00\x01\x01", 6)));  // voter and learner
  EXPECT_FALSE(decode_membership(std::string("\x01\xff\xff\xff\xff\x0f", 6)));  // a count beyond the end
}

}  // namespace
}  // namespace uccp::raft
