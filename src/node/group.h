// One replicated group on this node: its consensus core, its machine, and what waits for them.
//
//   group.cc            proposals, durability, apply, leases, compaction
//   group_reads.cc      reads of all levels, on the leader and elsewhere
//   group_data.cc       logs that are the data of their group: reading them, keeping entries for snapshots
//   group_members.cc    requests to the leader, membership, transfer of the leadership
//   group_replicas.cc   messages of peers, snapshots, comparing digests
//
// Loop thread only. Proposals of one turn become one event for the core; what the core outputs in one turn becomes one
// record for the disk.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/limits.h"
#include "base/metrics.h"
#include "base/network.h"
#include "base/random.h"
#include "machine/log_reader.h"
#include "machine/machine.h"
#include "machine/ports.h"
#include "node/admission.h"
#include "node/change_hub.h"
#include "node/digest_check.h"
#include "node/disk.h"
#include "node/entry_packing.h"
#include "node/lease_keeper.h"
#include "node/log_bytes.h"
#include "node/log_cache.h"
#include "node/peer_message.h"
#include "node/snapshot_receiver.h"
#include "node/snapshot_sender.h"
#include "node/transport.h"
#include "raft/core.h"

namespace uccp::node {

struct GroupOptions {
  // The window fits into the network's queue to one peer, heartbeats beside it.
  raft::Options raft{.inflight_bytes_max = 4u << 20, .append_bytes_max = 512u << 10};
  // Entries behind the applied index that are kept for slow followers.
  uint64_t log_kept_entries = 10'000;
  // And bytes of them: large entries are kept for fewer followers.
  uint64_t log_kept_bytes = 256u << 20;
  // Applied entries, or bytes of the log, after which the state is flushed and the log shortened.
  uint64_t flush_every_entries = 10'000;
  uint64_t flush_every_bytes = 64u << 20;
  // Bytes of entries that are kept when the logs of the node have grown beyond their limit.
  uint64_t shortened_log_bytes = 4u << 20;
  size_t proposals_in_flight_max = limits::kProposalsInFlightMax;
  size_t proposal_bytes_in_flight_max = limits::kProposalBytesInFlightMax;
  // Writes of the log under way at which further proposals wait, so that one sync and one append carry many.
  size_t writes_under_way_max = 1;
  uint64_t log_cache_bytes = 16u << 20;
  size_t apply_entries_max = 256;
  // Part of both limits that only the system's own commands may use, in percent on top.
  size_t system_reserve_percent = 10;
  // Replicas compare their digests at indexes that this divides.
  uint64_t digest_every_entries = 4096;
  machine::SnapshotOptions snapshot;
  // Of entries on their way to other nodes and into the log.
  storage::CompressionOptions compression;
  // How often the leader is asked whether the state here is current, if no reads do; 0: only for reads.
  int64_t confirm_every_ms = 0;
  // A read that could not be confirmed for so long ends with unavailable.
  int64_t read_timeout_ms = 2'000;
  // An answer of the leader that takes longer is taken for lost.
  int64_t read_retry_ms = 300;
  // How long a follower may hear of a commit, or of entries that a quorum can do without it for, later than it could;
  // 0: never later.
  int64_t follower_delay_ms = 2;
  // Entries that a learner may lack when it is promoted.
  uint64_t promote_lag_entries = 1'000;
  size_t queued_reads_max = 10'000;
};

// What a group needs from its node.
struct GroupEnvironment {
  Executor& loop;
  Executor& reads;  // scans of the state for snapshots
  const Clock& clock;
  Random& random;
  Disk& disk;
  storage::LogStore& log;
  ChangeHub& changes;
  MetricsRegistry& metrics;
  Transport& transport;
  // Hands out the new state after each applied batch, on the loop.
  std::function<void(GroupId, const machine::GroupView&)> publish;
  // What is published now has all that was acknowledged before `asked`.
  std::function<void(GroupId, BootTime asked)> confirm;
  std::function<void(GroupId, const raft::Membership&)> on_membership;
  std::move_only_function<void(Status)> fatal;
  // As GroupSpec says; empty: the log is only what the state came from.
  std::function<LogIndex(const machine::GroupView&, LogIndex from)> log_floor;
};

// For status, health and metrics.
struct GroupStatus {
  NodeId leader;
  Term term;
  LogIndex commit;
  LogIndex applied;
  LogIndex last;
  raft::Role role = raft::Role::kFollower;
  raft::Membership membership;
  Digest digest;
  std::map<NodeId, LogIndex> match;  // on the leader: the last entry known to be there
  bool read_only = false;            // the replicas' digests differ and none has a majority
  uint32_t feature_level = 1;
};

class Group {
 public:
  Group(GroupId id, std::string name, GroupOptions options, GroupEnvironment environment, storage::Kv& kv,
        std::vector<machine::Domain*> domains);

  // Opens state and log and builds the core. `founders`: voters of a group that has no history yet; empty on a node
  // that will be added to one. Blocks on the disk; before the loop runs. Errors: corruption if log and state do not fit
  // together.
  Status open(const std::vector<NodeId>& founders, uint64_t seed);
  void tick();
  void receive(NodeId from, const PeerItem& item);
  // The connection to a peer ended.
  void peer_down(NodeId peer);
  void propose(machine::Envelope envelope, machine::Proposer::Done done);
  void read(const machine::ReadLevel& level, machine::Reader::Done done);
  void read_log(LogIndex from, LogIndex to, uint64_t bytes_max, machine::LogReader::Done done);
  // As Node's.
  void read_whole(machine::Reader::Done done);
  void drop_copies();
  void keep_alive(machine::LeaseId lease, machine::Leases::Done done);
  void time_left(machine::LeaseId lease, machine::Leases::Done done);
  // Forwarded to the leader if that is another node. Answers the index of the change when it is applied on the leader.
  // Errors: not_leader without a leader; as raft::apply_change; failed_precondition LEARNER_BEHIND; outcome_unknown.
  using ChangeDone = std::move_only_function<void(Result<LogIndex>)>;
  void change_membership(const raft::MembershipChange& change, ChangeDone done);
  // Moves the leadership to a voter. Ends when this node no longer leads.
  void transfer(NodeId to, ChangeDone done);
  void extend_leases(int64_t ms) { leases_.extend_all(ms); }
  // Its entries are kept as long as the state needs them.
  bool log_is_data() const { return env_.log_floor != nullptr; }
  // Moves the leadership to the voter that lacks least, if there is one. `done` comes when this node does not lead, or
  // cannot hand over.
  void hand_over(std::move_only_function<void()> done);
  // Ends everything that waits; proposals that were logged end with outcome_unknown.
  void close();
  // Flushes the state so that the next start replays little.
  void flush(std::move_only_function<void()> done) { flush(options_.log_kept_bytes, std::move(done)); }
  // The same, and keeps hardly anything of what is applied: the logs of the node hold too much of the disk.
  void shorten_log();

  GroupStatus status() const;
  bool leads() const { return core_ && core_->role() == raft::Role::kLeader; }
  // Leads and has applied an entry of its own term: its state is current.
  bool ready() const { return leads() && machine_.applied_term() == core_->term(); }
  // Serves: leads and is ready, or follows a leader and has applied what it knows to be committed.
  bool serving() const;
  // No other voter could have acknowledged anything without this node.
  bool sole_voter() const { return core_->membership().is_only_voter(options_.raft.id); }
  // Called on the loop when this node starts or stops leading (ready).
  void on_leadership(std::function<void(bool ready, Term term)> callback) { on_leadership_ = std::move(callback); }
  GroupId id() const { return id_; }
  const std::string& name() const { return name_; }

 private:
  struct Pending {
    std::string data;
    std::shared_ptr<const PackedData> packed;
    Admission::Room room;
    machine::Proposer::Done done;
  };
  struct Waiting {
    Term term;
    Admission::Room room;
    BootTime since;
    machine::Proposer::Done done;
  };

  // Reads that the leader is asked about together.
  struct ReadBatch {
    BootTime asked;
    BootTime deadline;
    NodeId peer;  // asked; 0: the core of this node
    bool leader_only = false;
    bool confirm_only = false;  // asks whether this node still leads, not for an index
    std::vector<machine::Reader::Done> dones;
  };
  struct QueuedRead {
    BootTime deadline;
    machine::Reader::Done done;
  };
  struct IndexedRead {
    BootTime deadline;
    BootTime asked;  // 0: says nothing about freshness
    machine::Reader::Done done;
  };
  struct Request {
    BootTime deadline;
    NodeId peer;
    ChangeDone done;
  };

  // group.cc
  Status open_log(storage::GroupLog& log);
  Status load_terms(const storage::GroupLog& log);
  void step(raft::Event event);
  void flush_proposals();
  void persist(raft::Persist persist);
  void fetch_wanted();
  void schedule_apply();
  void note_state_change();
  void take_accepted(const raft::Outputs& out);
  void take_refused(raft::Outputs& out);
  void take_reads(raft::Outputs& out);
  void apply_committed();
  void finish_applied(machine::AppliedBatch batch);
  void begin_anew();
  void check_leadership();
  void expire_leases();
  void compact_if_due();
  void flush(uint64_t kept_bytes, std::move_only_function<void()> done);
  void fail_waiting(const Status& status);
  Status not_leader() const;

  // group_reads.cc
  void ask_core(ReadBatch batch, bool lease);
  void ask_leader();
  void queue_read(BootTime deadline, machine::Reader::Done done);
  void read_confirmed(uint64_t token, LogIndex index);
  // False if the token is not one of a read.
  bool read_refused(uint64_t token, const Status& why);
  void retry_reads(ReadBatch batch, const Status& why);
  void serve_reads();
  void tick_reads();
  void refresh(BootTime now);
  void close_reads();
  void when_leading(machine::Leases::Done done, std::move_only_function<Result<int64_t>()> answer);

  // group_data.cc
  machine::GroupView fresh_view();
  void offer_snapshot(NodeId peer);
  void keep_needed(std::move_only_function<void()> done);
  LogIndex first_to_keep();
  LogIndex history_begin() const;
  void finish_keeping();
  void drop_kept();

  // group_members.cc
  void ask_peer(PeerRequest request, ChangeDone done);
  void take_request(NodeId from, const PeerRequest& request);
  void take_reply(NodeId from, PeerReply reply);
  Status check_learners(const raft::MembershipChange& change) const;
  void finish_transfer(Result<LogIndex> result);
  void tick_requests();
  void close_requests();

  // group_replicas.cc
  SnapshotSender::Environment sender_environment();
  SnapshotReceiver::Environment receiver_environment();
  void send_raft(const raft::Message& message);
  // All members understand entries in packed form.
  bool packs_entries() const { return machine_.feature_level() >= machine::kPackedEntriesLevel; }
  void catch_up_soon();
  void campaign_without(NodeId leader, uint32_t attempts);
  void campaign_soon(uint32_t attempts);
  void send(NodeId to, PeerItemKind kind, const std::string& body, NetworkLane lane = NetworkLane::kControl);
  void receive_raft(NodeId from, std::string_view body);
  void install(const machine::SnapshotHeader& header);
  void finish_install(const machine::SnapshotHeader& header, const raft::Membership& membership);
  void compare_digest();
  void take_digest(NodeId from, const DigestReport& report);
  void take_verdict(const DigestReport& verdict);

  const GroupId id_;
  const std::string name_;
  GroupOptions options_;
  GroupEnvironment env_;
  machine::Machine machine_;
  storage::Kv& kv_;
  Admission admission_;  // outlives the rooms below
  LogCache cache_;
  EntryPacking packing_;
  std::unique_ptr<raft::Core> core_;
  LeaseKeeper leases_;

  std::vector<Pending> pending_;  // to be proposed at the end of this turn
  size_t pending_bytes_ = 0;
  bool flush_scheduled_ = false;
  size_t writes_under_way_ = 0;  // of the log
  uint64_t next_token_ = 1;
  std::map<uint64_t, std::vector<Pending>> proposed_;  // by token, until accepted or refused
  std::map<LogIndex, Waiting> waiting_;                // by index, until applied
  std::vector<QueuedRead> queued_reads_;               // for the leader, at the end of this turn
  bool ask_scheduled_ = false;
  std::map<uint64_t, ReadBatch> asked_reads_;   // by token
  std::multimap<LogIndex, IndexedRead> reads_;  // until the index is applied
  BootTime refresh_until_;                      // somebody lately wanted bounded reads
  BootTime confirmed_;                          // what was acknowledged before this is in the state
  uint64_t refresh_token_ = 0;                  // of the last question that no read asked
  std::map<uint64_t, Request> requests_;        // to the leader
  std::map<uint64_t, ChangeDone> transfers_;    // at most one
  SnapshotSender sender_;
  SnapshotReceiver receiver_;
  bool installing_ = false;  // the state is about to be replaced
  bool caught_up_ = false;   // a follower had all that was committed once, since it has this leader
  bool fetching_ = false;
  DigestCheck digests_;
  bool read_only_ = false;
  uint64_t leader_heard_ = 0;        // messages of the leader
  bool catch_up_scheduled_ = false;  // of followers that were not told all
  raft::Membership told_membership_;
  LogIndex commit_;
  bool apply_scheduled_ = false;
  bool was_ready_ = false;
  bool leases_loaded_ = false;
  LogIndex flushed_at_;
  LogBytes log_bytes_;
  uint64_t flushed_at_bytes_ = 0;  // log_bytes_.total() then
  bool flushing_ = false;
  LogIndex kept_to_;                                      // entries that the state needs are beside it up to here
  std::vector<std::move_only_function<void()>> keeping_;  // what waits for that; not empty while it is under way
  bool closed_ = false;
  std::function<void(bool, Term)> on_leadership_;
  Histogram& propose_seconds_;
  Histogram& apply_seconds_;
};

}  // namespace uccp::node
