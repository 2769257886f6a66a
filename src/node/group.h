// One replicated group on this node: its consensus core, its machine, and what waits for them.
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
#include "machine/machine.h"
#include "machine/ports.h"
#include "node/change_hub.h"
#include "node/disk.h"
#include "node/lease_keeper.h"
#include "node/log_cache.h"
#include "raft/core.h"

namespace uccp::node {

struct GroupOptions {
  raft::Options raft;
  // Entries behind the applied index that are kept for slow followers.
  uint64_t log_kept_entries = 10'000;
  // Applied entries after which the state is flushed and the log shortened.
  uint64_t flush_every_entries = 10'000;
  size_t proposals_in_flight_max = limits::kProposalsInFlightMax;
  size_t proposal_bytes_in_flight_max = limits::kProposalBytesInFlightMax;
  uint64_t log_cache_bytes = 16u << 20;
  size_t apply_entries_max = 256;
};

// What a group needs from its node.
struct GroupEnvironment {
  Executor& loop;
  const Clock& clock;
  Disk& disk;
  storage::LogStore& log;
  ChangeHub& changes;
  MetricsRegistry& metrics;
  std::function<void(NodeId, raft::Message)> send;
  // Hands out the new state after each applied batch, on the loop.
  std::function<void(GroupId, const machine::GroupView&)> publish;
  std::move_only_function<void(Status)> fatal;
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
};

class Group {
 public:
  Group(GroupId id, std::string name, GroupOptions options, GroupEnvironment environment, storage::Kv& kv,
        std::vector<machine::Domain*> domains);

  // Opens state and log and builds the core. `founders`: voters of a group that has no history yet. Blocks on the disk;
  // before the loop runs. Errors: corruption if log and state do not fit together.
  Status open(const std::vector<NodeId>& founders, uint64_t seed);
  void tick();
  void receive(raft::Message message);
  void propose(machine::Envelope envelope, machine::Proposer::Done done);
  void read(const machine::ReadLevel& level, machine::Reader::Done done);
  void keep_alive(machine::LeaseId lease, machine::Leases::Done done);
  void extend_leases(int64_t ms) { leases_.extend_all(ms); }
  // Ends everything that waits; proposals that were logged end with outcome_unknown.
  void close();
  // Flushes the state so that the next start replays little.
  void flush(std::move_only_function<void()> done);

  GroupStatus status() const;
  bool leads() const { return core_ && core_->role() == raft::Role::kLeader; }
  // Leads and has applied an entry of its own term: its state is current.
  bool ready() const { return leads() && machine_.applied_term() == core_->term(); }
  // Called on the loop when this node starts or stops leading (ready).
  void on_leadership(std::function<void(bool ready, Term term)> callback) { on_leadership_ = std::move(callback); }
  GroupId id() const { return id_; }
  const std::string& name() const { return name_; }

 private:
  struct Pending {
    std::string data;
    size_t bytes;
    machine::Proposer::Done done;
  };
  struct Waiting {
    Term term;
    size_t bytes;
    BootTime since;
    machine::Proposer::Done done;
  };

  void step(raft::Event event);
  void flush_proposals();
  void process();
  void persist(raft::Persist persist);
  void take_accepted(const raft::Outputs& out);
  void take_refused(raft::Outputs& out);
  void take_reads(raft::Outputs& out);
  void apply_committed();
  void finish_applied(machine::AppliedBatch batch);
  void serve_reads();
  void check_leadership();
  void expire_leases();
  void compact_if_due();
  void fail_waiting(const Status& status);

  const GroupId id_;
  const std::string name_;
  const GroupOptions options_;
  GroupEnvironment env_;
  machine::Machine machine_;
  LogCache cache_;
  std::unique_ptr<raft::Core> core_;
  LeaseKeeper leases_;

  std::vector<Pending> pending_;       // to be proposed at the end of this turn
  bool flush_scheduled_ = false;
  uint64_t next_token_ = 1;
  std::map<uint64_t, std::vector<Pending>> proposed_;  // by token, until accepted or refused
  std::map<LogIndex, Waiting> waiting_;                // by index, until applied
  size_t bytes_in_flight_ = 0;
  std::map<uint64_t, machine::Reader::Done> read_tokens_;  // asked of the core
  std::multimap<LogIndex, machine::Reader::Done> reads_;  // until the index is applied
  LogIndex commit_;
  bool apply_scheduled_ = false;
  bool was_ready_ = false;
  bool leases_loaded_ = false;
  LogIndex flushed_at_;
  bool flushing_ = false;
  bool closed_ = false;
  std::function<void(bool, Term)> on_leadership_;
  Histogram& propose_seconds_;
  Histogram& apply_seconds_;
};

}  // namespace uccp::node
