// Names that agents and services of Ray share.
#pragma once

#include <string_view>

namespace uccp::ray {

// Label of workers that run something on Ray, and what: functions on a cluster, functions through a client of one,
// jobs.
inline constexpr std::string_view kLabel = "uccp/ray";
inline constexpr std::string_view kCluster = "cluster";
inline constexpr std::string_view kClient = "client";
inline constexpr std::string_view kJobs = "jobs";

}  // namespace uccp::ray
