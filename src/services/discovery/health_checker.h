// Makes the checks of registered instances: this node's share of all, each at its interval, and tells the leader what
// is different from what the state says.
//
// Every node knows all checks from the state. Whose a check is follows from the nodes that make checks just now, which
// the leader answers to each report (rendezvous hashing), so that a node that fails leaves its share to the others
// within kCheckerSilentMs and nothing else moves. Findings are sent in batches; a lost one is found again by the next
// check. Lives on one executor; on_change callbacks and probes post to it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/executor.h"
#include "base/metrics.h"
#include "base/random.h"
#include "machine/ports.h"
#include "services/discovery/discovery_state.h"
#include "services/discovery/health_probe.h"
#include "uccp/internal/v1/node.pb.h"

namespace uccp::discovery {

// How often a node tells that it makes checks, and after how long without it is taken to make none.
inline constexpr int64_t kCheckerReportMs = 2'000;
inline constexpr int64_t kCheckerSilentMs = 6'000;
// Checks of one node that are under way at a time; beyond it one waits for its next turn.
inline constexpr size_t kProbesMax = 512;

// Tells the leader; an error means that it was not told.
using TellLeader = std::function<void(internal::v1::ReportChecksRequest,
                                      std::move_only_function<void(Result<internal::v1::ReportChecksResponse>)>)>;

struct HealthCheckerEnvironment {
  machine::Reader& reader;
  machine::Watcher& watcher;
  Executor& executor;
  Random& random;  // the checker's own
  HealthProbes& probes;
  MetricsRegistry& metrics;
  TellLeader tell;
};

class HealthChecker : public std::enable_shared_from_this<HealthChecker> {
 public:
  static std::shared_ptr<HealthChecker> make(NodeId self, HealthCheckerEnvironment environment);
  ~HealthChecker();

  // Any thread.
  void start();
  // After it no callback does anything; probes under way end by themselves.
  void stop();

 private:
  struct Check;
  struct Instance;
  using Key = std::string;  // tenant, namespace, id

  HealthChecker(NodeId self, HealthCheckerEnvironment environment);
  void load();
  void follow(const machine::GroupView& view);
  void changed(const machine::Change& change);
  void track(const machine::Scope& scope, std::string_view row_bytes);
  void schedule(const Key& key, const std::shared_ptr<Instance>& instance, size_t at, int64_t delay_ms);
  void due(const Key& key, const std::shared_ptr<Instance>& instance, size_t at);
  void probed(const Key& key, const std::shared_ptr<Instance>& instance, size_t at, const ProbeOutcome& outcome);
  void compare(const Key& key, const Instance& instance);
  bool mine(const Key& key) const;
  void report_later(int64_t delay_ms);
  void report();

  const NodeId self_;
  HealthCheckerEnvironment env_;
  Counter& passed_;
  Counter& failed_;
  std::map<Key, std::shared_ptr<Instance>> instances_;
  std::map<Key, internal::v1::ServiceObservation> found_;  // not told yet
  std::vector<uint64_t> nodes_;                            // that make checks
  std::shared_ptr<machine::Watch> watch_;
  size_t probing_ = 0;
  bool reporting_ = false;
  Executor::TimerId report_timer_ = 0;
  bool stopped_ = false;
};

}  // namespace uccp::discovery
