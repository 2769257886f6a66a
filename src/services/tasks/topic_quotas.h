// What quotas allow of topics: the limits on the way of a namespace, and whose topics each of them counts.
#pragma once

#include <string>
#include <vector>

#include "machine/envelope.h"
#include "machine/key_reader.h"
#include "uccp/internal/v1/events_state.pb.h"
#include "uccp/v1/resources.pb.h"

namespace uccp::tasks {

// Those that a new topic of the scope has to fit into, from the namespace up.
std::vector<internal::v1::TopicQuota> topic_quotas(const machine::KeyReader& work, const machine::Scope& scope);

// Namespaces whose topics a quota counts; nothing: all of the tenant.
std::vector<std::string> namespaces_of(const machine::KeyReader& work, const std::string& tenant,
                                       const v1::ResourceQuota& quota);

}  // namespace uccp::tasks
