// Whole groups in memory under loss, repetition, reordering, crashes that lose what was not synced, slow disks,
// compaction, snapshots, membership changes and transfers; the safety properties of figure 3.2 of the thesis are
// checked at every step. Then everything heals, and the group has to make progress.
//
// UCCP_RAFT_SEEDS=N runs N seeds, UCCP_RAFT_SEED=N one.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <set>

#include "base/random.h"
#include "raft/planted.h"
#include "raft/test_cluster.h"

namespace uccp::raft {
namespace {

constexpr uint64_t kNodesMax = 5;

class Chaos {
 public:
  explicit Chaos(uint64_t seed) : random_(seed) {
    const uint64_t voters = 3 + random_.below(3);
    options_.election_ticks = 10;
    options_.pre_vote = random_.chance(0.7);
    options_.check_quorum = random_.chance(0.7);
    options_.lease_reads = random_.chance(0.3);
    options_.followers_wait = random_.chance(0.5);
    options_.append_bytes_max = 1 + random_.below(64);
    options_.inflight_bytes_max = 64 + random_.below(512);
    loss_ = random_.unit() * 0.2;
    Membership membership;
    for (uint64_t id = 1; id <= voters; ++id) membership.voters.insert(NodeId(id));
    for (uint64_t id = 1; id <= kNodesMax; ++id) {
      options_.id = NodeId(id);
      auto added = std::make_unique<TestNode>(options_, seed * 16 + id);
      TestNode* const raw = added.get();
      raw->disk.membership = membership;
      raw->on_apply = [this](const Entry& entry) { check_applied(entry); };
      raw->on_outputs = [this, raw](const Outputs& out) { check_outputs(*raw, out); };
      raw->start();
      nodes_.push_back(std::move(added));
    }
    memberships_[LogIndex()] = membership;
  }

  std::string error;  // the first violated property
  uint64_t commits() const { return committed_.size(); }
  uint64_t reads_served = 0;
  uint64_t snapshots_installed = 0;
  uint64_t changes_committed = 0;

  void run(int steps) {
    for (int i = 0; i < steps && error.empty(); ++i) {
      act();
      collect();
      if (i % 64 == 0) check_logs();
    }
    check_logs();
  }

  void heal() {
    if (!error.empty()) return;
    loss_ = 0;
    cut_.clear();
    for (auto& n : nodes_) {
      n->disk.slow = false;
      if (!n->up()) n->start();
    }
    const uint64_t target = 1'000'000;
    bool proposed = false;
    for (int tick = 0; tick < 600 && error.empty(); ++tick) {
      for (auto& n : nodes_) n->step(Tick{});
      settle();
      TestNode* const leader = current_leader();
      if (leader == nullptr) continue;
      if (tick % 20 == 0) leader->step(Propose{target, {{"final"}}});
      proposed = proposed || tick % 20 == 0;
      settle();
      if (proposed && converged(*leader)) return;
    }
    if (error.empty()) {
      error = "no progress after healing:";
      for (auto& n : nodes_) error += "\n  " + std::to_string(n->id().value) + ": " + n->core().describe();
    }
  }

 private:
  struct Flying {
    Message message;
  };
  struct Snapshot {
    NodeId from;
    NodeId to;
    LogPosition position;
  };

  TestNode& at(NodeId id) { return *nodes_[id.value - 1]; }
  TestNode& any() { return *nodes_[random_.below(nodes_.size())]; }

  TestNode* current_leader() {
    TestNode* best = nullptr;
    for (auto& n : nodes_) {
      if (!n->up() || n->core().role() != Role::kLeader) continue;
      if (best == nullptr || n->core().term() > best->core().term()) best = n.get();
    }
    return best;
  }

  void act() {
    const uint64_t dice = random_.below(1000);
    TestNode& n = any();
    if (dice < 520 && !flying_.empty()) return deliver();
    if (!n.up()) {
      if (random_.chance(0.2)) n.start();
      return;
    }
    if (dice < 660) return tick(n);
    if (dice < 880) return n.sync(1 + random_.below(4));
    if (dice < 962) return ask(dice);
    if (dice < 968) return crash(n);
    if (dice < 970) return n.step(Campaign{});
    if (dice < 988) return n.compact();
    if (dice < 990) return n.flush_state();
    if (dice < 992) return toggle_cut();
    if (dice < 993) return n.step(Unreachable{any().id()});
    if (dice < 994 || (behind_.contains(n.id()) && random_.chance(0.3))) return catch_up(n);
    if (dice < 996) n.disk.slow = random_.chance(0.5);
    else snapshot();
  }

  // Asks something of whoever leads, now and then of a node that does not.
  void ask(uint64_t dice) {
    TestNode* const leader = random_.chance(0.1) ? &any() : current_leader();
    if (leader == nullptr || !leader->up()) return;
    if (dice < 920) {
      std::vector<Proposed> commands(1 + random_.below(3));
      for (Proposed& command : commands) command.data = "c" + std::to_string(next_command_++);
      return leader->step(Propose{next_token_++, std::move(commands)});
    }
    if (dice < 945) return read(*leader);
    if (dice < 957) return change(*leader);
    leader->step(TransferLeadership{next_token_++, any().id()});
  }

  // Leases are sound only where clocks run equally fast, so with them all nodes tick together.
  void tick(TestNode& one) {
    if (!options_.lease_reads) return one.step(Tick{});
    if (!random_.chance(0.3)) return;
    for (auto& n : nodes_) {
      if (n->up()) n->step(Tick{});
    }
  }

  void catch_up(TestNode& n) {
    if (random_.chance(0.5)) return n.step(CatchUp{any().id()});
    if (behind_.erase(n.id()) > 0) n.step(CatchUp{});
  }

  void crash(TestNode& n) {
    if (random_.chance(0.5)) n.sync(random_.below(3));
    collect();
    n.crash();
    commit_seen_.erase(n.id());
  }

  void toggle_cut() {
    if (cut_.empty()) cut_.insert(any().id());
    else cut_.clear();
  }

  void change(TestNode& n) {
    MembershipChange change;
    const uint64_t steps = 1 + random_.below(3);
    const Membership& now = n.core().membership();
    for (uint64_t i = 0; i < steps; ++i) {
      const NodeId id = any().id();
      MembershipAction action = MembershipAction::kRemove;
      if (!now.contains(id)) action = random_.chance(0.5) ? MembershipAction::kAddVoter : MembershipAction::kAddLearner;
      else if (now.is_learner(id) && random_.chance(0.7)) action = MembershipAction::kPromote;
      change.steps.push_back({action, id});
    }
    n.step(ProposeMembership{next_token_++, change});
  }

  void read(TestNode& n) {
    const uint64_t token = next_token_++;
    reads_[token] = committed_.empty() ? LogIndex() : committed_.rbegin()->first;
    n.step(ReadIndex{token, random_.chance(0.5)});
  }

  void collect() {
    for (const auto& [from, to] : std::exchange(snapshots_wanted_, {})) {
      if (!at(from).up()) continue;
      at(from).step(SnapshotOffer{to, at(from).applied});
      snapshots_.push_back({from, to, at(from).applied});
    }
    for (auto& n : nodes_) {
      for (Message& message : n->outbox) {
        if (random_.chance(loss_)) continue;
        if (cut_.contains(message.from) != cut_.contains(message.to)) continue;
        if (random_.chance(0.03)) flying_.push_back({message});
        flying_.push_back({std::move(message)});
      }
      n->outbox.clear();
    }
    if (flying_.size() > 400) flying_.erase(flying_.begin(), flying_.begin() + 200);
  }

  void deliver() {
    if (flying_.empty()) return;
    // Mostly in order, sometimes from anywhere.
    const size_t which = random_.chance(0.8) ? 0 : random_.below(flying_.size());
    Message message = std::move(flying_[which].message);
    flying_.erase(flying_.begin() + static_cast<std::ptrdiff_t>(which));
    if (cut_.contains(message.from) != cut_.contains(message.to)) return;
    if (random_.chance(0.1)) message = decode_message(encode_message(message)).value();
    TestNode& n = at(message.to);
    if (n.up()) n.step(Receive{std::move(message)});
  }

  void snapshot() {
    if (snapshots_.empty()) return;
    const Snapshot snapshot = snapshots_.front();
    snapshots_.erase(snapshots_.begin());
    TestNode& to = at(snapshot.to);
    const bool ok = to.up() && random_.chance(0.9);
    if (ok) {
      ++snapshots_installed;
      to.install(snapshot.position, membership_at(snapshot.position.index));
    }
    if (at(snapshot.from).up()) at(snapshot.from).step(SnapshotStatus{snapshot.to, ok});
  }

  const Membership& membership_at(LogIndex index) const { return std::prev(memberships_.upper_bound(index))->second; }

  // Until nothing moves: delivers, syncs, installs.
  void settle() {
    for (int i = 0; i < 2000; ++i) {
      for (auto& n : nodes_) n->sync();
      collect();
      while (!snapshots_.empty()) snapshot();
      collect();
      if (flying_.empty()) {
        for (NodeId leader : std::exchange(behind_, {})) {
          if (at(leader).up()) at(leader).step(CatchUp{});
        }
        collect();
      }
      if (flying_.empty()) return;
      while (!flying_.empty()) {
        Message message = std::move(flying_.front().message);
        flying_.erase(flying_.begin());
        at(message.to).step(Receive{std::move(message)});
      }
    }
  }

  bool converged(TestNode& leader) {
    const std::set<NodeId> members = leader.core().membership().members();
    if (leader.core().membership().joint()) return false;
    for (NodeId member : members) {
      if (at(member).applied.index != leader.core().last().index) return false;
    }
    return leader.applied.index == leader.core().last().index && committed_.rbegin()->second.data == "final";
  }

  void violated(std::string what) {
    if (error.empty()) error = std::move(what);
  }

  // State machine safety: all nodes apply the same entry at an index.
  void check_applied(const Entry& entry) {
    const auto [found, fresh] = committed_.emplace(entry.index, entry);
    if (!fresh && found->second != entry) violated("two entries were applied at " + std::to_string(entry.index.value));
    if (fresh && entry.index.value != committed_.size()) violated("a gap was applied");
    if (fresh && entry.kind == EntryKind::kConfiguration) {
      memberships_[entry.index] = decode_membership(entry.data).value();
      ++changes_committed;
    }
  }

  void check_outputs(TestNode& n, const Outputs& out) {
    if (!n.up()) return;
    Core& core = n.core();
    LogIndex& seen = commit_seen_[n.id()];
    if (core.commit() < seen) violated("a commit index went back");
    seen = core.commit();
    for (const ReadReady& read : out.reads) {
      ++reads_served;
      if (read.index < reads_[read.token]) violated("a read may miss what was committed before it");
    }
    for (NodeId peer : out.snapshots_wanted) snapshots_wanted_.emplace_back(n.id(), peer);
    if (out.followers_wait) behind_.insert(n.id());
    if (core.role() != Role::kLeader) return;
    const auto found = leaders_.emplace(core.term(), n.id()).first;
    if (found->second != n.id()) violated("two leaders in term " + std::to_string(core.term().value));
  }

  // The log as the core has it: the disk with the writes under way.
  static std::map<LogIndex, Entry> log_of(const TestNode& n) {
    TestDisk disk = n.disk;
    for (const Persist& persist : n.writes) disk.write(persist);
    std::map<LogIndex, Entry> log;
    for (const Entry& entry : disk.log) log.emplace(entry.index, entry);
    return log;
  }

  void check_logs() {
    std::vector<std::map<LogIndex, Entry>> logs;
    for (auto& n : nodes_) logs.push_back(log_of(*n));
    for (size_t a = 0; a < logs.size(); ++a) {
      check_leader_completeness(*nodes_[a], logs[a]);
      for (size_t b = a + 1; b < logs.size(); ++b) check_log_matching(logs[a], logs[b]);
    }
  }

  void check_leader_completeness(TestNode& n, const std::map<LogIndex, Entry>& log) {
    // Only the leader of the newest term: an older one may not know yet that it was replaced.
    if (!n.up() || n.core().role() != Role::kLeader || n.core().term() != leaders_.rbegin()->first) return;
    for (const auto& [index, entry] : committed_) {
      if (index <= n.disk.start.index) continue;
      const auto found = log.find(index);
      if (found == log.end() || found->second != entry) {
        return violated("the leader lacks the committed entry " + std::to_string(index.value));
      }
    }
  }

  // If two logs agree in the term at an index, they agree in everything up to it.
  void check_log_matching(const std::map<LogIndex, Entry>& a, const std::map<LogIndex, Entry>& b) {
    bool must_match = false;
    for (auto entry = a.rbegin(); entry != a.rend(); ++entry) {
      const auto other = b.find(entry->first);
      if (other == b.end()) continue;
      if (entry->second.term == other->second.term) must_match = true;
      if (must_match && entry->second != other->second) {
        return violated("two logs differ below an entry they share, at " + std::to_string(entry->first.value));
      }
    }
  }

  SeededRandom random_;
  Options options_;
  double loss_ = 0;
  std::vector<std::unique_ptr<TestNode>> nodes_;
  std::deque<Flying> flying_;
  std::vector<Snapshot> snapshots_;
  std::set<NodeId> cut_;
  uint64_t next_token_ = 1;
  uint64_t next_command_ = 1;
  std::map<LogIndex, Entry> committed_;
  std::map<LogIndex, Membership> memberships_;
  std::map<Term, NodeId> leaders_;
  std::map<uint64_t, LogIndex> reads_;
  std::map<NodeId, LogIndex> commit_seen_;
  std::vector<std::pair<NodeId, NodeId>> snapshots_wanted_;
  std::set<NodeId> behind_;  // leaders that let followers wait
};

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(ClusterTest, SafetyHoldsUnderChaosAndProgressReturnsAfterIt) {
  const uint64_t only = from_environment("UCCP_RAFT_SEED", 0);
  const uint64_t count = only != 0 ? 1 : from_environment("UCCP_RAFT_SEEDS", 200);
  uint64_t commits = 0;
  uint64_t reads = 0;
  uint64_t snapshots = 0;
  uint64_t changes = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t seed = only != 0 ? only : i + 1;
    SCOPED_TRACE("UCCP_RAFT_SEED=" + std::to_string(seed));
    Chaos chaos(seed);
    chaos.run(10000);
    chaos.heal();
    ASSERT_EQ(chaos.error, "");
    commits += chaos.commits();
    reads += chaos.reads_served;
    snapshots += chaos.snapshots_installed;
    changes += chaos.changes_committed;
  }
  RecordProperty("commits", std::to_string(commits));
  std::printf("commits=%lu reads=%lu snapshots=%lu changes=%lu\n", commits, reads, snapshots, changes);
  if (only == 0) {
    // A run that exercises nothing proves nothing.
    EXPECT_GT(commits, count * 20);
    EXPECT_GT(reads, count);
    EXPECT_GT(snapshots, count / 10);
    EXPECT_GT(changes, count);
  }
}

#if defined(UCCP_PLANTED_BUGS)
class PlantedBugTest : public testing::TestWithParam<const char*> {};

// Ends the process if the checkers here, or a check inside the core, notice the bug.
void hunt(const char* bug) {
  plant_bug(bug);
  for (uint64_t seed = 1; seed <= from_environment("UCCP_RAFT_SEEDS", 2000); ++seed) {
    Chaos chaos(seed);
    chaos.run(10000);
    if (chaos.error.empty()) continue;
    std::fprintf(stderr, "caught with seed %lu: %s\n", seed, chaos.error.c_str());
    std::abort();
  }
}

TEST_P(PlantedBugTest, IsCaughtBySomeSeed) { EXPECT_DEATH(hunt(GetParam()), "caught|check"); }

INSTANTIATE_TEST_SUITE_P(All, PlantedBugTest,
                         testing::Values("forget_vote", "commit_old_term", "ack_before_persist", "stale_lease_read",
                                         "ignore_config_on_append"),
                         [](const auto& info) { return std::string(info.param); });
#endif

}  // namespace
}  // namespace uccp::raft
