// One lock or semaphore while a command changes it: its row, its holders and its queue, written back by store().
//
// Only for the apply functions of this folder. Loop thread.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "machine/planted.h"
#include "services/locks/locks_state.h"
#include "services/locks/locks_tree.h"
#include "services/message_types.h"

namespace uccp::locks {

using internal::v1::AcquireCommand;
using internal::v1::PermitHolder;
using internal::v1::PermitKind;
using internal::v1::PermitRow;
using internal::v1::PermitWaiter;
using machine::ApplyContext;
using machine::KeyReader;
using machine::LeaseId;
using machine::Scope;
using services::set_wall;

inline constexpr uint32_t kRankMax = 100;
// First byte of a lease's key: a holder or waiter, or the memory of a lock that nobody uses.
inline constexpr uint8_t kUseLease = 1;
inline constexpr uint8_t kMemoryLease = 2;
// The rest of the names below a tree that ended: key of the lock, name that was served last.
inline constexpr uint8_t kServeLease = 3;
// In the list of what an owner waits for, a wait for a name with all below it has this bit in its kind.
inline constexpr uint8_t kTreeWait = 0x40;

template <typename Message>
std::string serialize(const Message& message) {
  return machine::Table<Message>::serialize(message);
}

inline std::string holder_key(std::string_view permit, LeaseId lease) {
  return ByteWriter().raw(permit).u64(lease).take();
}
inline std::string waiter_key(std::string_view permit, uint32_t rank, uint64_t id) {
  return ByteWriter().raw(permit).u8(static_cast<uint8_t>(rank)).u64(id).take();
}
// What `owner` waits for, one entry a wait. One row an owner, so that the search for cycles needs no scan.
inline std::vector<std::string> awaited_by(const KeyReader& state, const Scope& scope, std::string_view owner) {
  std::vector<std::string> permits;
  if (const auto stored = kWaiting.get(state, scope, owner)) {
    for (ByteReader in(*stored); !in.at_end() && in.ok();) permits.emplace_back(in.bytes());
  }
  return permits;
}

inline void count_duration(google::protobuf::RepeatedField<uint64_t>& buckets, int64_t ms) {
  while (buckets.size() <= static_cast<int>(kDurationBoundsMs.size())) buckets.Add(0);
  const auto at = std::ranges::lower_bound(kDurationBoundsMs, ms) - kDurationBoundsMs.begin();
  buckets[static_cast<int>(at)] += 1;
}

// One lock or semaphore while a command changes it.
class Permits {
 public:
  // `grants`: grants of this entry before, of other names.
  Permits(ApplyContext& context, PermitKind kind, const std::string& name, uint64_t grants = 0)
      : c_(context), kind_(kind), key_(permit_key(kind, name)), grants_(grants) {
    if (auto row = kPermits.get(c_.state(), c_.scope(), key_)) {
      row_ = std::move(*row);
      exists_ = true;
    } else {
      row_.set_name(name);
      row_.set_kind(kind);
      set_wall(row_.mutable_create_time(), c_.envelope().wall);
    }
    totals_ = read_totals(c_.state());
  }

  PermitRow& row() { return row_; }
  bool exists() const { return exists_; }
  const std::string& key() const { return key_; }

  std::optional<PermitHolder> holder(LeaseId lease, uint64_t secret) const {
    auto found = kHolders.get(c_.state(), c_.scope(), holder_key(key_, lease));
    if (found && found->secret() != secret) found.reset();
    return found;
  }
  std::vector<PermitHolder> holders() const {
    std::vector<PermitHolder> all;
    scan_holders(c_.state(), c_.scope(), row_, [&](PermitHolder holder) {
      all.push_back(std::move(holder));
      return true;
    });
    return all;
  }
  std::optional<PermitWaiter> head() const {
    if (row_.waiters() == 0) return std::nullopt;
    return waiter(row_.head_rank(), row_.head_id());
  }

  bool fits(const PermitHolder& wanted) const {
    return wanted.permits() <= row_.capacity() - row_.held() && row_.holders() < kHoldersMax;
  }
  // The place in the queue of who comes now.
  Place place_of(const AcquireCommand& command) const {
    const uint32_t last = row_.waiters() == 0 ? 0 : row_.last_rank();
    const uint32_t rank = command.fifo() ? last : kRankMax - static_cast<uint32_t>(command.holder().priority());
    return {rank, c_.index().value};
  }
  // Nobody of another name is in the way: a lock that covers this one, or, of a tree, one below.
  bool clear_across(const PermitHolder& wanted, Place place) const {
    return kind_ != internal::v1::PERMIT_KIND_LOCK || !hindered(c_.state(), c_.scope(), row_.name(), wanted, place);
  }

  void put(const PermitHolder& holder) {
    kHolders.put(c_.state(), c_.scope(), holder_key(key_, holder.lease()), holder);
  }

  // `lease`: that of the waiter which it was; 0: a new one.
  PermitHolder grant(PermitHolder wanted, LeaseId lease, int64_t waited_ms) {
    if (lease != 0) c_.touch_lease(lease, wanted.ttl_ms());
    else lease = c_.create_lease(kDomain, lease_key(0, 0), wanted.ttl_ms());
    wanted.set_lease(lease);
    const uint64_t grown = machine::planted_bug("reuse_token") ? c_.index().value / 8 : c_.index().value;
    wanted.set_fencing_token((grown << kTokenBits) | grants_++);
    wanted.set_hold_count(1);
    wanted.set_acquired_ms(c_.now_ms());
    wanted.set_waited_ms(waited_ms);
    set_wall(wanted.mutable_acquired_at(), c_.envelope().wall);
    wanted.clear_renewed_at();
    auto& counts = *row_.mutable_counts();
    counts.set_acquisitions(counts.acquisitions() + 1);
    if (wanted.waiter() != 0) counts.set_contended(counts.contended() + 1);
    counts.set_wait_ms(counts.wait_ms() + static_cast<uint64_t>(waited_ms));
    count_duration(*counts.mutable_wait_buckets(), waited_ms);
    row_.set_held(row_.held() + wanted.permits());
    row_.set_first_lease(row_.holders() == 0 ? lease : std::min(row_.first_lease(), lease));
    row_.set_holders(row_.holders() + 1);
    if (wanted.tree()) row_.set_trees(row_.trees() + 1);
    count(1, wanted.permits());
    put(wanted);
    changes_.push_back({ChangeKind::kAcquired, wanted});
    return wanted;
  }

  void end(const PermitHolder& holder, ChangeKind why) {
    kHolders.erase(c_.state(), c_.scope(), holder_key(key_, holder.lease()));
    if (why != ChangeKind::kExpired) c_.delete_lease(holder.lease());
    auto& counts = *row_.mutable_counts();
    const int64_t held_ms = c_.now_ms() - holder.acquired_ms();
    counts.set_hold_ms(counts.hold_ms() + static_cast<uint64_t>(held_ms));
    count_duration(*counts.mutable_hold_buckets(), held_ms);
    if (why == ChangeKind::kExpired) counts.set_expirations(counts.expirations() + 1);
    row_.set_held(row_.held() - holder.permits());
    row_.set_holders(row_.holders() - 1);
    if (holder.tree()) row_.set_trees(row_.trees() - 1);
    note_freed(holder);
    if (row_.first_lease() == holder.lease()) {
      scan_holders(c_.state(), c_.scope(), row_, [&](const PermitHolder& next) {
        row_.set_first_lease(next.lease());
        return false;
      });
    }
    count(-1, -holder.permits());
    changes_.push_back({why, holder});
  }

  PermitWaiter enqueue(const AcquireCommand& command) {
    PermitWaiter waiter;
    waiter.set_id(c_.index().value);
    waiter.set_rank(place_of(command).first);
    if (row_.waiters() == 0) row_.set_last_rank(0);
    if (machine::planted_bug("overtake")) waiter.set_rank(kRankMax - waiter.id() % 4);
    row_.set_last_rank(std::max(row_.last_rank(), waiter.rank()));
    waiter.set_lease(c_.create_lease(kDomain, lease_key(waiter.rank(), waiter.id()), command.waiter_ttl_ms()));
    *waiter.mutable_holder() = command.holder();
    waiter.mutable_holder()->set_waiter(waiter.id());
    waiter.set_enqueued_ms(c_.now_ms());
    set_wall(waiter.mutable_enqueue_time(), c_.envelope().wall);
    kWaiters.put(c_.state(), c_.scope(), waiter_key(key_, waiter.rank(), waiter.id()), waiter);
    const auto first = std::pair(waiter.rank(), waiter.id());
    if (row_.waiters() == 0 || first < std::pair(row_.head_rank(), row_.head_id())) {
      row_.set_head_rank(waiter.rank());
      row_.set_head_id(waiter.id());
    }
    row_.set_waiters(row_.waiters() + 1);
    if (command.holder().tree()) row_.set_tree_waiters(row_.tree_waiters() + 1);
    count_waiting(command.holder(), 1);
    count_waiters(1);
    return waiter;
  }

  // Takes a waiter out of the queue; its lease stays.
  void unqueue(const PermitWaiter& waiter) {
    kWaiters.erase(c_.state(), c_.scope(), waiter_key(key_, waiter.rank(), waiter.id()));
    row_.set_waiters(row_.waiters() - 1);
    if (row_.head_rank() == waiter.rank() && row_.head_id() == waiter.id()) {
      scan_waiters(c_.state(), c_.scope(), row_, [&](const PermitWaiter& next) {
        row_.set_head_rank(next.rank());
        row_.set_head_id(next.id());
        return false;
      });
    }
    if (waiter.holder().tree()) row_.set_tree_waiters(row_.tree_waiters() - 1);
    count_waiting(waiter.holder(), -1);
    count_waiters(-1);
  }
  // Ends a wait without a grant.
  void drop(const PermitWaiter& waiter, bool lease_is_over) {
    unqueue(waiter);
    note_freed(waiter.holder());
    if (!lease_is_over) c_.delete_lease(waiter.lease());
    auto& counts = *row_.mutable_counts();
    counts.set_wait_timeouts(counts.wait_timeouts() + 1);
    changes_.push_back({ChangeKind::kWaitEnded, waiter.holder()});
  }
  std::optional<PermitWaiter> waiter(uint32_t rank, uint64_t id) const {
    return kWaiters.get(c_.state(), c_.scope(), waiter_key(key_, rank, id));
  }

  // Serves the head of the queue as long as it fits. Nobody overtakes a head that does not fit yet.
  void serve() {
    if (machine::planted_bug("lost_wakeup") && c_.index().value % 16 == 0) return;
    while (auto first = head()) {
      if (!fits(first->holder()) || !clear_across(first->holder(), {first->rank(), first->id()})) return;
      unqueue(*first);
      grant(first->holder(), first->lease(), c_.now_ms() - first->enqueued_ms());
    }
  }

  // Takes permits from holders of lower priority, the lowest first, and only if that makes room.
  void preempt(const PermitHolder& wanted) {
    auto lower = holders();
    std::erase_if(lower, [&](const PermitHolder& h) { return h.priority() >= wanted.priority(); });
    std::ranges::sort(lower, {}, [](const PermitHolder& h) { return std::pair(h.priority(), h.lease()); });
    int32_t room = row_.capacity() - row_.held();
    for (const PermitHolder& h : lower) room += h.permits();
    if (room < wanted.permits()) return;
    for (const PermitHolder& h : lower) {
      if (fits(wanted)) return;
      end(h, ChangeKind::kBroken);
    }
  }

  // Writes the row back and tells watchers what happened.
  void store() {
    row_.set_used_ms(c_.now_ms());
    const bool unused = row_.holders() == 0 && row_.waiters() == 0;
    if (kind_ == internal::v1::PERMIT_KIND_SEMAPHORE && unused) {
      if (exists_) count_names(-1);
      kPermits.erase(c_.state(), c_.scope(), key_);
    } else {
      if (!exists_) {
        count_names(1);
        if (kind_ == internal::v1::PERMIT_KIND_LOCK) remember_for(kForgetAfterMs);
      }
      kPermits.put(c_.state(), c_.scope(), key_, row_);
    }
    if (totals_changed_) kTotals.put(c_.state(), {}, "", totals_);
    for (Pending& pending : changes_) emit(pending);
    changes_.clear();
    if (std::exchange(freed_, false)) serve_across();
  }

  // Goes on with the names below a tree that ended, behind `after`.
  void serve_below(std::string after) {
    int served = 0;
    while (const auto name = next_waited_below(c_.state(), c_.scope(), row_.name(), after)) {
      if (++served > kTreeServedMax || grants_ > kTreeGrantsMax) {
        c_.create_lease(kDomain, ByteWriter().u8(kServeLease).raw(key_).key_part(after).take(), 1);
        return;
      }
      serve_other(*name);
      after = *name;
    }
  }

  uint64_t names() const {
    const auto stored = kNames.get(c_.state(), c_.scope(), "");
    return stored ? ByteReader(*stored).u64() : 0;
  }

  // The memory of a lock was kept long enough, unless it was used meanwhile.
  void forget() {
    if (!exists_) return;
    const int64_t idle_ms = c_.now_ms() - row_.used_ms();
    if (row_.holders() > 0 || row_.waiters() > 0) return remember_for(kForgetAfterMs);
    if (idle_ms < kForgetAfterMs) return remember_for(kForgetAfterMs - idle_ms);
    kPermits.erase(c_.state(), c_.scope(), key_);
    count_names(-1);
  }

 private:
  struct Pending {
    ChangeKind kind;
    PermitHolder holder;
  };

  std::string lease_key(uint32_t rank, uint64_t id) const {
    return ByteWriter().u8(kUseLease).u8(static_cast<uint8_t>(rank)).u64(id).raw(key_).take();
  }
  void remember_for(int64_t ms) { c_.create_lease(kDomain, ByteWriter().u8(kMemoryLease).raw(key_).take(), ms); }

  void note_freed(const PermitHolder& gone) {
    if (kind_ != internal::v1::PERMIT_KIND_LOCK) return;
    freed_ = true;
    tree_freed_ |= gone.tree();
  }
  // What ended here may have been in the way of trees above, and, if it was a tree, of all names below.
  void serve_across() {
    for (const std::string& above : names_above(row_.name())) {
      const auto row = find_permits(c_.state(), c_.scope(), kind_, above);
      if (row && row->tree_waiters() > 0) serve_other(above);
    }
    if (std::exchange(tree_freed_, false)) serve_below("");
  }
  void serve_other(const std::string& name) {
    Permits other(c_, kind_, name, grants_);
    other.serve();
    other.store();
    grants_ = other.grants_;
  }

  void count_waiting(const PermitHolder& wanted, int change) {
    const std::string& owner = wanted.owner();
    auto permits = awaited_by(c_.state(), c_.scope(), owner);
    std::string key = key_;
    if (wanted.tree()) key[0] = static_cast<char>(static_cast<uint8_t>(key[0]) | kTreeWait);
    if (change > 0) {
      if (permits.size() < kAwaitedMax) permits.push_back(key);
    } else if (const auto at = std::ranges::find(permits, key); at != permits.end()) {
      permits.erase(at);
    }
    if (permits.empty()) return kWaiting.erase(c_.state(), c_.scope(), owner);
    ByteWriter out;
    for (const std::string& permit : permits) out.bytes(permit);
    kWaiting.put(c_.state(), c_.scope(), owner, out.take());
  }
  void count(int64_t holders, int64_t permits) {
    totals_changed_ = true;
    if (kind_ == internal::v1::PERMIT_KIND_LOCK) totals_.set_locks_held(totals_.locks_held() + holders);
    else totals_.set_permits_held(totals_.permits_held() + permits);
  }
  void count_waiters(int64_t change) {
    totals_changed_ = true;
    if (kind_ == internal::v1::PERMIT_KIND_LOCK) totals_.set_lock_waiters(totals_.lock_waiters() + change);
    else totals_.set_semaphore_waiters(totals_.semaphore_waiters() + change);
  }
  void count_names(int change) {
    kNames.put(c_.state(), c_.scope(), "", ByteWriter().u64(names() + static_cast<uint64_t>(change)).take());
  }

  void emit(const Pending& pending) {
    // Nobody watches semaphores but those who wait for them.
    const bool watched = kind_ == internal::v1::PERMIT_KIND_LOCK || pending.holder.waiter() != 0;
    if (!watched) return;
    internal::v1::PermitChange change;
    *change.mutable_row() = row_;
    change.mutable_row()->clear_counts();
    *change.mutable_holder() = pending.holder;
    if (kind_ == internal::v1::PERMIT_KIND_LOCK && row_.holders() > 0) {
      scan_holders(c_.state(), c_.scope(), row_, [&](PermitHolder holder) {
        *change.add_holders() = std::move(holder);
        return change.holders_size() < kChangeHoldersMax;
      });
    }
    c_.emit(kTopic, key_, static_cast<uint8_t>(pending.kind), serialize(change));
  }

  ApplyContext& c_;
  const PermitKind kind_;
  const std::string key_;
  PermitRow row_;
  bool exists_ = false;
  uint64_t grants_;
  bool freed_ = false;
  bool tree_freed_ = false;
  internal::v1::PermitTotals totals_;
  bool totals_changed_ = false;
  std::vector<Pending> changes_;
};

}  // namespace uccp::locks
