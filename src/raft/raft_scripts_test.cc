// Runs the scripts in tests/scripts/raft: blocks of commands, `----`, and the transcript they must produce.
// UCCP_REWRITE=1 writes the transcripts anew; the diff is what gets reviewed.
//
// Commands (N is a node; nothing moves unless a command says so):
//   nodes voters=1,2,3 [learners=4] [idle=5] [pre-vote=off] [check-quorum=off] [lease=on [no-lease=2,3]
//   [short-ticks=2]]
//         [sync=manual] [followers=wait] [append-bytes=B] [inflight-bytes=B] [uncommitted-bytes=B]
//   log N terms=1,1,2           the durable log a node starts with; only directly behind `nodes`
//   tick N [count] | campaign N | propose N command... | read N [lease] | transfer N to=M | unreachable N peer=M
//   catch-up N [to=M]
//   change N add-voter=M add-learner=M promote=M remove=M
//   deliver [from=N] [to=N] [kind=Append]     what is in flight now, not what it causes
//   drop [from=N] [to=N] [kind=Append]        loses it instead
//   settle [quiet]                            delivers and syncs until nothing moves; quiet: without the messages
//   sync N [count] | crash N | start N | compact N | snapshot N to=M | install N | snapshot-status N peer=M ok|failed
//   cut N... | mend                           messages of cut nodes are lost
//   status [N...] | show-log N | match N | inflight
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "base/test_transcripts.h"
#include "raft/test_cluster.h"

namespace uccp::raft {
namespace {

// One command line: a name, positional words and key=value words.
struct Command {
  std::string name;
  std::vector<std::string> words;
  std::map<std::string, std::string> options;
  std::vector<std::pair<std::string, std::string>> ordered;

  explicit Command(const std::string& line) {
    std::istringstream in(line);
    in >> name;
    for (std::string word; in >> word;) {
      const size_t equals = word.find('=');
      if (equals == std::string::npos) {
        words.push_back(word);
      } else {
        options[word.substr(0, equals)] = word.substr(equals + 1);
        ordered.emplace_back(word.substr(0, equals), word.substr(equals + 1));
      }
    }
  }

  std::string option(const std::string& key, std::string otherwise = {}) const {
    const auto found = options.find(key);
    return found == options.end() ? std::move(otherwise) : found->second;
  }
  uint64_t number(const std::string& key, uint64_t otherwise = 0) const {
    const auto found = options.find(key);
    return found == options.end() ? otherwise : std::stoull(found->second);
  }
  uint64_t word_number(size_t at, uint64_t otherwise = 0) const {
    return at < words.size() ? std::stoull(words[at]) : otherwise;
  }
  bool has(const std::string& word) const { return std::find(words.begin(), words.end(), word) != words.end(); }
};

std::vector<uint64_t> numbers(const std::string& list) {
  std::vector<uint64_t> result;
  std::istringstream in(list);
  for (std::string item; std::getline(in, item, ',');) result.push_back(std::stoull(item));
  return result;
}

class Script {
 public:
  // The transcript of one command.
  std::string run(const std::string& line) {
    out_.clear();
    const Command command(line);
    const auto found = handlers().find(command.name);
    if (found == handlers().end()) return "unknown command: " + line + "\n";
    if (command.name != "nodes" && command.name != "log") start_all();
    (this->*found->second)(command);
    collect();
    return out_;
  }

 private:
  using Handler = void (Script::*)(const Command&);

  static const std::map<std::string, Handler>& handlers() {
    static const std::map<std::string, Handler> table = {
        {"nodes", &Script::nodes},
        {"log", &Script::log},
        {"tick", &Script::tick},
        {"campaign", &Script::campaign},
        {"propose", &Script::propose},
        {"read", &Script::read},
        {"transfer", &Script::transfer},
        {"change", &Script::change},
        {"unreachable", &Script::unreachable},
        {"catch-up", &Script::catch_up},
        {"deliver", &Script::deliver},
        {"drop", &Script::drop},
        {"settle", &Script::settle},
        {"sync", &Script::sync},
        {"crash", &Script::crash},
        {"start", &Script::start},
        {"compact", &Script::compact},
        {"snapshot", &Script::snapshot},
        {"install", &Script::install},
        {"snapshot-status", &Script::snapshot_status},
        {"cut", &Script::cut},
        {"mend", &Script::mend},
        {"status", &Script::status},
        {"show-log", &Script::show_log},
        {"match", &Script::match},
        {"inflight", &Script::inflight},
    };
    return table;
  }

  void nodes(const Command& c) {
    Membership membership;
    for (uint64_t id : numbers(c.option("voters"))) membership.voters.insert(NodeId(id));
    for (uint64_t id : numbers(c.option("learners"))) membership.learners.insert(NodeId(id));
    std::set<NodeId> all = membership.members();
    for (uint64_t id : numbers(c.option("idle"))) all.insert(NodeId(id));
    Options options;
    options.pre_vote = c.option("pre-vote", "on") == "on";
    options.check_quorum = c.option("check-quorum", "on") == "on";
    options.lease_reads = c.option("lease", "off") == "on";
    options.followers_wait = c.option("followers") == "wait";
    options.append_bytes_max = c.number("append-bytes", options.append_bytes_max);
    options.inflight_bytes_max = c.number("inflight-bytes", options.inflight_bytes_max);
    options.uncommitted_bytes_max = c.number("uncommitted-bytes", options.uncommitted_bytes_max);
    manual_sync_ = c.option("sync", "auto") == "manual";
    const std::vector<uint64_t> without_lease = numbers(c.option("no-lease"));
    const bool lease = options.lease_reads;
    for (NodeId id : all) {
      options.id = id;
      options.lease_reads = lease && std::ranges::find(without_lease, id.value) == without_lease.end();
      options.tick_ms = id.value == c.number("short-ticks", 0) ? 50 : 100;
      auto added = std::make_unique<TestNode>(options, id.value);
      added->disk.membership = membership;
      added->on_outputs = [this, raw = added.get()](const Outputs& out) { print(*raw, out); };
      nodes_[id] = std::move(added);
    }
  }

  void log(const Command& c) {
    TestDisk& disk = at(c.word_number(0)).disk;
    for (uint64_t term : numbers(c.option("terms"))) {
      disk.log.push_back({Term(term), disk.last().index.next(), EntryKind::kCommand, fmt::format("t{}", term)});
    }
    disk.hard_state.term = Term(c.number("term", disk.last().term.value));
  }

  void start_all() {
    if (std::exchange(started_, true)) return;
    for (auto& [id, n] : nodes_) n->start();
  }

  void tick(const Command& c) {
    for (uint64_t i = c.word_number(1, 1); i > 0; --i) step(c.word_number(0), Tick{});
  }
  void campaign(const Command& c) { step(c.word_number(0), Campaign{}); }
  void propose(const Command& c) {
    step(c.word_number(0), Propose{++token_, std::vector<Proposed>(c.words.begin() + 1, c.words.end())});
  }
  void read(const Command& c) { step(c.word_number(0), ReadIndex{++token_, c.has("lease")}); }
  void transfer(const Command& c) { step(c.word_number(0), TransferLeadership{++token_, NodeId(c.number("to"))}); }
  void catch_up(const Command& c) { step(c.word_number(0), CatchUp{NodeId(c.number("to"))}); }
  void unreachable(const Command& c) { step(c.word_number(0), Unreachable{NodeId(c.number("peer"))}); }

  void change(const Command& c) {
    static const std::map<std::string, MembershipAction> actions = {{"add-voter", MembershipAction::kAddVoter},
                                                                    {"add-learner", MembershipAction::kAddLearner},
                                                                    {"promote", MembershipAction::kPromote},
                                                                    {"remove", MembershipAction::kRemove}};
    MembershipChange change;
    for (const auto& [key, value] : c.ordered) change.steps.push_back({actions.at(key), NodeId(std::stoull(value))});
    step(c.word_number(0), ProposeMembership{++token_, change});
  }

  // Takes what is in flight and matches the command.
  std::vector<Message> take(const Command& c) {
    std::vector<Message> taken;
    std::vector<Message> left;
    for (Message& message : flying_) {
      const bool matches = (!c.options.contains("from") || message.from.value == c.number("from")) &&
                           (!c.options.contains("to") || message.to.value == c.number("to")) &&
                           (!c.options.contains("kind") || message_kind_name(message.kind) == c.option("kind"));
      (matches ? taken : left).push_back(std::move(message));
    }
    flying_ = std::move(left);
    return taken;
  }

  void deliver_one(Message message) {
    if (cut_.contains(message.from) || cut_.contains(message.to) || !at(message.to.value).up()) {
      line("  lost " + to_string(message));
      return;
    }
    line("  " + to_string(message));
    const uint64_t to = message.to.value;
    step(to, Receive{decode_message(encode_message(message)).value()});
  }

  void deliver(const Command& c) {
    for (Message& message : take(c)) deliver_one(std::move(message));
  }
  void drop(const Command& c) {
    for (const Message& message : take(c)) line("  lost " + to_string(message));
  }

  void settle(const Command& c) {
    quiet_ = c.has("quiet");
    for (int i = 0; i < 200; ++i) {
      for (auto& [id, n] : nodes_) {
        if (n->up()) n->sync();
      }
      collect();
      if (flying_.empty()) break;
      for (Message& message : std::exchange(flying_, {})) deliver_one(std::move(message));
    }
    if (!flying_.empty()) line("it does not settle");
    quiet_ = false;
  }

  void sync(const Command& c) { at(c.word_number(0)).sync(c.word_number(1, SIZE_MAX)); }
  void crash(const Command& c) { at(c.word_number(0)).crash(); }
  void start(const Command& c) {
    TestNode& n = at(c.word_number(0));
    n.start();
    line(fmt::format("{}: {}", n.id().value, n.core().describe()));
  }
  void compact(const Command& c) { at(c.word_number(0)).compact(); }

  void snapshot(const Command& c) {
    TestNode& n = at(c.word_number(0));
    snapshots_[NodeId(c.number("to"))] = {n.applied, n.membership};
    n.step(SnapshotOffer{NodeId(c.number("to")), n.applied});
  }
  void install(const Command& c) {
    TestNode& n = at(c.word_number(0));
    const auto& [position, membership] = snapshots_.at(n.id());
    n.install(position, membership);
    if (!manual_sync_) n.sync();
  }
  void snapshot_status(const Command& c) {
    step(c.word_number(0), SnapshotStatus{NodeId(c.number("peer")), c.has("ok")});
  }

  void cut(const Command& c) {
    for (size_t i = 0; i < c.words.size(); ++i) cut_.insert(NodeId(c.word_number(i)));
  }
  void mend(const Command&) { cut_.clear(); }

  void status(const Command& c) {
    for (auto& [id, n] : nodes_) {
      if (!c.words.empty() && !c.has(std::to_string(id.value))) continue;
      line(fmt::format("{}: {}", id.value, n->up() ? n->core().describe() : "down"));
    }
  }

  void show_log(const Command& c) {
    const TestNode& n = at(c.word_number(0));
    TestDisk disk = n.disk;
    for (const Persist& persist : n.writes) disk.write(persist);
    std::string text = fmt::format("{}: start {}:", n.id().value, to_string(disk.start));
    for (const Entry& entry : disk.log) {
      text += ' ' + to_string(LogPosition{entry.term, entry.index});
      if (entry.index > n.disk.last().index || n.disk.term(entry.index).value_or(Term()) != entry.term) text += '*';
    }
    line(text);
  }

  void match(const Command& c) {
    std::string text = "match";
    for (const auto& [peer, index] : at(c.word_number(0)).core().match()) {
      text += fmt::format(" {}:{}", peer.value, index.value);
    }
    line(text);
  }

  void inflight(const Command&) {
    for (const Message& message : flying_) line("  " + to_string(message));
  }

  TestNode& at(uint64_t id) { return *nodes_.at(NodeId(id)); }

  void step(uint64_t id, Event event) {
    TestNode& n = at(id);
    n.step(std::move(event));
    if (!manual_sync_) {
      while (!n.writes.empty()) n.sync();
    }
    collect();
  }

  void collect() {
    for (auto& [id, n] : nodes_) {
      std::move(n->outbox.begin(), n->outbox.end(), std::back_inserter(flying_));
      n->outbox.clear();
    }
  }

  void line(const std::string& text) {
    if (!quiet_ || text[0] != ' ') out_ += text + "\n";
  }

  void print(TestNode& n, const Outputs& out) {
    const uint64_t id = n.id().value;
    if (out.state_changed) line(fmt::format("{}: {}", id, n.core().describe()));
    if (manual_sync_ && !out.persist.empty()) print_persist(id, out.persist);
    for (const Accepted& accepted : out.accepted) {
      line(fmt::format("{}: accepts {} at {}", id, accepted.token, to_string(accepted.first)));
    }
    for (const Refused& refused : out.refused) {
      line(fmt::format("{}: refuses {}: {}", id, refused.token, refused.status.to_string()));
    }
    for (const ReadReady& read : out.reads) line(fmt::format("{}: serves {} at {}", id, read.token, read.index.value));
    if (out.followers_wait) line(fmt::format("{}: lets followers wait", id));
    for (NodeId peer : out.snapshots_wanted) line(fmt::format("{}: wants a snapshot for {}", id, peer.value));
    if (out.install_snapshot) line(fmt::format("{}: needs the snapshot at {}", id, to_string(*out.install_snapshot)));
    if (out.commit) line(fmt::format("{}: applies up to {}", id, out.commit->value));
  }

  void print_persist(uint64_t id, const Persist& persist) {
    std::string text = fmt::format("{}: writes #{}", id, persist.sequence);
    if (persist.hard_state) {
      text += fmt::format(" term={} vote={}", persist.hard_state->term.value, persist.hard_state->vote.value);
    }
    if (persist.log_start) text += " start=" + to_string(*persist.log_start);
    for (const Entry& entry : persist.entries) text += ' ' + to_string(LogPosition{entry.term, entry.index});
    if (!persist.messages.empty()) text += fmt::format(", holds {} messages", persist.messages.size());
    line(text);
  }

  std::map<NodeId, std::unique_ptr<TestNode>> nodes_;
  std::map<NodeId, std::pair<LogPosition, Membership>> snapshots_;
  std::vector<Message> flying_;
  std::set<NodeId> cut_;
  uint64_t token_ = 0;
  bool started_ = false;
  bool manual_sync_ = false;
  bool quiet_ = false;
  std::string out_;
};

class RaftScriptTest : public testing::TestWithParam<std::string> {};

TEST_P(RaftScriptTest, ProducesItsTranscript) { test::expect_transcript<Script>(GetParam()); }

INSTANTIATE_TEST_SUITE_P(All, RaftScriptTest, testing::ValuesIn(test::transcripts("raft")), test::transcript_name);
// An installation without the sources of the tests has no scripts.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(RaftScriptTest);

}  // namespace
}  // namespace uccp::raft
