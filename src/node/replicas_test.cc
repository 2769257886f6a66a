// Digests, garbage from peers, many groups, and clusters under random faults.
#include <cstdlib>
#include <ctime>

#include "base/log.h"
#include "machine/recent_rows.h"
#include "machine/table.h"
#include "node/peer_message.h"
#include "node/test_cluster.h"

namespace uccp::node {
namespace {

constexpr GroupId kGroup{1};

// Changes a row below the machine, as a damaged disk would.
void flip_row(TestCluster& c, uint64_t id, const std::string& key) {
  storage::KvBatch batch;
  batch.put(machine::group_prefix(kGroup) + machine::table_key::make(100, {"t", "n"}, key), "flipped");
  ASSERT_TRUE(c.member(id).kv.write(batch).is_ok());
}

// So many rows are read that what was kept of others in memory is gone: what is read next of them comes from the store.
void forget_rows(TestCluster& c, uint64_t leader) {
  const std::string value(1024, 'v');
  for (size_t i = 0; i * value.size() <= machine::RecentRows::kBytesMax; ++i) {
    ASSERT_TRUE(c.put(leader, "forget" + std::to_string(i) + "=" + value).has_value());
  }
}

TestClusterOptions frequent_digests() {
  TestClusterOptions options;
  options.node.group.digest_every_entries = 50;
  return options;
}

TEST(NodeDigest, TheReplicaThatDiffersStopsAndTheOthersGoOn) {
  for (const bool flip_leader : {false, true}) {
    TestCluster c(frequent_digests());
    c.add_founders(3);
    const uint64_t leader = c.wait_leader();
    ASSERT_TRUE(c.put(leader, "a=1").has_value());
    forget_rows(c, leader);
    c.run_ms(300);
    const uint64_t odd = flip_leader ? leader : leader % 3 + 1;
    flip_row(c, odd, "a");
    // The next batch sees the damage, the one after builds on it.
    ASSERT_TRUE(c.put(leader, "b=1").has_value());
    ASSERT_TRUE(c.put(leader, "a=2").has_value());
    for (int i = 0; i < 60 && c.member(odd).fatal.is_ok(); ++i) (void)c.put(leader, "c=1");
    c.run_ms(1000);
    EXPECT_EQ(c.member(odd).fatal.reason(), "DIGEST_MISMATCH");
    EXPECT_EQ(c.member(odd).fatal.code(), Code::kCorruption);
    for (uint64_t id = 1; id <= 3; ++id) {
      if (id != odd) {
        EXPECT_TRUE(c.member(id).fatal.is_ok());
      }
    }
    c.kill(odd);
    const uint64_t next = flip_leader ? c.wait_leader(leader) : leader;
    EXPECT_TRUE(c.put(next, "d=1").has_value());
  }
}

TEST(NodeDigest, WithoutAMajorityTheGroupTakesNoChanges) {
  TestCluster c(frequent_digests());
  c.add_founders(2);
  const uint64_t leader = c.wait_leader();
  ASSERT_TRUE(c.put(leader, "a=1").has_value());
  forget_rows(c, leader);
  c.run_ms(300);
  flip_row(c, 3 - leader, "a");
  ASSERT_TRUE(c.put(leader, "b=1").has_value());
  ASSERT_TRUE(c.put(leader, "a=2").has_value());
  c.put_many(leader, 60, "c");
  c.run_ms(500);
  const auto refused = c.put(leader, "d=1");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().reason(), "GROUP_READ_ONLY");
  EXPECT_TRUE(c.status(leader).read_only);
  EXPECT_TRUE(c.read(leader, machine::ReadLevel::linearizable()).has_value());
}

TEST(NodePeers, GarbageIsDroppedAndCounted) {
  TestCluster c;
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  SeededRandom random(5);
  FrameWriter writer;
  writer.add(kGroup, PeerItemKind::kRaft,
             raft::encode_message({.from = NodeId(9), .to = NodeId(leader), .term = Term(99)}));
  writer.add(GroupId(77), PeerItemKind::kVerdict, "x");
  writer.add(kGroup, PeerItemKind::kSnapshotChunk, "garbage");
  const std::string frame = writer.take();
  auto& end = *c.member(leader % 3 + 1).end;
  for (int i = 0; i < 2000; ++i) {
    std::string sent = frame;
    if (i > 0) {
      sent.resize(random.below(frame.size() + 1));
      if (!sent.empty()) sent[random.below(sent.size())] ^= static_cast<char>(1 + random.below(255));
    }
    end.send(NodeId(leader), NetworkLane::kControl, sent);
  }
  // Items that are well framed and hold anything.
  for (int i = 0; i < 5000; ++i) {
    std::string body(random.below(40), '\0');
    for (char& b : body) b = static_cast<char>(random.below(256));
    writer.add(kGroup, static_cast<PeerItemKind>(1 + random.below(kPeerItemKinds)), body);
  }
  end.send(NodeId(leader), NetworkLane::kControl, writer.take());
  c.run_ms(1000);
  EXPECT_GT(c.member(leader).metrics->value("uccp_peer_frames_malformed_total"), 2000);
  EXPECT_TRUE(c.put(c.wait_leader(), "a=1").has_value());
}

TEST(NodePeers, MessagesAreWrittenAndReadBack) {
  const PeerRequest request{
      7, PeerRequest::Kind::kChangeMembership, {{{raft::MembershipAction::kPromote, NodeId(4)}}}, NodeId(2)};
  EXPECT_EQ(*decode_request(encode(request)), request);
  PeerReply reply{.token = 3, .index = LogIndex(9)};
  reply.status = Status(Code::kNotLeader, "NOT_LEADER", "m").with_leader_hint("2").with_retry_after_ms(5);
  const auto read = decode_reply(encode(reply));
  EXPECT_EQ(read->status.to_string(), reply.status.to_string());
  EXPECT_EQ(read->status.detail().leader_hint, "2");
  EXPECT_EQ(read->index, LogIndex(9));
  const DigestReport report{LogIndex(4096), {1, 2}, false};
  EXPECT_EQ(*decode_report(encode(report)), report);
  const SnapshotPull pull{{Term(1), LogIndex(2)}, 3};
  EXPECT_EQ(*decode_pull(encode(pull)), pull);
  const SnapshotEnd end{{Term(1), LogIndex(2)}, true};
  EXPECT_EQ(*decode_end(encode(end)), end);
  FrameWriter frame;
  frame.add(GroupId(1), PeerItemKind::kDigest, "ab");
  // docs/formats/peer_message.md
  EXPECT_EQ(to_hex(frame.take()), "01" +
                                      to_hex(ByteWriter()
                                                 .u32(crc32c("\x01\x07\x02"
                                                             "ab"))
                                                 .data()) +
                                      "0107026162");
}

TEST(NodeGroups, IdleGroupsCostLittle) {
  TestCluster c({.groups = 64});
  c.add_founders(3);
  ASSERT_TRUE(c.run_until([&] { return c.node(1).ready() && c.node(2).ready() && c.node(3).ready(); }));
  const uint64_t frames = c.net.frames[NetworkLane::kControl];
  const std::clock_t before = std::clock();
  constexpr int kSeconds = 60;
  c.run_ms(kSeconds * 1000);
  const double cpu = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC / kSeconds / 3;
  const double per_second = static_cast<double>(c.net.frames[NetworkLane::kControl] - frames) / kSeconds;
  RecordProperty("cpu_percent_per_node", std::to_string(cpu * 100));
  std::printf("64 idle groups: %.2f %% of a core a node, %.0f frames a second in the cluster\n", cpu * 100, per_second);
  EXPECT_LT(cpu, 0.03) << "with room for slow test machines";
  // Heartbeats of all groups share frames: three nodes, two peers, ten ticks, requests and answers.
  EXPECT_LT(per_second, 400);
}

TEST(NodeFaults, NothingAcknowledgedIsLostAndReplicasStayEqual) {
  uint64_t acknowledged_in_all = 0;
  uint64_t bulk_bytes = 0;
  const char* seeds = std::getenv("UCCP_NODE_SEEDS");
  for (uint64_t seed = 1; seed <= (seeds != nullptr ? std::stoull(seeds) : 15); ++seed) {
    TestClusterOptions options{.seed = seed};
    options.node.group.log_kept_entries = 30;
    options.node.group.flush_every_entries = 60;
    options.node.group.snapshot.chunk_bytes = 1000;
    options.node.group.digest_every_entries = 64;
    TestCluster c(options);
    c.add_founders(3);
    c.add(4, {});
    SeededRandom random(seed * 31);
    auto acknowledged = std::make_shared<std::set<std::string>>();
    uint64_t next = 0;
    c.net.set_loss(0.02);
    for (int round = 0; round < 60; ++round) {
      const uint64_t id = 1 + random.below(3);
      switch (random.below(6)) {
        case 0: c.net.cut(NodeId(id)); break;
        case 1: c.net.heal(); break;
        case 2:
          if (c.member(id).up()) c.kill(id);
          break;
        case 3:
          if (c.member(id).up()) c.node(id).transfer(kGroup, NodeId(1 + random.below(3)), [](Status) {});
          break;
        default: break;
      }
      for (uint64_t other = 1; other <= 3; ++other) {
        if (!c.member(other).up() && random.chance(0.5)) c.start(other);
      }
      if (::testing::Test::HasFatalFailure()) return;
      if (round % 10 == 5 && c.member(id).up()) {
        const bool add = round % 20 == 5;
        const auto method = add ? &Node::add_learner : &Node::remove;
        (c.node(id).*method)(NodeId(4), [](Status) {});
      }
      for (int i = 0; i < 20; ++i) {
        const uint64_t at = 1 + random.below(3);
        if (!c.member(at).up()) continue;
        const std::string key = "k" + std::to_string(next++);
        c.node(at).propose(kGroup, TestCluster::envelope(key + "=" + key),
                           [acknowledged, key](Result<machine::Applied> r) {
                             if (r) acknowledged->insert(key);
                           });
      }
      c.run_ms(static_cast<int64_t>(random.below(600)));
    }
    c.net.heal();
    c.net.set_loss(0);
    for (uint64_t id = 1; id <= 3; ++id) {
      if (!c.member(id).up()) c.start(id);
    }
    c.run_ms(3000);
    ASSERT_TRUE(c.run_until([&] { return c.converged(); }, 60'000)) << "seed " << seed;
    const auto view = c.read(c.leader(), machine::ReadLevel::linearizable());
    for (const std::string& key : *acknowledged) ASSERT_EQ(c.row(view, key), key) << "seed " << seed;
    for (uint64_t id = 1; id <= 3; ++id) EXPECT_TRUE(c.member(id).fatal.is_ok()) << c.member(id).fatal.to_string();
    acknowledged_in_all += acknowledged->size();
    bulk_bytes += c.net.bytes[NetworkLane::kBulk];
  }
  // The faults left room for work, and made snapshots necessary.
  EXPECT_GT(acknowledged_in_all, 1000u);
  EXPECT_GT(bulk_bytes, 100'000u);
}

}  // namespace
}  // namespace uccp::node
