// How long a node takes its state for current when it hears from no majority.
#include <gtest/gtest.h>

#include "node/test_cluster.h"

namespace uccp::node {
namespace {

constexpr GroupId kGroup{1};
constexpr int64_t kAgeMs = 5'000;

TestClusterOptions with_age() {
  TestClusterOptions options;
  options.age_max_ms = kAgeMs;
  return options;
}

bool all_fresh(TestCluster& c) {
  return std::ranges::all_of(c.members, [&](const auto& member) {
    return c.node(member.first.value).fresh(kGroup) && c.node(member.first.value).ready();
  });
}

TEST(NodeFreshness, IsKeptThoughNobodyReads) {
  TestCluster c(with_age());
  c.add_founders(3);
  ASSERT_TRUE(c.run_until([&] { return all_fresh(c); }));
  for (int i = 0; i < 60; ++i) {
    c.run_ms(500);
    ASSERT_TRUE(all_fresh(c)) << i;
  }
}

TEST(NodeFreshness, EndsWhenAMajorityIsNotHeardForTheAgeAndComesBackWithIt) {
  for (const bool of_leader : {true, false}) {
    TestCluster c(with_age());
    c.add_founders(3);
    ASSERT_TRUE(c.run_until([&] { return all_fresh(c); }));
    uint64_t away = c.leader();
    if (!of_leader) away = away % 3 + 1;
    c.net.cut(NodeId(away));
    c.run_ms(kAgeMs - 1'500);
    EXPECT_TRUE(c.node(away).fresh(kGroup)) << "it was confirmed a second ago at the earliest";
    c.run_ms(1'600);
    EXPECT_FALSE(c.node(away).fresh(kGroup));
    EXPECT_FALSE(c.node(away).ready());
    for (const auto& [id, member] : c.members) {
      if (id.value != away) EXPECT_TRUE(c.node(id.value).fresh(kGroup)) << id.value;
    }
    c.net.heal();
    EXPECT_TRUE(c.run_until([&] { return all_fresh(c); }, 5'000));
  }
}

TEST(NodeFreshness, EndsWhileTheNodeStandsStill) {
  TestCluster c(with_age());
  c.add_founders(3);
  ASSERT_TRUE(c.run_until([&] { return all_fresh(c); }));
  const uint64_t leader = c.leader();
  c.member(leader).loop->pause();
  c.run_ms(2 * kAgeMs);
  EXPECT_FALSE(c.node(leader).fresh(kGroup));
  // Whoever asks before the loop hears of the others is told so as well.
  c.net.cut(NodeId(leader));
  c.member(leader).loop->resume();
  c.run_ms(300);
  EXPECT_FALSE(c.node(leader).fresh(kGroup));
}

TEST(NodeFreshness, OfALeaderThatAnswersManyKeepAlives) {
  TestCluster c(with_age());
  c.add_founders(3);
  ASSERT_TRUE(c.run_until([&] { return all_fresh(c); }));
  const uint64_t leader = c.leader();
  for (int i = 0; i < 1'000; ++i) {
    c.node(leader).keep_alive(kGroup, machine::LeaseId(1), [](const Result<int64_t>&) {});
    c.run_ms(10);
    ASSERT_TRUE(c.node(leader).fresh(kGroup)) << i;
  }
}

TEST(NodeFreshness, ANodeAloneNeedsNobody) {
  TestCluster c(with_age());
  c.add_founders(1);
  ASSERT_TRUE(c.run_until([&] { return all_fresh(c); }));
  c.member(1).loop->pause();
  c.run_ms(2 * kAgeMs);
  EXPECT_TRUE(c.node(1).fresh(kGroup));
}

TEST(NodeFreshness, ANodeThatStartsHasToHearOfTheOthersFirst) {
  TestCluster c(with_age());
  c.add_founders(3);
  ASSERT_TRUE(c.run_until([&] { return all_fresh(c); }));
  const uint64_t away = c.leader() % 3 + 1;
  c.net.cut(NodeId(away));
  c.restart(away);
  c.run_ms(100);
  EXPECT_FALSE(c.node(away).fresh(kGroup));
  c.net.heal();
  EXPECT_TRUE(c.run_until([&] { return all_fresh(c); }, 5'000));
}

}  // namespace
}  // namespace uccp::node
