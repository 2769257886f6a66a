// Acquiring locks and permits: the command, the wait for its turn, the answer.
#include "base/bytes.h"
#include "call/command.h"
#include "services/feature_types.h"
#include "services/locks/locks_service.h"
#include "services/locks/locks_shown.h"
#include "services/message_types.h"

namespace uccp::locks {
namespace {

using call::CallPtr;
using coordination::scope_of;
using coordination::Waits;
using internal::v1::AcquireResult;
using internal::v1::PermitHolder;
using internal::v1::PermitKind;
using internal::v1::PermitRow;
using machine::GroupView;
using machine::ReadLevel;
using services::ms_of;

constexpr auto kLock = internal::v1::PERMIT_KIND_LOCK;
constexpr auto kSemaphore = internal::v1::PERMIT_KIND_SEMAPHORE;
constexpr int64_t kTtlDefaultMs = 30'000;

void put_session(const CallPtr& call, LogIndex index) {
  call->set_header("Uccp-Session", machine::session_token({{kCoreGroup, index}}));
}

Status stopping() {
  return Status(
             Code::kUnavailable, "WAIT_INTERRUPTED",
             "this node no longer serves the wait; ask again with the same request id to keep the place in the queue")
      .with_retry_after_ms(200);
}

// Seconds of the contract, or -1 if the field is absent.
int64_t wait_ms_of(bool present, const google::protobuf::Duration& wait) { return present ? ms_of(wait) : -1; }

}  // namespace

// One call that acquires, from its command to its answer.
struct LocksService::Acquisition {
  CallPtr call;
  machine::Scope scope;
  internal::v1::AcquireCommand command;
  bool never_waits = false;  // TryLock
  int64_t wait_ms = -1;      // -1: until the deadline
  BootTime started;
  internal::v1::PermitWaiter waiter;

  PermitKind kind() const { return command.kind(); }
  const std::string& name() const { return command.name(); }
};

std::string LocksService::wait_key(uint64_t waiter) { return ByteWriter().u64(waiter).take(); }

std::shared_ptr<LocksService::Acquisition> LocksService::begin(const CallPtr& call, PermitKind kind,
                                                               const std::string& name, const std::string& owner,
                                                               int64_t ttl_ms) {
  auto a = std::make_shared<Acquisition>();
  a->call = call;
  a->scope = scope_of(*call);
  a->started = env_.clock.boot();
  a->command.set_kind(kind);
  a->command.set_name(name);
  a->command.set_wait(true);
  a->command.set_waiter_ttl_ms(coordination::kWaiterTtlMs);
  PermitHolder& holder = *a->command.mutable_holder();
  holder.set_owner(owner.empty() ? coordination::default_owner(*call) : owner);
  holder.set_principal(call->principal.name);
  holder.set_secret(draw());
  holder.set_permits(kLockPermits);
  holder.set_ttl_ms(ttl_ms > 0 ? ttl_ms : kTtlDefaultMs);
  return a;
}

void LocksService::acquire_lock(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::AcquireLockRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  if (request->preempt() && !env_.permits(call->principal, "locks.break")) {
    return call->finish(Status(Code::kPermission, "PERMISSION_DENIED",
                               call->principal.name + " lacks the permission locks.break, which preemption needs")
                            .with_help("security.md#roles"));
  }
  auto a = begin(call, kLock, request->name(), request->owner(), ms_of(request->ttl()));
  PermitHolder& holder = *a->command.mutable_holder();
  if (request->type() == v1::LOCK_TYPE_SHARED) holder.set_permits(1);
  holder.set_priority(request->priority());
  holder.set_reentrant(request->reentrant());
  holder.set_tree(request->tree());
  *holder.mutable_metadata() = request->metadata();
  a->command.set_preempt(request->preempt());
  a->command.set_fifo(request->queue_order() == v1::QUEUE_ORDER_FIFO);
  a->wait_ms = wait_ms_of(request->has_wait_timeout(), request->wait_timeout());
  acquire(a, std::move(bytes));
}

void LocksService::try_lock(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::TryLockRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  auto a = begin(call, kLock, request->name(), request->owner(), ms_of(request->ttl()));
  PermitHolder& holder = *a->command.mutable_holder();
  if (request->type() == v1::LOCK_TYPE_SHARED) holder.set_permits(1);
  holder.set_priority(request->priority());
  holder.set_reentrant(request->reentrant());
  holder.set_tree(request->tree());
  *holder.mutable_metadata() = request->metadata();
  a->never_waits = true;
  a->wait_ms = 0;
  acquire(a, std::move(bytes));
}

void LocksService::acquire_read_lock(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::AcquireReadLockRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  auto a = begin(call, kLock, request->name(), request->owner(), ms_of(request->ttl()));
  PermitHolder& holder = *a->command.mutable_holder();
  holder.set_permits(1);
  holder.set_priority(request->priority());
  holder.set_tree(request->tree());
  *holder.mutable_metadata() = request->metadata();
  a->wait_ms = wait_ms_of(request->has_wait_timeout(), request->wait_timeout());
  acquire(a, std::move(bytes));
}

void LocksService::acquire_semaphore(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::AcquireSemaphoreRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  auto a = begin(call, kSemaphore, request->name(), request->owner(), ms_of(request->ttl()));
  PermitHolder& holder = *a->command.mutable_holder();
  holder.set_permits(std::max(1, request->permits()));
  holder.set_priority(request->priority());
  a->command.set_capacity(request->capacity());
  a->wait_ms = wait_ms_of(request->has_wait_timeout(), request->wait_timeout());
  acquire(a, std::move(bytes));
}

void LocksService::acquire(const std::shared_ptr<Acquisition>& a, std::string bytes) {
  if (a->command.holder().tree() && env_.feature_level) {
    Status level = services::check_feature_level(env_.feature_level(), services::kCoordinationLevel);
    if (!level.is_ok()) return a->call->finish(std::move(level));
  }
  a->command.set_wait(a->wait_ms != 0);
  auto envelope =
      call::make_envelope(*a->call, bytes, std::string(kDomain) + ".acquire", a->command.SerializeAsString());
  env_.proposer.propose(kCoreGroup, std::move(envelope), [this, a](Result<machine::Applied> applied) {
    if (!applied) return refused(a, std::move(applied.error()));
    put_session(a->call, applied->index);
    const auto result = services::parse<AcquireResult>(applied->response);
    if (result.has_holder()) return confirm(a, result, applied->index);
    a->waiter = result.waiter();
    wait(a, applied->index);
  });
}

// The answer to a repeated request is that of the first one, and its hold may have ended since. A grant of this very
// command has its index in its token; anything else is looked up.
void LocksService::confirm(const std::shared_ptr<Acquisition>& a, const AcquireResult& result, LogIndex index) {
  if (result.holder().fencing_token() >> kTokenBits == index.value) return granted(a, result.holder(), result.row());
  const ReadLevel level{.kind = ReadLevel::Kind::kSession, .token = {{kCoreGroup, index}}};
  env_.reader.read(kCoreGroup, level, [this, a, held = result.holder()](Result<GroupView> view) {
    if (!view) return a->call->finish(std::move(view.error()));
    const auto holder = find_holder(*view, a->scope, a->kind(), a->name(), held.lease(), held.secret());
    if (!holder) return gave_up(a);
    granted(a, *holder, find_permits(*view, a->scope, a->kind(), a->name()).value_or(PermitRow()));
  });
}

void LocksService::refused(const std::shared_ptr<Acquisition>& a, Status status) {
  if (status.reason() == "DEADLOCK") {
    deadlocks_.add();
    internal::v1::BreakCommand count;
    count.set_kind(a->kind());
    count.set_name(a->name());
    propose_quietly(a->scope, "deadlock", count, [](auto) {});
  }
  if (status.reason() == "LOCK_HELD" && !a->never_waits) {
    timeouts_.add();
    return a->call->finish(
        Status(Code::kDeadline, "LOCK_WAIT_TIMEOUT", status.message() + "; waitTimeout 0 does not wait")
            .with_resource(std::string(noun(a->kind())), a->name()));
  }
  a->call->finish(std::move(status));
}

void LocksService::wait(const std::shared_ptr<Acquisition>& a, LogIndex since) {
  Waits::Wait w;
  w.key = wait_key(a->waiter.id());
  w.since = since;
  w.lease = a->waiter.lease();
  w.lease_ttl_ms = a->command.waiter_ttl_ms();
  w.until = coordination::wait_until(*a->call, a->wait_ms, a->started);
  const uint64_t id = waits_->add(
      a->call, std::move(w), [this, a](Waits::End why, const machine::Change* change) { wait_ended(a, why, change); });
  look(a, id, since);
}

// It may have been granted between the command and now; of a repeated request long ago.
void LocksService::look(const std::shared_ptr<Acquisition>& a, uint64_t wait_id, LogIndex since) {
  const ReadLevel level{.kind = ReadLevel::Kind::kSession, .token = {{kCoreGroup, since}}};
  env_.reader.read(kCoreGroup, level, [this, a, wait_id](Result<GroupView> view) {
    // Without a view the wait just goes on: changes still come.
    if (!view || still_waits(*view, a->scope, a->kind(), a->name(), a->waiter)) return;
    if (!waits_->remove(wait_id)) return;
    std::optional<PermitHolder> holder;
    const auto row = find_permits(*view, a->scope, a->kind(), a->name()).value_or(PermitRow());
    scan_holders(*view, a->scope, row, [&](PermitHolder found) {
      if (found.waiter() == a->waiter.id()) holder = std::move(found);
      return !holder;
    });
    if (!holder) return gave_up(a);
    granted(a, *holder, row);
  });
}

void LocksService::look_again(const std::shared_ptr<Acquisition>& a) {
  env_.reader.read(kCoreGroup, ReadLevel::linearizable(), [this, a](Result<GroupView> view) {
    if (!view) return a->call->finish(stopping());
    wait(a, view->applied());
  });
}

void LocksService::wait_ended(const std::shared_ptr<Acquisition>& a, Waits::End why, const machine::Change* change) {
  switch (why) {
    case Waits::End::kChange: {
      if (static_cast<ChangeKind>(change->kind) != ChangeKind::kAcquired) return gave_up(a);
      const auto c = services::parse<internal::v1::PermitChange>(change->payload);
      put_session(a->call, change->index);
      return granted(a, c.holder(), c.row());
    }
    case Waits::End::kTimeout: return abandon(a, true);
    case Waits::End::kCancelled:
      // Who has a request id may come back to its place in the queue, as long as the lease of the wait lasts.
      if (a->call->request_id.empty()) abandon(a, false);
      return a->call->finish(Status(Code::kCancelled, "CANCELLED", "the client went away"));
    case Waits::End::kLookAgain: return look_again(a);
    case Waits::End::kStopping: return a->call->finish(stopping());
  }
}

void LocksService::abandon(const std::shared_ptr<Acquisition>& a, bool answer) {
  internal::v1::AbandonCommand command;
  command.set_kind(a->kind());
  command.set_name(a->name());
  command.set_waiter(a->waiter.id());
  command.set_rank(a->waiter.rank());
  command.set_release(!answer);
  propose_quietly(a->scope, "abandon", command, [this, a, answer](Result<machine::Applied> applied) {
    if (!answer) return;
    if (applied) {
      const auto result = services::parse<AcquireResult>(applied->response);
      if (result.has_holder()) return granted(a, result.holder(), result.row());
    }
    timeouts_.add();
    const int64_t waited_ms = env_.clock.boot().ms_since(a->started);
    a->call->finish(Status(Code::kDeadline, "LOCK_WAIT_TIMEOUT",
                           "the " + std::string(noun(a->kind())) + " " + a->name() + " was not free within " +
                               std::to_string(waited_ms) + " ms; the place in the queue is given up")
                        .with_resource(std::string(noun(a->kind())), a->name()));
  });
}

void LocksService::granted(const std::shared_ptr<Acquisition>& a, const PermitHolder& holder, const PermitRow& row) {
  wait_seconds_.observe(static_cast<double>(env_.clock.boot().us - a->started.us) / 1e6);
  if (holder.waiter() != 0) contended_.add();
  if (a->kind() == kLock) a->call->reply(shown_hold(row, a->scope.name_space, holder, times_).SerializeAsString());
  else a->call->reply(shown_lease(row, a->scope.name_space, holder, times_).SerializeAsString());
}

void LocksService::gave_up(const std::shared_ptr<Acquisition>& a) {
  a->call->finish(Status(Code::kFailedPrecondition, "HOLD_ENDED",
                         "the wait of this request for " + a->name() + " is over: it was granted and ended since, or " +
                             "the wait itself ended. Ask with a new request id")
                      .with_resource(std::string(noun(a->kind())), a->name()));
}

}  // namespace uccp::locks
