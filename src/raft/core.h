// Consensus as a pure function: step(event) appends to outputs. No IO, no clock, no thread, no lock; the only
// randomness is the seeded generator of election timeouts. The same construction and the same events give the same
// outputs.
//
// The host's duties, in the order of Outputs:
//   1. send `messages` at any time (they depend on nothing that is not durable yet);
//   2. make `persist` durable (hard state, start of the log, entries: in that order, one sync), then report it with
//      Persisted; `persist.messages` may be sent only when it and every persist before it are durable;
//   3. apply entries up to `commit` in order, then report Applied; they are durable here already;
//   4. serve each element of `reads` once its index is applied.
// Persist records of consecutive steps may be merged and synced together: step() merges when it is given outputs that
// were not taken yet. Persisted names the sequence number of the last persist that is durable. A position of the log
// could not name it: a hard state has none, and an entry may be overwritten and come back while the first write is
// under way.
//
// Follows: Ongaro, "Consensus: Bridging Theory and Practice" (2014): pre-vote and disruption as in 4.2.3 and 9.6, reads
// and leases as in 6.4, parallel disk writes as in 10.2.1, membership as in 4.1 and 4.3.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "base/log_types.h"
#include "base/random.h"
#include "base/status.h"
#include "raft/membership.h"
#include "raft/message.h"

namespace uccp::raft {

struct Options {
  NodeId id;
  // Ticks without a leader before a campaign; the timeout is drawn from [election_ticks, 2 * election_ticks), most
  // often near the lower end; the voter after the leader takes the lower end.
  uint32_t election_ticks = 10;
  uint32_t heartbeat_ticks = 1;
  // Length of a tick; only told to others, with what this node promises them under lease_reads.
  uint32_t tick_ms = 100;
  // Entries sent to a follower and not answered yet, in bytes; the pipeline's window.
  uint64_t inflight_bytes_max = 16u << 20;
  uint64_t append_bytes_max = 1u << 20;
  // Proposed entries that are not committed, in bytes; further proposals are refused with exhausted.
  uint64_t uncommitted_bytes_max = 128u << 20;
  bool pre_vote = true;
  bool check_quorum = true;
  // Reads served under the leader's lease without a round trip. Voters then refuse votes inside it, also for
  // election_ticks after their start, and say so with every answer to a heartbeat: a leader counts only those that
  // promise at least its own election timeout, so nodes that are configured differently make the lease void, not wrong.
  // Sound only if the host delivers every Tick that is due before a ReadIndex.
  bool lease_reads = false;
  // What a follower need not know at once waits until something else is sent to it, or CatchUp: the commit index, and
  // entries if those that made up the last quorum are well without it. So what each round costs a follower that is not
  // needed it costs once for several. ("Thrifty": Moraru, Andersen, Kaminsky: There Is More Consensus in Egalitarian
  // Parliaments, 2013, section 6.1.) Once in a heartbeat interval all get a round at the same time, and who is first
  // is found out anew.
  bool followers_wait = false;
  // How much shorter than election_ticks the lease is: covers the drift between clocks and the rounding to ticks.
  uint32_t lease_margin_ticks = 2;
};

// What a node has on disk when it starts.
struct Initial {
  HardState hard_state;
  Membership membership;  // the configuration in force at `applied`
  LogPosition start;      // the log begins behind this (the snapshot's position)
  LogPosition last;
  LogIndex applied;  // in [start.index, last.index]
  // The configuration entries in (applied, last], ascending: in force although perhaps not committed.
  std::vector<Entry> configurations;
};

// The durable log, as far as the core has to look back. Must answer for every index in (start, last durable].
// Entries that were output but not persisted yet are kept by the core itself.
class LogReader {
 public:
  virtual ~LogReader() = default;
  // Term at `index`, start included. not_found if it is compacted.
  virtual Result<Term> term(LogIndex index) const = 0;
  // Entries in [from, to), at least one, about `bytes_max`. not_found LOG_COMPACTED if they are gone (the follower then
  // needs a snapshot); unavailable if they are not in memory yet: the core tries again at the next tick or answer.
  virtual Result<std::vector<Entry>> entries(LogIndex from, LogIndex to, uint64_t bytes_max) const = 0;
};

// Events.
// ---------------------------------------------------------------------------------------------------------------

struct Tick {};
struct Receive {
  Message message;
};
// Proposes commands. Refused (see Outputs::refused) unless this node leads and is not transferring.
struct Proposed {
  std::string data;
  std::shared_ptr<const PackedData> packed = nullptr;
};
struct Propose {
  uint64_t token;  // named in `refused`
  std::vector<Proposed> commands;
};
struct ProposeMembership {
  uint64_t token;
  MembershipChange change;
};
// Asks for an index at which a read is linearizable. Answered in Outputs::reads or Outputs::refused.
struct ReadIndex {
  uint64_t token;
  bool lease = false;  // serve from the lease if Options::lease_reads and it is valid
};
// Every Persist with a sequence number up to this is durable.
struct Persisted {
  uint64_t sequence;
};
struct Applied {
  LogIndex index;
};
// Campaign now (an operator's order, or a reset connection to the leader).
struct Campaign {};
// Refused at once, or when the target has not taken over within election_ticks; success shows as a change of the
// leader.
struct TransferLeadership {
  uint64_t token;
  NodeId to;
};
// The host has a snapshot at `position` for a peer named in Outputs::snapshots_wanted. The core offers it to the peer,
// whose core answers with an append response if it needs none, or else asks its host with Outputs::install_snapshot.
struct SnapshotOffer {
  NodeId peer;
  LogPosition position;
};
// A snapshot sent to `peer` was installed or failed. Each peer named in snapshots_wanted needs this in the end.
struct SnapshotStatus {
  NodeId peer;
  bool ok;
};
struct Unreachable {
  NodeId peer;
};
// Tells a follower (0: all of them) what waited under Options::followers_wait. The host's duty soon after
// Outputs::followers_wait: it bounds what a needed follower that falls silent costs.
struct CatchUp {
  NodeId peer;
};
// The host's applied state is durably that of a received snapshot. It leaves the log alone: the core keeps a log that
// holds `position`, and else orders a new one with Persist::log_start.
struct SnapshotInstalled {
  LogPosition position;
  Membership membership;
};
// The host dropped the log up to `position`.
struct Compacted {
  LogPosition position;
};

using Event =
    std::variant<Tick, Receive, Propose, ProposeMembership, ReadIndex, Persisted, Applied, Campaign, TransferLeadership,
                 SnapshotOffer, SnapshotStatus, Unreachable, CatchUp, SnapshotInstalled, Compacted>;

// Outputs.
// --------------------------------------------------------------------------------------------------------------

// A learner is a follower that has no vote, because the membership says so or does not name it.
enum class Role : uint8_t { kFollower, kPreCandidate, kCandidate, kLeader, kLearner };
const char* role_name(Role role);

struct Persist {
  // Never falls from Persist to Persist; 0 when empty. One without anything to write repeats the last number.
  uint64_t sequence = 0;
  std::optional<HardState> hard_state;
  // Set after a snapshot: drop the whole log and begin it behind this position, before `entries`.
  std::optional<LogPosition> log_start;
  // Consecutive; they replace what the log has at and behind the first one's index.
  std::vector<Entry> entries;
  std::vector<Message> messages;  // send only when durable

  bool empty() const { return !hard_state && !log_start && entries.empty() && messages.empty(); }
};

struct ReadReady {
  uint64_t token;
  LogIndex index;  // serve when applied >= index
};

struct Refused {
  uint64_t token;
  Status status;  // not_leader (hint: leader id in decimal), exhausted, unavailable, conflict, or as apply_change
};

// Tokens of proposals accepted in this step, with the position their first command got.
struct Accepted {
  uint64_t token;
  LogPosition first;
};

struct Outputs {
  std::vector<Message> messages;
  Persist persist;
  std::optional<LogIndex> commit;  // apply up to this: committed, and durable on this node
  std::vector<Accepted> accepted;
  std::vector<ReadReady> reads;
  std::vector<Refused> refused;
  // Peers that need a snapshot because the log they miss is compacted.
  std::vector<NodeId> snapshots_wanted;
  // The leader's snapshot at this position is needed here: fetch and install it, then report SnapshotInstalled.
  std::optional<LogPosition> install_snapshot;
  bool followers_wait = false;  // CatchUp has something to tell
  bool state_changed = false;   // role, term, leader or membership changed: see Core's accessors
};

class Core {
 public:
  // `seed` must differ between the nodes of a group, or they time out together and split every vote.
  Core(const Options& options, const Initial& initial, const LogReader& log, uint64_t seed);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  // Handles one event and appends what follows from it to `out`.
  void step(Event event, Outputs& out);

  Role role() const;
  Term term() const;
  NodeId leader() const;  // 0: unknown
  // May be ahead of Outputs::commit while entries are being persisted.
  LogIndex commit() const;
  LogPosition last() const;
  const Membership& membership() const;
  // On the leader, by peer: the last entry known to be there, for status and metrics; empty elsewhere.
  std::map<NodeId, LogIndex> match() const;
  // One line for scripts and logs: role, term, vote, commit, last, membership.
  std::string describe() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace uccp::raft
