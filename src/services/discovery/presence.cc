#include "services/discovery/presence.h"

#include <algorithm>

namespace uccp::discovery {
namespace {

// Expiry is decided on the boot clock of the leader; this only has to be late enough.
constexpr int64_t kKeptBehindExpiryUs = 60'000'000;
// Longer than between two reports of a node to whoever leads.
constexpr int64_t kBelievedLeadsMs = 6'000;

}  // namespace

void Presence::heard(machine::LeaseId lease, WallTime now, int64_t ttl_ms) {
  note(lease, {now.us, now.us + ttl_ms * 1000}, now.us);
}

void Presence::note(machine::LeaseId lease, Entry entry, int64_t now_us) {
  Shard& shard = shards_[shard_of(lease)];
  std::lock_guard lock(shard.mutex);
  Entry& known = shard.entries[lease];
  if (known.seen_us <= entry.seen_us) known = entry;
  if (shard.entries.size() < shard.sweep_at) return;
  // Swept when it has doubled, so that the cost a heartbeat is constant.
  std::erase_if(shard.entries, [&](const auto& item) { return item.second.expire_us + kKeptBehindExpiryUs < now_us; });
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

int64_t Presence::heard_since(int64_t mark, size_t count_max, std::vector<Heard>& out) const {
  int64_t next = mark;
  for (const Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    for (const auto& [lease, entry] : shard.entries) {
      if (entry.seen_us < mark) continue;
      out.push_back({lease, entry.seen_us, (entry.expire_us - entry.seen_us) / 1000});
      next = std::max(next, entry.seen_us);
    }
  }
  if (out.size() <= count_max) return next;
  const auto earlier = [](const Heard& a, const Heard& b) { return a.seen_us < b.seen_us; };
  std::ranges::nth_element(out, out.begin() + static_cast<std::ptrdiff_t>(count_max), earlier);
  next = out[count_max].seen_us;
  out.resize(count_max);
  return next;
}

Presence::Source Presence::source() const {
  std::lock_guard lock(source_mutex_);
  return source_;
}

Presence::Source Presence::on_node(uint64_t self) {
  std::lock_guard lock(source_mutex_);
  source_.self = self;
  return source_;
}

void Presence::told(const std::vector<Heard>& heard, BootTime asked, uint64_t node, int64_t mark) {
  for (const Heard& one : heard) note(one.lease, {one.seen_us, one.seen_us + one.ttl_ms * 1000}, one.seen_us);
  std::lock_guard lock(source_mutex_);
  as_of_ = asked;
  source_.node = node;
  source_.mark = mark;
  leads_ = false;
}

void Presence::leads(BootTime now) {
  std::lock_guard lock(source_mutex_);
  as_of_ = now;
  leads_ = true;
}

std::optional<int64_t> Presence::age_ms(BootTime now) const {
  std::lock_guard lock(source_mutex_);
  if (!as_of_) return std::nullopt;
  const int64_t age = now.ms_since(*as_of_);
  // Whether it still leads is found out by its reports; one that makes none any more is not believed.
  return leads_ && age < kBelievedLeadsMs ? 0 : age;
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
