// The state of a Core, shared by the files that implement its parts; nobody else includes it.
//
//   core.cc         dispatch of events, durability, what a step puts out
//   elections.cc    roles, votes, timers            follower.cc    appends, heartbeats and snapshots received
//   replication.cc  the leader's appends, commit    reads.cc       heartbeat rounds, read index, lease
//   changes.cc      proposals, membership, transfer of the leadership
//
// Invariants: applied and announced <= commit <= last; configurations_ is never empty and ascends by index, all but the
// first behind commit; peers_ holds every other member while leading and nothing otherwise; vote_ and term_ are put out
// for persisting in the step in which they change.
#pragma once

#include <deque>
#include <map>
#include <vector>

#include "raft/core.h"
#include "raft/log_tail.h"
#include "raft/progress.h"
#include "raft/quorum.h"

namespace uccp::raft {

// Reads waiting for confirmation on one leader.
inline constexpr size_t kPendingReadsMax = 100'000;

class Core::State {
 public:
  State(const Options& options, const Initial& initial, const LogReader& log, uint64_t seed);

  void step(Event event, Outputs& out);

  Role role() const;
  Term term() const { return term_; }
  NodeId leader() const { return leader_; }
  LogIndex commit() const { return commit_; }
  LogPosition last() const { return log_.last(); }
  const Membership& membership() const { return configurations_.back().membership; }
  std::map<NodeId, LogIndex> match() const;
  std::string describe() const;

 private:
  // A membership and the index of its entry.
  struct Configuration {
    LogIndex index;
    Membership membership;
  };
  // Something put out for persisting and not reported as durable: then the log is durable up to `last`.
  struct Write {
    uint64_t sequence;
    LogIndex last;
  };
  struct PendingRead {
    uint64_t token;
    LogIndex index;
    uint64_t round;  // 0: waits for the next round
  };
  struct ProposedBytes {
    LogIndex last;
    uint64_t bytes;
  };
  struct Transfer {
    NodeId to;
    uint64_t token;
    uint32_t elapsed = 0;
    bool ordered = false;  // TimeoutNow was sent
  };

  // core.cc
  void on(const Tick&);
  void on(Receive&& event);
  void on(const Persisted& event);
  void on(const Applied& event);
  void on(const SnapshotInstalled& event);
  void on(const Compacted& event);
  void receive_current(Message& message);
  // What to do about a message of another term. False: it is done with.
  bool settle_term(const Message& message);
  void append_entry(Entry entry);
  void truncate_to(LogPosition position);
  void note_configuration(const Entry& entry);
  void advance_commit(LogIndex index);
  void flush();
  Message make(MessageKind kind, NodeId to) const;
  void send(Message message) { out_->messages.push_back(std::move(message)); }
  // Sends what promises that everything put out so far, this step included, is durable.
  void send_when_durable(Message message) { promises_.push_back(std::move(message)); }
  void refuse(uint64_t token, Status status) { out_->refused.push_back({token, std::move(status)}); }
  void refuse_not_leader(uint64_t token);

  // elections.cc
  void on(const Campaign&);
  void tick_follower();
  bool promotable() const;
  // Votes are refused because a leader may be alive, or may rely on not being replaced.
  bool protects_leader() const;
  void become_follower(Term term, NodeId leader);
  void pre_campaign();
  void ask_pre_votes();
  bool withdraws_for(const Message& message) const;
  // `ordered` by the leader's TimeoutNow: voters do not protect the leader.
  void campaign(bool ordered);
  void become_leader();
  void tally();
  void on_vote(const Message& message);
  void on_vote_response(const Message& message);
  void on_timeout_now(const Message& message);
  bool succeeds_leader() const;
  void reset_election_timer();

  // follower.cc
  bool follow(const Message& message);
  void on_append(Message& message);
  void on_heartbeat(const Message& message);
  void on_snapshot_offer(const Message& message);
  void refuse_append(const Message& message);
  void acknowledge(LogIndex index, NodeId to);

  // replication.cc
  void on(const SnapshotOffer& event);
  void on(const SnapshotStatus& event);
  void on(const Unreachable& event);
  void on(const CatchUp& event);
  void tick_leader();
  bool has_active_quorum() const;
  void replicate_all();
  // Sends to a peer as much as its state and window allow, unless it may wait.
  void replicate(NodeId peer, Progress& progress);
  void send_entries(NodeId peer, Progress& progress);
  // The last quorum is well without it.
  bool may_wait(NodeId peer, const Progress& progress) const;
  // Sends one append, empty if the peer has been sent all. False if nothing was sent.
  bool send_append(NodeId peer, Progress& progress);
  bool read_failed(NodeId peer, Progress& progress, const Status& why);
  void on_append_response(const Message& message);
  void on_heartbeat_response(const Message& message);
  void maybe_commit();
  void tell_commit();
  void tell_commit(NodeId peer, Progress& progress);

  // reads.cc
  void on(const ReadIndex& event);
  void start_round();
  void serve_reads();
  uint64_t confirmed_round() const;
  // The last round that was answered by a majority whose promises cover this leader's lease.
  uint64_t promised_round() const;
  uint64_t lease_promise_ms() const {
    return options_.lease_reads ? uint64_t{options_.election_ticks} * options_.tick_ms : 0;
  }
  bool lease_valid() const;

  // changes.cc
  void on(Propose&& event);
  void on(const ProposeMembership& event);
  void on(const TransferLeadership& event);
  Status check_change_allowed() const;
  void append_configuration(const Membership& membership);
  void sync_peers();
  void complete_configuration();
  void hand_over(NodeId to);
  void advance_transfer();
  void abort_transfer(Status why);

  const Options options_;
  SeededRandom random_;
  LogTail log_;
  Outputs* out_ = nullptr;  // of the step under way

  Term term_;
  NodeId vote_;
  LogIndex commit_;
  LogIndex announced_;  // put out as Outputs::commit
  LogIndex applied_;
  Role role_ = Role::kFollower;
  NodeId leader_;
  std::vector<Configuration> configurations_;
  uint64_t configuration_changes_ = 0;

  HardState saved_;  // as put out last
  uint64_t sequence_ = 0;
  std::deque<Write> writes_;
  bool wrote_ = false;  // this step put out entries or a start of the log
  std::vector<Message> promises_;

  uint32_t election_elapsed_ = 0;
  uint32_t election_timeout_ = 0;
  uint32_t contact_elapsed_ = 0;  // since the leader was heard
  std::map<NodeId, bool> votes_;
  bool withdrew_ = false;       // for another's campaign, since a leader was known
  uint64_t vote_sequence_ = 0;  // the write that makes this candidate's own vote durable; 0: it is, or there is none

  // Of a leader only.
  std::map<NodeId, Progress> peers_;
  std::vector<NodeId> quorum_;  // the followers that made up the last one; see Options::followers_wait
  bool race_ = true;            // the next entries go to all at the same time
  LogIndex term_start_;         // its first entry
  uint32_t heartbeat_elapsed_ = 0;
  uint32_t quorum_elapsed_ = 0;
  std::optional<Transfer> transfer_;
  std::deque<ProposedBytes> uncommitted_;
  uint64_t uncommitted_bytes_ = 0;
  uint64_t round_ = 0;
  uint64_t read_round_ = 0;  // the last round that a read waits for
  uint64_t tick_ = 0;
  std::vector<uint64_t>
      tick_rounds_;          // by tick modulo size: rounds from this number on were sent in that tick or later
  bool lease_void_ = false;  // an ordered campaign may ignore it
  std::deque<PendingRead> reads_;
};

}  // namespace uccp::raft
