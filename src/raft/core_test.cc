// Rules of the contract in core.h that scripts cannot show: merging of outputs, restarts, limits, determinism.
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "raft/test_cluster.h"

namespace uccp::raft {
namespace {

std::unique_ptr<TestNode> make_node(uint64_t id, std::initializer_list<uint64_t> voters, Options options = {}) {
  options.id = NodeId(id);
  auto result = std::make_unique<TestNode>(options, id);
  for (uint64_t voter : voters) result->disk.membership.voters.insert(NodeId(voter));
  return result;
}

Message append(uint64_t term, LogPosition previous, std::vector<Entry> entries, uint64_t commit = 0) {
  Message message;
  message.kind = MessageKind::kAppend;
  message.from = NodeId(2);
  message.to = NodeId(1);
  message.term = Term(term);
  message.log = previous;
  message.commit = LogIndex(commit);
  message.entries = std::move(entries);
  return message;
}

Entry command(uint64_t term, uint64_t index) { return {Term(term), LogIndex(index), EntryKind::kCommand, "x"}; }

TEST(CoreTest, StepsMergeIntoOutputsThatWereNotTaken) {
  auto n = make_node(1, {1, 2, 3});
  n->start();
  Outputs out;
  n->core().step(Receive{append(1, {}, {command(1, 1), command(1, 2), command(1, 3)})}, out);
  EXPECT_EQ(out.persist.sequence, 1u);
  n->core().step(Receive{append(2, {Term(1), LogIndex(1)}, {command(2, 2)})}, out);
  EXPECT_EQ(out.persist.sequence, 2u);
  ASSERT_EQ(out.persist.entries.size(), 2u);
  EXPECT_EQ(out.persist.entries[1], command(2, 2));
  EXPECT_EQ(out.persist.hard_state->term, Term(2));
  EXPECT_EQ(out.persist.messages.size(), 2u);
  EXPECT_TRUE(out.messages.empty());
  n->disk.write(out.persist);
  Outputs after;
  n->core().step(Persisted{2}, after);
  EXPECT_TRUE(after.persist.empty());
  // With everything durable an answer has nothing to wait for.
  n->core().step(Receive{append(2, {Term(2), LogIndex(2)}, {}, 2)}, after);
  EXPECT_TRUE(after.persist.empty());
  EXPECT_EQ(after.messages.size(), 1u);
  EXPECT_EQ(after.commit, LogIndex(2));
}

TEST(CoreTest, EntriesAreAppliedOnlyWhenTheyAreDurableHere) {
  auto n = make_node(1, {1, 2, 3});
  n->start();
  Outputs out;
  n->core().step(Receive{append(1, {}, {command(1, 1)}, 1)}, out);
  EXPECT_EQ(n->core().commit(), LogIndex(1));
  EXPECT_FALSE(out.commit);
  n->disk.write(out.persist);
  Outputs after;
  n->core().step(Persisted{out.persist.sequence}, after);
  EXPECT_EQ(after.commit, LogIndex(1));
}

TEST(CoreTest, ARestartKeepsTheVoteAndUncommittedConfigurationsAndCanUndoThem) {
  auto n = make_node(1, {1, 2, 3});
  Membership four = n->disk.membership;
  four.voters.insert(NodeId(4));
  n->disk.log = {command(1, 1), {Term(1), LogIndex(2), EntryKind::kConfiguration, encode_membership(four)}};
  n->disk.hard_state = {Term(1), NodeId(3), LogIndex(1)};
  n->start();
  EXPECT_EQ(to_string(n->core().membership()), "voters=1,2,3,4");
  n->step(Receive{append(2, {Term(1), LogIndex(1)}, {command(2, 2)})});
  EXPECT_EQ(to_string(n->core().membership()), "voters=1,2,3");

  auto again = make_node(1, {1, 2, 3});
  again->disk.hard_state = {Term(1), NodeId(3), LogIndex(0)};
  again->start();
  Message request;
  request.kind = MessageKind::kVote;
  request.from = NodeId(2);
  request.to = NodeId(1);
  request.term = Term(1);
  again->step(Receive{request});
  ASSERT_EQ(again->outbox.size(), 1u);
  EXPECT_TRUE(again->outbox[0].refused);
}

TEST(CoreTest, ASnapshotThatArrivesWhenTheNodeLeadsTellsItWhatIsCommitted) {
  auto n = make_node(1, {1, 2, 3}, {.pre_vote = false});
  n->disk.log = {command(1, 1), command(1, 2), command(1, 3)};
  n->disk.hard_state = {Term(1), NodeId(), LogIndex(1)};
  n->start();
  n->step(Campaign{});
  n->sync();
  Message vote;
  vote.kind = MessageKind::kVoteResponse;
  vote.from = NodeId(2);
  vote.to = NodeId(1);
  vote.term = n->core().term();
  n->step(Receive{vote});
  n->sync();
  ASSERT_EQ(n->core().role(), Role::kLeader);
  n->outbox.clear();
  n->install({Term(1), LogIndex(3)}, n->disk.membership);
  EXPECT_EQ(n->core().commit(), LogIndex(3));
  EXPECT_TRUE(n->outbox.empty());
  n->compact();
  EXPECT_EQ(n->disk.start.index, LogIndex(3));
}

TEST(CoreTest, MalformedMessagesOfAPeerChangeNothing) {
  auto n = make_node(1, {1, 2, 3});
  n->start();
  const std::string before = n->core().describe();
  Message gap = append(0, {}, {command(0, 2)});
  n->step(Receive{gap});
  Message configuration = append(0, {}, {{Term(0), LogIndex(1), EntryKind::kConfiguration, "nonsense"}});
  n->step(Receive{configuration});
  Message other = append(1, {}, {command(1, 1)});
  other.to = NodeId(3);
  n->step(Receive{other});
  EXPECT_EQ(n->core().describe(), before);
  EXPECT_TRUE(n->outbox.empty());
}

TEST(CoreTest, APeerCannotClaimEntriesThatWereNotSent) {
  auto n = make_node(1, {1, 2});
  n->start();
  n->step(Campaign{});
  Message grant;
  grant.kind = MessageKind::kPreVoteResponse;
  grant.from = NodeId(2);
  grant.to = NodeId(1);
  grant.term = Term(1);
  n->step(Receive{grant});
  n->sync();
  grant.kind = MessageKind::kVoteResponse;
  n->step(Receive{grant});
  n->sync();
  ASSERT_EQ(n->core().role(), Role::kLeader);
  Message claim;
  claim.kind = MessageKind::kAppendResponse;
  claim.from = NodeId(2);
  claim.to = NodeId(1);
  claim.term = Term(1);
  claim.index = LogIndex(99);
  n->step(Receive{claim});
  EXPECT_EQ(n->core().commit(), LogIndex(0));
  claim.from = NodeId(7);  // not a member
  claim.index = LogIndex(1);
  n->step(Receive{claim});
  EXPECT_EQ(n->core().commit(), LogIndex(0));
}

TEST(CoreTest, EntriesThatAreNotInMemoryAreTriedAgainAtTheNextTick) {
  Options options;
  options.pre_vote = false;
  auto leader = make_node(1, {1, 2}, options);
  leader->disk.log = {command(1, 1), command(1, 2)};
  leader->disk.hard_state.term = Term(1);
  leader->disk.slow = true;
  leader->start();
  leader->step(Campaign{});
  leader->sync();
  Message answer;
  answer.kind = MessageKind::kVoteResponse;
  answer.from = NodeId(2);
  answer.to = NodeId(1);
  answer.term = Term(2);
  leader->step(Receive{answer});
  leader->outbox.clear();
  answer.kind = MessageKind::kAppendResponse;
  answer.refused = true;
  answer.index = LogIndex(2);
  leader->step(Receive{answer});
  EXPECT_TRUE(leader->outbox.empty());
  leader->disk.slow = false;
  leader->step(Tick{});
  bool sent = false;
  for (const Message& message : leader->outbox) sent = sent || message.kind == MessageKind::kAppend;
  EXPECT_TRUE(sent);
}

// Runs three nodes for a while and hashes all they say.
uint32_t trace(uint64_t seed) {
  std::vector<std::unique_ptr<TestNode>> all;
  uint32_t hash = 0;
  Options options;
  for (uint64_t id = 1; id <= 3; ++id) {
    options.id = NodeId(id);
    all.push_back(std::make_unique<TestNode>(options, seed + id));
    all.back()->disk.membership.voters = {NodeId(1), NodeId(2), NodeId(3)};
    all.back()->start();
  }
  for (int round = 0; round < 200; ++round) {
    for (auto& n : all) n->step(Tick{});
    if (round == 100) all[0]->step(Propose{1, {{"a"}, {"b"}}});
    for (auto& n : all) n->sync();
    for (auto& n : all) {
      for (const Message& message : std::exchange(n->outbox, {})) {
        hash = crc32c(encode_message(message), hash);
        all[message.to.value - 1]->step(Receive{message});
      }
    }
  }
  return hash;
}

TEST(CoreTest, TheSameSeedAndEventsGiveTheSameOutputs) {
  EXPECT_EQ(trace(5), trace(5));
  EXPECT_NE(trace(5), trace(6));
}

}  // namespace
}  // namespace uccp::raft
