#include "services/sync/sync_service.h"

#include "base/bytes.h"
#include "call/command.h"
#include "services/message_types.h"

namespace uccp::sync {
namespace {

using call::CallPtr;
using coordination::scope_of;
using coordination::Waits;
using internal::v1::ArriveResult;
using internal::v1::BarrierPast;
using internal::v1::BarrierRow;
using internal::v1::LatchRow;
using machine::GroupView;
using machine::ReadLevel;
using services::ms_of;
using services::parse;

constexpr int64_t kLatchTtlDefaultMs = 24 * 3600 * 1000;

std::string method_name(std::string_view rpc) { return "uccp.v1.Coordination/" + std::string(rpc); }
void put_session(const CallPtr& call, LogIndex index) {
  call->set_header("Uccp-Session", machine::session_token({{kCoreGroup, index}}));
}

std::string barrier_key(const machine::Scope& scope, std::string_view name, uint64_t generation) {
  return ByteWriter().u8(1).key_part(scope.tenant).key_part(scope.name_space).key_part(name).u64(generation).take();
}
std::string latch_key(const machine::Scope& scope, std::string_view name) {
  return ByteWriter().u8(2).key_part(scope.tenant).key_part(scope.name_space).key_part(name).take();
}

v1::Barrier shown_barrier(const machine::KeyReader& state, const machine::Scope& scope, const BarrierRow& row) {
  v1::Barrier out;
  out.set_name(row.name());
  out.set_namespace_(scope.name_space);
  out.set_parties(row.parties());
  out.set_arrived(row.arrived());
  out.set_generation(row.generation());
  scan_participants(state, scope, row, [&](std::string_view who) {
    out.add_participants(std::string(who));
    return true;
  });
  return out;
}

std::string shown_latch(const LatchRow& row, const std::string& name_space) {
  v1::Latch out;
  out.set_name(row.name());
  out.set_namespace_(name_space);
  out.set_count(row.count());
  out.set_remaining(row.remaining());
  out.set_open(row.remaining() == 0);
  services::set_ms(out.mutable_ttl(), row.ttl_ms());
  *out.mutable_create_time() = row.create_time();
  if (row.has_open_time()) *out.mutable_open_time() = row.open_time();
  return out.SerializeAsString();
}

Status interrupted() {
  return Status(Code::kUnavailable, "WAIT_INTERRUPTED",
                "this node no longer serves the wait; ask again with the same request id")
      .with_retry_after_ms(200);
}

Status broken(const std::string& name) {
  return Status(Code::kConflict, "BARRIER_BROKEN",
                "the barrier " + name + " was reset, or a participant that was counted is lost; all have to come again")
      .with_resource("barrier", name);
}

}  // namespace

// One call that waits at a barrier.
struct SyncService::Party {
  CallPtr call;
  machine::Scope scope;
  internal::v1::ArriveCommand command;
  int64_t wait_ms = -1;
  BootTime started;
  ArriveResult arrived;
};

// One call that waits for a latch.
struct SyncService::LatchWait {
  CallPtr call;
  machine::Scope scope;
  std::string name;
  BootTime until;
};

SyncService::SyncService(SyncEnvironment environment)
    : env_(environment),
      waits_(Waits::make(
          std::string(kTopic), {env_.watcher, env_.leases, env_.work, env_.clock}, [](const machine::Change& change) {
            const auto kind = static_cast<ChangeKind>(change.kind);
            if (kind == ChangeKind::kLatchOpened || kind == ChangeKind::kLatchDeleted) {
              return latch_key(change.scope, change.key);
            }
            return barrier_key(change.scope, change.key, parse<BarrierPast>(change.payload).generation());
          })) {}

void SyncService::add_handlers(call::HandlerTable& handlers) {
  using Bytes = void (SyncService::*)(const CallPtr&, std::string);
  const std::pair<std::string_view, Bytes> changes[] = {{"WaitBarrier", &SyncService::wait_barrier},
                                                        {"ResetBarrier", &SyncService::reset_barrier},
                                                        {"CreateLatch", &SyncService::create_latch},
                                                        {"CountDownLatch", &SyncService::count_down},
                                                        {"DeleteLatch", &SyncService::delete_latch}};
  for (const auto& [rpc, function] : changes) {
    handlers.add(method_name(rpc), [this, function](const CallPtr& call, std::string bytes) {
      (this->*function)(call, std::move(bytes));
    });
  }
  handlers.add_dry(method_name("CountDownLatch"),
                   [this](const CallPtr& call, const std::string& bytes) { count_down_dry(call, bytes); });
  handlers.add_parsed<v1::GetBarrierRequest>(
      method_name("GetBarrier"),
      [this](const CallPtr& call, const v1::GetBarrierRequest& request) { get_barrier(call, request); });
  handlers.add_parsed<v1::WaitLatchRequest>(
      method_name("WaitLatch"),
      [this](const CallPtr& call, const v1::WaitLatchRequest& request) { wait_latch(call, request); });
}

void SyncService::propose(const CallPtr& call, std::string_view bytes, std::string_view verb,
                          const google::protobuf::MessageLite& payload, std::function<void(machine::Applied)> done) {
  auto envelope =
      call::make_envelope(*call, bytes, std::string(kDomain) + "." + std::string(verb), payload.SerializeAsString());
  env_.proposer.propose(kCoreGroup, std::move(envelope),
                        [call, done = std::move(done)](Result<machine::Applied> applied) {
                          if (!applied) return call->finish(std::move(applied.error()));
                          put_session(call, applied->index);
                          done(std::move(*applied));
                        });
}

// --- barriers -------------------------------------------------------------------------------------------------------

void SyncService::wait_barrier(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::WaitBarrierRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  auto party = std::make_shared<Party>();
  party->call = call;
  party->scope = scope_of(*call);
  party->started = env_.clock.boot();
  party->wait_ms = request->has_wait_timeout() ? ms_of(request->wait_timeout()) : -1;
  party->command.set_name(request->name());
  party->command.set_parties(request->parties());
  party->command.set_participant(request->participant().empty() ? coordination::default_owner(*call)
                                                                : request->participant());
  party->command.set_waiter_ttl_ms(coordination::kWaiterTtlMs);
  propose(call, bytes, "arrive", party->command, [this, party](const machine::Applied& applied) {
    party->arrived = parse<ArriveResult>(applied.response);
    if (party->arrived.has_past()) return passed(party, party->arrived.past());
    wait(party, applied.index);
  });
}

void SyncService::wait(const std::shared_ptr<Party>& party, LogIndex since) {
  Waits::Wait w;
  w.key = barrier_key(party->scope, party->command.name(), party->arrived.generation());
  w.since = since;
  w.lease = party->arrived.lease();
  w.lease_ttl_ms = party->command.waiter_ttl_ms();
  w.until = coordination::wait_until(*party->call, party->wait_ms, party->started);
  const uint64_t id =
      waits_->add(party->call, std::move(w),
                  [this, party](Waits::End why, const machine::Change* change) { wait_ended(party, why, change); });
  look(party, id, since);
}

// It may have opened between the command and now; of a repeated request long ago.
void SyncService::look(const std::shared_ptr<Party>& party, uint64_t wait_id, LogIndex since) {
  const ReadLevel level{.kind = ReadLevel::Kind::kSession, .token = {{kCoreGroup, since}}};
  env_.reader.read(kCoreGroup, level, [this, party, wait_id](Result<GroupView> view) {
    if (!view) return;
    const std::string& name = party->command.name();
    const auto p = find_participant(*view, party->scope, name, party->command.participant());
    if (p && p->generation() == party->arrived.generation()) return;
    if (!waits_->remove(wait_id)) return;
    const auto row = kBarriers.get(*view, party->scope, name).value_or(BarrierRow());
    const auto past = find_past(row, party->arrived.generation());
    if (past) return passed(party, *past);
    party->call->finish(broken(name));
  });
}

void SyncService::wait_ended(const std::shared_ptr<Party>& party, Waits::End why, const machine::Change* change) {
  switch (why) {
    case Waits::End::kChange:
      put_session(party->call, change->index);
      return passed(party, parse<BarrierPast>(change->payload));
    case Waits::End::kTimeout: return withdraw(party, true);
    case Waits::End::kCancelled:
      // Who has a request id may come back, as long as the lease of the wait lasts.
      if (party->call->request_id.empty()) withdraw(party, false);
      return party->call->finish(Status(Code::kCancelled, "CANCELLED", "the client went away"));
    case Waits::End::kLookAgain:
      return env_.reader.read(kCoreGroup, ReadLevel::linearizable(), [this, party](Result<GroupView> view) {
        if (!view) return party->call->finish(interrupted());
        wait(party, view->applied());
      });
    case Waits::End::kStopping: return party->call->finish(interrupted());
  }
}

void SyncService::withdraw(const std::shared_ptr<Party>& party, bool answer) {
  internal::v1::WithdrawCommand command;
  command.set_name(party->command.name());
  command.set_participant(party->command.participant());
  command.set_generation(party->arrived.generation());
  machine::Envelope envelope;
  envelope.scope = party->scope;
  envelope.principal = "system";
  envelope.command = std::string(kDomain) + ".withdraw";
  envelope.payload = command.SerializeAsString();
  env_.proposer.propose(kCoreGroup, std::move(envelope), [this, party, answer](Result<machine::Applied> applied) {
    if (!answer) return;
    if (applied) {
      const auto result = parse<ArriveResult>(applied->response);
      if (result.has_past()) return passed(party, result.past());
    }
    party->call->finish(Status(Code::kDeadline, "BARRIER_WAIT_TIMEOUT",
                               "not all " + std::to_string(party->command.parties()) + " parties came to " +
                                   party->command.name() + " in time; this one no longer counts")
                            .with_resource("barrier", party->command.name()));
  });
}

void SyncService::passed(const std::shared_ptr<Party>& party, const BarrierPast& past) {
  if (!past.opened()) return party->call->finish(broken(party->command.name()));
  v1::BarrierPassage passage;
  passage.set_name(party->command.name());
  passage.set_generation(past.generation());
  passage.set_arrival_index(party->arrived.arrival_index());
  passage.set_parties(past.parties());
  *passage.mutable_open_time() = past.time();
  party->call->reply(passage.SerializeAsString());
}

void SyncService::get_barrier(const CallPtr& call, const v1::GetBarrierRequest& request) {
  env_.reader.read(kCoreGroup, call->read_level, [call, name = request.name()](Result<GroupView> view) {
    if (!view) return call->finish(std::move(view.error()));
    put_session(call, view->applied());
    const auto row = kBarriers.get(*view, scope_of(*call), name);
    if (!row) return call->finish(barrier_not_found(name));
    call->reply(shown_barrier(*view, scope_of(*call), *row).SerializeAsString());
  });
}

void SyncService::reset_barrier(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::ResetBarrierRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  internal::v1::ResetCommand command;
  command.set_name(request->name());
  if (request->has_generation()) command.set_generation(request->generation());
  propose(call, bytes, "reset", command, [call](const machine::Applied& applied) {
    const auto row = parse<BarrierRow>(applied.response);
    v1::Barrier out;
    out.set_name(row.name());
    out.set_namespace_(call->name_space);
    out.set_parties(row.parties());
    out.set_generation(row.generation());
    call->reply(out.SerializeAsString());
  });
}

// --- latches --------------------------------------------------------------------------------------------------------

void SyncService::create_latch(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::CreateLatchRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  internal::v1::LatchCommand command;
  command.set_name(request->latch().name());
  command.set_count(request->latch().count());
  command.set_ttl_ms(request->latch().has_ttl() ? ms_of(request->latch().ttl()) : kLatchTtlDefaultMs);
  propose(call, bytes, "create_latch", command, [call](const machine::Applied& applied) {
    call->reply(shown_latch(parse<LatchRow>(applied.response), call->name_space));
  });
}

void SyncService::count_down(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::CountDownLatchRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  internal::v1::LatchCommand command;
  command.set_name(request->name());
  command.set_count(std::max(1, request->steps()));
  propose(call, bytes, "count_down", command, [call](const machine::Applied& applied) {
    call->reply(shown_latch(parse<LatchRow>(applied.response), call->name_space));
  });
}

void SyncService::count_down_dry(const CallPtr& call, const std::string& bytes) {
  auto request = call::parse_request<v1::CountDownLatchRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  env_.reader.read(kCoreGroup, call->read_level, [call, request = std::move(*request)](Result<GroupView> view) {
    if (!view) return call->finish(std::move(view.error()));
    auto row = kLatches.get(*view, scope_of(*call), request.name());
    if (!row) return call->finish(latch_not_found(request.name()));
    row->set_remaining(std::max(0, row->remaining() - std::max(1, request.steps())));
    call->reply(shown_latch(*row, call->name_space));
  });
}

void SyncService::delete_latch(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::DeleteLatchRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  internal::v1::LatchCommand command;
  command.set_name(request->name());
  propose(call, bytes, "delete_latch", command,
          [call](const machine::Applied&) { call->reply(v1::DeleteLatchResponse().SerializeAsString()); });
}

void SyncService::wait_latch(const CallPtr& call, const v1::WaitLatchRequest& request) {
  auto wait = std::make_shared<LatchWait>();
  wait->call = call;
  wait->scope = scope_of(*call);
  wait->name = request.name();
  const BootTime now = env_.clock.boot();
  const int64_t wait_ms = ms_of(request.wait_timeout());
  wait->until = coordination::wait_until(*call, wait_ms, now);
  env_.reader.read(kCoreGroup, call->read_level, [this, wait, wait_ms](Result<GroupView> view) {
    if (!view) return wait->call->finish(std::move(view.error()));
    answer_latch(wait, *view, wait_ms > 0);
  });
}

void SyncService::answer_latch(const std::shared_ptr<LatchWait>& wait, const GroupView& view, bool may_wait) {
  const auto row = kLatches.get(view, wait->scope, wait->name);
  if (!row) return wait->call->finish(latch_not_found(wait->name));
  if (row->remaining() == 0 || !may_wait) {
    put_session(wait->call, view.applied());
    return wait->call->reply(shown_latch(*row, wait->scope.name_space));
  }
  Waits::Wait w;
  w.key = latch_key(wait->scope, wait->name);
  w.since = view.applied();
  w.until = wait->until;
  const auto again = [this, wait](bool may_wait_on) {
    env_.reader.read(kCoreGroup, ReadLevel::linearizable(), [this, wait, may_wait_on](Result<GroupView> view) {
      if (!view) return wait->call->finish(std::move(view.error()));
      answer_latch(wait, *view, may_wait_on);
    });
  };
  const uint64_t id =
      waits_->add(wait->call, std::move(w), [wait, again](Waits::End why, const machine::Change* change) {
        switch (why) {
          case Waits::End::kChange:
            put_session(wait->call, change->index);
            if (static_cast<ChangeKind>(change->kind) == ChangeKind::kLatchDeleted)
              return wait->call->finish(latch_not_found(wait->name));
            return wait->call->reply(shown_latch(parse<LatchRow>(change->payload), wait->scope.name_space));
          case Waits::End::kTimeout: return again(false);
          case Waits::End::kLookAgain: return again(true);
          case Waits::End::kCancelled:
            return wait->call->finish(Status(Code::kCancelled, "CANCELLED", "the client went away"));
          case Waits::End::kStopping: return wait->call->finish(interrupted());
        }
      });
  // What happened before the wait was noted is in the state of now.
  const ReadLevel level{.kind = ReadLevel::Kind::kSession, .token = {{kCoreGroup, view.applied()}}};
  env_.reader.read(kCoreGroup, level, [this, wait, id](Result<GroupView> fresh) {
    if (!fresh) return;
    const auto row = kLatches.get(*fresh, wait->scope, wait->name);
    if ((row && row->remaining() > 0) || !waits_->remove(id)) return;
    answer_latch(wait, *fresh, false);
  });
}

}  // namespace uccp::sync
