// A node: its groups on one loop, their shared log and state, the disk, ticks, and the ports that services use.
//
// The only place where raft, storage, machine and transport meet. Everything below lives on the loop thread, except the
// port functions, which may be called from any thread.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/metrics.h"
#include "base/network.h"
#include "base/random.h"
#include "machine/log_reader.h"
#include "machine/ports.h"
#include "node/change_hub.h"
#include "node/disk.h"
#include "node/group.h"
#include "node/node_metrics.h"
#include "node/transport.h"
#include "storage/kv.h"
#include "storage/log_store.h"

namespace uccp::node {

struct NodeOptions {
  NodeId id{1};
  int64_t tick_ms = 100;
  GroupOptions group;
  // Below this many free bytes only commands that free space are taken.
  uint64_t disk_reserved_bytes = 256u << 20;
  // With more than this in the logs of all groups, all of them flush their state and keep hardly any applied entry.
  uint64_t log_bytes_max = 2ull << 30;
  std::function<bool(std::string_view command)> frees_space;
};

// What the node runs on. Everything must outlive it.
struct NodeEnvironment {
  Executor& loop;
  Executor& io;     // disk
  Executor& watch;  // change hub
  const Clock& clock;
  Random& random;
  storage::LogStore& log;
  storage::Kv& kv;
  MetricsRegistry& metrics;
  Network* network = nullptr;                    // none: a cluster of one; receives on `loop`
  Executor* reads = nullptr;                     // scans of the state for snapshots; none: `io`
  Executor* flush = nullptr;                     // flushes of the state; none: `io`
  std::function<Result<uint64_t>()> free_bytes;  // of the data directory; called on the disk executor; may be empty
  // The node cannot go on: its disk failed or its state is damaged. The process has to end.
  std::function<void(Status)> fatal;
};

struct GroupSpec {
  GroupId id;
  std::string name;
  std::vector<machine::Domain*> domains;
  // For a group whose data stays in its log: the first entry from `from` on that the state still needs, 0 for none.
  // Entries from it on are kept, and do not count for `log_bytes_max` if the group's log is its own. Called on the
  // loop.
  std::function<LogIndex(const machine::GroupView&, LogIndex from)> log_floor;
  // The state here counts as ready only while it is known to have all that was acknowledged so long ago: Node::fresh().
  // 0: it may be of any age.
  int64_t age_max_ms = 0;
};

struct NodeGroupStatus {
  std::string name;
  GroupStatus group;
  bool ready = false;  // the state here is current: see Group::serving, GroupSpec::age_max_ms
  bool leads = false;  // this node leads and its state is current
};

class Node final : public machine::Proposer,
                   public machine::Reader,
                   public machine::LogReader,
                   public machine::Watcher,
                   public machine::Leases {
 public:
  Node(NodeOptions options, NodeEnvironment environment, std::vector<GroupSpec> groups);
  ~Node() override;

  // Opens state and logs. `founders`: the voters of groups that have no history yet, the same on all of them; empty on
  // a node that joins: it waits until it is added. Once a group has a membership they mean nothing. Blocks; before the
  // loop runs.
  Status open(const std::vector<NodeId>& founders);
  // Starts ticking.
  void start();
  // Ends all watches with SHUTTING_DOWN, so that streams tell their clients before the doors close. stop() does it too.
  void end_watches();
  // Hands the leadership of its groups to other voters (about an election timeout at most), ends everything that waits,
  // stops ticking, flushes the state. `done` comes on the loop. Idempotent.
  void stop(std::move_only_function<void()> done);

  void propose(GroupId group, machine::Envelope envelope, machine::Proposer::Done done) override;
  void read(GroupId group, const machine::ReadLevel& level, machine::Reader::Done done) override;
  std::shared_ptr<machine::Watch> watch(const machine::WatchFilter& filter, LogIndex since, OnChange on_change,
                                        OnEnd on_end) override;
  void read_log(GroupId group, LogIndex from, LogIndex to, uint64_t bytes_max, machine::LogReader::Done done) override;
  // A linearizable view that has beside it all entries that the state needs, for a copy that has no log. Callable from
  // any thread; `done` comes on the loop. They stay beside the state until drop_copies().
  void read_whole(GroupId group, machine::Reader::Done done);
  void drop_copies(GroupId group);
  void keep_alive(GroupId group, machine::LeaseId lease, machine::Leases::Done done) override;
  void time_left(GroupId group, machine::LeaseId lease, machine::Leases::Done done) override;

  using Done = std::move_only_function<void(Status)>;
  // Changes of the membership of all groups, one after the other, forwarded to their leaders; `done` comes on the loop.
  // Repeating one that failed half-way goes on with what is left. Errors: not_leader (a group has no leader just now),
  // failed_precondition LEARNER_BEHIND, LAST_VOTER; conflict MEMBERSHIP_CHANGE_IN_FLIGHT; outcome_unknown.
  void add_learner(NodeId node, Done done);
  void promote(NodeId node, Done done);
  void remove(NodeId node, Done done);
  // The same for one group, any change.
  void change_membership(GroupId group, raft::MembershipChange change, Group::ChangeDone done);
  // Moves the leadership of a group to another voter.
  void transfer(GroupId group, NodeId to, Done done);
  // Before open(): called on the loop (by open() on its caller's thread) with each group's membership and when it
  // changes, committed or not. For the addresses of peers.
  void on_membership(std::function<void(GroupId group, const raft::Membership& membership)> callback);

  // Before start(): called on the loop when this node starts (state current) or stops leading the group.
  void on_leadership(GroupId group, std::function<void(bool ready, Term term)> callback);
  // No other node's vote is needed for any group. On the loop.
  bool alone() const;
  // A stall of the loop was measured: heartbeats waited that long. On the loop. A late tick is noticed without it.
  void stalled(int64_t ms);

  // Newest status of each group, refreshed every tick and at each change of leadership. Any thread.
  std::map<GroupId, NodeGroupStatus> status() const;
  // The term of the group in its newest status. Any thread.
  Term known_term(GroupId group) const;
  // The lowest of the groups' in their newest states. Any thread.
  uint32_t feature_level() const;
  // The leader of the group in its newest status; 0: none. Any thread.
  NodeId known_leader(GroupId group) const;
  // This node led the group in its newest status, and its state was current. Any thread.
  bool leads(GroupId group) const;
  // All groups have a current state. Any thread.
  bool ready() const;
  // A majority confirmed within the group's `age_max_ms` that the state here was current. Any thread.
  bool fresh(GroupId group) const;
  bool out_of_space() const { return out_of_space_.load(); }
  // The published state of a group, however old. Any thread.
  machine::GroupView view(GroupId group) const;

 private:
  struct Published {
    machine::GroupView view;
    BootTime confirmed;  // everything acknowledged before this is in the view
    bool known = false;  // `confirmed` was set
    bool alone = false;  // no other voter could have acknowledged anything
    int64_t age_max_ms = 0;
    bool fresh(BootTime now) const {
      return age_max_ms == 0 || alone || (known && now.ms_since(confirmed) <= age_max_ms);
    }
  };

  void finish_stop();
  void tick();
  void notice_stall();
  void deliver_due_ticks();
  void schedule_tick();
  void receive(NodeId from, const PeerItem& item);
  void change_all(raft::MembershipStep step, std::vector<GroupId> left, Done done);
  void refresh_status();
  void check_space();
  void check_log_bytes();
  Group* find(GroupId id);

  const NodeOptions options_;
  NodeEnvironment env_;
  Disk disk_;
  NodeMetrics metrics_;
  Transport transport_;
  ChangeHub hub_;
  Gauge& log_bytes_;
  std::map<GroupId, std::unique_ptr<Group>> groups_;
  std::map<GroupId, std::function<void(bool, Term)>> leadership_;
  std::function<void(GroupId, const raft::Membership&)> on_membership_;
  std::atomic<bool> out_of_space_{false};
  bool gave_way_ = false;  // its leaderships were offered to others when the disk became full
  bool stopping_ = false;
  size_t handing_over_ = 0;  // groups whose leadership has to move before this node stops
  std::vector<std::move_only_function<void()>> on_stopped_;
  Executor::TimerId timer_ = 0;
  uint64_t ticks_ = 0;
  BootTime last_tick_;
  int64_t stalled_ms_ = 0;  // reported since the last tick
  BootTime next_tick_;

  mutable std::mutex mutex_;
  std::map<GroupId, Published> published_;
  std::map<GroupId, NodeGroupStatus> status_;
};

}  // namespace uccp::node
