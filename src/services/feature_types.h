// What services say while the cluster has nodes of a version that does not know their commands.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace uccp::services {

// Level at which nodes know certificates, settings of the cluster and secrets.
inline constexpr uint32_t kAdministrationLevel = 2;
// Level at which nodes know findings about services, what rows of services say since then, and locks with their trees.
inline constexpr uint32_t kCoordinationLevel = 2;
// Level at which nodes know quotas.
inline constexpr uint32_t kSchedulingLevel = 2;
// Level at which the last number of a topic or subscription is kept.
inline constexpr uint32_t kNumberedLevel = 2;
// Level at which nodes know transactions over topics.
inline constexpr uint32_t kTransactionsLevel = 2;

// Level at which producers that are silent for long are forgotten and told so, and versions of keys count scheduled
// events.
inline constexpr uint32_t kRetirementLevel = 2;

// Level at which nodes know topics that are compacted, and events that are stored again.
inline constexpr uint32_t kCompactionLevel = 2;

// OK, or unavailable FEATURE_LEVEL: nodes of before would not know the command.
inline Status check_feature_level(uint32_t present, uint32_t needed) {
  if (present >= needed) return Status::ok();
  return Status(Code::kUnavailable, "FEATURE_LEVEL",
                "this needs feature level " + std::to_string(needed) + ", and the cluster is at " +
                    std::to_string(present) +
                    "; it rises by itself within seconds when all nodes have this version (cluster version)")
      .with_retry_after_ms(1'000)
      .with_help("cluster.md#upgrades");
}

}  // namespace uccp::services
