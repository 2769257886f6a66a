// The methods of ServiceDiscovery: validate, propose, wait, read.
//
// Reads run on the thread that the view comes on; scans without a name, lists and watches run on the `work` executor,
// so that they never hold up the loop. Must outlive every call and the metrics registry's scrapes. Callable from any
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "base/executor.h"
#include "base/metrics.h"
#include "base/random.h"
#include "call/handler.h"
#include "call/listing.h"
#include "machine/ports.h"
#include "services/change_types.h"
#include "services/discovery/call_outcomes.h"
#include "services/discovery/discovery_state.h"
#include "services/discovery/observations.h"
#include "services/discovery/presence.h"

namespace uccp::discovery {

struct DiscoveryOptions {
  // Instances that one namespace may have.
  uint64_t instances_max = kInstancesMaxDefault;
};

// Everything must outlive the service.
struct DiscoveryEnvironment {
  machine::Proposer& proposer;
  machine::Reader& reader;
  machine::Watcher& watcher;
  machine::Leases& leases;
  Executor& work;
  const Clock& clock;
  Random& random;  // the service's own: it is used from all threads, under the service's lock
  MetricsRegistry& metrics;
  const call::PageTokenSigner& page_tokens;
  std::function<uint32_t()> feature_level = {};  // of the cluster; none: the newest
};

class DiscoveryService {
 public:
  DiscoveryService(DiscoveryOptions options, DiscoveryEnvironment environment);

  void add_handlers(call::HandlerTable& handlers);
  // "$sys.services"
  services::ChangeTopic change_topic() const;
  // What nodes find out about instances, if this node leads. Any thread.
  Observations& observations() { return *observations_; }

 private:
  using Reply = std::move_only_function<void(const call::CallPtr&, machine::Applied)>;
  using OnView = std::move_only_function<void(const call::CallPtr&, machine::GroupView)>;

  void register_service(const call::CallPtr& call, std::string request);
  void update(const call::CallPtr& call, std::string request);
  void deregister(const call::CallPtr& call, v1::DeregisterRequest request, uint64_t request_hash);
  void heartbeat(const call::CallPtr& call, v1::HeartbeatRequest request, const machine::ReadLevel& level);
  void keep_alive(const call::CallPtr& call, v1::HeartbeatRequest request, InstanceRef instance);
  void note_load(const call::CallPtr& call, const v1::HeartbeatRequest& request, const machine::GroupView& view,
                 const std::string& name);
  void report_calls(const call::CallPtr& call, const v1::ReportServiceCallsRequest& request);
  void report_checks(const call::CallPtr& call, internal::v1::ReportChecksRequest request);
  void search(const call::CallPtr& call, const v1::GetServiceCatalogRequest& request);
  void graph(const call::CallPtr& call, const v1::GetDependencyGraphRequest& request);
  void answer_heartbeat(const call::CallPtr& call, int64_t ttl_ms);
  void discover(const call::CallPtr& call, v1::DiscoverRequest request);
  void get(const call::CallPtr& call, v1::GetServiceMetadataRequest request);
  void list(const call::CallPtr& call, std::string request);
  void watch(const call::CallPtr& call, v1::WatchServicesRequest request);

  // Commits `command` with the call's dedup key; `reply` gets the result, an error ends the call.
  void propose(const call::CallPtr& call, std::string_view command, const google::protobuf::MessageLite& payload,
               uint64_t request_hash, Reply reply);
  // A view at the level of the call; an error ends the call.
  void read(const call::CallPtr& call, OnView on_view);
  void reply_row(const call::CallPtr& call, std::string_view row, LogIndex index);
  void put_age(const call::CallPtr& call) const;
  uint64_t draw();

  const DiscoveryOptions options_;
  DiscoveryEnvironment env_;
  Presence presence_;
  const std::shared_ptr<Observations> observations_;
  const std::shared_ptr<CallOutcomes> outcomes_ = std::make_shared<CallOutcomes>();  // on the work executor only
  std::mutex random_mutex_;
  struct LastCounts;
  std::shared_ptr<LastCounts> counts_;
};

}  // namespace uccp::discovery
