// When each instance was last heard of: heartbeats are never log entries, so this lives in the leader's memory only.
//
// Keyed by the lease, which is unique in the group. An entry is dropped some time after its instance must have expired.
// Bounded by the number of leases that are alive. The one lock of this folder: heartbeats and reads come from all threads
// of the doors; it is split into shards and held for a few instructions.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>

#include "base/clock.h"
#include "machine/domain.h"

namespace uccp::discovery {

class Presence {
 public:
  // Nothing that was heard before `started` is known: the leader gave every lease its whole ttl then.
  explicit Presence(WallTime started) : started_(started) {}

  void heard(machine::LeaseId lease, WallTime now, int64_t ttl_ms);
  void forget(machine::LeaseId lease);

  struct Times {
    int64_t last_seen_us;
    int64_t expire_us;
  };
  // `seen_us` is what the state knows: the last registration.
  Times times(machine::LeaseId lease, int64_t seen_us, int64_t ttl_ms) const;
  size_t size() const;

 private:
  struct Entry {
    int64_t seen_us;
    int64_t expire_us;
  };
  struct Shard {
    mutable std::mutex mutex;
    std::map<machine::LeaseId, Entry> entries;
    size_t sweep_at = 64;
  };
  static constexpr size_t kShards = 32;
  static size_t shard_of(machine::LeaseId lease) { return (lease >> 16) % kShards; }

  const WallTime started_;
  std::array<Shard, kShards> shards_;
};

}  // namespace uccp::discovery
