// What one run does, drawn from its seed: each seed has some faults and not others ("swarm testing", Groce et al.
// 2012), so that a fault cannot hide behind a louder one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/log_types.h"
#include "storage/compression.h"

namespace uccp::sim {

enum class Fault : uint8_t {
  // Of one node.
  kCrash,         // the machine loses power: unsynced writes are lost or torn
  kKill,          // its process dies, its files stay
  kCrashInWrite,  // power goes in the middle of a disk operation
  kPause,         // the process is stopped for a while
  kSyncError,     // an fsync fails
  kDiskFull,
  kDiskNearlyFull,
  kSlowDisk,
  kClockDrift,
  kWallStep,
  // Of synced data: they hit a minority of each group.
  kWipe,     // the disk is lost; another machine takes the node's place
  kBitFlip,  // a stored bit of the log changes while the node is down
  // Of the network.
  kIsolate,    // nothing reaches the node or leaves it
  kOneWay,     // nothing comes from one node to another
  kHalfDeaf,   // the node is heard and hears nobody
  kSplit,      // two sides hear only themselves
  kClog,       // what one node sends to another waits for a while
  kSlowLink,   // and here it takes longer
  kLinkReset,  // connections break
  // Not at any time, but when it matters.
  kAmbush,  // for a while, whoever comes to a moment of one kind is hurt right then
  // What operators do.
  kTransfer,        // of the leadership
  kGrow,            // another machine joins as a learner and becomes a voter
  kShrink,          // a voter leaves
  kReplace,         // a machine takes the place of a voter, by joint consensus
  kLearner,         // a machine that never votes joins
  kRollingRestart,  // orderly, one node after the other
  kUpgrade,         // the groups rise to the newest feature level
  // Of workers.
  kAgentKill,
  kAgentDisconnect,
  kAgentPartition,
  kInjected,
  // Counted as they happen.
  kFrameLost = kInjected,  // between nodes
  kFrameReplayed,
  kCallLost,   // a client's request or its answer
  kWriteLost,  // a crash lost something that was not synced
  kWriteTorn,  // or kept a part of it
  kTailCut,    // a log began again without a frame that was written in part
  // Not faults, but has to be met as well.
  kSnapshot,     // a node was brought up by a snapshot, which only faults and membership bring about
  kEntryPacked,  // entries travelled compressed, which only the newest feature level brings about
  kCount,
};
inline constexpr size_t kFaults = static_cast<size_t>(Fault::kCount);
std::string_view fault_name(Fault fault);

struct SimOptions {
  uint64_t seed = 1;
  size_t nodes = 3;            // founders
  uint64_t operations = 3000;  // of all clients together

  // Faults of this run and the mean time between two of them.
  std::vector<Fault> faults;
  int64_t fault_interval_ms = 300;
  int64_t drift_ppm_max = 20'000;

  // Share of requests and of replies that are lost, of frames between nodes, and how many of these come again; the
  // latency of a message.
  double loss = 0;
  double frame_loss = 0;
  double frame_replay = 0;
  int64_t latency_us_max = 500;

  int64_t disk_us = 200;
  int64_t disk_jitter_us = 400;
  uint64_t segment_bytes = 64 << 10;
  uint64_t append_bytes_max = 1 << 20;
  uint64_t flush_every_entries = 500;
  uint64_t log_kept_entries = 100;
  uint64_t digest_every_entries = 64;
  size_t snapshot_chunk_bytes = 4096;
  bool lease_reads = false;
  // Else the groups begin at the first one, as those of an old cluster.
  bool newest_level = true;
  // Of what nodes store and send, by turns.
  std::array<storage::CompressionOptions, 2> compression;

  int64_t agent_lease_ms = 1500;
  int64_t lease_margin_ms = 300;
  int64_t heartbeat_ms = 150;

  size_t register_clients = 6;
  size_t register_readers = 2;
  size_t register_keys = 4;
  size_t service_clients = 4;
  size_t kv_clients = 4;
  size_t lock_clients = 4;
  size_t election_clients = 3;
  size_t task_clients = 2;
  bool arrays = false;       // half of the tasks are
  bool gangs = false;        // half of what is submitted are, and mostly may be stopped for others
  size_t event_clients = 0;  // not 0: there are groups of the event bus
  uint32_t bus_groups = 1;
  size_t transaction_clients = 0;
  size_t event_readers = 0;
  size_t agents = 3;
  size_t watchers = 4;
};

// What clients mostly do: everything but events, or hardly anything but events, or but tasks, of which half are arrays,
// or gangs.
enum class Workload : uint8_t { kAll, kEvents, kArrays, kGangs };

SimOptions draw_options(uint64_t seed, uint64_t operations, Workload workload = Workload::kAll);
// The groups that there are.
std::vector<GroupId> groups_of(const SimOptions& options);

}  // namespace uccp::sim
