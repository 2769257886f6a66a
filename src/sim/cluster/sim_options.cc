#include "sim/cluster/sim_options.h"

#include <array>
#include <span>

#include "base/random.h"
#include "services/events/bus_rows.h"

namespace uccp::sim {
namespace {

constexpr std::array<std::string_view, kFaults> kNames = {"crash",
                                                          "kill",
                                                          "crash_in_write",
                                                          "pause",
                                                          "sync_error",
                                                          "disk_full",
                                                          "disk_nearly_full",
                                                          "slow_disk",
                                                          "clock_drift",
                                                          "wall_step",
                                                          "wipe",
                                                          "bit_flip",
                                                          "isolate",
                                                          "one_way",
                                                          "half_deaf",
                                                          "split",
                                                          "clog",
                                                          "slow_link",
                                                          "link_reset",
                                                          "ambush",
                                                          "transfer",
                                                          "grow",
                                                          "shrink",
                                                          "replace",
                                                          "learner",
                                                          "rolling_restart",
                                                          "upgrade",
                                                          "agent_kill",
                                                          "agent_disconnect",
                                                          "agent_partition",
                                                          "frame_lost",
                                                          "frame_replayed",
                                                          "call_lost",
                                                          "write_lost",
                                                          "write_torn",
                                                          "tail_cut",
                                                          "snapshot",
                                                          "entry_packed"};

// Leaders hardly stay: processes come back at once while what was meant for the earlier ones is still on its way.
constexpr Fault kOfElections[] = {Fault::kKill,     Fault::kCrash,    Fault::kCrash,    Fault::kClog,
                                  Fault::kSlowLink, Fault::kTransfer, Fault::kSlowDisk, Fault::kLinkReset,
                                  Fault::kAmbush,   Fault::kAmbush};
// The members change while they do not hear each other.
constexpr Fault kOfMembers[] = {Fault::kReplace, Fault::kReplace,  Fault::kGrow, Fault::kShrink, Fault::kSplit,
                                Fault::kSplit,   Fault::kHalfDeaf, Fault::kKill, Fault::kAmbush, Fault::kAmbush};

// Who leads does not hear that others do.
constexpr Fault kOfLeases[] = {Fault::kHalfDeaf, Fault::kIsolate, Fault::kSplit,      Fault::kPause,
                               Fault::kTransfer, Fault::kClog,    Fault::kClockDrift, Fault::kAmbush};

// Nothing else disturbs what an ambush brings about.
constexpr Fault kOfMoments[] = {Fault::kAmbush, Fault::kAmbush, Fault::kTransfer};

void submit_tasks(SimOptions& o, Workload workload) {
  o.newest_level = true;
  o.arrays = workload == Workload::kArrays;
  o.gangs = workload == Workload::kGangs;
  o.task_clients = 6;
  o.register_clients = o.register_readers = 1;
  o.service_clients = o.lock_clients = o.election_clients = o.kv_clients = 1;
  o.watchers = 1;
}

}  // namespace

std::string_view fault_name(Fault fault) { return kNames[static_cast<size_t>(fault)]; }

SimOptions draw_options(uint64_t seed, uint64_t operations, Workload workload) {
  SeededRandom random(seed ^ 0x5eed);
  SimOptions o;
  o.seed = seed;
  o.operations = operations;
  const auto between = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random.below(static_cast<uint64_t>(high - low + 1)));
  };
  // Every tenth seed is calm: what it finds has nothing to do with faults.
  const bool calm = seed % 10 == 7;
  // Mostly 3, sometimes a node alone.
  static constexpr size_t kNodes[] = {3, 3, 3, 3, 3, 3, 3, 4, 5, 5, 5, 7, 1};
  o.nodes = kNodes[random.below(std::size(kNodes))];
  for (int fault = 0; fault < static_cast<int>(Fault::kInjected); ++fault) {
    if (random.chance(0.5) && !calm) o.faults.push_back(static_cast<Fault>(fault));
  }
  o.fault_interval_ms = between(30, 400);
  const auto only = [&](std::span<const Fault> faults, int64_t interval_ms) {
    o.faults.assign(faults.begin(), faults.end());
    o.fault_interval_ms = between(interval_ms, 3 * interval_ms);
  };
  if (seed % 10 == 1) only(kOfMoments, 300);
  if (seed % 10 == 3) only(kOfElections, 60);
  if (seed % 10 == 5) only(kOfMembers, 60);
  if (seed % 10 == 9) only(kOfLeases, 200);
  o.loss = random.chance(0.5) && !calm ? 0.03 * random.unit() : 0;
  o.frame_loss = random.chance(0.4) && !calm ? 0.03 * random.unit() : 0;
  o.frame_replay = random.chance(0.4) && !calm ? 0.03 * random.unit() : 0;
  o.latency_us_max = between(100, 2000);
  o.disk_us = between(20, 1000);
  o.disk_jitter_us = between(0, 1000);
  o.segment_bytes = uint64_t{16} << (10 + random.below(4));
  // Sometimes an entry at a time, so that what depends on one and not on the next one shows.
  if (random.chance(seed % 10 == 1 ? 0.7 : 0.3)) o.append_bytes_max = static_cast<uint64_t>(between(1, 1000));
  o.flush_every_entries = static_cast<uint64_t>(between(50, 1000));
  o.log_kept_entries = static_cast<uint64_t>(between(0, 400));
  o.digest_every_entries = static_cast<uint64_t>(between(16, 256));
  o.snapshot_chunk_bytes = size_t{1} << (11 + random.below(6));
  o.lease_reads = random.chance(0.4) || seed % 10 == 9;
  o.newest_level = random.chance(0.6);
  for (storage::CompressionOptions& compression : o.compression) {
    static constexpr storage::Encoding kEncodings[] = {storage::Encoding::kRaw, storage::Encoding::kLz4,
                                                       storage::Encoding::kLz4, storage::Encoding::kZstd};
    compression = {kEncodings[random.below(std::size(kEncodings))], static_cast<uint64_t>(between(32, 300))};
  }
  o.register_clients = static_cast<size_t>(between(12, 40));
  o.register_readers = static_cast<size_t>(between(1, 4));
  o.register_keys = static_cast<size_t>(between(3, 12));
  o.service_clients = static_cast<size_t>(between(2, 5));
  o.kv_clients = static_cast<size_t>(between(3, 10));
  o.lock_clients = static_cast<size_t>(between(2, 6));
  o.election_clients = static_cast<size_t>(between(2, 4));
  o.task_clients = static_cast<size_t>(between(1, 3));
  o.agents = static_cast<size_t>(between(2, 4));
  if (seed % 10 == 1 && random.chance(0.5)) o.append_bytes_max = 1;
  if (workload == Workload::kEvents) {
    o.event_clients = static_cast<size_t>(between(3, 12));
    o.event_readers = 3;
    o.bus_groups = static_cast<uint32_t>(between(1, 3));
    // Old clusters do not know transactions.
    o.transaction_clients = o.newest_level ? static_cast<size_t>(between(1, 3)) : 0;
    o.register_clients = 3;
    o.service_clients = o.lock_clients = o.election_clients = 1;
    o.kv_clients = o.task_clients = 1;
    o.watchers = 1;
  }
  if (workload == Workload::kArrays || workload == Workload::kGangs) submit_tasks(o, workload);
  return o;
}

std::vector<GroupId> groups_of(const SimOptions& options) {
  std::vector<GroupId> groups = {kCoreGroup, kWorkGroup};
  for (uint32_t number = 0; options.event_clients > 0 && number < options.bus_groups; ++number) {
    groups.push_back(events::bus_group(number));
  }
  return groups;
}

}  // namespace uccp::sim
