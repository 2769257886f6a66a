// The replicated state of locks and semaphores: permits, holders and queues. Pure: runs on the loop, inside apply.
//
// Invariants: the permits held never exceed the capacity; a fencing token is greater than every one granted before it in
// the cluster; waiters are served in their order, the first one never overtaken by a later one of the same or lower
// priority; no owner waits for itself through others (a wait that would close such a cycle is refused, so the victim is
// always the one that comes last).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "machine/domain.h"
#include "machine/table.h"
#include "uccp/internal/v1/coordination_state.pb.h"

namespace uccp::locks {

// Tables of the core group; the numbers are part of the on-disk format.
inline constexpr machine::Table<internal::v1::PermitRow> kPermits(48);  // kind (1 byte), name
// (owner, kind, name) of waiters, for the wait-for graph.
inline constexpr machine::BytesTable kWaiting(49);

inline constexpr std::string_view kTopic = "permits";
enum class ChangeKind : uint8_t {
  kAcquired = 1,
  kReleased = 2,
  kExpired = 3,
  kTransferred = 4,
  kBroken = 5,
  kWaitEnded = 6,  // a waiter was dropped without a grant
};

// Capacity of a lock: more holders than it can have.
inline constexpr int32_t kLockPermits = 1 << 20;
inline constexpr int kWaitersMax = 10'000;
inline constexpr int kHoldersMax = 10'000;
// Owners that one search for a cycle visits.
inline constexpr size_t kCycleSearchMax = 1'000;

std::string permit_key(internal::v1::PermitKind kind, std::string_view name);
int32_t permits_free(const internal::v1::PermitRow& row);

class LocksState final : public machine::Domain {
 public:
  std::string_view name() const override { return "permits"; }
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
  void on_lease_expired(machine::ApplyContext& context, machine::LeaseId lease, std::string_view key) override;

 private:
  static machine::ApplyResult acquire(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult release(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult extend(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult transfer(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult abandon(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult break_holders(machine::ApplyContext& context, std::string_view payload);
};

}  // namespace uccp::locks
