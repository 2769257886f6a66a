#include "node/lease_keeper.h"

#include <algorithm>

namespace uccp::node {

void LeaseKeeper::clear() {
  leases_.clear();
  deadlines_.clear();
  extension_us_ = 0;
}

void LeaseKeeper::set(machine::LeaseId id, uint64_t generation, int64_t ttl_ms, BootTime now) {
  erase(id);
  const BootTime deadline{now.us + ttl_ms * 1000 - extension_us_};
  leases_[id] = {generation, ttl_ms, deadline};
  deadlines_.emplace(deadline, id);
}

void LeaseKeeper::erase(machine::LeaseId id) {
  const auto it = leases_.find(id);
  if (it == leases_.end()) return;
  deadlines_.erase({it->second.deadline, id});
  leases_.erase(it);
}

Result<int64_t> LeaseKeeper::renew(machine::LeaseId id, BootTime now) {
  const auto it = leases_.find(id);
  if (it == leases_.end() || it->second.expiring) {
    return fail(Code::kNotFound, "LEASE_EXPIRED", "the lease has expired; register again");
  }
  Lease& lease = it->second;
  deadlines_.erase({lease.deadline, id});
  lease.deadline = {now.us + lease.ttl_ms * 1000 - extension_us_};
  deadlines_.emplace(lease.deadline, id);
  return lease.ttl_ms;
}

Result<int64_t> LeaseKeeper::left(machine::LeaseId id, BootTime now) const {
  const auto it = leases_.find(id);
  if (it == leases_.end()) return fail(Code::kNotFound, "LEASE_EXPIRED", "the lease has expired");
  return std::max<int64_t>(0, (it->second.deadline.us + extension_us_ - now.us) / 1000);
}

std::vector<LeaseKeeper::Due> LeaseKeeper::take_due(BootTime now, size_t count_max) {
  std::vector<Due> due;
  while (!deadlines_.empty() && due.size() < count_max) {
    const auto [deadline, id] = *deadlines_.begin();
    if (deadline.us + extension_us_ > now.us) break;
    deadlines_.erase(deadlines_.begin());
    Lease& lease = leases_[id];
    lease.expiring = true;
    due.push_back({id, lease.generation});
  }
  return due;
}

void LeaseKeeper::retry(const Due& due, BootTime now) {
  const auto it = leases_.find(due.lease);
  if (it == leases_.end() || it->second.generation != due.generation || !it->second.expiring) return;
  it->second.expiring = false;
  it->second.deadline = {now.us - extension_us_};
  deadlines_.emplace(it->second.deadline, due.lease);
}

void LeaseKeeper::extend_all(int64_t ms) { extension_us_ += ms * 1000; }

}  // namespace uccp::node
