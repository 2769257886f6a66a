#include "services/locks/locks_shown.h"

#include "base/bytes.h"
#include "services/coordination_types.h"
#include "services/message_types.h"

namespace uccp::locks {
namespace {

using coordination::LeaseTimes;
using internal::v1::PermitHolder;
using internal::v1::PermitRow;
using services::set_ms;
using services::set_wall;
using services::us_of;

LeaseTimes::Times times_of(const PermitHolder& holder, const LeaseTimes& times) {
  const bool renewed = holder.has_renewed_at();
  auto known =
      times.times(holder.lease(), us_of(renewed ? holder.renewed_at() : holder.acquired_at()), holder.ttl_ms());
  if (known.renewed_us == 0 && renewed) known.renewed_us = us_of(holder.renewed_at());
  return known;
}

void show_owner(const PermitHolder& holder, const LeaseTimes& times, v1::Lock& lock) {
  const auto known = times_of(holder, times);
  lock.set_owner(holder.owner());
  lock.set_type(type_of(holder));
  *lock.mutable_acquired_at() = holder.acquired_at();
  set_ms(lock.mutable_ttl(), holder.ttl_ms());
  if (known.renewed_us != 0) set_wall(lock.mutable_renewed_at(), {known.renewed_us});
  set_wall(lock.mutable_expire_time(), {known.expire_us});
  lock.set_priority(holder.priority());
  lock.set_fencing_token(holder.fencing_token());
  lock.set_hold_count(holder.hold_count());
  lock.set_reentrant(holder.reentrant());
  lock.set_tree(holder.tree());
  *lock.mutable_metadata() = holder.metadata();
  lock.set_principal(holder.principal());
}

v1::Lock shown_row(const PermitRow& row, const std::string& name_space) {
  v1::Lock lock;
  lock.set_name(row.name());
  lock.set_namespace_(name_space);
  lock.set_waiters(row.waiters());
  return lock;
}

void show_durations(const google::protobuf::RepeatedField<uint64_t>& buckets, uint64_t sum_ms, v1::Histogram* out) {
  for (const int64_t bound : kDurationBoundsMs) out->add_bounds(static_cast<double>(bound) / 1000);
  for (size_t i = 0; i <= kDurationBoundsMs.size(); ++i) {
    const int at = static_cast<int>(i);
    out->add_counts(at < buckets.size() ? static_cast<double>(buckets[at]) : 0);
  }
  out->set_sum(static_cast<double>(sum_ms) / 1000);
}

}  // namespace

v1::LockType type_of(const PermitHolder& holder) {
  return holder.permits() == kLockPermits ? v1::LOCK_TYPE_EXCLUSIVE : v1::LOCK_TYPE_SHARED;
}

void show_hold(const PermitHolder& holder, const LeaseTimes& times, v1::LockHolder* out) {
  out->set_owner(holder.owner());
  *out->mutable_acquired_at() = holder.acquired_at();
  set_wall(out->mutable_expire_time(), {times_of(holder, times).expire_us});
  out->set_fencing_token(holder.fencing_token());
  out->set_principal(holder.principal());
  out->set_tree(holder.tree());
}

v1::Lock shown_hold(const PermitRow& row, const std::string& name_space, const PermitHolder& holder,
                    const LeaseTimes& times) {
  v1::Lock lock = shown_row(row, name_space);
  show_owner(holder, times, lock);
  show_hold(holder, times, lock.add_holders());
  lock.set_lease_id(coordination::lease_text(holder.lease(), holder.secret()));
  set_ms(lock.mutable_waited(), holder.waited_ms());
  return lock;
}

v1::Lock shown_lock(const machine::KeyReader& state, const machine::Scope& scope, const PermitRow& row,
                    const LeaseTimes& times, int holders_max) {
  v1::Lock lock = shown_row(row, scope.name_space);
  scan_holders(state, scope, row, [&](const PermitHolder& holder) {
    if (lock.holders().empty()) show_owner(holder, times, lock);
    show_hold(holder, times, lock.add_holders());
    return lock.holders_size() != holders_max;
  });
  scan_waiters(state, scope, row, [&](const internal::v1::PermitWaiter& waiter) {
    v1::LockWaiter& shown = *lock.add_wait_queue();
    shown.set_owner(waiter.holder().owner());
    shown.set_type(type_of(waiter.holder()));
    shown.set_priority(waiter.holder().priority());
    *shown.mutable_enqueue_time() = waiter.enqueue_time();
    shown.set_principal(waiter.holder().principal());
    shown.set_tree(waiter.holder().tree());
    return lock.wait_queue_size() < kShownWaitersMax;
  });
  return lock;
}

v1::Lock shown_change(const internal::v1::PermitChange& change, const std::string& name_space,
                      const LeaseTimes& times) {
  v1::Lock lock = shown_row(change.row(), name_space);
  // What ended is named even if nobody holds it now.
  show_owner(change.holder(), times, lock);
  for (const PermitHolder& holder : change.holders()) show_hold(holder, times, lock.add_holders());
  return lock;
}

v1::SemaphoreLease shown_lease(const PermitRow& row, const std::string& name_space, const PermitHolder& holder,
                               const LeaseTimes& times) {
  v1::SemaphoreLease lease;
  lease.set_name(row.name());
  lease.set_namespace_(name_space);
  lease.set_lease_id(coordination::lease_text(holder.lease(), holder.secret()));
  lease.set_permits(holder.permits());
  lease.set_fencing_token(holder.fencing_token());
  lease.set_capacity(row.capacity());
  lease.set_available(row.capacity() - row.held());
  set_ms(lease.mutable_ttl(), holder.ttl_ms());
  set_wall(lease.mutable_expire_time(), {times_of(holder, times).expire_us});
  lease.set_owner(holder.owner());
  return lease;
}

v1::Semaphore shown_semaphore(const machine::KeyReader& state, const machine::Scope& scope, const PermitRow& row,
                              const LeaseTimes& times) {
  v1::Semaphore semaphore;
  semaphore.set_name(row.name());
  semaphore.set_namespace_(scope.name_space);
  semaphore.set_capacity(row.capacity());
  semaphore.set_available(row.capacity() - row.held());
  semaphore.set_waiters(row.waiters());
  *semaphore.mutable_create_time() = row.create_time();
  scan_holders(state, scope, row, [&](const PermitHolder& holder) {
    v1::SemaphoreHolder& shown = *semaphore.add_holders();
    shown.set_owner(holder.owner());
    shown.set_permits(holder.permits());
    *shown.mutable_acquired_at() = holder.acquired_at();
    set_wall(shown.mutable_expire_time(), {times_of(holder, times).expire_us});
    shown.set_principal(holder.principal());
    return semaphore.holders_size() < kListedHoldersMax;
  });
  return semaphore;
}

v1::FencingCheck shown_check(const std::string& name, const PermitHolder& holder, const LeaseTimes& times) {
  v1::FencingCheck check;
  check.set_name(name);
  check.set_fencing_token(holder.fencing_token());
  check.set_owner(holder.owner());
  set_wall(check.mutable_expire_time(), {times_of(holder, times).expire_us});
  return check;
}

v1::LockStatistics shown_statistics(const PermitRow& row) {
  v1::LockStatistics shown;
  const auto& counts = row.counts();
  shown.set_name(row.name());
  *shown.mutable_since_time() = row.create_time();
  shown.set_acquisitions(counts.acquisitions());
  shown.set_contended(counts.contended());
  shown.set_wait_timeouts(counts.wait_timeouts());
  shown.set_expirations(counts.expirations());
  shown.set_deadlocks(counts.deadlocks());
  show_durations(counts.wait_buckets(), counts.wait_ms(), shown.mutable_wait_seconds());
  show_durations(counts.hold_buckets(), counts.hold_ms(), shown.mutable_hold_seconds());
  return shown;
}

void scan_permits(const machine::KeyReader& state, const machine::Scope& scope, internal::v1::PermitKind kind,
                  std::string_view prefix, std::string_view position, const VisitRow& visit) {
  const bool everywhere = scope.name_space == "-";
  const std::string tenant = machine::table_key::begin(kPermitsTable).key_part(scope.tenant).take();
  std::string first = tenant;
  if (!everywhere) {
    first =
        machine::table_key::make(kPermitsTable, scope, ByteWriter().u8(static_cast<uint8_t>(kind)).raw(prefix).take());
  }
  const std::string end = machine::prefix_end(first);
  if (!position.empty()) first = tenant + std::string(position) + '\0';
  state.scan(first, end, [&](std::string_view key, std::string_view value) {
    const std::string_view at = key.substr(tenant.size());
    ByteReader in(at);
    machine::Scope found{scope.tenant, in.key_part()};
    if (in.u8() != kind) return true;
    PermitRow row;
    UCCP_CHECK(row.ParseFromArray(value.data(), static_cast<int>(value.size())), "a stored row is readable");
    // A lock that nobody uses is only a memory.
    const bool used = row.holders() > 0 || row.waiters() > 0;
    if (!used || !row.name().starts_with(prefix)) return true;
    return visit(at, found, row);
  });
}

}  // namespace uccp::locks
