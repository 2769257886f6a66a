#include "sim/cluster/sim_options.h"

#include "base/random.h"

namespace uccp::sim {

std::string fault_name(Fault fault) {
  switch (fault) {
    case Fault::kCrash: return "crash";
    case Fault::kKill: return "kill";
    case Fault::kCrashInWrite: return "crash_in_write";
    case Fault::kPause: return "pause";
    case Fault::kSyncError: return "sync_error";
    case Fault::kDiskFull: return "disk_full";
    case Fault::kDiskNearlyFull: return "disk_nearly_full";
    case Fault::kSlowDisk: return "slow_disk";
    case Fault::kClockDrift: return "clock_drift";
    case Fault::kWallStep: return "wall_step";
    case Fault::kAgentKill: return "agent_kill";
    case Fault::kAgentDisconnect: return "agent_disconnect";
    case Fault::kAgentPartition: return "agent_partition";
    case Fault::kCount: break;
  }
  return "none";
}

SimOptions draw_options(uint64_t seed, uint64_t operations) {
  SeededRandom random(seed ^ 0x5eed);
  SimOptions o;
  o.seed = seed;
  o.operations = operations;
  const auto between = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random.below(static_cast<uint64_t>(high - low + 1)));
  };
  // Every tenth seed is calm: what it finds has nothing to do with faults.
  const bool calm = seed % 10 == 7;
  for (int fault = 0; fault < static_cast<int>(Fault::kCount); ++fault) {
    if (random.chance(0.6) && !calm) o.faults.push_back(static_cast<Fault>(fault));
  }
  o.fault_interval_ms = between(50, 600);
  o.loss = random.chance(0.5) && !calm ? 0.03 * random.unit() : 0;
  o.latency_us_max = between(100, 2000);
  o.disk_us = between(20, 1000);
  o.disk_jitter_us = between(0, 1000);
  o.segment_bytes = uint64_t{16} << (10 + random.below(4));
  o.flush_every_entries = static_cast<uint64_t>(between(50, 2000));
  o.log_kept_entries = static_cast<uint64_t>(between(0, 400));
  o.register_clients = static_cast<size_t>(between(3, 8));
  o.register_keys = static_cast<size_t>(between(2, 6));
  o.service_clients = static_cast<size_t>(between(2, 6));
  o.task_clients = static_cast<size_t>(between(1, 3));
  o.agents = static_cast<size_t>(between(2, 4));
  return o;
}

}  // namespace uccp::sim
