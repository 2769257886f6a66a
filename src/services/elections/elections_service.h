// The methods of elections: validate, propose, wait to lead, read.
//
// While a call waits to lead, its node keeps the candidacy alive; afterwards its owner renews it. Must outlive every
// call and the metrics registry's scrapes. Callable from any thread.
#pragma once

#include <functional>
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
#include "services/coordination_types.h"
#include "services/coordination_waits.h"
#include "services/elections/elections_state.h"

namespace uccp::elections {

// Everything must outlive the service.
struct ElectionsEnvironment {
  machine::Proposer& proposer;
  machine::Reader& reader;
  machine::Watcher& watcher;
  machine::Leases& leases;
  Executor& work;
  const Clock& clock;
  Random& random;  // the service's own: it is used from all threads, under the service's lock. Secrets come from it.
  MetricsRegistry& metrics;
  const call::PageTokenSigner& page_tokens;
  std::function<bool(const call::Principal&, std::string_view permission)> permits;
  std::function<uint32_t()> feature_level = {};  // of the cluster; none: the newest
};

class ElectionsService {
 public:
  explicit ElectionsService(ElectionsEnvironment environment);

  void add_handlers(call::HandlerTable& handlers);

 private:
  struct Campaign;
  using OnView = std::move_only_function<void(const call::CallPtr&, machine::GroupView)>;

  void elect(const call::CallPtr& call, std::string bytes);
  void transfer(const call::CallPtr& call, std::string bytes);
  void resign(const call::CallPtr& call, std::string bytes);
  void renew(const call::CallPtr& call, const v1::RenewLeadershipRequest& request, const machine::ReadLevel& level);
  void get(const call::CallPtr& call, const v1::GetLeaderRequest& request);
  void list(const call::CallPtr& call, std::string bytes);
  void watch(const call::CallPtr& call, const v1::WatchLeaderRequest& request);

  void entered(const std::shared_ptr<Campaign>& campaign, const internal::v1::ElectionRow& row,
               const internal::v1::ElectionCandidate& own, LogIndex index);
  void wait(const std::shared_ptr<Campaign>& campaign, LogIndex since);
  void look(const std::shared_ptr<Campaign>& campaign, uint64_t wait_id, LogIndex since);
  void wait_ended(const std::shared_ptr<Campaign>& campaign, coordination::Waits::End why,
                  const machine::Change* change);
  // `own`: the caller's candidate, null for others.
  v1::Election shown(const std::string& name_space, const internal::v1::ElectionRow& row,
                     const internal::v1::ElectionCandidate* own) const;

  void propose(const call::CallPtr& call, std::string_view bytes, std::string_view verb,
               const google::protobuf::MessageLite& payload,
               std::function<void(internal::v1::ElectionResult, LogIndex)> done);
  void read(const call::CallPtr& call, OnView on_view);
  uint64_t draw();

  ElectionsEnvironment env_;
  coordination::LeaseTimes times_;
  const std::shared_ptr<coordination::Waits> waits_;
  std::mutex random_mutex_;
};

}  // namespace uccp::elections
