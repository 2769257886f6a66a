// Groups whose data stays in their log: it is kept as long as the state needs it, can be read everywhere, and travels
// with a snapshot.
#include "machine/kept_entries.h"
#include "machine/machine.h"
#include "node/test_cluster.h"

namespace uccp::node {
namespace {

constexpr GroupId kGroup{1};

// The state names the first entry that it needs in a row of its own.
LogIndex named_floor(const machine::GroupView& view, LogIndex from) {
  const auto row = kRows.get(view, {"t", "n"}, "floor");
  return std::max(from, LogIndex(row ? std::stoull(*row) : 1));
}

TestClusterOptions data_logs(uint64_t seed = 1) {
  TestClusterOptions options{.seed = seed};
  options.node.group.log_kept_entries = 20;
  options.node.group.flush_every_entries = 100;
  options.node.group.log_cache_bytes = 4'000;
  options.node.group.snapshot.chunk_bytes = 2000;
  options.log_floor = named_floor;
  return options;
}

// What the entries from `from` on say, as they can be read on a node; or why they cannot.
Result<std::vector<Entry>> read(TestCluster& c, uint64_t id, LogIndex from, LogIndex to) {
  std::vector<Entry> all;
  while (from < to) {
    std::optional<Result<std::vector<Entry>>> answer;
    c.node(id).read_log(kGroup, from, to, 3'000, [&](auto entries) { answer = std::move(entries); });
    EXPECT_TRUE(c.run_until([&] { return answer.has_value(); }));
    if (!*answer) return std::unexpected(answer->error());
    EXPECT_FALSE((*answer)->empty());
    from = (*answer)->back().index.next();
    all.insert(all.end(), (*answer)->begin(), (*answer)->end());
  }
  return all;
}

TEST(GroupData, TheLogIsKeptFromTheEntryThatTheStateNamesOn) {
  TestCluster c(data_logs());
  c.add_founders(1);
  const uint64_t node = c.wait_leader();
  ASSERT_EQ(c.put_many(node, 500, "k", 50), 500u);
  c.run_ms(1000);
  const LogIndex end = c.status(node).applied.next();
  const auto whole = read(c, node, LogIndex(1), end);
  ASSERT_TRUE(whole.has_value()) << whole.error().to_string();
  EXPECT_EQ(whole->size(), end.value - 1);
  ASSERT_TRUE(c.put(node, "floor=300").has_value());
  ASSERT_EQ(c.put_many(node, 200, "m", 50), 200u);
  c.run_ms(1000);
  const auto early = read(c, node, LogIndex(299), LogIndex(300));
  ASSERT_FALSE(early.has_value());
  EXPECT_EQ(early.error().reason(), "LOG_COMPACTED");
  c.restart(node);
  c.wait_leader();
  EXPECT_TRUE(read(c, node, LogIndex(300), end).has_value());
}

TEST(GroupData, WhatASnapshotIsNeededForComesWithTheEntriesThatItsStateNeeds) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    TestCluster c(data_logs(seed));
    c.add_founders(3);
    const uint64_t leader = c.wait_leader();
    const uint64_t follower = leader % 3 + 1;
    c.net.cut(NodeId(follower));
    ASSERT_EQ(c.put_many(leader, 600, "k", 100), 600u);
    ASSERT_TRUE(c.put(leader, "floor=200").has_value());
    ASSERT_EQ(c.put_many(leader, 300, "m", 100), 300u);
    c.run_ms(1000);
    ASSERT_FALSE(read(c, leader, LogIndex(199), LogIndex(200)).has_value())
        << "the log is shorter than the follower's gap";
    const LogIndex end = c.status(leader).applied.next();
    c.net.heal();
    ASSERT_TRUE(c.run_until([&] { return c.converged(); }, 60'000)) << seed;
    const auto there = read(c, leader, LogIndex(200), end);
    const auto here = read(c, follower, LogIndex(200), end);
    ASSERT_TRUE(there && here) << (here ? there : here).error().to_string();
    const auto commands = [](const std::vector<Entry>& entries) {
      std::vector<Entry> out;
      for (const Entry& entry : entries) {
        if (entry.kind == EntryKind::kCommand) out.push_back(entry);
      }
      return out;
    };
    EXPECT_EQ(commands(*here), commands(*there));
    c.restart(follower);
    EXPECT_TRUE(c.run_until([&] { return c.converged(); }, 60'000));
    EXPECT_TRUE(read(c, follower, LogIndex(200), end).has_value()) << "also after a restart";
    // What is not needed any more goes from beside the state, too.
    ASSERT_TRUE(c.put(c.wait_leader(), "floor=" + std::to_string(end.value)).has_value());
    ASSERT_EQ(c.put_many(c.wait_leader(), 200, "z", 50), 200u);
    c.run_ms(2000);
    // A view is as old as the last entry.
    const auto last = c.put(c.wait_leader(), "last=1");
    ASSERT_TRUE(last.has_value());
    ASSERT_TRUE(c.run_until([&] { return c.node(follower).view(kGroup).applied() >= last->index; }));
    EXPECT_TRUE(machine::read_kept(c.node(follower).view(kGroup), LogIndex(0), end, UINT64_MAX).empty());
    EXPECT_TRUE(c.member(follower).fatal.is_ok());
  }
}

}  // namespace
}  // namespace uccp::node
