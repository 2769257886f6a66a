// Deadlines of the leases of a group, kept by its leader only. Heartbeats end here; they are never log entries.
//
// A lease whose expiry is proposed accepts no renewal any more. A stall of the loop extends every deadline by its
// length, so that clients are not punished for it. Loop thread only.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "machine/domain.h"

namespace uccp::node {

class LeaseKeeper {
 public:
  struct Due {
    machine::LeaseId lease;
    uint64_t generation;
  };

  void clear();
  // Starts or replaces the deadline: `ttl_ms` from now.
  void set(machine::LeaseId lease, uint64_t generation, int64_t ttl_ms, BootTime now);
  void erase(machine::LeaseId lease);
  // Extends by the full ttl and answers it. Errors: not_found LEASE_EXPIRED.
  Result<int64_t> renew(machine::LeaseId lease, BootTime now);
  // Milliseconds until the deadline, at least 0. Errors: not_found LEASE_EXPIRED.
  Result<int64_t> left(machine::LeaseId lease, BootTime now) const;
  // Leases past their deadline, at most `count_max`; each is answered once, its expiry counts as proposed.
  std::vector<Due> take_due(BootTime now, size_t count_max);
  // The expiry could not be proposed: the lease is due again, unless it changed meanwhile.
  void retry(const Due& due, BootTime now);
  void extend_all(int64_t ms);
  size_t size() const { return leases_.size(); }

 private:
  struct Lease {
    uint64_t generation;
    int64_t ttl_ms;
    BootTime deadline;
    bool expiring = false;
  };
  std::map<machine::LeaseId, Lease> leases_;
  std::set<std::pair<BootTime, machine::LeaseId>> deadlines_;
  // Added to every deadline when it is compared: extending all is one addition.
  int64_t extension_us_ = 0;
};

}  // namespace uccp::node
