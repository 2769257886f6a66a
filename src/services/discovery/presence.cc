#include "services/discovery/presence.h"

#include <algorithm>

namespace uccp::discovery {
namespace {

// Expiry is decided on the boot clock of the leader; this only has to be late enough.
constexpr int64_t kKeptBehindExpiryUs = 60'000'000;

}  // namespace

void Presence::heard(machine::LeaseId lease, WallTime now, int64_t ttl_ms) {
  Shard& shard = shards_[shard_of(lease)];
  std::lock_guard lock(shard.mutex);
  shard.entries[lease] = {now.us, now.us + ttl_ms * 1000};
  if (shard.entries.size() < shard.sweep_at) return;
  // Swept when it has doubled, so that the cost a heartbeat is constant.
  std::erase_if(shard.entries, [&](const auto& entry) { return entry.second.expire_us + kKeptBehindExpiryUs < now.us; });
  shard.sweep_at = std::max<size_t>(64, shard.entries.size() * 2);
}

void Presence::forget(machine::LeaseId lease) {
  Shard& shard = shards_[shard_of(lease)];
  std::lock_guard lock(shard.mutex);
  shard.entries.erase(lease);
}

Presence::Times Presence::times(machine::LeaseId lease, int64_t seen_us, int64_t ttl_ms) const {
  const Shard& shard = shards_[shard_of(lease)];
  {
    std::lock_guard lock(shard.mutex);
    const auto it = shard.entries.find(lease);
    if (it != shard.entries.end() && it->second.seen_us >= seen_us) return {it->second.seen_us, it->second.expire_us};
  }
  return {seen_us, std::max(seen_us, started_.us) + ttl_ms * 1000};
}

size_t Presence::size() const {
  size_t sum = 0;
  for (const Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    sum += shard.entries.size();
  }
  return sum;
}

}  // namespace uccp::discovery
