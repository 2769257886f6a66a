// One node of a simulated cluster: the real node, write-ahead log and work runtime on a simulated machine.
//
// The machine (disk, clock, flushed state) outlives its processes: start() begins one, crash() ends it. A crash must
// come from an event of the scheduler and not from a task of the node itself, which it destroys.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "node/node.h"
#include "services/discovery/discovery_state.h"
#include "services/tasks/tasks_state.h"
#include "services/tasks/work_runtime.h"
#include "services/workers/workers_state.h"
#include "sim/checkers/checkers.h"
#include "sim/cluster/observed_domain.h"
#include "sim/cluster/register_domain.h"
#include "sim/cluster/sim_options.h"
#include "sim/sim_clock.h"
#include "sim/sim_executor.h"
#include "sim/sim_file_system.h"
#include "storage/memory/memory_kv.h"
#include "storage/wal/wal_log_store.h"

namespace uccp::sim {

enum class CrashKind : uint8_t { kLoseUnsynced, kTearUnsynced, kKeepAll };

class SimNode {
 public:
  // All references must outlive the node. `on_fatal` is called from a task of the node, when its process has to end.
  SimNode(SimScheduler& scheduler, const SimOptions& options, NodeId id, uint64_t seed, Checkers& checkers,
          std::function<void(Status)> on_fatal);
  ~SimNode();

  // Begins a process. Errors: those of the log and of the node; then none runs.
  Status start(const std::vector<NodeId>& founders);
  void crash(CrashKind kind);
  // The orderly end: flushes, closes the log. False if that did not come to its end within `limit_ms`.
  bool stop(int64_t limit_ms);
  // SIGSTOP and SIGCONT.
  void pause();
  void resume();

  bool running() const { return process_ != nullptr; }
  bool paused() const { return paused_since_us_ > 0; }
  // Grows with each process, so that what was meant for an earlier one can be told.
  uint64_t generation() const { return generation_; }
  NodeId id() const { return id_; }
  // Require running().
  node::Node& node() { return *process_->node; }
  tasks::WorkRuntime& work() { return *process_->work; }
  SimExecutor& loop() { return *process_->loop; }
  // Leads both groups with a current state.
  bool ready() const { return process_ != nullptr && process_->node->ready(); }

  SimClock& clock() { return clock_; }
  SimFileSystem& files() { return files_; }
  void set_disk_us(int64_t us);
  std::string log_directory() const { return "/data/log"; }

  // Compares status and stored state with what the checkers know. Requires ready().
  void check_state();
  // The digests of the groups as stored, by group. Opens the state anew; requires that no process runs.
  Result<std::map<GroupId, Digest>> stored_digests();

 private:
  struct Process {
    MetricsRegistry metrics;
    std::unique_ptr<SimExecutor> loop, io, watch;
    std::unique_ptr<storage::WalLogStore> log;
    tasks::LiveTasks live;
    std::unique_ptr<node::Node> node;
    std::unique_ptr<tasks::WorkRuntime> work;
  };
  void build(Process& process);
  void observe(GroupId group, machine::ApplyContext& context, std::string_view command, std::string_view payload,
               const machine::ApplyResult& result);
  void observe_work(machine::ApplyContext& context, std::string_view command, std::string_view payload,
                    const machine::ApplyResult& result);
  std::unique_ptr<ObservedDomain> observed(machine::Domain& domain, GroupId group);
  std::vector<machine::Domain*> domains(GroupId group);

  SimScheduler& scheduler_;
  const SimOptions& options_;
  const NodeId id_;
  SeededRandom random_;
  Checkers& checkers_;
  std::function<void(Status)> on_fatal_;
  SimClock clock_;
  SimFileSystem files_;
  storage::MemoryKv kv_;
  RegisterDomain registers_;
  discovery::DiscoveryState discovery_;
  tasks::TasksState tasks_;
  workers::WorkersState workers_;
  std::unique_ptr<ObservedDomain> observed_registers_, observed_discovery_, observed_tasks_, observed_workers_;
  std::unique_ptr<Process> process_;
  uint64_t generation_ = 0;
  int64_t paused_since_us_ = 0;
};

}  // namespace uccp::sim
