// Active health checks of this node, put together: the prober, the checker, and the way to the leader.
#pragma once

#include <memory>

#include "base/metrics.h"
#include "base/random.h"
#include "node/node.h"
#include "runtime/loop.h"
#include "runtime/net_probe.h"
#include "server/peer_links.h"
#include "services/discovery/health_checker.h"
#include "services/discovery/observations.h"

namespace uccp::server {

class ChecksSide final : public discovery::HealthProbes {
 public:
  struct Environment {
    node::Node& node;
    PeerLinks& links;
    discovery::Observations& observations;
    const Clock& clock;
    uint64_t seed;
    MetricsRegistry& metrics;
  };
  // Everything must outlive it.
  ChecksSide(NodeId self, Environment environment);

  void start();
  // Before the node stops; afterwards nothing of it runs.
  void stop();

  void probe(discovery::ProbeTarget target, std::move_only_function<void(discovery::ProbeOutcome)> done) override;

 private:
  void tell(internal::v1::ReportChecksRequest request,
            std::move_only_function<void(Result<internal::v1::ReportChecksResponse>)> done);

  Environment env_;
  SeededRandom random_;
  runtime::Loop loop_;
  std::shared_ptr<discovery::HealthChecker> checker_;
  std::unique_ptr<runtime::NetProber> prober_;
};

}  // namespace uccp::server
