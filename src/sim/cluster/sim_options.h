// What one run does, drawn from its seed: each seed has some faults and not others ("swarm testing", Groce et al.
// 2012), so that a fault cannot hide behind a louder one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace uccp::sim {

enum class Fault : uint8_t {
  kCrash,         // the machine of a node loses power: unsynced writes are lost or torn
  kKill,          // its process dies, its files stay
  kCrashInWrite,  // power goes in the middle of a disk operation
  kPause,         // the process is stopped for a while
  kSyncError,     // an fsync fails
  kDiskFull,
  kDiskNearlyFull,
  kSlowDisk,
  kClockDrift,
  kWallStep,
  kAgentKill,
  kAgentDisconnect,
  kAgentPartition,
  kCount,
};
std::string fault_name(Fault fault);

struct SimOptions {
  uint64_t seed = 1;
  size_t nodes = 1;
  uint64_t operations = 3000;  // of all clients together

  // Faults of this run and the mean time between two of them.
  std::vector<Fault> faults;
  int64_t fault_interval_ms = 300;
  int64_t drift_ppm_max = 20'000;

  // Share of requests and of replies that are lost, and the latency of a message.
  double loss = 0;
  int64_t latency_us_max = 500;

  int64_t disk_us = 200;
  int64_t disk_jitter_us = 400;
  uint64_t segment_bytes = 64 << 10;
  uint64_t flush_every_entries = 500;
  uint64_t log_kept_entries = 100;

  int64_t agent_lease_ms = 1500;
  int64_t lease_margin_ms = 300;
  int64_t heartbeat_ms = 150;

  size_t register_clients = 6;
  size_t register_keys = 4;
  size_t service_clients = 4;
  size_t task_clients = 2;
  size_t agents = 3;
  size_t watchers = 3;
};

SimOptions draw_options(uint64_t seed, uint64_t operations);

}  // namespace uccp::sim
