#include "sim/checkers/ttl_checker.h"

namespace uccp::sim {

void TtlChecker::expired(const std::string& instance, int64_t now_us) {
  const auto it = leases_.find(instance);
  if (it == leases_.end()) return;
  const Lease lease = it->second;
  leases_.erase(it);
  const int64_t earliest_us = lease.sent_us + lease.ttl_ms * 1000 * 1'000'000 / (1'000'000 + drift_ppm_max_);
  if (now_us >= earliest_us) return;
  violations_.add("ttl", instance + " expired at " + std::to_string(now_us) + " us; its renewal of " +
                             std::to_string(lease.sent_us) + " us holds until " + std::to_string(earliest_us) + " us");
}

}  // namespace uccp::sim
