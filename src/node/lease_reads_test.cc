// Reads under a leader's lease: without a round, and never after another leader could have been elected.
#include "node/test_cluster.h"

namespace uccp::node {
namespace {

constexpr GroupId kGroup{1};

TestClusterOptions with_leases(uint64_t seed = 1) {
  TestClusterOptions options{.seed = seed};
  options.node.group.raft.lease_reads = true;
  return options;
}

// A lease read asked now. Empty while it is under way.
using Answer = std::shared_ptr<std::optional<Result<machine::GroupView>>>;
Answer ask(TestCluster& c, uint64_t id) {
  auto answer = std::make_shared<std::optional<Result<machine::GroupView>>>();
  c.node(id).read(kGroup, {.kind = machine::ReadLevel::Kind::kLease},
                  [answer](Result<machine::GroupView> r) { *answer = std::move(r); });
  return answer;
}

TEST(NodeLeases, ALeaseReadOnTheLeaderNeedsNoMessage) {
  TestCluster c(with_leases());
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  ASSERT_TRUE(c.put(leader, "a=1").has_value());
  c.run_ms(500);
  // Nothing gets out and nothing comes in: only the lease can vouch for the state.
  c.net.cut(NodeId(leader));
  const int64_t before = c.scheduler.now_us();
  EXPECT_EQ(c.row(c.read(leader, {.kind = machine::ReadLevel::Kind::kLease}), "a"), "1");
  EXPECT_LT(c.scheduler.now_us() - before, 1'000);
  EXPECT_FALSE(c.read(leader, machine::ReadLevel::linearizable()).has_value());
}

TEST(NodeLeases, WithoutTheOptionALeaseReadNeedsARound) {
  TestCluster c;
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  ASSERT_TRUE(c.put(leader, "a=1").has_value());
  c.run_ms(500);
  EXPECT_EQ(c.row(c.read(leader, {.kind = machine::ReadLevel::Kind::kLease}), "a"), "1");
  c.net.cut(NodeId(leader));
  EXPECT_EQ(c.read(leader, {.kind = machine::ReadLevel::Kind::kLease}).error().reason(), "READ_NOT_CONFIRMED");
}

TEST(NodeLeases, OneNodeWithoutLeasesIsNoVoucherForTheOthers) {
  TestClusterOptions options = with_leases();
  options.without_leases = {2, 3};
  TestCluster c(options);
  c.add_founders(3);
  // Whoever of them leads: node 1 alone promises, which is no majority.
  ASSERT_NE(c.wait_leader(), 0u);
  if (c.leader() != 1) {
    (void)c.wait([&](auto done) { c.node(c.leader()).transfer(kGroup, NodeId(1), std::move(done)); });
    ASSERT_TRUE(c.run_until([&] { return c.leader() == 1; }));
  }
  ASSERT_TRUE(c.put(1, "a=1").has_value());
  c.run_ms(500);
  c.net.cut(NodeId(1));
  EXPECT_FALSE(c.read(1, {.kind = machine::ReadLevel::Kind::kLease}).has_value());
}

// The clocks run at rates up to 9 % apart, the leader's the slowest: its lease lasts longest by theirs.
TEST(NodeLeases, ALeaderThatIsCutOffServesNothingThatAnotherOverwrote) {
  size_t served_in_all = 0;
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    TestCluster c(with_leases(seed));
    c.add_founders(3);
    const uint64_t old = c.wait_leader();
    ASSERT_TRUE(c.put(old, "a=old").has_value());
    for (auto& [id, member] : c.members) member->clock.set_drift_ppm(id.value == old ? -45'000 : 45'000);
    c.run_ms(1'000);
    ASSERT_EQ(c.leader(), old) << "seed " << seed;
    c.net.cut(NodeId(old));
    std::vector<Answer> early, late;
    while (c.leader() == old || c.leader() == 0) {
      early.push_back(ask(c, old));
      c.run_ms(7);
    }
    // From the election on it is decided that the old leader may be overtaken.
    const uint64_t next = c.leader();
    std::optional<Result<machine::Applied>> written;
    c.node(next).propose(kGroup, TestCluster::envelope("a=new"), [&](auto r) { written = std::move(r); });
    while (!written) c.run_ms(1);
    ASSERT_TRUE(written->has_value());
    for (int i = 0; i < 100; ++i) {
      late.push_back(ask(c, old));
      c.run_ms(7);
    }
    for (const Answer& answer : early) served_in_all += answer->has_value() && (**answer).has_value() ? 1 : 0;
    for (const Answer& answer : late) {
      EXPECT_FALSE(answer->has_value() && (**answer).has_value()) << "seed " << seed << ": " << c.row(**answer, "a");
    }
  }
  EXPECT_GT(served_in_all, 30u * 50u) << "the lease is of no use if it ends at once";
}

TEST(NodeLeases, AFrozenLeaderServesNothingWhenItGoesOn) {
  TestCluster c(with_leases());
  c.add_founders(3);
  const uint64_t old = c.wait_leader();
  ASSERT_TRUE(c.put(old, "a=old").has_value());
  c.run_ms(500);
  // It is asked before it can hear of the other leader, in the first turn of its loop.
  c.net.cut(NodeId(old));
  c.member(old).loop->pause();
  const uint64_t next = c.wait_leader(old);
  ASSERT_TRUE(c.put(next, "a=new").has_value());
  const Answer answer = ask(c, old);
  c.member(old).loop->resume();
  c.run_ms(50);
  EXPECT_FALSE(answer->has_value() && (**answer).has_value());
  c.net.heal();
  EXPECT_TRUE(c.run_until([&] { return answer->has_value(); }));
  EXPECT_EQ(c.row(**answer, "a"), "new");
}

TEST(NodeLeases, ABrokenConnectionDoesNotStartACampaignWhileLeasesAreOn) {
  TestCluster c(with_leases());
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  c.run_ms(500);
  c.kill(leader);
  const int64_t before = c.scheduler.now_us();
  c.wait_leader(leader);
  EXPECT_GE(c.scheduler.now_us() - before, 900'000) << "the lease of the old leader may still be valid";
}

}  // namespace
}  // namespace uccp::node
