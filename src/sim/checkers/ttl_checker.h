// Leases: an instance that was renewed is not expired before its ttl has passed since.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "sim/checkers/violations.h"

namespace uccp::sim {

class TtlChecker {
 public:
  // `drift_ppm_max`: how much faster than time a node's clock may run.
  TtlChecker(Violations& violations, int64_t drift_ppm_max) : violations_(violations), drift_ppm_max_(drift_ppm_max) {}

  // A registration or heartbeat that was sent at `sent_us` was confirmed: the ttl counts from then on at the earliest.
  void renewed(const std::string& instance, int64_t sent_us, int64_t ttl_ms) {
    Lease& lease = leases_[instance];
    if (sent_us >= lease.sent_us) lease = {sent_us, ttl_ms};
  }
  // The client ended it, or its ttl was changed: what was confirmed before means nothing any more.
  void forgotten(const std::string& instance) { leases_.erase(instance); }
  // The expiry is known to be committed at `now_us`.
  void expired(const std::string& instance, int64_t now_us);

 private:
  struct Lease {
    int64_t sent_us = 0;
    int64_t ttl_ms = 0;
  };
  Violations& violations_;
  const int64_t drift_ppm_max_;
  std::map<std::string, Lease> leases_;
};

}  // namespace uccp::sim
