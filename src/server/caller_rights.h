// What a caller may do beside the method that it calls: a request that makes the server do something else for it.
#pragma once

#include <string>
#include <string_view>

#include "base/clock.h"
#include "call/call.h"
#include "call/policy/policy_set.h"

namespace uccp::server {

// Whether the caller may call `method` ("uccp.v1.EventBus/Subscribe") about `resource` in its namespace, with
// `request`, which the rules may look into. Errors: the denial.
Status may_call(const call::PolicySet& policies, const Clock& clock, const call::Call& call, std::string_view method,
                const std::string& resource, const std::string& request);

}  // namespace uccp::server
