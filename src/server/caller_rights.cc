#include "server/caller_rights.h"

#include "call/contract.h"
#include "call/policy/permission_table.h"

namespace uccp::server {

Status may_call(const call::PolicySet& policies, const Clock& clock, const call::Call& call, std::string_view method,
                const std::string& resource, const std::string& request) {
  const call::Method* const found = call::Contract::get().find(method);
  const call::AccessQuery query{.principal = call.principal,
                                .method = found,
                                .permission = call::PermissionTable::get().of(*found),
                                .name_space = call.name_space,
                                .resource = resource,
                                .request = request,
                                .address = call.credentials.address,
                                .wall = clock.wall()};
  const call::Decision decision = policies.decide(query);
  return decision.allowed() ? Status::ok() : policies.denial(query, decision);
}

}  // namespace uccp::server
