// Exclusion by leases: who acquired something may rely on it until it released it or the ttl has passed since it sent
// the last renewal that was confirmed, and in that time nobody else acquires it. Also of leaderships.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "sim/checkers/violations.h"

namespace uccp::sim {

class HoldChecker {
 public:
  // `drift_ppm_max`: how much faster than time a node's clock may run.
  HoldChecker(Violations& violations, int64_t drift_ppm_max) : violations_(violations), drift_ppm_max_(drift_ppm_max) {}

  // `owner` was told at `now_us` that it holds `name`, which it asked for or renewed at `sent_us`.
  void holds(const std::string& name, const std::string& owner, int64_t sent_us, int64_t ttl_ms, int64_t now_us);
  // From now on `owner` relies on it no more.
  void released(const std::string& name, const std::string& owner);

  // Every grant of one `kind` has a greater number than all before it, in the order of their happening, which
  // `position` gives.
  void granted(const std::string& kind, uint64_t position, uint64_t token);
  // A number belongs to one grant: it was shown to `owner`.
  void shown(const std::string& kind, uint64_t token, const std::string& owner);

 private:
  struct Hold {
    std::string owner;
    int64_t until_us = 0;
  };
  Violations& violations_;
  const int64_t drift_ppm_max_;
  std::map<std::string, Hold> holds_;
  std::map<std::string, std::map<uint64_t, uint64_t>> tokens_;  // by kind and position
  std::map<std::pair<std::string, uint64_t>, std::string> owners_;
};

}  // namespace uccp::sim
