// Snapshots between nodes, and what happens to them when nodes and connections fail.
#include "machine/snapshot.h"

#include "node/test_cluster.h"

namespace uccp::node {
namespace {

constexpr GroupId kGroup{1};

TestClusterOptions small_logs(uint64_t seed = 1) {
  TestClusterOptions options{.seed = seed};
  options.node.group.log_kept_entries = 20;
  options.node.group.flush_every_entries = 100;
  options.node.group.snapshot.chunk_bytes = 2000;
  return options;
}

// A cluster whose follower is cut off until its log is too far behind.
uint64_t leave_behind(TestCluster& c, uint64_t leader, size_t entries = 1000) {
  const uint64_t follower = leader % 3 + 1;
  c.net.cut(NodeId(follower));
  EXPECT_EQ(c.put_many(leader, entries, "k", 100), entries);
  c.run_ms(500);
  return follower;
}

TEST(NodeSnapshot, AFollowerBehindTheLogGetsTheState) {
  TestCluster c(small_logs());
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  ASSERT_TRUE(c.put(leader, "first=1").has_value());
  const uint64_t follower = leave_behind(c, leader);
  c.net.heal();
  EXPECT_TRUE(c.run_until([&] { return c.converged(); }));
  EXPECT_GT(c.net.bytes[NetworkLane::kBulk], 100'000u);
  EXPECT_EQ(c.row(c.node(follower).view(kGroup), "first"), "1");
  // It goes on by the log, and over a restart.
  ASSERT_EQ(c.put_many(leader, 200, "m"), 200u);
  c.restart(follower);
  c.run_ms(500);
  EXPECT_TRUE(c.run_until([&] { return c.converged(); }));
  EXPECT_EQ(c.status(follower).membership.voters.size(), 3u);
}

TEST(NodeSnapshot, ALossyNetworkOnlySlowsItDown) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    TestCluster c(small_logs(seed));
    c.add_founders(3);
    const uint64_t leader = c.wait_leader();
    leave_behind(c, leader);
    c.net.heal();
    c.net.set_loss(0.1);
    EXPECT_TRUE(c.run_until([&] { return c.converged(); }, 120'000)) << seed;
  }
}

TEST(NodeSnapshot, AnInterruptedTransferGoesOnWhereItStopped) {
  TestCluster c(small_logs());
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  const uint64_t follower = leave_behind(c, leader, 3000);
  c.net.heal();
  const auto sent = [&] { return c.net.bytes[NetworkLane::kBulk]; };
  ASSERT_TRUE(c.run_until([&] { return sent() > 200'000; }));
  c.net.cut(NodeId(follower));
  c.net.reset(NodeId(follower));
  c.run_ms(3000);
  c.net.heal();
  EXPECT_TRUE(c.run_until([&] { return c.converged(); }));
  // Less than the window was sent twice.
  const uint64_t whole = sent();
  machine::SnapshotReader reader({.group = kGroup}, c.node(leader).view(kGroup));
  uint64_t bytes = 0;
  while (!reader.done()) bytes += reader.next().size();
  EXPECT_LT(whole, bytes + bytes / 10);
}

TEST(NodeSnapshot, AReceiverKilledAtAnyMomentStartsOverWithItsOldState) {
  int during = 0;
  for (int64_t after_ms = 0; after_ms < 60; after_ms += 2) {
    TestCluster c(small_logs(static_cast<uint64_t>(after_ms) + 1));
    c.add_founders(3);
    const uint64_t leader = c.wait_leader();
    ASSERT_TRUE(c.put(leader, "first=1").has_value());
    c.run_ms(300);
    const uint64_t follower = leave_behind(c, leader);
    c.net.heal();
    ASSERT_TRUE(c.run_until([&] { return c.net.frames[NetworkLane::kBulk] > 0; }));
    c.run_ms(after_ms);
    const LogIndex before = c.status(follower).applied;
    during += before < LogIndex(900) ? 1 : 0;
    c.restart(follower);
    if (::testing::Test::HasFatalFailure()) return;
    // What it has before it caught up is a state of one index, never a part of one.
    Digest digest;
    c.node(follower).view(kGroup).scan("", "", [&](std::string_view key, std::string_view value) {
      if (machine::in_digest(key)) digest.add(key, value);
      return true;
    });
    EXPECT_EQ(digest, c.status(follower).digest);
    c.run_ms(200);
    EXPECT_TRUE(c.run_until([&] { return c.converged(); })) << after_ms;
    EXPECT_TRUE(c.member(follower).fatal.is_ok()) << c.member(follower).fatal.to_string();
  }
  EXPECT_GT(during, 5);
}

TEST(NodeSnapshot, ALeaderKilledWhileItSendsIsReplaced) {
  TestCluster c(small_logs());
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  leave_behind(c, leader);
  c.net.heal();
  ASSERT_TRUE(c.run_until([&] { return c.net.frames[NetworkLane::kBulk] > 3; }));
  c.kill(leader);
  c.run_ms(3000);
  c.start(leader);
  c.run_ms(500);
  EXPECT_TRUE(c.run_until([&] { return c.converged(); }, 60'000));
}

TEST(NodeSnapshot, ANewNodeJoinsByASnapshot) {
  TestCluster c(small_logs());
  c.add_founders(1);
  const uint64_t leader = c.wait_leader();
  ASSERT_EQ(c.put_many(leader, 1000, "k"), 1000u);
  c.run_ms(300);
  c.add(2, {});
  ASSERT_TRUE(c.wait([&](Node::Done done) { c.node(1).add_learner(NodeId(2), std::move(done)); }).is_ok());
  c.run_ms(500);
  EXPECT_TRUE(c.run_until([&] { return c.converged(); }));
  EXPECT_TRUE(c.wait([&](Node::Done done) { c.node(1).promote(NodeId(2), std::move(done)); }).is_ok());
  c.run_ms(500);
  EXPECT_TRUE(c.run_until([&] { return c.converged(); }));
  c.kill(1);
  c.kill(2);
  c.start(1);
  c.start(2);
  EXPECT_NE(c.wait_leader(), 0u);
}

TEST(NodeSnapshot, AWatchGoesOnOverASnapshotWithoutAGap) {
  TestCluster c(small_logs());
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  const uint64_t follower = leader % 3 + 1;
  std::vector<LogIndex> seen;
  const auto watch = c.node(follower).watch(
      {.group = kGroup, .topic = "rows"}, LogIndex(0),
      [&](const machine::Change& change) {
        seen.push_back(change.index);
        return true;
      },
      [](Status) {});
  ASSERT_EQ(c.put_many(leader, 10, "a"), 10u);
  c.run_ms(500);
  leave_behind(c, leader);
  c.net.heal();
  ASSERT_TRUE(c.run_until([&] { return c.converged(); }));
  c.run_ms(500);
  ASSERT_EQ(c.put_many(leader, 10, "b"), 10u);
  c.run_ms(500);
  ASSERT_EQ(seen.size(), 1020u);
  EXPECT_TRUE(std::ranges::is_sorted(seen));
  EXPECT_EQ(std::ranges::adjacent_find(seen), seen.end());
}

// The bytes of docs/formats/snapshot.md.
TEST(NodeSnapshot, TheFormatIsWhatThePageSays) {
  storage::MemoryKv kv;
  storage::KvBatch batch;
  batch.put(machine::group_prefix(GroupId(7)) + "ab", "cd");
  ASSERT_TRUE(kv.write(batch).is_ok());
  machine::SnapshotHeader header{GroupId(7), {Term(2), LogIndex(3)}, "m", 1, {}};
  header.digest.add("ab", "cd");
  machine::SnapshotReader reader(header, machine::GroupView(GroupId(7), kv.view(), LogIndex(3), 0));
  const std::string chunk = reader.next();
  EXPECT_TRUE(reader.done());
  const std::string digest = header.digest.to_string();
  const std::string body =
      "0000000000000000"
      "03"
      "0000000000000007"
      "0000000000000002"
      "0000000000000003"
      "00000001" +
      digest +
      "016d"
      "01"
      "026162"
      "026364"
      "0000000000000001" +
      digest;
  EXPECT_EQ(to_hex(chunk.substr(5)), body);
  EXPECT_EQ(to_hex(chunk.substr(0, 5)), "02" + to_hex(ByteWriter().u32(crc32c(chunk.substr(5))).data()));

  storage::MemoryKv copy;
  machine::SnapshotWriter writer(GroupId(7), copy, 1);
  for (size_t i = 0; i < chunk.size(); ++i) {
    std::string damaged = chunk;
    damaged[i] ^= 0x10;
    machine::SnapshotWriter other(GroupId(7), copy, 1);
    EXPECT_FALSE(other.add(damaged).is_ok()) << i;
    EXPECT_FALSE(other.add(chunk.substr(0, i)).is_ok()) << i;
  }
  ASSERT_TRUE(writer.add(chunk).is_ok());
  EXPECT_TRUE(writer.complete());
  EXPECT_EQ(writer.header(), header);
  EXPECT_EQ(*copy.view()->get(machine::group_prefix(GroupId(7), 1) + "ab"), "cd");
}

// Chunks of version 1 are those of version 2 that are not packed.
TEST(NodeSnapshot, TheOlderVersionIsRead) {
  storage::MemoryKv kv;
  storage::KvBatch batch;
  batch.put(machine::group_prefix(kGroup) + "ab", "cd");
  ASSERT_TRUE(kv.write(batch).is_ok());
  machine::SnapshotHeader header{kGroup, {Term(2), LogIndex(3)}, "m", 1, {}};
  header.digest.add("ab", "cd");
  std::string chunk = machine::SnapshotReader(header, machine::GroupView(kGroup, kv.view(), LogIndex(3), 0)).next();
  for (const auto& [version, known] : {std::pair<char, bool>{0, false}, {1, true}, {2, true}, {3, false}}) {
    chunk[0] = version;
    storage::MemoryKv copy;
    EXPECT_EQ(machine::SnapshotWriter(kGroup, copy, 1).add(chunk).is_ok(), known);
  }
}

TEST(NodeSnapshot, APackedSnapshotIsSmallAndInstallsTheSame) {
  TestClusterOptions options = small_logs();
  options.node.group.snapshot.compression = {storage::Encoding::kZstd, 100};
  TestCluster c(options);
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  leave_behind(c, leader);
  const uint64_t before = c.net.bytes[NetworkLane::kBulk];
  c.net.heal();
  EXPECT_TRUE(c.run_until([&] { return c.converged(); }));
  // As it is, the state has more than 100 KB.
  EXPECT_GT(c.net.bytes[NetworkLane::kBulk], before);
  EXPECT_LT(c.net.bytes[NetworkLane::kBulk] - before, 40'000u);
}

TEST(NodeSnapshot, RowsThatDoNotHaveTheDigestAreRefused) {
  storage::MemoryKv kv;
  storage::KvBatch batch;
  batch.put(machine::group_prefix(kGroup) + "ab", "flipped");
  ASSERT_TRUE(kv.write(batch).is_ok());
  machine::SnapshotHeader header{kGroup, {Term(2), LogIndex(3)}, "m", 1, {}};
  header.digest.add("ab", "right");
  machine::SnapshotReader reader(header, machine::GroupView(kGroup, kv.view(), LogIndex(3), 0));
  machine::SnapshotWriter writer(kGroup, kv, 1);
  EXPECT_EQ(writer.add(reader.next()).reason(), "SNAPSHOT_DAMAGED");
}

}  // namespace
}  // namespace uccp::node
