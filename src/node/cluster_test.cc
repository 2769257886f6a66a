// Nodes as a cluster: elections, replication, restarts, membership, reads.
#include "node/test_cluster.h"

namespace uccp::node {
namespace {

constexpr GroupId kGroup{1};

TEST(NodeCluster, ThreeNodesElectALeaderAndReplicate) {
  TestCluster c;
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  ASSERT_NE(leader, 0u);
  ASSERT_TRUE(c.put(leader, "a=1").has_value());
  EXPECT_EQ(c.put(leader, "a=2")->response, "1");
  EXPECT_TRUE(c.run_until([&] { return c.converged(); }));
  for (uint64_t id = 1; id <= 3; ++id) {
    EXPECT_TRUE(c.node(id).ready());
    EXPECT_EQ(c.row(c.node(id).view(kGroup), "a"), "2");
  }
  EXPECT_EQ(c.status(leader).match.size(), 3u);
}

TEST(NodeCluster, ANodeThatDoesNotLeadNamesTheLeader) {
  TestCluster c;
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  c.run_ms(300);
  const auto refused = c.put(leader % 3 + 1, "a=1");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), Code::kNotLeader);
  EXPECT_EQ(refused.error().detail().leader_hint, std::to_string(leader));
}

TEST(NodeCluster, AKilledLeaderIsReplacedAtOnceAndNothingAcknowledgedIsLost) {
  int64_t worst_ms = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    TestCluster c({.seed = seed});
    c.add_founders(3);
    const uint64_t old = c.wait_leader();
    ASSERT_EQ(c.put_many(old, 50, "k"), 50u);
    c.kill(old);
    const int64_t before = c.scheduler.now_us();
    const uint64_t leader = c.wait_leader(old);
    worst_ms = std::max(worst_ms, (c.scheduler.now_us() - before) / 1000);
    EXPECT_EQ(c.row(c.read(leader, machine::ReadLevel::linearizable()), "k49"), "xxxxxxxxxx");
    ASSERT_TRUE(c.put(leader, "after=1").has_value());
    c.start(old);
    EXPECT_TRUE(c.run_until([&] { return c.converged(); }));
  }
  // The nodes' status is refreshed every tick of 100 ms.
  EXPECT_LE(worst_ms, 400);
  std::printf("failover after kill -9: at most %ld ms in 20 runs\n", static_cast<long>(worst_ms));
}

// Nothing tells that a leader is cut off but its silence. All draws of [1 s, 2 s) are possible and most are short;
// ticks of 100 ms begin at different moments.
TEST(NodeCluster, ALeaderThatIsCutOffIsReplacedSoonAfterTheShortestTimeout) {
  std::vector<int64_t> outages_ms;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    TestCluster c({.seed = seed});
    for (uint64_t id = 1; id <= 3; ++id) {
      c.add(id, {NodeId(1), NodeId(2), NodeId(3)});
      c.run_ms(static_cast<int64_t>(c.random.below(100)));
    }
    const uint64_t old = c.wait_leader();
    c.run_ms(1000 + static_cast<int64_t>(c.random.below(100)));
    c.net.cut(NodeId(old));
    const int64_t before = c.scheduler.now_us();
    ASSERT_TRUE(c.run_until([&] { return c.leader() != old; }));
    outages_ms.push_back((c.scheduler.now_us() - before) / 1000);
  }
  std::ranges::sort(outages_ms);
  std::printf("a leader cut off is replaced after %ld ms (median), %ld to %ld\n", static_cast<long>(outages_ms[20]),
              static_cast<long>(outages_ms.front()), static_cast<long>(outages_ms.back()));
  EXPECT_GE(outages_ms.front(), 800) << "sooner than the shortest timeout after the last heartbeat";
  EXPECT_LE(outages_ms[20], 1100) << "uniform draws give about 1200";
  EXPECT_LE(outages_ms.back(), 2200);
}

TEST(NodeCluster, ALostConnectionToALiveLeaderChangesNothing) {
  TestCluster c;
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  c.run_ms(500);
  const Term term = c.status(leader).term;
  c.net.reset(NodeId(leader % 3 + 1));
  for (int i = 0; i < 5; ++i) c.run_ms(200);
  EXPECT_EQ(c.leader(), leader);
  EXPECT_EQ(c.status(leader).term, term);
}

TEST(NodeCluster, EachNodeRestartsWithWhatItAcknowledged) {
  TestCluster c;
  c.add_founders(3);
  ASSERT_EQ(c.put_many(c.wait_leader(), 100, "k"), 100u);
  for (uint64_t id = 1; id <= 3; ++id) {
    c.restart(id);
    const uint64_t leader = c.wait_leader();
    ASSERT_TRUE(c.put(leader, "r" + std::to_string(id) + "=1").has_value());
    EXPECT_TRUE(c.run_until([&] { return c.converged(); }));
  }
  // All at once.
  for (uint64_t id = 1; id <= 3; ++id) c.kill(id);
  for (uint64_t id = 1; id <= 3; ++id) c.start(id);
  EXPECT_EQ(c.row(c.read(c.wait_leader(), machine::ReadLevel::linearizable()), "k99"), "xxxxxxxxxx");
}

TEST(NodeCluster, AFollowerThatWasCutOffCatchesUpFromTheLogOnDisk) {
  TestClusterOptions options;
  options.node.group.log_cache_bytes = 1000;
  options.node.group.raft.append_bytes_max = 4000;
  TestCluster c(options);
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  const uint64_t follower = leader % 3 + 1;
  c.net.cut(NodeId(follower));
  ASSERT_EQ(c.put_many(leader, 3000, "k"), 3000u);
  c.net.heal();
  EXPECT_TRUE(c.run_until([&] { return c.converged(); }));
  EXPECT_EQ(c.net.bytes[NetworkLane::kBulk], 0u);
}

TEST(NodeCluster, LearnersAreAddedPromotedAndRemovedFromAnyNode) {
  TestCluster c({.groups = 3});
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  ASSERT_EQ(c.put_many(leader, 100, "k"), 100u);
  const uint64_t asked = leader % 3 + 1;
  ASSERT_TRUE(c.run_until([&] { return c.node(asked).ready(); }));
  c.add(4, {});
  c.run_ms(3000);
  EXPECT_FALSE(c.node(4).ready());
  EXPECT_EQ(c.status(4).role, raft::Role::kLearner);
  const auto change = [&](auto method, uint64_t node) {
    return c.wait([&](Node::Done done) { (c.node(asked).*method)(NodeId(node), std::move(done)); });
  };
  Status status = change(&Node::add_learner, 4);
  ASSERT_TRUE(status.is_ok()) << status.to_string();
  EXPECT_TRUE(c.run_until([&] { return c.converged() && c.node(4).ready(); }));
  status = change(&Node::promote, 4);
  ASSERT_TRUE(status.is_ok()) << status.to_string();
  EXPECT_TRUE(change(&Node::promote, 4).is_ok()) << "repeating is no error";
  c.run_ms(200);
  EXPECT_EQ(c.status(leader).membership.voters.size(), 4u);
  status = change(&Node::remove, leader);
  ASSERT_TRUE(status.is_ok()) << status.to_string();
  const uint64_t next = c.wait_leader(leader);
  ASSERT_TRUE(c.put(next, "after=1").has_value());
  EXPECT_TRUE(c.run_until([&] { return c.converged(); }));
  EXPECT_FALSE(c.status(next).membership.contains(NodeId(leader)));
  // The membership is part of the state: no founders are needed any more.
  c.restart(4);
  EXPECT_TRUE(c.run_until([&] { return c.status(4).membership.voters.contains(NodeId(4)); }));
}

TEST(NodeCluster, ALearnerThatLacksTheLogIsNotPromoted) {
  TestClusterOptions options;
  options.node.group.promote_lag_entries = 10;
  TestCluster c(options);
  c.add_founders(1);
  const uint64_t leader = c.wait_leader();
  ASSERT_EQ(c.put_many(leader, 100, "k"), 100u);
  ASSERT_TRUE(c.wait([&](Node::Done done) { c.node(1).add_learner(NodeId(2), std::move(done)); }).is_ok());
  const Status refused = c.wait([&](Node::Done done) { c.node(1).promote(NodeId(2), std::move(done)); });
  EXPECT_EQ(refused.reason(), "LEARNER_BEHIND");
  c.add(2, {});
  c.run_ms(500);
  EXPECT_TRUE(c.run_until([&] { return c.converged(); }));
  EXPECT_TRUE(c.wait([&](Node::Done done) { c.node(1).promote(NodeId(2), std::move(done)); }).is_ok());
}

TEST(NodeCluster, LeadershipMovesOnDemand) {
  TestCluster c;
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  c.run_ms(500);
  const uint64_t heir = leader % 3 + 1;
  const Status moved = c.wait([&](Node::Done done) { c.node(leader).transfer(kGroup, NodeId(heir), std::move(done)); });
  EXPECT_TRUE(moved.is_ok()) << moved.to_string();
  EXPECT_EQ(c.wait_leader(leader), heir);
}

TEST(NodeCluster, ANodeThatStopsHandsItsLeadershipOver) {
  TestCluster c;
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  c.run_ms(500);
  bool stopped = false;
  const int64_t before = c.scheduler.now_us();
  c.node(leader).stop([&] { stopped = true; });
  const uint64_t next = c.wait_leader(leader);
  EXPECT_LT(c.scheduler.now_us() - before, 250'000);
  ASSERT_TRUE(c.run_until([&] { return stopped; }));
  EXPECT_TRUE(c.put(next, "a=1").has_value());
}

TEST(NodeCluster, ALinearizableReadOnAFollowerSeesWhatWasAcknowledged) {
  TestCluster c;
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  const uint64_t follower = leader % 3 + 1;
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(c.put(leader, "a=" + std::to_string(i)).has_value());
    EXPECT_EQ(c.row(c.read(follower, machine::ReadLevel::linearizable()), "a"), std::to_string(i));
  }
  c.net.cut(NodeId(follower));
  const auto alone = c.read(follower, machine::ReadLevel::linearizable());
  ASSERT_FALSE(alone.has_value());
  EXPECT_EQ(alone.error().reason(), "READ_NOT_CONFIRMED");
  // A leader that lost its majority does not answer either.
  c.net.heal();
  c.net.cut(NodeId(c.wait_leader()));
  EXPECT_FALSE(c.read(c.leader(), machine::ReadLevel::linearizable()).has_value());
}

TEST(NodeCluster, AReadWaitsForTheNextLeader) {
  TestCluster c;
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  ASSERT_TRUE(c.put(leader, "a=1").has_value());
  c.kill(leader);
  EXPECT_EQ(c.row(c.read(leader % 3 + 1, machine::ReadLevel::linearizable()), "a"), "1");
}

TEST(NodeCluster, ABoundedReadIsNeverOlderThanItsBound) {
  TestCluster c;
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  const uint64_t follower = leader % 3 + 1;
  ASSERT_TRUE(c.put(leader, "a=old").has_value());
  EXPECT_EQ(c.row(c.read(follower, machine::ReadLevel::bounded(1000)), "a"), "old");
  c.net.cut(NodeId(follower));
  const int64_t cut_us = c.scheduler.now_us();
  ASSERT_TRUE(c.put(leader, "a=new").has_value());
  int64_t served_ms = 0;
  while (true) {
    const int64_t asked_us = c.scheduler.now_us();
    const auto view = c.read(follower, machine::ReadLevel::bounded(1000));
    if (!view) break;
    served_ms = (asked_us - cut_us) / 1000;
    EXPECT_EQ(c.row(view, "a"), "old");
    ASSERT_LT(served_ms, 1000);
    c.run_ms(10);
  }
  EXPECT_GT(served_ms, 500);
  c.net.heal();
  c.run_ms(2000);
  EXPECT_EQ(c.row(c.read(follower, machine::ReadLevel::bounded(100)), "a"), "new");
}

TEST(NodeCluster, ASessionReadWaitsForItsIndexAndGivesUp) {
  TestCluster c;
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  const uint64_t follower = leader % 3 + 1;
  c.net.cut(NodeId(follower));
  const auto applied = c.put(leader, "a=1");
  ASSERT_TRUE(applied.has_value());
  const machine::ReadLevel level{.kind = machine::ReadLevel::Kind::kSession, .token = {{kGroup, applied->index}}};
  EXPECT_EQ(c.read(follower, level).error().code(), Code::kUnavailable);
  c.net.heal();
  EXPECT_EQ(c.row(c.read(follower, level), "a"), "1");
}

TEST(NodeCluster, ATenantLeavesRoomForOthersAndAllOfThemForTheSystem) {
  TestClusterOptions options;
  options.node.group.proposals_in_flight_max = 10;
  TestCluster c(options);
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  int refused = 0, applied = 0;
  const auto propose = [&](int count, const std::string& tenant, const std::string& principal) {
    refused = applied = 0;
    for (int i = 0; i < count; ++i) {
      machine::Envelope e = TestCluster::envelope("a=1");
      e.scope.tenant = tenant;
      e.principal = principal;
      c.node(leader).propose(kGroup, e, [&](const Result<machine::Applied>& r) {
        if (r) ++applied;
        else if (r.error().reason() == "OVERLOADED" && r.error().detail().retry_after_ms > 0) ++refused;
      });
    }
    // What is refused is refused at once, long before the first disk is done.
    c.scheduler.run_until([] { return false; }, c.scheduler.now_us());
    return count - refused;
  };
  EXPECT_EQ(propose(12, "t", "somebody"), 8);
  EXPECT_EQ(propose(3, "u", "somebody"), 2);
  EXPECT_EQ(propose(2, "t", "system"), 1);
  c.run_ms(1000);
  EXPECT_EQ(propose(12, "t", "somebody"), 8) << "all gave their room back";
  EXPECT_TRUE(c.run_until([&] { return applied == 8; }));
}

TEST(NodeCluster, BytesUnderWayAreLimited) {
  TestClusterOptions options;
  options.node.group.proposal_bytes_in_flight_max = 100'000;
  TestCluster c(options);
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  EXPECT_EQ(c.put_many(leader, 20, "k", 10'000), 8u);
  EXPECT_EQ(c.put_many(leader, 5, "k", 10'000), 5u);
}

TEST(NodeCluster, WhileTheDiskIsSlowNoMoreIsTakenOnThanItManages) {
  TestCluster c;
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  // No majority: what is under way gets old.
  for (const auto& [id, member] : c.members) {
    if (id.value != leader) c.net.cut(id);
  }
  size_t refused = 0;
  const auto propose = [&](int count) {
    for (int i = 0; i < count; ++i) {
      c.node(leader).propose(kGroup, TestCluster::envelope("a=1"), [&](const Result<machine::Applied>& r) {
        refused += !r && r.error().reason() == "OVERLOADED" ? 1 : 0;
      });
    }
    c.run_ms(10);
  };
  propose(300);
  EXPECT_EQ(refused, 0u);
  c.run_ms(600);
  propose(5);
  EXPECT_EQ(refused, 5u);
}

TEST(NodeCluster, OneSeedGivesOneRun) {
  const auto run = [](uint64_t seed) {
    TestCluster c({.seed = seed});
    c.add_founders(3);
    const uint64_t leader = c.wait_leader();
    c.net.set_loss(0.05);
    c.put_many(leader, 100, "k");
    c.kill(leader);
    const uint64_t next = c.wait_leader(leader);
    c.start(leader);
    (void)c.put(next, "a=1");
    c.run_ms(2000);
    return std::pair(c.scheduler.trace_hash(), c.status(next).digest);
  };
  EXPECT_EQ(run(7), run(7));
  EXPECT_NE(run(7).first, run(8).first);
}

// Frames between nodes for 100 changes one after the other, and the longest that one took while a follower was silent.
struct Rounds {
  uint64_t frames = 0;
  int64_t silent_ms = 0;
};

Rounds measure_rounds(int64_t follower_delay_ms) {
  TestClusterOptions options;
  options.node.group.follower_delay_ms = follower_delay_ms;
  TestCluster c(options);
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  EXPECT_TRUE(c.put(leader, "first=1").has_value());
  Rounds rounds;
  const uint64_t before = c.net.frames[NetworkLane::kControl];
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(c.put(leader, "a=" + std::to_string(i)).has_value());
  rounds.frames = c.net.frames[NetworkLane::kControl] - before;
  auto last = c.put(leader, "last=1");
  EXPECT_TRUE(last.has_value());
  // Without asking the leader: entries and the commit index may wait one after the other.
  machine::ReadLevel session{.kind = machine::ReadLevel::Kind::kSession, .token = {{GroupId(1), last->index}}};
  const int64_t written_us = c.scheduler.now_us();
  for (uint64_t id = 1; id <= 3; ++id) EXPECT_EQ(c.row(c.read(id, session), "last"), "1");
  EXPECT_LE(c.scheduler.now_us() - written_us, (2 * follower_delay_ms + 10) * 1000);
  for (uint64_t silent = 1; silent <= 3; ++silent) {
    if (silent == leader) continue;
    c.net.cut(NodeId(silent));
    for (int i = 0; i < 3; ++i) {
      const int64_t begin_us = c.scheduler.now_us();
      EXPECT_TRUE(c.put(leader, "b=1").has_value());
      rounds.silent_ms = std::max(rounds.silent_ms, (c.scheduler.now_us() - begin_us) / 1000);
    }
    c.net.heal();
    c.run_ms(300);
  }
  return rounds;
}

TEST(NodeCluster, AFollowerThatIsNotNeededIsToldOfSeveralChangesAtOnce) {
  const Rounds at_once = measure_rounds(0);
  const Rounds later = measure_rounds(20);
  EXPECT_LT(later.frames * 10, at_once.frames * 7);
  EXPECT_LE(later.silent_ms, at_once.silent_ms + 21) << "one that is needed fell silent: the other one is told soon";
}

}  // namespace
}  // namespace uccp::node
