// Nodes, the network between them and their clients, and the workers: everything that a run consists of, in one thread.
//
// Now of one node; founders, calls and faults name nodes by number, so that more need only a network between them.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sim/cluster/sim_node.h"

namespace uccp::sim {

class SimAgent;

class SimCluster {
 public:
  explicit SimCluster(const SimOptions& options, bool tracing);
  ~SimCluster();

  const SimOptions& options() const { return options_; }
  SimScheduler& scheduler() { return scheduler_; }
  Checkers& checkers() { return checkers_; }
  int64_t now_us() const { return scheduler_.now_us(); }
  SimNode& node(size_t number) { return *nodes_[number]; }
  size_t node_count() const { return nodes_.size(); }
  SimAgent& agent(size_t number) { return *agents_[number]; }
  size_t agent_count() const { return agents_.size(); }
  // A generator of its own for each client.
  uint64_t next_seed() { return random_.next(); }

  // Starts the process of a node, again and again while its disk is full. Any other refusal is a violation.
  void start_node(size_t number);
  // Ends the process and starts another one after `down_ms`.
  void crash_node(size_t number, CrashKind kind, int64_t down_ms);
  void start_agents();

  // Faults stop, everything heals; what is under way has to come to its end.
  void heal();
  bool healed() const { return healed_; }

  // Calls. A request or a reply may be late or lost; then nobody is told.
  using Reply = std::function<void(Result<machine::Applied>)>;
  using Serve = std::function<void(SimNode& node, Reply reply)>;
  void call(size_t number, Serve serve, Reply reply);
  // `query` answers from the state, on the node.
  using Query = std::function<std::string(const machine::GroupView& state)>;
  static Serve propose(GroupId group, machine::Envelope envelope);
  static Serve read(GroupId group, machine::ReadLevel level, Query query);
  static Serve keep_alive(GroupId group, machine::LeaseId lease);
  static Serve cancel_task(machine::Envelope envelope, internal::v1::CancelCommand command);

  int64_t latency_us();
  void count_operation() { ++operations_; }
  uint64_t operations() const { return operations_; }
  void count_fault(Fault fault) { ++faults_[static_cast<size_t>(fault)]; }
  const std::array<uint64_t, static_cast<size_t>(Fault::kCount)>& faults() const { return faults_; }

  bool tracing() const { return tracing_; }
  // A line of the trace. Callers ask tracing() before they make a costly one.
  void note(const std::string& line) const;

 private:
  void fatal(size_t number, const Status& status);
  void watch_readiness(size_t number, uint64_t generation);
  void check_after_restart(size_t number);

  const SimOptions options_;
  const bool tracing_;
  SimScheduler scheduler_;
  Checkers checkers_;
  SeededRandom random_;
  std::vector<std::unique_ptr<SimNode>> nodes_;
  std::vector<bool> starting_;
  std::vector<std::unique_ptr<SimAgent>> agents_;
  bool healed_ = false;
  uint64_t operations_ = 0;
  std::array<uint64_t, static_cast<size_t>(Fault::kCount)> faults_{};
};

}  // namespace uccp::sim
