// Entries in compressed form on their way to other nodes.
#include "node/entry_packing.h"

#include "base/limits.h"
#include "node/test_cluster.h"

namespace uccp::node {
namespace {

constexpr GroupId kGroup{1};
constexpr size_t kValueBytes = 20'000;
constexpr size_t kValues = 100;

TestClusterOptions packing() {
  TestClusterOptions options;
  options.node.group.compression = {storage::Encoding::kLz4, 4096};
  return options;
}

uint64_t control_bytes(TestCluster& c) { return c.net.bytes[NetworkLane::kControl]; }

double saved_bytes(TestCluster& c, uint64_t node) {
  return static_cast<double>(storage::saved_bytes_counter(*c.member(node).metrics, "peers").value());
}

TEST(EntryPacking, LargeEntriesAreSmallOnTheWireOnceAllMembersUnderstandThem) {
  TestCluster c(packing());
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  uint64_t before = control_bytes(c);
  ASSERT_EQ(c.put_many(leader, kValues, "plain", kValueBytes), kValues);
  EXPECT_GT(control_bytes(c) - before, 2 * kValues * kValueBytes);
  EXPECT_EQ(saved_bytes(c, leader), 0);

  ASSERT_TRUE(c.set_feature_level(leader, machine::kPackedEntriesLevel));
  before = control_bytes(c);
  ASSERT_EQ(c.put_many(leader, kValues, "packed", kValueBytes), kValues);
  EXPECT_LT(control_bytes(c) - before, kValues * kValueBytes / 5);
  EXPECT_GT(saved_bytes(c, leader), 1.9 * kValues * kValueBytes);

  EXPECT_TRUE(c.run_until([&] { return c.converged(); }));
  for (uint64_t id = 1; id <= 3; ++id) {
    EXPECT_EQ(c.row(c.node(id).view(kGroup), "packed99"), std::string(kValueBytes, 'x'));
    // The log has the form that was sent.
    const LogIndex last = c.status(id).last;
    const auto entries = c.member(id).log.read(kGroup, last, last.next(), UINT64_MAX);
    ASSERT_TRUE(entries.has_value());
    EXPECT_NE(entries->front().packed, nullptr) << "node " << id;
  }
}

TEST(EntryPacking, WhatASlowFollowerMissedIsSentAsItIsOnDisk) {
  auto options = packing();
  options.node.group.log_cache_bytes = 1000;
  TestCluster c(options);
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  ASSERT_TRUE(c.set_feature_level(leader, machine::kPackedEntriesLevel));
  c.net.cut(NodeId(leader % 3 + 1));
  ASSERT_EQ(c.put_many(leader, kValues, "k", kValueBytes), kValues);
  const uint64_t before = control_bytes(c);
  c.net.heal();
  EXPECT_TRUE(c.run_until([&] { return c.converged(); }));
  EXPECT_LT(control_bytes(c) - before, kValues * kValueBytes / 5);
  EXPECT_EQ(c.net.bytes[NetworkLane::kBulk], 0u) << "the log was enough";
}

TEST(EntryPacking, ANodeThatRestartsAppliesWhatItReceivedPacked) {
  TestCluster c(packing());
  c.add_founders(3);
  const uint64_t leader = c.wait_leader();
  ASSERT_TRUE(c.set_feature_level(leader, machine::kPackedEntriesLevel));
  ASSERT_EQ(c.put_many(leader, kValues, "k", kValueBytes), kValues);
  for (uint64_t id = 1; id <= 3; ++id) c.kill(id);
  for (uint64_t id = 1; id <= 3; ++id) c.start(id);
  EXPECT_EQ(c.row(c.read(c.wait_leader(), machine::ReadLevel::linearizable()), "k99"), std::string(kValueBytes, 'x'));
  EXPECT_TRUE(c.run_until([&] { return c.converged(); }));
}

raft::Message append_of(PackedData packed) {
  raft::Message message;
  message.kind = raft::MessageKind::kAppend;
  message.entries.push_back(
      {Term(1), LogIndex(1), EntryKind::kCommand, "", std::make_shared<const PackedData>(std::move(packed))});
  return message;
}

TEST(EntryPacking, DamagedOrTooLargeOnesAreRefused) {
  MetricsRegistry metrics;
  EntryPacking packing({storage::Encoding::kZstd, 100}, metrics);
  const std::string data(limits::kCommandBytesMax, 'x');
  auto good = append_of(*packing.pack(data));
  ASSERT_TRUE(unpack_entries(good).is_ok());
  EXPECT_EQ(good.entries[0].data, data);
  EXPECT_EQ(packing.pack("small")->encoding, 0) << "and nobody tries again";

  auto larger = append_of(*packing.pack(data + "x"));
  EXPECT_EQ(unpack_entries(larger).reason(), "ENTRY_PACKED_INVALID");
  PackedData damaged = *packing.pack(data);
  damaged.bytes[damaged.bytes.size() / 2] ^= 0x55;
  damaged.bytes.pop_back();
  auto cut = append_of(std::move(damaged));
  EXPECT_EQ(unpack_entries(cut).reason(), "ENTRY_PACKED_INVALID");
  auto nothing = append_of({.encoding = 1, .bytes = ""});
  EXPECT_EQ(unpack_entries(nothing).reason(), "ENTRY_PACKED_INVALID");
}

}  // namespace
}  // namespace uccp::node
