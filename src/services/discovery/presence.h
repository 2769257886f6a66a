// When each instance was last heard of: heartbeats are never log entries, so this is in the memory of nodes. The leader
// hears them; the others are told of them with the answers to their reports (observations.h), so what they know has an
// age.
//
// Keyed by the lease, which is unique in the group. An entry is dropped some time after its instance must have expired.
// Bounded by the number of leases that are alive. The one lock of this folder: heartbeats and reads come from all
// threads of the doors; it is split into shards and held for a few instructions.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

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

  // On the leader: what was heard since `mark`, at most `count_max` of it, the oldest first. Answers the next mark.
  struct Heard {
    machine::LeaseId lease;
    int64_t seen_us;
    int64_t ttl_ms;
  };
  int64_t heard_since(int64_t mark, size_t count_max, std::vector<Heard>& out) const;
  // Elsewhere: what the leader, which is `node`, heard up to `mark`, all of it as of `asked`.
  void told(const std::vector<Heard>& heard, BootTime asked, uint64_t node, int64_t mark);
  // This node leads as of now.
  void leads(BootTime now);
  // Who told last, and what this node is; 0: not known.
  struct Source {
    uint64_t self = 0;
    uint64_t node = 0;
    int64_t mark = 0;
  };
  Source source() const;
  Source on_node(uint64_t self);
  // How old what is known here may be; 0 on the leader, nullopt if nobody told anything yet.
  std::optional<int64_t> age_ms(BootTime now) const;

 private:
  struct Entry {
    int64_t seen_us;
    int64_t expire_us;
  };
  void note(machine::LeaseId lease, Entry entry, int64_t now_us);
  struct Shard {
    mutable std::mutex mutex;
    std::map<machine::LeaseId, Entry> entries;
    size_t sweep_at = 64;
  };
  static constexpr size_t kShards = 32;
  static size_t shard_of(machine::LeaseId lease) { return (lease >> 16) % kShards; }

  const WallTime started_;
  std::array<Shard, kShards> shards_;
  mutable std::mutex source_mutex_;
  Source source_;
  std::optional<BootTime> as_of_;
  bool leads_ = false;  // as of then
};

}  // namespace uccp::discovery
