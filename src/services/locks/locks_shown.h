// Locks and semaphores as clients see them. Pure, except for LeaseTimes; any thread.
#pragma once

#include "machine/key_reader.h"
#include "services/coordination_waits.h"
#include "services/locks/locks_state.h"
#include "uccp/v1/coordination.pb.h"

namespace uccp::locks {

// Rows of a list show so many holders, GetLock all, and both so many of those who wait.
inline constexpr int kListedHoldersMax = 100;
inline constexpr int kShownWaitersMax = 100;

v1::LockType type_of(const internal::v1::PermitHolder& holder);
void show_hold(const internal::v1::PermitHolder& holder, const coordination::LeaseTimes& times, v1::LockHolder* out);

// The lock as the caller's hold: the answer of acquiring methods, with the proof.
v1::Lock shown_hold(const internal::v1::PermitRow& row, const std::string& name_space,
                    const internal::v1::PermitHolder& holder, const coordination::LeaseTimes& times);
// The lock as anybody may see it. `holders_max` < 0: all.
v1::Lock shown_lock(const machine::KeyReader& state, const machine::Scope& scope, const internal::v1::PermitRow& row,
                    const coordination::LeaseTimes& times, int holders_max);
// The lock after a change.
v1::Lock shown_change(const internal::v1::PermitChange& change, const std::string& name_space,
                      const coordination::LeaseTimes& times);
v1::SemaphoreLease shown_lease(const internal::v1::PermitRow& row, const std::string& name_space,
                               const internal::v1::PermitHolder& holder, const coordination::LeaseTimes& times);
v1::Semaphore shown_semaphore(const machine::KeyReader& state, const machine::Scope& scope,
                              const internal::v1::PermitRow& row, const coordination::LeaseTimes& times);
v1::FencingCheck shown_check(const std::string& name, const internal::v1::PermitHolder& holder,
                             const coordination::LeaseTimes& times);
v1::LockStatistics shown_statistics(const internal::v1::PermitRow& row);

// Visits the rows of one kind whose name begins with `prefix`, of one namespace or, with "-", of all of the tenant.
// `position` is that of the row behind which it begins; empty: the first.
using VisitRow =
    std::function<bool(std::string_view position, const machine::Scope& scope, const internal::v1::PermitRow& row)>;
void scan_permits(const machine::KeyReader& state, const machine::Scope& scope, internal::v1::PermitKind kind,
                  std::string_view prefix, std::string_view position, const VisitRow& visit);

}  // namespace uccp::locks
