// Machines with their nodes, the networks, and the workers: everything that a run consists of, in one thread.
//
// A machine has a place; the node on it has an id of its own, which is never used again once its disk is lost or it was
// taken out of the cluster. Calls and faults name places.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sim/cluster/sim_node.h"

namespace uccp::sim {

class SimAgent;
class SimOperator;

class SimCluster {
 public:
  explicit SimCluster(const SimOptions& options, bool tracing);
  ~SimCluster();

  const SimOptions& options() const { return options_; }
  SimScheduler& scheduler() { return scheduler_; }
  SimNetwork& network() { return network_; }
  SimOperator& op() { return *operator_; }
  Checkers& checkers() { return checkers_; }
  int64_t now_us() const { return scheduler_.now_us(); }
  // A generator of its own for each client.
  uint64_t next_seed() { return random_.next(); }

  // Places. Some have no machine.
  size_t places() const { return machines_.size(); }
  bool has_node(size_t place) const { return machines_[place].node != nullptr; }
  SimNode& node(size_t place) { return *machines_[place].node; }
  // places() if no machine has it.
  size_t place_of(NodeId id) const;
  // One that has a machine.
  size_t any_place(Random& random) const;
  bool running(size_t place) const { return has_node(place) && machines_[place].node->running(); }
  // The place of the node that leads with a current state in the greatest term; places() if none does.
  size_t leader(GroupId group) const;

  SimAgent& agent(size_t number) { return *agents_[number]; }
  size_t agent_count() const { return agents_.size(); }

  // Everything acknowledged is in `state`, which is a current one. Of the newest `count`.
  void check_acknowledged(GroupId group, const machine::GroupView& state, size_t count = SIZE_MAX);

  // Starts everything.
  void start();
  // Ends the process and starts another one after `down_ms`.
  void crash_node(size_t place, CrashKind kind, int64_t down_ms);
  // Stops the node in order and starts it again.
  void restart_node(size_t place);
  // A new machine without data in a place that has none; it waits to be added. Its node's id, or 0 if there is no room.
  NodeId add_machine();
  // The machine at the place loses its disk: a new one without data stands there. The id of its node.
  NodeId wipe_machine(size_t place);
  // Switches the machine off for ever.
  void retire(NodeId id);
  // Crashes the node and flips a stored bit of its log.
  void damage_log(size_t place, int64_t down_ms);

  // Faults stop, everything heals; what is under way has to come to its end.
  void heal();
  bool healed() const { return healed_; }

  // Calls. A request or a reply may be late or lost; then nobody is told.
  using Reply = std::function<void(Result<machine::Applied>)>;
  using Serve = std::function<void(SimNode& node, Reply reply)>;
  void call(size_t place, Serve serve, Reply reply);
  // `query` answers from the state, on the node.
  using Query = std::function<std::string(const machine::GroupView& state)>;
  static Serve propose(GroupId group, machine::Envelope envelope);
  static Serve read(GroupId group, machine::ReadLevel level, Query query);
  static Serve keep_alive(GroupId group, machine::LeaseId lease);
  static Serve cancel_task(machine::Envelope envelope, internal::v1::CancelCommand command);
  static Serve service(ServiceCall call);

  int64_t latency_us();
  void count_operation() { ++operations_; }
  uint64_t operations() const { return operations_; }
  void count_fault(Fault fault) { ++faults_[static_cast<size_t>(fault)]; }
  std::array<uint64_t, kFaults> faults() const;

  // Told of what nodes send each other, until there is another one; none: empty.
  using WireTap = std::function<void(NodeId from, NodeId to, const node::PeerItem& item)>;
  void tap_wire(WireTap tap) { tap_ = std::move(tap); }

  bool tracing() const { return tracing_; }
  // A line of the trace. Callers ask tracing() before they make a costly one.
  void note(const std::string& line) const;

 private:
  struct Machine {
    std::unique_ptr<SimNode> node;
    std::vector<NodeId> founders;  // empty: it joins
    bool starting = false;
    bool damaged = false;  // a bit was flipped
  };
  std::unique_ptr<SimNode> make_node(NodeId id);
  void observe(NodeId from, NodeId to, const node::PeerItem& item);
  void fatal(NodeId id, const Status& status);
  void leads(NodeId id, GroupId group, Term term);
  void forward(NodeId from, GroupId group, machine::Envelope envelope, machine::Proposer::Done done);
  void start_node(size_t place);
  void crash_machine(SimNode& node, CrashKind kind);
  void start_later(size_t place, int64_t ms);
  void lose(size_t place, const std::string& why);
  void check_digests();

  const SimOptions options_;
  const bool tracing_;
  SimScheduler scheduler_;
  Checkers checkers_;
  SeededRandom random_;
  SimNetwork network_;
  std::vector<Machine> machines_;
  uint64_t last_id_ = 0;
  // Switched off; what was scheduled for them may still name them.
  std::vector<std::unique_ptr<SimNode>> retired_;
  std::vector<std::unique_ptr<SimAgent>> agents_;
  std::unique_ptr<SimOperator> operator_;
  WireTap tap_;
  bool healed_ = false;
  std::map<GroupId, Term> newest_led_;  // of those who were ready to serve
  uint64_t operations_ = 0;
  std::array<uint64_t, kFaults> faults_{};
};

}  // namespace uccp::sim
