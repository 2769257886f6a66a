// The services of a namespace, summed up over their instances, and the search among them. Pure; any thread.
#pragma once

#include <map>
#include <string>

#include "services/discovery/discovery_state.h"

namespace uccp::discovery {

// Instances that one look at all services goes through.
inline constexpr size_t kCatalogRowsMax = 100'000;
inline constexpr int kCatalogLimitDefault = 100;
inline constexpr int kCatalogLabelsMax = 64;

// Calls `visit` with each registration of the namespace, those of one service together.
// Errors: invalid CATALOG_TOO_LARGE.
Status visit_services(const machine::KeyReader& state, const Scope& scope,
                      const std::function<void(const v1::ServiceRegistration&)>& visit);

// Errors: invalid CATALOG_TOO_LARGE.
Result<v1::GetServiceCatalogResponse> search_catalog(const machine::KeyReader& state, const Scope& scope,
                                                     const v1::GetServiceCatalogRequest& request);

}  // namespace uccp::discovery
