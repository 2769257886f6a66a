#include "services/locks/locks_state.h"

#include <algorithm>
#include <set>
#include <vector>

#include "base/bytes.h"
#include "services/coordination_types.h"

namespace uccp::locks {
namespace {

using coordination::parse;
using coordination::set_wall;
using internal::v1::AcquireCommand;
using internal::v1::AcquireResult;
using internal::v1::PermitHolder;
using internal::v1::PermitKind;
using internal::v1::PermitRow;
using internal::v1::PermitWaiter;
using machine::ApplyContext;
using machine::ApplyResult;
using machine::KeyReader;
using machine::LeaseId;
using machine::Scope;

constexpr uint32_t kRankMax = 100;
// Several grants of one entry get different tokens; the log index makes them grow over everything before.
constexpr int kTokenBits = 14;
static_assert(kHoldersMax < 1 << kTokenBits);
// First byte of a lease's key: a holder or waiter, or the memory of a lock that nobody uses.
constexpr uint8_t kUseLease = 1;
constexpr uint8_t kMemoryLease = 2;

template <typename Message>
std::string serialize(const Message& message) {
  return machine::Table<Message>::serialize(message);
}

std::string holder_key(std::string_view permit, LeaseId lease) { return ByteWriter().raw(permit).u64(lease).take(); }
std::string waiter_key(std::string_view permit, uint32_t rank, uint64_t id) {
  return ByteWriter().raw(permit).u8(static_cast<uint8_t>(rank)).u64(id).take();
}
std::string waiting_key(std::string_view owner, std::string_view permit) {
  return ByteWriter().key_part(owner).raw(permit).take();
}

void count_duration(google::protobuf::RepeatedField<uint64_t>& buckets, int64_t ms) {
  while (buckets.size() <= static_cast<int>(kDurationBoundsMs.size())) buckets.Add(0);
  const auto at = std::ranges::lower_bound(kDurationBoundsMs, ms) - kDurationBoundsMs.begin();
  buckets[static_cast<int>(at)] += 1;
}

// One lock or semaphore while a command changes it.
class Permits {
 public:
  Permits(ApplyContext& context, PermitKind kind, const std::string& name)
      : c_(context), kind_(kind), key_(permit_key(kind, name)) {
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

  void put(const PermitHolder& holder) { kHolders.put(c_.state(), c_.scope(), holder_key(key_, holder.lease()), holder); }

  // `lease`: that of the waiter which it was; 0: a new one.
  PermitHolder grant(PermitHolder wanted, LeaseId lease, int64_t waited_ms) {
    if (lease != 0) c_.touch_lease(lease, wanted.ttl_ms());
    else lease = c_.create_lease(kDomain, lease_key(0, 0), wanted.ttl_ms());
    wanted.set_lease(lease);
    wanted.set_fencing_token((c_.index().value << kTokenBits) | grants_++);
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
    if (row_.waiters() == 0) row_.set_last_rank(0);
    waiter.set_rank(command.fifo() ? row_.last_rank() : kRankMax - static_cast<uint32_t>(command.holder().priority()));
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
    count_waiting(command.holder().owner(), 1);
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
    count_waiting(waiter.holder().owner(), -1);
    count_waiters(-1);
  }
  // Ends a wait without a grant.
  void drop(const PermitWaiter& waiter, bool lease_is_over) {
    unqueue(waiter);
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
    while (auto first = head()) {
      if (!fits(first->holder())) return;
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

  // The same owner may wait several times.
  void count_waiting(const std::string& owner, int change) {
    const std::string key = waiting_key(owner, key_);
    const auto stored = kWaiting.get(c_.state(), c_.scope(), key);
    const uint64_t waits = (stored ? ByteReader(*stored).u64() : 0) + static_cast<uint64_t>(change);
    if (waits == 0) kWaiting.erase(c_.state(), c_.scope(), key);
    else kWaiting.put(c_.state(), c_.scope(), key, ByteWriter().u64(waits).take());
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
  uint64_t grants_ = 0;
  internal::v1::PermitTotals totals_;
  bool totals_changed_ = false;
  std::vector<Pending> changes_;
};

// The owners that stand in the way at one lock. Of a semaphore only if it is one: of several, any may be enough.
std::vector<std::string> blockers(ApplyContext& c, std::string_view permit) {
  std::vector<std::string> owners;
  const auto row = kPermits.get(c.state(), c.scope(), permit);
  if (!row) return owners;
  scan_holders(c.state(), c.scope(), *row, [&](const PermitHolder& holder) {
    if (std::ranges::find(owners, holder.owner()) == owners.end()) owners.push_back(holder.owner());
    return owners.size() < kCycleSearchMax;
  });
  if (row->kind() == internal::v1::PERMIT_KIND_SEMAPHORE && owners.size() > 1) owners.clear();
  return owners;
}

// The first owner on the way of a cycle, if `owner` would wait for itself through others. That an owner holds the very
// thing itself is no cycle: two clients may use one name, and the hold may end by its ttl.
std::optional<std::string> find_cycle(ApplyContext& c, const std::string& permit, const std::string& owner) {
  std::set<std::string> seen;
  std::vector<std::string> open;
  for (std::string& holder : blockers(c, permit)) {
    if (holder != owner && seen.insert(holder).second) open.push_back(std::move(holder));
  }
  while (!open.empty() && seen.size() < kCycleSearchMax) {
    const std::string at = std::move(open.back());
    open.pop_back();
    const std::string prefix = ByteWriter().key_part(at).take();
    std::vector<std::string> awaited;
    kWaiting.scan(c.state(), c.scope(), prefix, "", [&](std::string_view key, std::string_view) {
      awaited.emplace_back(key.substr(prefix.size()));
      return true;
    });
    for (const std::string& other : awaited) {
      for (std::string& holder : blockers(c, other)) {
        if (holder == owner) return at;
        if (seen.insert(holder).second) open.push_back(std::move(holder));
      }
    }
  }
  return std::nullopt;
}

std::string result_of(Permits& permits, const std::optional<PermitHolder>& holder,
                      const std::optional<PermitWaiter>& waiter = std::nullopt) {
  AcquireResult result;
  if (holder) *result.mutable_holder() = *holder;
  if (waiter) *result.mutable_waiter() = *waiter;
  *result.mutable_row() = permits.row();
  return serialize(result);
}

Status check_capacity(const Permits& permits, const PermitRow& row, const AcquireCommand& command) {
  const int32_t asked = command.capacity();
  if (command.kind() == internal::v1::PERMIT_KIND_SEMAPHORE) {
    if (!permits.exists() && asked <= 0) {
      return Status(Code::kInvalid, "CAPACITY_REQUIRED",
                    "the semaphore " + command.name() + " does not exist; the first call for it names its capacity")
          .with_field("capacity", "is required in the first call for a semaphore", "10");
    }
    if (permits.exists() && asked > 0 && asked != row.capacity()) {
      return Status(Code::kFailedPrecondition, "CAPACITY_MISMATCH",
                    "the semaphore " + command.name() + " has " + std::to_string(row.capacity()) + " permits, not " +
                        std::to_string(asked) + "; leave the capacity out to take it as it is");
    }
    if (command.holder().permits() > row.capacity()) {
      return Status(Code::kInvalid, "PERMITS_EXCEED_CAPACITY",
                    "the semaphore " + command.name() + " has " + std::to_string(row.capacity()) + " permits in all")
          .with_field("permits", "is more than the capacity", std::to_string(row.capacity()));
    }
  }
  if (!permits.exists() && permits.names() >= kNamesMax) {
    return Status(Code::kExhausted, "LOCK_NAMES_EXHAUSTED",
                  std::to_string(kNamesMax) + " locks and semaphores were used in this namespace within a day");
  }
  return Status::ok();
}

Status held_by(const Permits& permits, const AcquireCommand& command) {
  const auto holders = permits.holders();
  const std::string kind(noun(command.kind()));
  return Status(Code::kAlreadyExists, "LOCK_HELD",
                "the " + kind + " " + command.name() + " is held by " +
                    (holders.empty() ? "nobody, but others wait for it" : holders[0].owner()))
      .with_resource(kind, command.name());
}

}  // namespace

std::string_view noun(PermitKind kind) { return kind == internal::v1::PERMIT_KIND_LOCK ? "lock" : "semaphore"; }

Status not_held(PermitKind kind, const std::string& name) {
  const std::string what(noun(kind));
  return Status(Code::kNotFound, "LEASE_EXPIRED",
                "the " + what + " " + name + " is not held with this lease: it was released, it expired, or it was " +
                    "taken away. Stop what it protected, and acquire it again")
      .with_resource(what, name);
}

std::string permit_key(PermitKind kind, std::string_view name) {
  return ByteWriter().u8(static_cast<uint8_t>(kind)).key_part(name).take();
}

std::optional<PermitRow> find_permits(const KeyReader& state, const Scope& scope, PermitKind kind, std::string_view name) {
  return kPermits.get(state, scope, permit_key(kind, name));
}

// A store that keeps the marks of deleted rows for a while would walk over all that ever held or waited: so scans begin at
// the first row that is there.
void scan_holders(const KeyReader& state, const Scope& scope, const PermitRow& row,
                  const std::function<bool(PermitHolder)>& visit) {
  if (row.holders() == 0) return;
  const std::string key = permit_key(row.kind(), row.name());
  int left = row.holders();
  kHolders.scan(state, scope, key, holder_key(key, row.first_lease()), [&](std::string_view, PermitHolder holder) {
    return visit(std::move(holder)) && --left > 0;
  });
}

void scan_waiters(const KeyReader& state, const Scope& scope, const PermitRow& row,
                  const std::function<bool(PermitWaiter)>& visit) {
  if (row.waiters() == 0) return;
  const std::string key = permit_key(row.kind(), row.name());
  int left = row.waiters();
  kWaiters.scan(state, scope, key, waiter_key(key, row.head_rank(), row.head_id()),
                [&](std::string_view, PermitWaiter waiter) { return visit(std::move(waiter)) && --left > 0; });
}

std::optional<PermitHolder> find_holder(const KeyReader& state, const Scope& scope, PermitKind kind, std::string_view name,
                                        uint64_t lease, uint64_t secret) {
  auto holder = kHolders.get(state, scope, holder_key(permit_key(kind, name), lease));
  if (holder && holder->secret() != secret) holder.reset();
  return holder;
}

bool still_waits(const KeyReader& state, const Scope& scope, PermitKind kind, std::string_view name,
                 const PermitWaiter& waiter) {
  return kWaiters.contains(state, scope, waiter_key(permit_key(kind, name), waiter.rank(), waiter.id()));
}

internal::v1::PermitTotals read_totals(const KeyReader& state) {
  return kTotals.get(state, {}, "").value_or(internal::v1::PermitTotals());
}

std::map<std::string, machine::ApplyFunction, std::less<>> LocksState::commands() {
  return {{"acquire", acquire}, {"release", release},      {"extend", extend},          {"transfer", transfer},
          {"abandon", abandon}, {"break", break_holders}, {"deadlock", count_deadlock}};
}

ApplyResult LocksState::acquire(ApplyContext& c, std::string_view payload) {
  const auto command = parse<AcquireCommand>(payload);
  const PermitHolder& wanted = command.holder();
  Permits permits(c, command.kind(), command.name());
  if (!permits.exists()) {
    permits.row().set_capacity(command.kind() == internal::v1::PERMIT_KIND_LOCK ? kLockPermits : command.capacity());
  }
  UCCP_RETURN_IF_ERROR(check_capacity(permits, permits.row(), command));
  if (wanted.reentrant()) {
    for (PermitHolder& holder : permits.holders()) {
      if (!holder.reentrant() || holder.owner() != wanted.owner() || holder.permits() < wanted.permits()) continue;
      holder.set_hold_count(holder.hold_count() + 1);
      c.touch_lease(holder.lease(), holder.ttl_ms());
      permits.put(holder);
      permits.store();
      return result_of(permits, holder);
    }
  }
  // Whoever comes must not overtake those who wait already, unless it goes ahead of all of them by its priority.
  const auto head = permits.head();
  const bool ahead = !head || (!command.fifo() && kRankMax - static_cast<uint32_t>(wanted.priority()) < head->rank());
  if (command.preempt() && ahead && !permits.fits(wanted)) permits.preempt(wanted);
  std::optional<PermitHolder> holder;
  std::optional<PermitWaiter> waiter;
  if (ahead && permits.fits(wanted)) {
    holder = permits.grant(wanted, 0, 0);
    // What was taken away may be more than was asked for.
    if (command.preempt()) permits.serve();
  } else if (!command.wait()) {
    return fail(held_by(permits, command));
  } else if (permits.row().waiters() >= kWaitersMax) {
    return fail(Code::kExhausted, "WAITERS_EXHAUSTED", std::to_string(kWaitersMax) + " wait for it already; retry later");
  } else if (const auto through = find_cycle(c, permits.key(), wanted.owner())) {
    return fail(Code::kConflict, "DEADLOCK",
                "waiting would never end: " + *through + ", on whom " + command.name() + " depends, waits for what " +
                    wanted.owner() + " holds. Release that first, and acquire locks in one order everywhere");
  } else {
    waiter = permits.enqueue(command);
  }
  permits.store();
  return result_of(permits, holder, waiter);
}

ApplyResult LocksState::release(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::HolderCommand>(payload);
  Permits permits(c, command.kind(), command.name());
  auto holder = permits.holder(command.lease(), command.secret());
  if (!holder) return fail(not_held(command.kind(), command.name()));
  if (holder->hold_count() > 1 && !command.all()) {
    holder->set_hold_count(holder->hold_count() - 1);
    permits.put(*holder);
  } else {
    permits.end(*holder, ChangeKind::kReleased);
    permits.serve();
  }
  permits.store();
  return serialize(permits.row());
}

ApplyResult LocksState::extend(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::HolderCommand>(payload);
  Permits permits(c, command.kind(), command.name());
  auto holder = permits.holder(command.lease(), command.secret());
  if (!holder) return fail(not_held(command.kind(), command.name()));
  if (command.ttl_ms() > 0) holder->set_ttl_ms(command.ttl_ms());
  set_wall(holder->mutable_renewed_at(), c.envelope().wall);
  c.touch_lease(holder->lease(), holder->ttl_ms());
  permits.put(*holder);
  permits.store();
  return result_of(permits, holder);
}

ApplyResult LocksState::transfer(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::HolderCommand>(payload);
  Permits permits(c, command.kind(), command.name());
  const auto holder = permits.holder(command.lease(), command.secret());
  if (!holder) return fail(not_held(command.kind(), command.name()));
  if (holder->permits() < permits.row().capacity()) {
    return fail(Code::kFailedPrecondition, "LOCK_SHARED",
                "the lock " + command.name() + " is held for reading; only an exclusive hold can be handed over");
  }
  PermitHolder next = *holder;
  next.set_owner(command.new_owner());
  next.set_secret(command.new_secret());
  next.set_waiter(0);
  if (command.ttl_ms() > 0) next.set_ttl_ms(command.ttl_ms());
  permits.end(*holder, ChangeKind::kTransferred);
  const PermitHolder granted = permits.grant(std::move(next), 0, 0);
  permits.store();
  return result_of(permits, granted);
}

ApplyResult LocksState::abandon(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::AbandonCommand>(payload);
  Permits permits(c, command.kind(), command.name());
  // It may have been granted a moment ago: then the grant is the answer.
  std::optional<PermitHolder> granted;
  if (const auto waiter = permits.waiter(command.rank(), command.waiter())) {
    permits.drop(*waiter, false);
  } else {
    for (PermitHolder& holder : permits.holders()) {
      if (holder.waiter() == command.waiter()) granted = std::move(holder);
    }
    if (!granted) return result_of(permits, std::nullopt);
    if (!command.release()) return result_of(permits, granted);
    permits.end(*granted, ChangeKind::kReleased);
    granted.reset();
  }
  permits.serve();
  permits.store();
  return result_of(permits, granted);
}

ApplyResult LocksState::break_holders(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::BreakCommand>(payload);
  Permits permits(c, command.kind(), command.name());
  internal::v1::BreakResult broken;
  const auto holders = permits.holders();
  for (const PermitHolder& holder : holders) {
    if (command.fencing_token() != 0 && holder.fencing_token() != command.fencing_token()) continue;
    *broken.add_holders() = holder;
    permits.end(holder, ChangeKind::kBroken);
  }
  const std::string what(noun(command.kind()));
  if (holders.empty()) {
    return fail(Status(Code::kNotFound, "LOCK_NOT_FOUND", "nobody holds the " + what + " " + command.name())
                    .with_resource(what, command.name()));
  }
  if (broken.holders().empty()) {
    return fail(Code::kConflict, "FENCING_TOKEN_STALE",
                "the " + what + " " + command.name() + " is not held with this fencing token but with " +
                    std::to_string(holders[0].fencing_token()) + "; look again who holds it");
  }
  permits.serve();
  permits.store();
  return serialize(broken);
}

ApplyResult LocksState::count_deadlock(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::BreakCommand>(payload);
  Permits permits(c, command.kind(), command.name());
  if (!permits.exists()) return std::string();
  auto& counts = *permits.row().mutable_counts();
  counts.set_deadlocks(counts.deadlocks() + 1);
  permits.store();
  return std::string();
}

void LocksState::on_lease_expired(ApplyContext& c, LeaseId lease, std::string_view key) {
  ByteReader in(key);
  const uint8_t what = in.u8();
  const uint32_t rank = what == kUseLease ? in.u8() : 0;
  const uint64_t waiter_id = what == kUseLease ? in.u64() : 0;
  const auto kind = static_cast<PermitKind>(in.u8());
  Permits permits(c, kind, in.key_part());
  if (what == kMemoryLease) return permits.forget();
  if (const auto holder = kHolders.get(c.state(), c.scope(), holder_key(permits.key(), lease))) {
    permits.end(*holder, ChangeKind::kExpired);
  } else if (const auto waiter = permits.waiter(rank, waiter_id)) {
    permits.drop(*waiter, true);
  } else {
    return;
  }
  permits.serve();
  permits.store();
}

}  // namespace uccp::locks
