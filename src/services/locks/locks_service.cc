#include "services/locks/locks_service.h"

#include "base/bytes.h"
#include "call/command.h"
#include "services/coordination_stream.h"
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
// A renewal only has to find its holder; a stale view that misses it is followed by a fresh one.
constexpr int64_t kRenewBoundMs = 5000;
// Counts for metrics may be old: a scrape must not wait.
constexpr int64_t kMetricsBoundMs = 24 * 3600 * 1000;

std::string method_name(std::string_view rpc) { return "uccp.v1.Coordination/" + std::string(rpc); }

void put_session(const CallPtr& call, LogIndex index) {
  call->set_header("Uccp-Session", machine::session_token({{kCoreGroup, index}}));
}

template <typename Message>
Message parse_result(const machine::Applied& applied) {
  return services::parse<Message>(applied.response);
}

Status not_found(PermitKind kind, const std::string& name) {
  const std::string what(noun(kind));
  return Status(Code::kNotFound, kind == kLock ? "LOCK_NOT_FOUND" : "SEMAPHORE_NOT_FOUND",
                "nobody holds the " + what + " " + name + " or waits for it")
      .with_resource(what, name);
}

}  // namespace

LocksService::LocksService(LocksEnvironment environment)
    : env_(std::move(environment)),
      times_(env_.clock.wall()),
      waits_(Waits::make(std::string(kTopic), {env_.watcher, env_.leases, env_.work, env_.clock},
                         [](const machine::Change& change) {
                           const auto kind = static_cast<ChangeKind>(change.kind);
                           if (kind != ChangeKind::kAcquired && kind != ChangeKind::kWaitEnded) return std::string();
                           internal::v1::PermitChange c;
                           const bool ok = c.ParseFromString(change.payload);
                           return ok && c.holder().waiter() != 0 ? wait_key(c.holder().waiter()) : std::string();
                         })),
      wait_seconds_(
          env_.metrics.histogram("uccp_lock_wait_seconds", "Time from asking for a lock or permits to the grant")),
      contended_(env_.metrics.counter("uccp_lock_contended_total", "Grants of locks and permits that had to wait")),
      timeouts_(env_.metrics.counter("uccp_lock_wait_timeouts_total",
                                     "Waits for locks and permits that ended without a grant")),
      deadlocks_(
          env_.metrics.counter("uccp_lock_deadlocks_total", "Waits refused because they would never have ended")) {
  struct Last {
    std::mutex mutex;
    internal::v1::PermitTotals totals;
  };
  const auto totals = [&reader = env_.reader, last = std::make_shared<Last>()] {
    reader.read(kCoreGroup, ReadLevel::bounded(kMetricsBoundMs), [last](Result<GroupView> view) {
      if (!view) return;
      auto fresh = read_totals(*view);
      std::lock_guard lock(last->mutex);
      last->totals = std::move(fresh);
    });
    std::lock_guard lock(last->mutex);
    return last->totals;
  };
  env_.metrics.callback("uccp_locks_held", "Holds of locks",
                        [totals] { return static_cast<double>(totals().locks_held()); });
  env_.metrics.callback("uccp_lock_waiters", "Waits for locks",
                        [totals] { return static_cast<double>(totals().lock_waiters()); });
  env_.metrics.callback("uccp_semaphore_permits_held", "Permits of semaphores that are held",
                        [totals] { return static_cast<double>(totals().permits_held()); });
  env_.metrics.callback("uccp_semaphore_waiters", "Waits for permits of semaphores",
                        [totals] { return static_cast<double>(totals().semaphore_waiters()); });
}

void LocksService::add_handlers(call::HandlerTable& handlers) {
  using Bytes = void (LocksService::*)(const CallPtr&, std::string);
  const std::pair<std::string_view, Bytes> changes[] = {{"AcquireLock", &LocksService::acquire_lock},
                                                        {"TryLock", &LocksService::try_lock},
                                                        {"AcquireReadLock", &LocksService::acquire_read_lock},
                                                        {"AcquireSemaphore", &LocksService::acquire_semaphore},
                                                        {"ReleaseLock", &LocksService::release_lock},
                                                        {"ReleaseSemaphore", &LocksService::release_semaphore},
                                                        {"TransferLock", &LocksService::transfer},
                                                        {"BreakLock", &LocksService::break_lock}};
  for (const auto& [rpc, function] : changes) {
    handlers.add(method_name(rpc), [this, function](const CallPtr& call, std::string bytes) {
      (this->*function)(call, std::move(bytes));
    });
  }
  const auto parsed = [&]<typename Request>(std::string_view rpc,
                                            void (LocksService::*function)(const CallPtr&, const Request&)) {
    handlers.add_parsed<Request>(method_name(rpc), [this, function](const CallPtr& call, const Request& request) {
      (this->*function)(call, request);
    });
  };
  parsed("RenewLock", &LocksService::renew_lock);
  parsed("RenewSemaphore", &LocksService::renew_semaphore);
  parsed("GetLock", &LocksService::get_lock);
  parsed("GetSemaphore", &LocksService::get_semaphore);
  parsed("CheckFencingToken", &LocksService::check_token);
  parsed("GetLockStatistics", &LocksService::statistics);
  parsed("WatchLocks", &LocksService::watch);
  handlers.add(method_name("ListLocks"), [this](const CallPtr& call, std::string bytes) {
    auto request = call::parse_request<v1::ListLocksRequest>(bytes);
    if (!request) return call->finish(std::move(request.error()));
    list(call, std::move(bytes), kLock, request->prefix());
  });
  handlers.add(method_name("ListSemaphores"),
               [this](const CallPtr& call, std::string bytes) { list(call, std::move(bytes), kSemaphore, ""); });
}

uint64_t LocksService::draw() {
  std::lock_guard lock(random_mutex_);
  return env_.random.next();
}

void LocksService::propose(const CallPtr& call, std::string_view bytes, std::string_view verb,
                           const google::protobuf::MessageLite& payload, OnApplied done) {
  if (call->deadline && *call->deadline <= env_.clock.boot()) {
    return call->finish(Status(Code::kDeadline, "DEADLINE_EXCEEDED", "the deadline passed before the change was made"));
  }
  auto envelope =
      call::make_envelope(*call, bytes, std::string(kDomain) + "." + std::string(verb), payload.SerializeAsString());
  // A renewal is repeatable by nature: a key that came with it must not freeze its effect.
  if (call->method->naturally_idempotent) envelope.dedup = {};
  env_.proposer.propose(kCoreGroup, std::move(envelope),
                        [call, done = std::move(done)](Result<machine::Applied> applied) mutable {
                          if (!applied) return call->finish(std::move(applied.error()));
                          put_session(call, applied->index);
                          done(call, std::move(*applied));
                        });
}

void LocksService::propose_quietly(const machine::Scope& scope, std::string_view verb,
                                   const google::protobuf::MessageLite& payload, machine::Proposer::Done done) {
  machine::Envelope envelope;
  envelope.scope = scope;
  envelope.principal = "system";
  envelope.command = std::string(kDomain) + "." + std::string(verb);
  envelope.payload = payload.SerializeAsString();
  env_.proposer.propose(kCoreGroup, std::move(envelope), std::move(done));
}

void LocksService::read(const CallPtr& call, OnView on_view) {
  env_.reader.read(kCoreGroup, call->read_level, [call, on_view = std::move(on_view)](Result<GroupView> view) mutable {
    if (!view) return call->finish(std::move(view.error()));
    put_session(call, view->applied());
    on_view(call, std::move(*view));
  });
}

// --- what holders do ------------------------------------------------------------------------------------------------

namespace {

Result<internal::v1::HolderCommand> holder_command(PermitKind kind, const std::string& name,
                                                   const std::string& lease_id) {
  UCCP_TRY(const coordination::LeaseProof proof, coordination::parse_lease(lease_id));
  internal::v1::HolderCommand command;
  command.set_kind(kind);
  command.set_name(name);
  command.set_lease(proof.lease);
  command.set_secret(proof.secret);
  return command;
}

}  // namespace

void LocksService::release_lock(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::ReleaseLockRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  auto command = holder_command(kLock, request->name(), request->lease_id());
  if (!command) return call->finish(std::move(command.error()));
  command->set_all(request->all());
  propose(call, bytes, "release", *command,
          [](const CallPtr& call, machine::Applied) { call->reply(v1::ReleaseLockResponse().SerializeAsString()); });
}

void LocksService::release_semaphore(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::ReleaseSemaphoreRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  auto command = holder_command(kSemaphore, request->name(), request->lease_id());
  if (!command) return call->finish(std::move(command.error()));
  propose(call, bytes, "release", *command, [](const CallPtr& call, machine::Applied applied) {
    const auto row = parse_result<PermitRow>(applied);
    v1::ReleaseSemaphoreResponse response;
    response.set_available(row.capacity() - row.held());
    call->reply(response.SerializeAsString());
  });
}

void LocksService::transfer(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::TransferLockRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  auto command = holder_command(kLock, request->name(), request->lease_id());
  if (!command) return call->finish(std::move(command.error()));
  command->set_new_owner(request->new_owner());
  command->set_new_secret(draw());
  command->set_ttl_ms(ms_of(request->ttl()));
  propose(call, bytes, "transfer", *command, [this](const CallPtr& call, machine::Applied applied) {
    const auto result = parse_result<AcquireResult>(applied);
    call->reply(shown_hold(result.row(), call->name_space, result.holder(), times_).SerializeAsString());
  });
}

void LocksService::break_lock(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::BreakLockRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  internal::v1::BreakCommand command;
  command.set_kind(kLock);
  command.set_name(request->name());
  command.set_fencing_token(request->fencing_token());
  propose(call, bytes, "break", command, [this](const CallPtr& call, machine::Applied applied) {
    const auto result = parse_result<internal::v1::BreakResult>(applied);
    v1::BreakLockResponse response;
    for (const PermitHolder& holder : result.holders()) show_hold(holder, times_, response.add_broken());
    call->reply(response.SerializeAsString());
  });
}

void LocksService::renew_lock(const CallPtr& call, const v1::RenewLockRequest& request) {
  auto proof = coordination::parse_lease(request.lease_id());
  if (!proof) return call->finish(std::move(proof.error()));
  renew(call,
        {kLock, request.name(), *proof, ms_of(request.ttl()),
         [this, call](const PermitRow& row, const PermitHolder& holder) {
           call->reply(shown_hold(row, call->name_space, holder, times_).SerializeAsString());
         }},
        ReadLevel::bounded(kRenewBoundMs));
}

void LocksService::renew_semaphore(const CallPtr& call, const v1::RenewSemaphoreRequest& request) {
  auto proof = coordination::parse_lease(request.lease_id());
  if (!proof) return call->finish(std::move(proof.error()));
  renew(call,
        {kSemaphore, request.name(), *proof, ms_of(request.ttl()),
         [this, call](const PermitRow& row, const PermitHolder& holder) {
           call->reply(shown_lease(row, call->name_space, holder, times_).SerializeAsString());
         }},
        ReadLevel::bounded(kRenewBoundMs));
}

void LocksService::renew(const CallPtr& call, Renewal renewal, const ReadLevel& level) {
  const bool fresh = level.kind == ReadLevel::Kind::kLinearizable;
  env_.reader.read(
      kCoreGroup, level, [this, call, fresh, renewal = std::move(renewal)](Result<GroupView> view) mutable {
        if (!view) return call->finish(std::move(view.error()));
        const auto scope = scope_of(*call);
        const auto holder =
            find_holder(*view, scope, renewal.kind, renewal.name, renewal.proof.lease, renewal.proof.secret);
        if (!holder && fresh) return call->finish(not_held(renewal.kind, renewal.name));
        if (!holder) return renew(call, std::move(renewal), ReadLevel::linearizable());
        const auto row = find_permits(*view, scope, renewal.kind, renewal.name).value_or(PermitRow());
        if (renewal.ttl_ms > 0 && renewal.ttl_ms != holder->ttl_ms()) {
          internal::v1::HolderCommand command;
          command.set_kind(renewal.kind);
          command.set_name(renewal.name);
          command.set_lease(renewal.proof.lease);
          command.set_secret(renewal.proof.secret);
          command.set_ttl_ms(renewal.ttl_ms);
          return propose(call, "", "extend", command,
                         [this, renewal = std::move(renewal)](const CallPtr&, machine::Applied applied) {
                           const auto result = parse_result<AcquireResult>(applied);
                           times_.heard(result.holder().lease(), env_.clock.wall(), result.holder().ttl_ms());
                           renewal.answer(result.row(), result.holder());
                         });
        }
        // The same ttl again is no log entry.
        env_.leases.keep_alive(
            kCoreGroup, holder->lease(),
            [this, call, row, holder = *holder, renewal = std::move(renewal)](Result<int64_t> ttl) mutable {
              if (!ttl) {
                const bool gone = ttl.error().code() == Code::kNotFound;
                return call->finish(gone ? not_held(renewal.kind, renewal.name) : std::move(ttl.error()));
              }
              holder.set_ttl_ms(*ttl);
              times_.heard(holder.lease(), env_.clock.wall(), *ttl);
              renewal.answer(row, holder);
            });
      });
}

// --- reads ----------------------------------------------------------------------------------------------------------

void LocksService::get_lock(const CallPtr& call, const v1::GetLockRequest& request) {
  read(call, [this, name = request.name()](const CallPtr& call, const GroupView& view) {
    const auto scope = scope_of(*call);
    const auto row = find_permits(view, scope, kLock, name);
    if (!row || (row->holders() == 0 && row->waiters() == 0)) return call->finish(not_found(kLock, name));
    call->reply(shown_lock(view, scope, *row, times_, -1).SerializeAsString());
  });
}

void LocksService::get_semaphore(const CallPtr& call, const v1::GetSemaphoreRequest& request) {
  read(call, [this, name = request.name()](const CallPtr& call, const GroupView& view) {
    const auto row = find_permits(view, scope_of(*call), kSemaphore, name);
    if (!row) return call->finish(not_found(kSemaphore, name));
    call->reply(shown_semaphore(view, scope_of(*call), *row, times_).SerializeAsString());
  });
}

void LocksService::check_token(const CallPtr& call, const v1::CheckFencingTokenRequest& request) {
  const auto answer = [this, call, request](Result<GroupView> view) {
    if (!view) return call->finish(std::move(view.error()));
    put_session(call, view->applied());
    std::optional<PermitHolder> found;
    uint64_t greatest = 0;
    if (const auto row = find_permits(*view, scope_of(*call), kLock, request.name())) {
      scan_holders(*view, scope_of(*call), *row, [&](PermitHolder holder) {
        greatest = std::max(greatest, holder.fencing_token());
        if (holder.fencing_token() == request.fencing_token()) found = std::move(holder);
        return !found;
      });
    }
    if (!found) {
      return call->finish(Status(Code::kFailedPrecondition, "FENCING_TOKEN_STALE",
                                 "the lock " + request.name() + " is not held with the token " +
                                     std::to_string(request.fencing_token()) +
                                     (greatest == 0 ? ": nobody holds it" : " but with " + std::to_string(greatest)) +
                                     "; refuse what came with it")
                              .with_resource("lock", request.name()));
    }
    call->reply(shown_check(request.name(), *found, times_).SerializeAsString());
  };
  env_.reader.read(kCoreGroup, ReadLevel::linearizable(), answer);
}

void LocksService::statistics(const CallPtr& call, const v1::GetLockStatisticsRequest& request) {
  read(call, [name = request.name()](const CallPtr& call, const GroupView& view) {
    const auto row = find_permits(view, scope_of(*call), kLock, name);
    if (!row) {
      return call->finish(Status(Code::kNotFound, "LOCK_NOT_FOUND", "the lock " + name + " was not used within a day")
                              .with_resource("lock", name));
    }
    call->reply(shown_statistics(*row).SerializeAsString());
  });
}

void LocksService::list(const CallPtr& call, std::string bytes, PermitKind kind, std::string prefix) {
  const auto scope = scope_of(*call);
  // Keys of several namespaces are not in the order of names.
  auto query = call::compile_list(*call->method, bytes,
                                  {.signer = &env_.page_tokens,
                                   .now = env_.clock.wall(),
                                   .scope = scope,
                                   .key_order = scope.name_space == "-" ? "" : "name"});
  if (!query) return call->finish(std::move(query.error()));
  read(call,
       [this, scope, kind, prefix = std::move(prefix), query = std::move(*query)](const CallPtr& call, GroupView view) {
         env_.work.post([this, call, scope, kind, prefix, query, view = std::move(view)] {
           if (call->finished()) return;
           auto page = call::paginate(query, [&](std::string_view after, const call::VisitRow& visit) {
             scan_permits(view, scope, kind, prefix, after,
                          [&](std::string_view position, const machine::Scope& at, const PermitRow& row) {
                            return visit(position,
                                         kind == kLock
                                             ? shown_lock(view, at, row, times_, kListedHoldersMax).SerializeAsString()
                                             : shown_semaphore(view, at, row, times_).SerializeAsString());
                          });
           });
           if (!page) return call->finish(std::move(page.error()));
           call->reply(call::encode_page(*call->method, *page));
         });
       });
}

services::ChangeTopic LocksService::change_topic() const {
  return {.name = "$sys.locks",
          .group = kCoreGroup,
          .feed = std::string(kTopic),
          .permission = "locks.read",
          .resource_type = "uccp.v1.Lock",
          .show = [this](const machine::Change& change) -> std::optional<services::ShownChange> {
            if (static_cast<ChangeKind>(change.kind) == ChangeKind::kWaitEnded) return std::nullopt;
            const auto c = services::parse<internal::v1::PermitChange>(change.payload);
            if (c.row().kind() != kLock) return std::nullopt;
            const auto kind = static_cast<v1::LockEventKind>(change.kind);
            return services::ShownChange{services::change_type("lock", v1::LockEventKind_Name(kind)), c.row().name(),
                                         shown_change(c, change.scope.name_space, times_).SerializeAsString()};
          }};
}

void LocksService::watch(const CallPtr& call, const v1::WatchLocksRequest& request) {
  const auto scope = scope_of(*call);
  const auto item = [](v1::LockEventKind kind, v1::Lock lock) {
    v1::LockEvent event;
    event.set_kind(kind);
    *event.mutable_lock() = std::move(lock);
    return event.SerializeAsString();
  };
  coordination::EventStream::Source source{.topic = std::string(kTopic), .scope = scope};
  source.initial = [this, scope, item, prefix = request.prefix()](const GroupView& view, std::string_view position,
                                                                  const coordination::EventStream::Visit& visit) {
    scan_permits(
        view, scope, kLock, prefix, position, [&](std::string_view at, const machine::Scope&, const PermitRow& row) {
          if (row.holders() == 0) return true;
          return visit(at, item(v1::LOCK_EVENT_KIND_ACQUIRED, shown_lock(view, scope, row, times_, kListedHoldersMax)));
        });
  };
  v1::LockEvent synced;
  synced.set_kind(v1::LOCK_EVENT_KIND_SYNCED);
  source.synced = synced.SerializeAsString();
  source.changed = [this, item, prefix = request.prefix(),
                    name_space = scope.name_space](const machine::Change& change) -> std::optional<std::string> {
    if (static_cast<ChangeKind>(change.kind) == ChangeKind::kWaitEnded) return std::nullopt;
    const auto c = services::parse<internal::v1::PermitChange>(change.payload);
    if (c.row().kind() != kLock || !c.row().name().starts_with(prefix)) return std::nullopt;
    return item(static_cast<v1::LockEventKind>(change.kind), shown_change(c, name_space, times_));
  };
  Status status = coordination::EventStream::open(call, request.since(), std::move(source),
                                                  {env_.reader, env_.watcher, env_.work, env_.clock});
  if (!status.is_ok()) call->finish(std::move(status));
}

}  // namespace uccp::locks
