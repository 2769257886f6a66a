// A simulated worker: the rules of src/agent/agent.h without processes and files.
//
// It runs attempts for some virtual time, kills them when its lease runs out, repeats outcomes until they are
// acknowledged, and says in each Hello what it still carries. What it runs is told to the checker of runs.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "services/tasks/work_runtime.h"
#include "sim/cluster/sim_options.h"
#include "sim/sim_clock.h"
#include "sim/sim_executor.h"

namespace uccp::sim {

class SimCluster;
class SimNode;

class SimAgent {
 public:
  SimAgent(SimCluster& cluster, size_t number, uint64_t seed);
  ~SimAgent();

  // Begins a process: a new incarnation.
  void start();
  // Faults. The process dies with all that it runs, and another one begins after `down_ms`.
  void kill(int64_t down_ms);
  // The connection breaks.
  void disconnect();
  // For so long nothing comes through, in either direction; what was sent arrives afterwards.
  void partition(int64_t ms);
  // The process of the node ended.
  void node_down(const SimNode& node);
  void heal();
  SimClock& clock() { return clock_; }

 private:
  struct Link;
  class Session;
  struct Run {
    internal::v1::AttemptId id;
    std::string key;
    SimScheduler::EventId end = 0;
    bool stopping = false;
  };

  int64_t below(int64_t bound) { return static_cast<int64_t>(random_.below(static_cast<uint64_t>(bound))); }
  // Runs `work` after so much of the agent's own clock, unless this process ended before.
  SimScheduler::EventId after_us(int64_t boot_us, std::function<void()> work);
  void connect();
  void connect_later();
  void link_down();
  void send(internal::v1::AgentMessage message);
  void send_hello();
  void receive(const std::shared_ptr<Link>& link, const internal::v1::ServerMessage& message);
  void welcome(const internal::v1::Welcome& welcome);
  void heartbeat();
  void heartbeat_ack(const internal::v1::HeartbeatAck& ack);
  void extend_lease(BootTime sent);
  void watch_lease();
  void end_lease();
  void launch(const internal::v1::LaunchAttempt& launch);
  void cancel(const internal::v1::CancelAttempt& cancel);
  void deny(const internal::v1::AttemptId& id);
  void acknowledged(const internal::v1::AttemptId& id);
  void end_by_itself(const std::string& key);
  // Ends the run, at once or after `delay_us`, with this outcome.
  void stop(Run& run, v1::AttemptOutcomeKind kind, int64_t delay_us);
  void ended(const std::string& key, internal::v1::AttemptOutcome outcome);
  internal::v1::AttemptOutcome outcome_of(const internal::v1::AttemptId& id, v1::AttemptOutcomeKind kind) const;
  void report(const internal::v1::AttemptOutcome& outcome);

  SimCluster& cluster_;
  SimScheduler& scheduler_;
  const size_t number_;
  SeededRandom random_;
  SimClock clock_;
  std::string worker_id_;
  uint64_t process_ = 0;  // number of the process; events of earlier ones do nothing
  bool alive_ = false;
  uint64_t epoch_ = 0;
  std::shared_ptr<Link> link_;
  NodeId leader_;  // of the work group, as the last refusal said
  bool welcomed_ = false;
  int64_t partitioned_until_us_ = 0;
  uint32_t sessions_ = 0;
  BootTime hello_sent_;
  BootTime lease_end_;
  uint64_t heartbeat_ = 0;
  std::map<uint64_t, BootTime> heartbeats_;
  std::map<std::string, Run> runs_;
  std::map<std::string, internal::v1::AttemptOutcome> outcomes_;  // not acknowledged
  std::map<std::string, internal::v1::AttemptDenied> denials_;
  std::set<std::string> forgotten_;
  std::set<std::string> in_hello_;  // outcomes that the last Hello carried
};

}  // namespace uccp::sim
