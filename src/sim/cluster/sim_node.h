// One node of a simulated cluster: the real node, write-ahead log, work runtime and services on a simulated machine.
//
// The machine (disk, clock, flushed state) outlives its processes: start() begins one, crash() ends it. A crash must
// come from an event of the scheduler and not from a task of the node itself, which it destroys.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "node/node.h"
#include "services/discovery/discovery_state.h"
#include "services/elections/elections_state.h"
#include "services/events/bus_state.h"
#include "services/events/topics_state.h"
#include "services/events/transactions_state.h"
#include "services/kv/kv_state.h"
#include "services/locks/locks_state.h"
#include "services/tasks/tasks_state.h"
#include "services/tasks/work_runtime.h"
#include "services/workers/workers_state.h"
#include "sim/checkers/checkers.h"
#include "sim/cluster/observed_domain.h"
#include "sim/cluster/observed_log.h"
#include "sim/cluster/register_domain.h"
#include "sim/cluster/sim_network.h"
#include "sim/cluster/sim_options.h"
#include "sim/cluster/sim_services.h"
#include "sim/sim_clock.h"
#include "sim/sim_executor.h"
#include "sim/sim_file_system.h"
#include "storage/gathered_kv.h"
#include "storage/memory/memory_kv.h"
#include "storage/wal/wal_log_store.h"

namespace uccp::sim {

enum class CrashKind : uint8_t { kLoseUnsynced, kTearUnsynced, kKeepAll };

// What a node tells the simulation, from its own tasks.
struct NodeEvents {
  // Its process has to end.
  std::function<void(NodeId node, const Status& why)> fatal;
  // It leads the group with a current state.
  std::function<void(NodeId node, GroupId group, Term term)> leads;
  // It starts, and its log without a frame that a crash had torn.
  std::function<void()> tail_cut;
  // Proposes at the node that leads the group, wherever it is; the answer may never come.
  std::function<void(NodeId node, GroupId group, machine::Envelope envelope, machine::Proposer::Done done)> forward;
  // A line for the trace; empty if there is none.
  std::function<void(const std::string& line)> note;
};

class SimNode {
 public:
  // All references must outlive the node.
  SimNode(SimScheduler& scheduler, SimNetwork& network, const SimOptions& options, NodeId id, uint64_t seed,
          Checkers& checkers, NodeEvents events);
  ~SimNode();

  // Begins a process; `founders` empty: it waits to be added. Errors: those of the log and of the node; then none runs.
  Status start(const std::vector<NodeId>& founders);
  void crash(CrashKind kind);
  // The orderly end: hands over, flushes, closes the log; `done` comes from an event of the scheduler and says whether
  // the log was closed. Never if the process ends before.
  void stop(std::function<void(bool closed)> done);
  // SIGSTOP and SIGCONT.
  void pause();
  void resume();

  bool running() const { return process_ != nullptr; }
  bool paused() const { return paused_since_us_ > 0; }
  bool stopping() const { return stopping_; }
  // Another one for each process of any node, so that what was meant for an earlier one can be told.
  uint64_t generation() const { return generation_; }
  NodeId id() const { return id_; }
  // Require running().
  node::Node& node() { return *process_->node; }
  tasks::WorkRuntime& work() { return *process_->work; }
  SimServices& services() { return *process_->services; }
  SimExecutor& loop() { return *process_->loop; }
  // Where calls of clients arrive.
  SimExecutor& door() { return *process_->door; }
  // Both groups serve.
  bool ready() const { return process_ != nullptr && process_->node->ready(); }

  SimClock& clock() { return clock_; }
  SimFileSystem& files() { return files_; }
  void set_disk_us(int64_t us);
  std::string log_directory() const { return "/data/log"; }

  // What the log of the running process has there.
  std::optional<Term> stored_term(GroupId group, LogIndex index);
  // Compares the digests of a running node with what the checkers know.
  void check_digests();
  // And the stored state with its digest. Requires that no process runs or that it is idle.
  void check_state();
  // The digests of the groups as stored, by group. Opens the state anew; requires that no process runs.
  Result<std::map<GroupId, Digest>> stored_digests();
  // What the log holds, after recovery. Requires that no process runs.
  Result<std::map<GroupId, storage::GroupLog>> recover_log();

 private:
  // Proposals of the event bus, which go to the leader of the group as between real nodes.
  class Remote;
  struct Process {
    MetricsRegistry metrics;
    std::unique_ptr<SimExecutor> loop, io, watch, reads, door;
    std::unique_ptr<SimNetwork::End> network;
    std::unique_ptr<storage::WalLogStore> wal;
    std::unique_ptr<ObservedLog> log;
    tasks::LiveTasks live;
    std::unique_ptr<node::Node> node;
    std::unique_ptr<tasks::WorkRuntime> work;
    std::unique_ptr<machine::Proposer> remote;
    std::unique_ptr<SimServices> services;

    std::vector<SimExecutor*> executors() { return {loop.get(), io.get(), watch.get(), reads.get(), door.get()}; }
  };
  void make_executors(Process& process);
  Result<std::unique_ptr<storage::WalLogStore>> open_wal(storage::RecoveryReport& report);
  void build(Process& process);
  void gather();
  node::NodeOptions node_options() const;
  const storage::CompressionOptions& compression() const {
    return options_.compression[id_.value % options_.compression.size()];
  }
  std::vector<machine::Domain*> domains(GroupId group);
  std::vector<node::GroupSpec> groups();

  SimScheduler& scheduler_;
  SimNetwork& network_;
  const SimOptions& options_;
  const NodeId id_;
  const Incarnation incarnation_;
  SeededRandom random_;
  Checkers& checkers_;
  const NodeEvents events_;
  SimClock clock_;
  SimFileSystem files_;
  storage::MemoryKv stored_;
  std::optional<storage::GatheredKv> kv_;  // in front of it
  RegisterDomain registers_;
  discovery::DiscoveryState discovery_;
  locks::LocksState locks_;
  elections::ElectionsState elections_;
  kv::KvState key_values_;
  tasks::TasksState tasks_;
  workers::WorkersState workers_;
  events::TopicsState topics_;
  events::BusState bus_;
  events::TransactionsState transactions_;
  std::map<GroupId, std::vector<std::unique_ptr<ObservedDomain>>> observed_;
  std::unique_ptr<Process> process_;
  bool stopping_ = false;
  uint64_t generation_;
  int64_t paused_since_us_ = 0;
};

}  // namespace uccp::sim
