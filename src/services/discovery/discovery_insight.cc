// The methods about what is known of services as a whole: reports of callers and of checks, the catalog, the graph.
#include "services/discovery/catalog.h"
#include "services/discovery/dependency_graph.h"
#include "services/discovery/discovery_service.h"

namespace uccp::discovery {
namespace {

using call::CallPtr;

Scope scope_of(const call::Call& call) { return {call.principal.tenant, call.name_space}; }

v1::CircuitState circuit_in(const ServiceRow& row) {
  return row.has_circuit() ? row.circuit().state() : v1::CIRCUIT_STATE_CLOSED;
}

}  // namespace

void DiscoveryService::report_calls(const CallPtr& call, const v1::ReportServiceCallsRequest& request) {
  env_.reader.read(
      kCoreGroup, machine::ReadLevel::linearizable(), [this, call, request](Result<machine::GroupView> view) {
        if (!view) return call->finish(std::move(view.error()));
        const auto bytes = find_row(*view, scope_of(*call), request.id());
        if (!bytes) return call->finish(service_not_found(request.id()));
        ServiceRow row;
        if (!row.ParseFromString(*bytes))
          return call->finish(Status(Code::kInternal, "ROW_INVALID", "a row is unreadable"));
        env_.work.post([this, call, request, outcomes = outcomes_, lease = row.lease(), now_is = circuit_in(row)] {
          const auto next = outcomes->add(
              {lease, static_cast<uint64_t>(request.successes()), static_cast<uint64_t>(request.failures())}, now_is,
              env_.clock.boot());
          if (next) {
            internal::v1::ServiceObservation observation;
            observation.set_tenant(call->principal.tenant);
            observation.set_namespace_(call->name_space);
            observation.set_id(request.id());
            observation.set_circuit(*next);
            observations_->add(std::move(observation));
          }
          v1::ReportServiceCallsResponse response;
          response.set_circuit_state(next.value_or(now_is));
          call->reply(response.SerializeAsString());
        });
      });
}

void DiscoveryService::report_checks(const CallPtr& call, internal::v1::ReportChecksRequest request) {
  if (call->principal.kind != call::Principal::Kind::kNode) {
    return call->finish(Status(Code::kPermission, "NODES_ONLY", "only nodes of the cluster call this"));
  }
  observations_->report(std::move(request), [call](Result<internal::v1::ReportChecksResponse> response) {
    if (!response) return call->finish(std::move(response.error()));
    call->reply(response->SerializeAsString());
  });
}

void DiscoveryService::search(const CallPtr& call, const v1::GetServiceCatalogRequest& request) {
  read(call, [this, request](const CallPtr& call, machine::GroupView view) {
    env_.work.post([call, request, view = std::move(view)] {
      if (call->finished()) return;
      auto response = search_catalog(view, scope_of(*call), request);
      if (!response) return call->finish(std::move(response.error()));
      call->reply(response->SerializeAsString());
    });
  });
}

void DiscoveryService::graph(const CallPtr& call, const v1::GetDependencyGraphRequest& request) {
  read(call, [this, request](const CallPtr& call, machine::GroupView view) {
    env_.work.post([call, request, view = std::move(view)] {
      if (call->finished()) return;
      auto response = dependency_graph(view, scope_of(*call), request);
      if (!response) return call->finish(std::move(response.error()));
      call->reply(response->SerializeAsString());
    });
  });
}

}  // namespace uccp::discovery
