#include "services/locks/locks_state.h"

#include <algorithm>
#include <set>
#include <vector>

#include "services/locks/permits.h"
#include "services/message_types.h"

namespace uccp::locks {
namespace {

using internal::v1::AcquireResult;
using machine::ApplyResult;
using services::parse;

// What one owner waits for.
struct Awaited {
  std::string permit;
  PermitHolder wanted;  // what of it matters across names
  Place place;
};

// The owners that stand in the way of one wait. Of a semaphore only if it is one: of several, any may be enough.
std::vector<std::string> blockers(ApplyContext& c, const Awaited& awaited) {
  std::vector<std::string> owners;
  const auto add = [&](const std::string& owner) {
    if (std::ranges::find(owners, owner) == owners.end()) owners.push_back(owner);
    return owners.size() < kCycleSearchMax;
  };
  const auto row = kPermits.get(c.state(), c.scope(), awaited.permit);
  if (row) scan_holders(c.state(), c.scope(), *row, [&](const PermitHolder& holder) { return add(holder.owner()); });
  if (row && row->kind() == internal::v1::PERMIT_KIND_SEMAPHORE && owners.size() > 1) owners.clear();
  ByteReader in(awaited.permit);
  if (in.u8() != internal::v1::PERMIT_KIND_LOCK) return owners;
  owners_across(c.state(), c.scope(), in.key_part(), awaited.wanted, awaited.place, add);
  return owners;
}

// The waits of an owner as they stand in the queues; the first one of it in each.
std::vector<Awaited> waits_of(ApplyContext& c, const std::string& owner) {
  std::vector<Awaited> waits;
  for (std::string& key : awaited_by(c.state(), c.scope(), owner)) {
    const bool tree = (static_cast<uint8_t>(key[0]) & kTreeWait) != 0;
    if (tree) key[0] = static_cast<char>(static_cast<uint8_t>(key[0]) & ~kTreeWait);
    const auto row = kPermits.get(c.state(), c.scope(), key);
    if (!row) continue;
    scan_waiters(c.state(), c.scope(), *row, [&](const internal::v1::PermitWaiter& waiter) {
      if (waiter.holder().owner() != owner || waiter.holder().tree() != tree) return true;
      waits.push_back({key, waiter.holder(), {waiter.rank(), waiter.id()}});
      return false;
    });
  }
  return waits;
}

// The first owner on the way of a cycle, if the wait would be for its owner through others. That an owner holds the
// very thing itself is no cycle: two clients may use one name, and the hold may end by its ttl.
std::optional<std::string> find_cycle(ApplyContext& c, const Awaited& wait) {
  const std::string& owner = wait.wanted.owner();
  std::set<std::string> seen;
  std::vector<std::string> open;
  for (std::string& holder : blockers(c, wait)) {
    if (holder != owner && seen.insert(holder).second) open.push_back(std::move(holder));
  }
  while (!open.empty() && seen.size() < kCycleSearchMax) {
    const std::string at = std::move(open.back());
    open.pop_back();
    for (const Awaited& other : waits_of(c, at)) {
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

Status held_by(ApplyContext& c, const Permits& permits, const AcquireCommand& command, Place place) {
  const auto holders = permits.holders();
  const std::string kind(noun(command.kind()));
  const auto across = command.kind() == internal::v1::PERMIT_KIND_LOCK
                          ? hindered(c.state(), c.scope(), command.name(), command.holder(), place)
                          : std::nullopt;
  return Status(Code::kAlreadyExists, "LOCK_HELD",
                "the " + kind + " " + command.name() + " is held by " +
                    (!holders.empty() ? holders[0].owner()
                     : across         ? *across + ", under a name above or below it"
                                      : "nobody, but others wait for it"))
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

std::optional<PermitRow> find_permits(const KeyReader& state, const Scope& scope, PermitKind kind,
                                      std::string_view name) {
  return kPermits.get(state, scope, permit_key(kind, name));
}

// A store that keeps the marks of deleted rows for a while would walk over all that ever held or waited: so scans begin
// at the first row that is there.
void scan_holders(const KeyReader& state, const Scope& scope, const PermitRow& row,
                  const std::function<bool(PermitHolder)>& visit) {
  if (row.holders() == 0) return;
  const std::string key = permit_key(row.kind(), row.name());
  auto first = kHolders.get(state, scope, holder_key(key, row.first_lease()));
  int left = row.holders();
  // One is the common case, and needs no scan.
  if (first && (!visit(std::move(*first)) || --left == 0)) return;
  kHolders.scan(state, scope, key, holder_key(key, row.first_lease() + (first ? 1 : 0)),
                [&](std::string_view, PermitHolder holder) { return visit(std::move(holder)) && --left > 0; });
}

void scan_waiters(const KeyReader& state, const Scope& scope, const PermitRow& row,
                  const std::function<bool(PermitWaiter)>& visit) {
  if (row.waiters() == 0) return;
  const std::string key = permit_key(row.kind(), row.name());
  int left = row.waiters();
  kWaiters.scan(state, scope, key, waiter_key(key, row.head_rank(), row.head_id()),
                [&](std::string_view, PermitWaiter waiter) { return visit(std::move(waiter)) && --left > 0; });
}

std::optional<PermitHolder> find_holder(const KeyReader& state, const Scope& scope, PermitKind kind,
                                        std::string_view name, uint64_t lease, uint64_t secret) {
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
  return {{"acquire", acquire}, {"release", release},     {"extend", extend},          {"transfer", transfer},
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
      if (wanted.tree() && !holder.tree()) {
        return fail(Code::kFailedPrecondition, "HOLD_NOT_TREE",
                    wanted.owner() + " holds " + command.name() + " without the names below it; release it first");
      }
      holder.set_hold_count(holder.hold_count() + 1);
      c.touch_lease(holder.lease(), holder.ttl_ms());
      permits.put(holder);
      permits.store();
      return result_of(permits, holder);
    }
  }
  // Whoever comes must not overtake those who wait already, unless it goes ahead of all of them by its priority.
  const auto head = permits.head();
  const Place place = permits.place_of(command);
  const bool ahead = (!head || (!command.fifo() && place.first < head->rank())) && permits.clear_across(wanted, place);
  if (command.preempt() && ahead && !permits.fits(wanted)) permits.preempt(wanted);
  std::optional<PermitHolder> holder;
  std::optional<PermitWaiter> waiter;
  if (ahead && permits.fits(wanted)) {
    holder = permits.grant(wanted, 0, 0);
    // What was taken away may be more than was asked for.
    if (command.preempt()) permits.serve();
  } else if (!command.wait()) {
    return fail(held_by(c, permits, command, place));
  } else if (permits.row().waiters() >= kWaitersMax) {
    return fail(Code::kExhausted, "WAITERS_EXHAUSTED",
                std::to_string(kWaitersMax) + " wait for it already; retry later");
  } else if (const auto through = find_cycle(c, {permits.key(), wanted, place})) {
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
  if (what == kServeLease) return permits.serve_below(in.key_part());
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
