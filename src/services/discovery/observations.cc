#include "services/discovery/observations.h"

#include <utility>

#include "services/discovery/discovery_rows.h"
#include "services/discovery/health_checker.h"

namespace uccp::discovery {
namespace {

constexpr int64_t kGatherMs = 100;

}  // namespace

void Observations::add(internal::v1::ServiceObservation observation) {
  executor_.post([self = shared_from_this(), observation = std::move(observation)] {
    const machine::Scope scope{observation.tenant(), observation.namespace_()};
    self->gathered_[lease_key(scope, observation.id())].MergeFrom(observation);
    if (std::exchange(self->flushing_, true)) return;
    self->executor_.post_after(kGatherMs, [self] { self->flush(); });
  });
}

void Observations::flush() {
  flushing_ = false;
  while (!gathered_.empty()) {
    internal::v1::ObserveServicesCommand command;
    while (!gathered_.empty() && command.observations_size() < kObservationsMax) {
      *command.add_observations() = std::move(gathered_.extract(gathered_.begin()).mapped());
    }
    // A load that is lost is reported again by the next heartbeat, a circuit by the next calls.
    propose(command, [](const Result<machine::Applied>&) {});
  }
}

void Observations::propose(const internal::v1::ObserveServicesCommand& command, machine::Proposer::Done done) {
  if (feature_level_) {
    Status level = services::check_feature_level(feature_level_(), services::kCoordinationLevel);
    if (!level.is_ok()) return done(std::unexpected(std::move(level)));
  }
  machine::Envelope envelope;
  envelope.principal = "system";
  envelope.command = std::string(kDomain) + ".observe";
  envelope.payload = serialize(command);
  proposer_.propose(kCoreGroup, std::move(envelope), std::move(done));
}

internal::v1::ReportChecksResponse Observations::checkers(uint64_t told) {
  const BootTime now = clock_.boot();
  heard_[told] = now;
  std::erase_if(heard_, [&](const auto& item) { return now.ms_since(item.second) > kCheckerSilentMs; });
  internal::v1::ReportChecksResponse response;
  for (const auto& [node, at] : heard_) response.add_nodes(node);
  return response;
}

void Observations::report(internal::v1::ReportChecksRequest request, Told done) {
  executor_.post([self = shared_from_this(), request = std::move(request), done = std::move(done)]() mutable {
    auto response = self->checkers(request.node());
    if (request.findings().observations().empty()) return done(std::move(response));
    self->propose(request.findings(), [done = std::move(done), response](Result<machine::Applied> applied) mutable {
      if (!applied) return done(std::unexpected(std::move(applied.error())));
      done(std::move(response));
    });
  });
}

}  // namespace uccp::discovery
