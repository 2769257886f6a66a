// Any bytes as the file of scaling groups: refused with its place, or groups that can be counted on.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "server/scaling_groups.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const auto out = server::parse_scaling_groups("groups.json", {reinterpret_cast<const char*>(data), size}, 100);
  if (!out) {
    UCCP_CHECK(out.error().reason() == "SCALING_GROUPS_INVALID", "every refusal has one reason");
    return 0;
  }
  UCCP_CHECK(!out->groups.empty() && out->groups.size() == out->workers.size(), "each group has a name of its own");
  for (const tasks::ScalingGroup& group : out->groups) {
    UCCP_CHECK(group.max >= 1 && group.min <= group.max && group.max <= server::kScalingWorkersMax,
               "bounds are bounds");
    UCCP_CHECK(group.worker.capacity.cpu_milli > 0 && group.worker.capacity.memory > 0, "a worker has something");
    UCCP_CHECK(std::isfinite(group.price_per_hour) && group.price_per_hour >= 0, "a price can be compared");
    const auto& flags = out->workers.at(group.name).flags;
    UCCP_CHECK(flags.size() >= 4 && flags[0] == "--cpu", "an agent is told what it has");
  }
  return 0;
}
