#include "services/discovery/observations.h"

#include <algorithm>
#include <utility>

#include "services/discovery/discovery_rows.h"
#include "services/discovery/health_checker.h"

namespace uccp::discovery {
namespace {

constexpr int64_t kGatherMs = 100;
// Of one answer: 3.2 MB at most.
constexpr size_t kHeardMax = 200'000;

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

// Who asks has what this node told it up to the mark; after another leader it has to be told all.
void Observations::add_heard(const internal::v1::ReportChecksRequest& request,
                             internal::v1::ReportChecksResponse& response) {
  const uint64_t self = presence_.source().self;
  response.set_heard_from(self);
  if (self == 0 || request.node() == self) return;
  std::vector<Presence::Heard> heard;
  const int64_t mark = request.heard_from() == self ? request.heard_mark() : 0;
  response.set_heard_mark(presence_.heard_since(mark, kHeardMax, heard));
  const int64_t now_us = clock_.wall().us;
  for (const Presence::Heard& one : heard) {
    response.add_heard_leases(one.lease);
    response.add_heard_ages_ms(
        static_cast<uint32_t>(std::clamp<int64_t>((now_us - one.seen_us) / 1000, 0, UINT32_MAX)));
    response.add_heard_ttls_ms(static_cast<uint32_t>(std::clamp<int64_t>(one.ttl_ms, 0, UINT32_MAX)));
  }
}

void Observations::ask_heard(internal::v1::ReportChecksRequest& request) {
  const Presence::Source source = presence_.on_node(request.node());
  request.set_heard_from(source.node);
  request.set_heard_mark(source.mark);
}

void Observations::take_heard(const internal::v1::ReportChecksResponse& response, BootTime asked) {
  if (response.heard_from() == 0) return;
  if (response.heard_from() == presence_.source().self) return presence_.leads(clock_.boot());
  const int size = response.heard_leases_size();
  if (response.heard_ages_ms_size() != size || response.heard_ttls_ms_size() != size) return;
  std::vector<Presence::Heard> heard;
  heard.reserve(static_cast<size_t>(size));
  const int64_t now_us = clock_.wall().us;
  for (int i = 0; i < size; ++i) {
    heard.push_back(
        {response.heard_leases(i), now_us - int64_t{response.heard_ages_ms(i)} * 1000, response.heard_ttls_ms(i)});
  }
  presence_.told(heard, asked, response.heard_from(), response.heard_mark());
}

void Observations::report(internal::v1::ReportChecksRequest request, Told done) {
  executor_.post([self = shared_from_this(), request = std::move(request), done = std::move(done)]() mutable {
    auto response = self->checkers(request.node());
    self->add_heard(request, response);
    if (request.findings().observations().empty()) return done(std::move(response));
    self->propose(request.findings(), [done = std::move(done), response](Result<machine::Applied> applied) mutable {
      if (!applied) return done(std::unexpected(std::move(applied.error())));
      done(std::move(response));
    });
  });
}

}  // namespace uccp::discovery
