// The states of several groups at once, for answers that are put together from them.
#pragma once

#include <functional>
#include <map>
#include <set>

#include "call/call.h"
#include "machine/ports.h"

namespace uccp::events {

using Views = std::map<GroupId, machine::GroupView>;

// Reads the groups at the call's read level and goes on with all of them, on any thread; at once where there are none.
// The first error ends the call.
void read_views(machine::Reader& reader, const call::CallPtr& call, const std::set<GroupId>& groups,
                std::move_only_function<void(const Views&)> done);

}  // namespace uccp::events
