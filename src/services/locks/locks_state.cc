#include "services/locks/locks_state.h"

#include <algorithm>
#include <set>
#include <vector>

#include "base/bytes.h"

namespace uccp::locks {
namespace {

using internal::v1::PermitHolder;
using internal::v1::PermitKind;
using internal::v1::PermitRow;
using internal::v1::PermitWaiter;
using machine::ApplyContext;
using machine::ApplyResult;

template <typename Message>
Message parse(std::string_view payload) {
  Message message;
  UCCP_CHECK(message.ParseFromArray(payload.data(), static_cast<int>(payload.size())), "a command is readable");
  return message;
}

void set_wall(google::protobuf::Timestamp* out, WallTime wall) {
  out->set_seconds(wall.us / 1'000'000);
  out->set_nanos(static_cast<int32_t>(wall.us % 1'000'000 * 1000));
}

std::string_view noun(PermitKind kind) { return kind == internal::v1::PERMIT_KIND_LOCK ? "lock" : "semaphore"; }

std::string waiting_key(std::string_view owner, PermitKind kind, std::string_view name) {
  return ByteWriter().key_part(owner).raw(permit_key(kind, name)).take();
}

std::unexpected<Status> not_held(PermitKind kind, const std::string& name) {
  return fail(Status(Code::kNotFound, "LEASE_EXPIRED",
                     "the " + std::string(noun(kind)) + " " + name + " is not held with this lease: it was released, " +
                         "it expired, or it was taken away. Stop what it protected, and acquire it again")
                  .with_resource(std::string(noun(kind)), name));
}

// One row while a command changes it.
class Permits {
 public:
  Permits(ApplyContext& context, PermitKind kind, const std::string& name)
      : c_(context), key_(permit_key(kind, name)), kind_(kind) {
    if (auto row = kPermits.get(c_.state(), c_.scope(), key_)) {
      row_ = std::move(*row);
      exists_ = true;
    } else {
      row_.set_name(name);
      row_.set_kind(kind);
      set_wall(row_.mutable_create_time(), c_.envelope().wall);
    }
  }

  PermitRow& row() { return row_; }
  bool exists() const { return exists_; }

  PermitHolder* find_holder(uint64_t lease, uint64_t secret) {
    for (PermitHolder& holder : *row_.mutable_holders()) {
      if (holder.lease() == lease && holder.secret() == secret) return &holder;
    }
    return nullptr;
  }

  bool fits(const PermitHolder& holder) const { return holder.permits() <= permits_free(row_); }

  // Makes `wanted` a holder.
  PermitHolder& grant(PermitHolder wanted, uint64_t waiter, int64_t waited_ms) {
    wanted.set_lease(c_.create_lease("permits", lease_key(), wanted.ttl_ms()));
    // Several grants of one entry get different tokens; the log index makes them grow over everything before.
    wanted.set_fencing_token((c_.index().value << 8) | std::min<uint64_t>(grants_++, 255));
    wanted.set_hold_count(1);
    wanted.set_acquired_ms(c_.now_ms());
    wanted.set_waited_ms(waited_ms);
    wanted.set_waiter(waiter);
    set_wall(wanted.mutable_acquired_at(), c_.envelope().wall);
    *wanted.mutable_renewed_at() = wanted.acquired_at();
    auto& counts = *row_.mutable_counts();
    counts.set_acquisitions(counts.acquisitions() + 1);
    if (waiter != 0) counts.set_contended(counts.contended() + 1);
    counts.set_wait_ms(counts.wait_ms() + static_cast<uint64_t>(waited_ms));
    *row_.add_holders() = std::move(wanted);
    PermitHolder& holder = *row_.mutable_holders(row_.holders_size() - 1);
    changes_.push_back({ChangeKind::kAcquired, holder});
    return holder;
  }

  // Ends a holder. The reference is void afterwards.
  void end(PermitHolder& holder, ChangeKind why) {
    if (why != ChangeKind::kExpired) c_.delete_lease(holder.lease());
    auto& counts = *row_.mutable_counts();
    counts.set_hold_ms(counts.hold_ms() + static_cast<uint64_t>(c_.now_ms() - holder.acquired_ms()));
    if (why == ChangeKind::kExpired) counts.set_expirations(counts.expirations() + 1);
    changes_.push_back({why, holder});
    auto& holders = *row_.mutable_holders();
    for (int i = 0; i < holders.size(); ++i) {
      if (&holders[i] == &holder) return holders.DeleteSubrange(i, 1);
    }
  }

  void end_waiter(int at, bool lease_is_over) {
    const PermitWaiter waiter = row_.waiters(at);
    if (!lease_is_over) c_.delete_lease(waiter.lease());
    row_.mutable_waiters()->DeleteSubrange(at, 1);
    kWaiting.erase(c_.state(), c_.scope(), waiting_key(waiter.holder().owner(), kind_, row_.name()));
    // The same owner may wait twice with different requests: then it still waits.
    for (const PermitWaiter& other : row_.waiters()) {
      if (other.holder().owner() == waiter.holder().owner()) note_waiting(other.holder().owner());
    }
  }

  // Serves the head of the queue as long as it fits. Nobody overtakes a head that does not fit yet.
  void serve() {
    while (row_.waiters_size() > 0 && fits(row_.waiters(0).holder()) && row_.holders_size() < kHoldersMax) {
      const PermitWaiter waiter = row_.waiters(0);
      end_waiter(0, false);
      grant(waiter.holder(), waiter.id(), c_.now_ms() - waiter.enqueued_ms());
    }
  }

  PermitWaiter& enqueue(const internal::v1::AcquireCommand& command) {
    PermitWaiter waiter;
    waiter.set_id(c_.index().value);
    waiter.set_lease(c_.create_lease("permits", lease_key(), command.waiter_ttl_ms()));
    *waiter.mutable_holder() = command.holder();
    waiter.set_enqueued_ms(c_.now_ms());
    set_wall(waiter.mutable_enqueue_time(), c_.envelope().wall);
    int at = row_.waiters_size();
    if (!command.fifo()) {
      while (at > 0 && row_.waiters(at - 1).holder().priority() < command.holder().priority()) --at;
    }
    *row_.add_waiters() = std::move(waiter);
    for (int i = row_.waiters_size() - 1; i > at; --i) row_.mutable_waiters()->SwapElements(i, i - 1);
    note_waiting(command.holder().owner());
    return *row_.mutable_waiters(at);
  }

  void note_waiting(std::string_view owner) {
    kWaiting.put(c_.state(), c_.scope(), waiting_key(owner, kind_, row_.name()), "");
  }

  void add_change(ChangeKind kind, PermitHolder holder) { changes_.push_back({kind, std::move(holder)}); }

  // Writes the row back and tells watchers what happened.
  void store() {
    // An unused lock leaves nothing behind but a semaphore keeps its capacity.
    const bool forget = kind_ == internal::v1::PERMIT_KIND_LOCK && row_.holders().empty() && row_.waiters().empty() &&
                        row_.counts().acquisitions() == 0;
    if (forget) kPermits.erase(c_.state(), c_.scope(), key_);
    else kPermits.put(c_.state(), c_.scope(), key_, row_);
    for (auto& [kind, holder] : changes_) {
      internal::v1::PermitChange change;
      *change.mutable_row() = row_;
      *change.mutable_holder() = std::move(holder);
      c_.emit(kTopic, key_, static_cast<uint8_t>(kind), change.SerializeAsString());
    }
    changes_.clear();
  }

 private:
  std::string lease_key() const { return key_; }

  ApplyContext& c_;
  const std::string key_;
  const PermitKind kind_;
  PermitRow row_;
  bool exists_ = false;
  uint64_t grants_ = 0;
  struct Pending {
    ChangeKind kind;
    PermitHolder holder;
  };
  std::vector<Pending> changes_;
};

// True if `owner` would wait for itself: some holder of the row waits, perhaps through others, for what `owner` holds.
bool closes_cycle(ApplyContext& c, const PermitRow& row, const std::string& owner) {
  std::set<std::string> seen;
  std::vector<std::string> open;
  const auto add_holders = [&](const PermitRow& r) {
    for (const PermitHolder& holder : r.holders()) {
      if (seen.insert(holder.owner()).second) open.push_back(holder.owner());
    }
  };
  add_holders(row);
  while (!open.empty() && seen.size() < kCycleSearchMax) {
    const std::string at = std::move(open.back());
    open.pop_back();
    if (at == owner) return true;
    const std::string prefix = ByteWriter().key_part(at).take();
    kWaiting.scan(c.state(), c.scope(), prefix, "", [&](std::string_view key, std::string_view) {
      if (auto awaited = kPermits.get(c.state(), c.scope(), key.substr(prefix.size()))) add_holders(*awaited);
      return true;
    });
  }
  return false;
}

void preempt(Permits& permits, const PermitHolder& wanted) {
  // From the lowest priority up, and only if that makes room.
  auto& holders = *permits.row().mutable_holders();
  int32_t gain = permits_free(permits.row());
  for (const PermitHolder& holder : holders) {
    if (holder.priority() < wanted.priority()) gain += holder.permits();
  }
  if (gain < wanted.permits()) return;
  while (!permits.fits(wanted)) {
    PermitHolder* lowest = nullptr;
    for (PermitHolder& holder : holders) {
      if (lowest == nullptr || holder.priority() < lowest->priority()) lowest = &holder;
    }
    permits.end(*lowest, ChangeKind::kBroken);
  }
}

}  // namespace

std::string permit_key(PermitKind kind, std::string_view name) {
  return ByteWriter().u8(static_cast<uint8_t>(kind)).raw(name).take();
}

int32_t permits_free(const PermitRow& row) {
  int32_t held = 0;
  for (const PermitHolder& holder : row.holders()) held += holder.permits();
  return row.capacity() - held;
}

std::map<std::string, machine::ApplyFunction, std::less<>> LocksState::commands() {
  return {{"acquire", acquire},   {"release", release}, {"extend", extend},
          {"transfer", transfer}, {"abandon", abandon}, {"break", break_holders}};
}

ApplyResult LocksState::acquire(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::AcquireCommand>(payload);
  const PermitHolder& wanted = command.holder();
  Permits permits(c, command.kind(), command.name());
  PermitRow& row = permits.row();
  if (!permits.exists()) {
    row.set_capacity(command.kind() == internal::v1::PERMIT_KIND_LOCK ? kLockPermits : std::max(1, command.capacity()));
  } else if (command.capacity() > 0 && command.capacity() != row.capacity()) {
    return fail(Code::kFailedPrecondition, "CAPACITY_MISMATCH",
                "the semaphore " + command.name() + " has " + std::to_string(row.capacity()) +
                    " permits, not " + std::to_string(command.capacity()) + "; leave the capacity out to take it as it is");
  }
  if (wanted.permits() > row.capacity()) {
    return fail(Code::kInvalid, "PERMITS_EXCEED_CAPACITY",
                "the semaphore has " + std::to_string(row.capacity()) + " permits in all");
  }
  internal::v1::AcquireResult result;
  if (wanted.reentrant()) {
    for (PermitHolder& holder : *row.mutable_holders()) {
      if (!holder.reentrant() || holder.owner() != wanted.owner() || holder.permits() < wanted.permits()) continue;
      holder.set_hold_count(holder.hold_count() + 1);
      c.touch_lease(holder.lease(), holder.ttl_ms());
      permits.store();
      *result.mutable_holder() = holder;
      *result.mutable_row() = row;
      return result.SerializeAsString();
    }
  }
  // Whoever comes must not overtake those who wait already, unless it goes ahead of all of them by its priority.
  const bool ahead = row.waiters().empty() || (!command.fifo() && wanted.priority() > row.waiters(0).holder().priority());
  if (command.preempt() && ahead && !permits.fits(wanted)) preempt(permits, wanted);
  if (ahead && permits.fits(wanted) && row.holders_size() < kHoldersMax) {
    *result.mutable_holder() = permits.grant(wanted, 0, 0);
  } else if (!command.wait()) {
    const std::string owner = row.holders().empty() ? "others that wait" : row.holders(0).owner();
    return fail(Status(Code::kAlreadyExists, "LOCK_HELD", "the " + std::string(noun(command.kind())) + " " +
                       command.name() + " is held by " + owner)
                    .with_resource(std::string(noun(command.kind())), command.name()));
  } else if (row.waiters_size() >= kWaitersMax) {
    return fail(Code::kExhausted, "WAITERS_EXHAUSTED", std::to_string(kWaitersMax) + " wait for it already");
  } else if (closes_cycle(c, row, wanted.owner())) {
    return fail(Code::kConflict, "DEADLOCK",
                "waiting would never end: a holder of " + command.name() + " waits for what " + wanted.owner() +
                    " holds. Release that first, and acquire locks in one order everywhere");
  } else {
    *result.mutable_waiter() = permits.enqueue(command);
  }
  permits.store();
  *result.mutable_row() = row;
  return result.SerializeAsString();
}

ApplyResult LocksState::release(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::HolderCommand>(payload);
  Permits permits(c, command.kind(), command.name());
  PermitHolder* holder = permits.find_holder(command.lease(), command.secret());
  if (holder == nullptr) return not_held(command.kind(), command.name());
  if (holder->hold_count() > 1 && !command.all()) {
    holder->set_hold_count(holder->hold_count() - 1);
  } else {
    permits.end(*holder, ChangeKind::kReleased);
    permits.serve();
  }
  permits.store();
  return permits.row().SerializeAsString();
}

ApplyResult LocksState::extend(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::HolderCommand>(payload);
  Permits permits(c, command.kind(), command.name());
  PermitHolder* holder = permits.find_holder(command.lease(), command.secret());
  if (holder == nullptr) return not_held(command.kind(), command.name());
  if (command.ttl_ms() > 0) holder->set_ttl_ms(command.ttl_ms());
  set_wall(holder->mutable_renewed_at(), c.envelope().wall);
  c.touch_lease(holder->lease(), holder->ttl_ms());
  internal::v1::AcquireResult result;
  *result.mutable_holder() = *holder;
  permits.store();
  *result.mutable_row() = permits.row();
  return result.SerializeAsString();
}

ApplyResult LocksState::transfer(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::HolderCommand>(payload);
  Permits permits(c, command.kind(), command.name());
  PermitHolder* holder = permits.find_holder(command.lease(), command.secret());
  if (holder == nullptr) return not_held(command.kind(), command.name());
  PermitHolder next = *holder;
  next.set_owner(command.new_owner());
  next.set_secret(command.new_secret());
  if (command.ttl_ms() > 0) next.set_ttl_ms(command.ttl_ms());
  permits.end(*holder, ChangeKind::kTransferred);
  internal::v1::AcquireResult result;
  *result.mutable_holder() = permits.grant(std::move(next), 0, 0);
  permits.store();
  *result.mutable_row() = permits.row();
  return result.SerializeAsString();
}

ApplyResult LocksState::abandon(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::AbandonCommand>(payload);
  Permits permits(c, command.kind(), command.name());
  internal::v1::AcquireResult result;
  // It may have been granted a moment ago: then the grant is the answer.
  for (const PermitHolder& holder : permits.row().holders()) {
    if (holder.waiter() == command.waiter()) *result.mutable_holder() = holder;
  }
  for (int i = 0; i < permits.row().waiters_size(); ++i) {
    if (permits.row().waiters(i).id() != command.waiter()) continue;
    permits.end_waiter(i, false);
    auto& counts = *permits.row().mutable_counts();
    if (command.timed_out()) counts.set_wait_timeouts(counts.wait_timeouts() + 1);
    permits.serve();
    permits.store();
    break;
  }
  *result.mutable_row() = permits.row();
  return result.SerializeAsString();
}

ApplyResult LocksState::break_holders(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::BreakCommand>(payload);
  Permits permits(c, command.kind(), command.name());
  internal::v1::PermitRow broken;
  for (int i = permits.row().holders_size() - 1; i >= 0; --i) {
    PermitHolder& holder = *permits.row().mutable_holders(i);
    if (command.fencing_token() != 0 && holder.fencing_token() != command.fencing_token()) continue;
    *broken.add_holders() = holder;
    permits.end(holder, ChangeKind::kBroken);
  }
  if (broken.holders().empty()) return not_held(command.kind(), command.name());
  permits.serve();
  permits.store();
  return broken.SerializeAsString();
}

void LocksState::on_lease_expired(ApplyContext& c, LeaseId lease, std::string_view key) {
  if (key.empty()) return;
  Permits permits(c, static_cast<PermitKind>(key[0]), std::string(key.substr(1)));
  auto& row = permits.row();
  for (int i = 0; i < row.holders_size(); ++i) {
    if (row.holders(i).lease() != lease) continue;
    permits.end(*row.mutable_holders(i), ChangeKind::kExpired);
    break;
  }
  for (int i = 0; i < row.waiters_size(); ++i) {
    if (row.waiters(i).lease() != lease) continue;
    permits.add_change(ChangeKind::kWaitEnded, row.waiters(i).holder());
    permits.end_waiter(i, true);
    break;
  }
  permits.serve();
  permits.store();
}

}  // namespace uccp::locks
