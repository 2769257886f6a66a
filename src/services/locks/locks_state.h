// The replicated state of locks and semaphores: permits, holders and queues. Pure: runs on the loop, inside apply.
//
// Invariants: the permits held never exceed the capacity; a fencing token is greater than every one granted before it
// in the cluster; waiters are served in their order, the first one never overtaken by a later one of the same or lower
// priority; no owner waits for itself through others (a wait that would close such a cycle is refused, so the victim is
// always the one that comes last). Every command costs a few rows, however many hold or wait.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "machine/domain.h"
#include "machine/table.h"
#include "uccp/internal/v1/coordination_state.pb.h"

namespace uccp::locks {

// Tables of the core group; the numbers are part of the on-disk format.
inline constexpr machine::TableId kPermitsTable = 48;
inline constexpr machine::Table<internal::v1::PermitRow> kPermits(kPermitsTable);  // kind (1 byte), name
inline constexpr machine::BytesTable kWaiting(49);                                 // owner: keys of what it waits for
inline constexpr machine::Table<internal::v1::PermitHolder> kHolders(50);          // kind, name, lease
inline constexpr machine::Table<internal::v1::PermitWaiter> kWaiters(51);  // kind, name, rank, waiter: the queue
inline constexpr machine::Table<internal::v1::PermitTotals> kTotals(52);   // one row
inline constexpr machine::BytesTable kNames(53);                           // one row a namespace: how many names

inline constexpr std::string_view kDomain = "permits";
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
// Several grants of one entry get different tokens; the log index makes them grow over everything before.
inline constexpr int kTokenBits = 14;
// Names of locks and semaphores of one namespace. A lock is remembered for a day after its last use.
inline constexpr uint64_t kNamesMax = 1'000'000;
inline constexpr int64_t kForgetAfterMs = 24 * 3600 * 1000;
// Holders that a change shows.
inline constexpr int kChangeHoldersMax = 16;
// Owners that one search for a cycle visits.
inline constexpr size_t kCycleSearchMax = 1'000;
// Waits of one owner that the search knows of.
inline constexpr size_t kAwaitedMax = 1'000;
// Upper bounds of the buckets in which waits and holds are counted; one more bucket above them.
inline constexpr std::array<int64_t, 11> kDurationBoundsMs = {1,     5,     10,     50,      100,      500,
                                                              1'000, 5'000, 30'000, 300'000, 3'600'000};

std::string permit_key(internal::v1::PermitKind kind, std::string_view name);

// Reading. `visit` gets holders by their leases, waiters in the order of the queue, until it returns false. `row` is
// that of the same state.
std::optional<internal::v1::PermitRow> find_permits(const machine::KeyReader& state, const machine::Scope& scope,
                                                    internal::v1::PermitKind kind, std::string_view name);
void scan_holders(const machine::KeyReader& state, const machine::Scope& scope, const internal::v1::PermitRow& row,
                  const std::function<bool(internal::v1::PermitHolder)>& visit);
void scan_waiters(const machine::KeyReader& state, const machine::Scope& scope, const internal::v1::PermitRow& row,
                  const std::function<bool(internal::v1::PermitWaiter)>& visit);
std::optional<internal::v1::PermitHolder> find_holder(const machine::KeyReader& state, const machine::Scope& scope,
                                                      internal::v1::PermitKind kind, std::string_view name,
                                                      uint64_t lease, uint64_t secret);
bool still_waits(const machine::KeyReader& state, const machine::Scope& scope, internal::v1::PermitKind kind,
                 std::string_view name, const internal::v1::PermitWaiter& waiter);
internal::v1::PermitTotals read_totals(const machine::KeyReader& state);

// not_found LEASE_EXPIRED: the caller does not hold it.
Status not_held(internal::v1::PermitKind kind, const std::string& name);
std::string_view noun(internal::v1::PermitKind kind);

class LocksState final : public machine::Domain {
 public:
  std::string_view name() const override { return kDomain; }
  // acquire, release, extend, transfer, abandon, break, deadlock: as coordination_state.proto says.
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
  void on_lease_expired(machine::ApplyContext& context, machine::LeaseId lease, std::string_view key) override;

 private:
  static machine::ApplyResult acquire(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult release(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult extend(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult transfer(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult abandon(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult break_holders(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult count_deadlock(machine::ApplyContext& context, std::string_view payload);
};

}  // namespace uccp::locks
