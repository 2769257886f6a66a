// Replacing the state of a group through its log, on real replicas.
#include "machine/restore.h"

#include "machine/kept_entries.h"
#include "machine/snapshot.h"
#include "node/test_cluster.h"

namespace uccp::node {
namespace {

constexpr GroupId kGroup{1};

// The state of a group as the stream that a restore takes.
std::string stream_of(const machine::GroupView& view) {
  machine::SnapshotReader reader(*machine::read_snapshot_header(kGroup, view), view, {.chunk_bytes = 2000});
  std::string stream;
  while (!reader.done()) stream += machine::frame_chunk(reader.next());
  return stream;
}

class NodeRestore : public testing::Test {
 protected:
  explicit NodeRestore(TestClusterOptions chosen = options()) : c(std::move(chosen)) {
    c.add_founders(3);
    leader = c.wait_leader();
  }
  static TestClusterOptions options() {
    TestClusterOptions options;
    options.node.group.log_kept_entries = 20;
    options.node.group.flush_every_entries = 100;
    return options;
  }

  Result<machine::Applied> command(std::string_view name, std::string payload) {
    machine::Envelope envelope;
    envelope.principal = "system";
    envelope.command = name;
    envelope.payload = std::move(payload);
    auto result = std::make_shared<std::optional<Result<machine::Applied>>>();
    c.node(leader).propose(kGroup, std::move(envelope),
                           [result](Result<machine::Applied> r) { *result = std::move(r); });
    EXPECT_TRUE(c.run_until([&] { return result->has_value(); }));
    return std::move(**result);
  }
  uint64_t stage(std::string_view id, std::string_view stream, size_t piece_bytes = 3000) {
    uint64_t number = 0;
    for (size_t at = 0; at < stream.size(); at += piece_bytes) {
      const auto done = command(machine::kRestorePieceCommand,
                                machine::encode_restore_piece(id, number++, stream.substr(at, piece_bytes)));
      EXPECT_TRUE(done.has_value()) << done.error().to_string();
    }
    return number;
  }
  Result<machine::Applied> commit(std::string_view id, uint64_t pieces) {
    return command(machine::kRestoreCommitCommand, machine::encode_restore_commit(id, pieces));
  }
  std::string row(uint64_t node, const std::string& key) { return c.row(c.node(node).view(kGroup), key); }

  TestCluster c;
  uint64_t leader = 0;
};

TEST_F(NodeRestore, AllReplicasGoBackToTheStateOfTheStream) {
  ASSERT_EQ(c.put_many(leader, 300, "old", 50), 300u);
  ASSERT_TRUE(c.put(leader, "kept=1").has_value());
  const std::string stream = stream_of(c.node(leader).view(kGroup));
  ASSERT_TRUE(c.put(leader, "kept=2").has_value());
  ASSERT_TRUE(c.put(leader, "later=1").has_value());
  const LogIndex before = c.status(leader).applied;
  const auto done = commit("r1", stage("r1", stream));
  ASSERT_TRUE(done.has_value()) << done.error().to_string();
  ASSERT_TRUE(c.run_until([&] { return c.converged(); }));
  for (uint64_t node = 1; node <= 3; ++node) {
    EXPECT_EQ(row(node, "kept"), "1");
    EXPECT_EQ(row(node, "later"), "(none)");
    EXPECT_EQ(row(node, "old299"), std::string(50, 'x'));
    // The log goes on: indexes never come twice.
    EXPECT_GT(c.status(node).applied, before);
    const auto mark = machine::restored_mark(c.node(node).view(kGroup));
    EXPECT_EQ(mark.epoch, 1u);
    EXPECT_EQ(mark.id, "r1");
  }
  EXPECT_EQ(c.status(leader).membership.voters.size(), 3u);
  // Writes go on, over restarts and a snapshot to a node that was away.
  ASSERT_TRUE(c.run_until([&] { return c.leader() != 0; }));
  leader = c.leader();
  c.kill(leader % 3 + 1);
  ASSERT_EQ(c.put_many(leader, 500, "new"), 500u);
  c.start(leader % 3 + 1);
  c.restart(leader);
  ASSERT_TRUE(c.run_until([&] { return c.converged(); }));
  for (uint64_t node = 1; node <= 3; ++node) EXPECT_EQ(row(node, "new499"), "xxxxxxxxxx");
}

TEST_F(NodeRestore, EachRestoreIsAnEpoch) {
  ASSERT_TRUE(c.put(leader, "a=1").has_value());
  const std::string stream = stream_of(c.node(leader).view(kGroup));
  for (uint64_t epoch = 1; epoch <= 3; ++epoch) {
    const std::string id = "r" + std::to_string(epoch);
    ASSERT_TRUE(commit(id, stage(id, stream)).has_value());
    EXPECT_EQ(machine::restored_mark(c.node(leader).view(kGroup)).epoch, epoch);
  }
}

TEST_F(NodeRestore, ADamagedOrCutStreamChangesNothing) {
  ASSERT_EQ(c.put_many(leader, 100, "k", 100), 100u);
  const std::string stream = stream_of(c.node(leader).view(kGroup));
  ASSERT_TRUE(c.put(leader, "later=1").has_value());
  std::string damaged = stream;
  damaged[stream.size() / 2] ^= 1;
  EXPECT_EQ(commit("damaged", stage("damaged", damaged)).error().code(), Code::kCorruption);
  EXPECT_EQ(commit("cut", stage("cut", stream.substr(0, stream.size() / 2))).error().reason(), "RESTORE_INCOMPLETE");
  EXPECT_EQ(commit("long", stage("long", stream + stream)).error().code(), Code::kCorruption);
  EXPECT_EQ(commit("other", 3).error().reason(), "RESTORE_INCOMPLETE");
  stage("dropped", stream);
  ASSERT_TRUE(command(machine::kRestoreDropCommand, "").has_value());
  EXPECT_EQ(commit("dropped", 1).error().reason(), "RESTORE_INCOMPLETE");
  ASSERT_TRUE(c.run_until([&] { return c.converged(); }));
  for (uint64_t node = 1; node <= 3; ++node) EXPECT_EQ(row(node, "later"), "1");
  EXPECT_EQ(machine::restored_mark(c.node(leader).view(kGroup)).epoch, 0u);
}

TEST_F(NodeRestore, AReplicaKilledAtAnyMomentEndsWithTheSameState) {
  ASSERT_EQ(c.put_many(leader, 200, "k", 100), 200u);
  const std::string stream = stream_of(c.node(leader).view(kGroup));
  ASSERT_TRUE(c.put(leader, "later=1").has_value());
  const uint64_t pieces = stage("r", stream);
  const uint64_t follower = leader % 3 + 1;
  c.kill(follower);
  ASSERT_TRUE(commit("r", pieces).has_value());
  c.start(follower);
  for (int64_t ms = 0; ms < 40; ++ms) {
    c.run_ms(ms);
    c.restart(follower);
  }
  ASSERT_TRUE(c.run_until([&] { return c.converged(); }));
  EXPECT_EQ(row(follower, "later"), "(none)");
  EXPECT_TRUE(c.member(follower).fatal.is_ok()) << c.member(follower).fatal.to_string();
}

TEST_F(NodeRestore, AWatchIsToldThatItsCursorIsOfAnotherHistory) {
  ASSERT_TRUE(c.put(leader, "a=1").has_value());
  const std::string stream = stream_of(c.node(leader).view(kGroup));
  ASSERT_TRUE(c.put(leader, "b=1").has_value());
  const LogIndex cursor = c.status(leader).applied;
  Status live, resumed;
  const auto watch = [&](LogIndex since, Status& ended) {
    return c.node(leader).watch(
        {.group = kGroup, .topic = "rows"}, since, [](const machine::Change&) { return true; },
        [&ended](Status status) { ended = std::move(status); });
  };
  const auto first = watch(cursor, live);
  c.run_ms(100);
  ASSERT_TRUE(commit("r", stage("r", stream)).has_value());
  EXPECT_TRUE(c.run_until([&] { return live.reason() == "CURSOR_COMPACTED"; }));
  const auto second = watch(cursor, resumed);
  EXPECT_TRUE(c.run_until([&] { return resumed.reason() == "CURSOR_COMPACTED"; }));
}

// The row `floor` says which entries the state needs.
class NodeRestoreOfData : public NodeRestore {
 protected:
  NodeRestoreOfData() : NodeRestore(with_data()) {}
  static TestClusterOptions with_data() {
    TestClusterOptions chosen = options();
    chosen.node.group.log_cache_bytes = 4'000;
    chosen.log_floor = [](const machine::GroupView& view, LogIndex from) {
      const auto row = kRows.get(view, {"t", "n"}, "floor");
      return std::max(from, LogIndex(row ? std::stoull(*row) : 1));
    };
    return chosen;
  }
  machine::GroupView whole(uint64_t node) {
    std::optional<Result<machine::GroupView>> view;
    c.node(node).read_whole(kGroup, [&](Result<machine::GroupView> read) { view = std::move(read); });
    EXPECT_TRUE(c.run_until([&] { return view.has_value(); }));
    EXPECT_TRUE(view->has_value());
    return **view;
  }
  // The entry, or why it cannot be read.
  Result<Entry> entry(uint64_t node, LogIndex index) {
    std::optional<Result<std::vector<Entry>>> answer;
    c.node(node).read_log(kGroup, index, index.next(), 3'000, [&](auto entries) { answer = std::move(entries); });
    EXPECT_TRUE(c.run_until([&] { return answer.has_value(); }));
    if (!*answer) return std::unexpected(answer->error());
    return (*answer)->front();
  }
};

TEST_F(NodeRestoreOfData, EntriesThatTheStateNeedsComeBackWithItAndAreReadInsteadOfThoseOfTheLog) {
  ASSERT_EQ(c.put_many(leader, 60, "k", 100), 60u);
  ASSERT_TRUE(c.put(leader, "floor=20").has_value());
  const auto view = whole(leader);
  const std::vector<Entry> needed = machine::read_kept(view, LogIndex(20), view.applied().next(), UINT64_MAX);
  ASSERT_GT(needed.size(), 30u);
  const std::string stream = stream_of(view);
  // The log goes on, and nothing of it is needed any more.
  ASSERT_EQ(c.put_many(leader, 300, "later", 100), 300u);
  ASSERT_TRUE(c.put(leader, "floor=300").has_value());
  ASSERT_TRUE(commit("r1", stage("r1", stream)).has_value());
  ASSERT_TRUE(c.run_until([&] { return c.converged(); }));
  ASSERT_EQ(c.put_many(c.wait_leader(), 300, "new", 100), 300u);
  c.restart(c.wait_leader());
  ASSERT_TRUE(c.run_until([&] { return c.converged(); }));
  const LogIndex begin = machine::restored_mark(c.node(1).view(kGroup)).index;
  for (uint64_t node = 1; node <= 3; ++node) {
    for (const Entry& before : needed) {
      const auto read = entry(node, before.index);
      ASSERT_TRUE(read.has_value()) << read.error().to_string();
      EXPECT_EQ(*read, before);
    }
    EXPECT_EQ(entry(node, LogIndex(view.applied().value + 5)).error().reason(), "LOG_COMPACTED")
        << "what the lost history had there is not what the state means";
    EXPECT_TRUE(entry(node, begin.next()).has_value());
  }
}

TEST_F(NodeRestoreOfData, WhatWasPutBesideTheStateForACopyGoesAgain) {
  ASSERT_EQ(c.put_many(leader, 60, "k", 100), 60u);
  const auto kept = [&] { return machine::read_kept(whole(leader), LogIndex(0), LogIndex(1000), UINT64_MAX).size(); };
  EXPECT_GT(kept(), 50u);
  c.node(leader).drop_copies(kGroup);
  c.run_ms(200);
  const auto last = c.put(leader, "last=1");
  ASSERT_TRUE(last.has_value());
  ASSERT_TRUE(c.run_until([&] { return c.node(leader).view(kGroup).applied() >= last->index; }));
  EXPECT_TRUE(machine::read_kept(c.node(leader).view(kGroup), LogIndex(0), LogIndex(1000), UINT64_MAX).empty());
  EXPECT_GT(kept(), 50u) << "and comes again for the next one";
}

}  // namespace
}  // namespace uccp::node
