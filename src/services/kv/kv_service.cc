#include "services/kv/kv_service.h"

#include <memory>

#include "services/kv/kv_answers.h"
#include "services/kv/kv_hash.h"
#include "services/kv/kv_history.h"
#include "services/kv/kv_range.h"
#include "services/kv/kv_state.h"
#include "services/kv/kv_txn.h"
#include "services/kv/kv_writer.h"

namespace uccp::kv {
namespace {

using call::CallPtr;
using machine::GroupView;

// Keys that one step of a long range looks at, some milliseconds.
constexpr size_t kKeysPerStep = 4'000;

void put_session(const CallPtr& call, LogIndex index) {
  call->set_header("Uccp-Session", machine::session_token({{kCoreGroup, index}}));
}

// A long read, step by step, each a task of the work executor.
template <typename Run>
struct Steps : std::enable_shared_from_this<Steps<Run>> {
  Steps(CallPtr to, GroupView state, Run what, Executor& executor)
      : call(std::move(to)), view(std::move(state)), run(std::move(what)), work(executor) {}

  void step() {
    if (call->finished()) return;
    Result<bool> whole = run.step(view, kKeysPerStep);
    if (!whole) return call->finish(std::move(whole.error()));
    if (*whole) return call->reply(run.answer());
    work.post([self = this->shared_from_this()] { self->step(); });
  }

  const CallPtr call;
  const GroupView view;
  Run run;
  Executor& work;
};

}  // namespace

KvService::KvService(KvOptions options, KvEnvironment environment)
    : options_(options),
      env_(environment),
      watches_(WatchHub::make({env_.reader, env_.watcher, env_.events, env_.work, env_.clock, env_.metrics})) {}

void KvService::add_handlers(call::HandlerTable& handlers) {
  handlers.add(method_name("Put"), [this](const CallPtr& call, std::string bytes) { put(call, std::move(bytes)); });
  handlers.add(method_name("Delete"),
               [this](const CallPtr& call, std::string bytes) { erase(call, std::move(bytes)); });
  handlers.add_parsed<v1::GetRequest>(
      method_name("Get"), [this](const CallPtr& call, v1::GetRequest request) { get(call, std::move(request)); });
  handlers.add_parsed<v1::RangeRequest>(
      method_name("Range"), [this](const CallPtr& call, v1::RangeRequest request) { range(call, std::move(request)); });
  handlers.add(method_name("Txn"), [this](const CallPtr& call, std::string bytes) { txn(call, std::move(bytes)); });
  handlers.add(method_name("Compact"),
               [this](const CallPtr& call, std::string bytes) { compact(call, std::move(bytes)); });
  handlers.add(method_name("SetStoreQuota"),
               [this](const CallPtr& call, std::string bytes) { set_quota(call, std::move(bytes)); });
  handlers.add(method_name("GetStore"), [this](const CallPtr& call, const std::string&) { get_store(call); });
  handlers.add_parsed<v1::HashStoreRequest>(
      method_name("HashStore"),
      [this](const CallPtr& call, const v1::HashStoreRequest& request) { read_in_steps<StoreHash>(call, request); });
  handlers.add_parsed<v1::DiffRequest>(method_name("Diff"), [this](const CallPtr& call, v1::DiffRequest request) {
    read_in_steps<DiffAnswer>(call, std::move(request));
  });
  handlers.add_parsed<v1::GetHistoryRequest>(
      method_name("GetHistory"),
      [this](const CallPtr& call, v1::GetHistoryRequest request) { history(call, std::move(request)); });
  handlers.add(method_name("Rollback"),
               [this](const CallPtr& call, std::string bytes) { roll_back(call, std::move(bytes)); });
  handlers.add_parsed<v1::WatchRequest>(
      method_name("Watch"),
      [this](const CallPtr& call, const v1::WatchRequest& request) { watches_->open(call, request); });
  handlers.add_parsed<v1::ProbeWatchesRequest>(
      method_name("ProbeWatches"),
      [this](const CallPtr& call, const v1::ProbeWatchesRequest& request) { probe_watches(call, request); });
  add_lease_handlers(handlers);
}

internal::v1::KvLimits KvService::limits() const {
  internal::v1::KvLimits limits;
  limits.set_bytes_max(options_.bytes_max);
  limits.set_keys_max(options_.keys_max);
  limits.set_leases_max(options_.leases_max);
  limits.set_txn_operations_max(options_.txn_operations_max);
  return limits;
}

void KvService::propose(const CallPtr& call, std::string_view bytes, std::string_view verb,
                        const google::protobuf::MessageLite& command) {
  propose(call, bytes, verb, command, [call](std::string answer) { call->reply(std::move(answer)); });
}

void KvService::propose(const CallPtr& call, std::string_view bytes, std::string_view verb,
                        const google::protobuf::MessageLite& command, OnApplied on_applied) {
  if (bytes.size() > options_.request_bytes_max) {
    return call->finish(Status(Code::kInvalid, "KV_REQUEST_TOO_LARGE",
                               "the request has " + std::to_string(bytes.size()) + " bytes; at most " +
                                   std::to_string(options_.request_bytes_max) +
                                   " are taken. Keep large content elsewhere, and its address here")
                            .with_help("kv.md#limits"));
  }
  auto envelope =
      call::make_envelope(*call, bytes, std::string(kDomain) + "." + std::string(verb), command.SerializeAsString());
  env_.proposer.propose(kCoreGroup, std::move(envelope),
                        [call, on_applied = std::move(on_applied)](Result<machine::Applied> applied) mutable {
                          if (!applied) return call->finish(std::move(applied.error()));
                          put_session(call, applied->index);
                          on_applied(std::move(applied->response));
                        });
}

void KvService::read(const CallPtr& call, OnView on_view) {
  env_.reader.read(kCoreGroup, call->read_level, [call, on_view = std::move(on_view)](Result<GroupView> view) mutable {
    if (!view) return call->finish(std::move(view.error()));
    put_session(call, view->applied());
    on_view(call, std::move(*view));
  });
}

void KvService::put(const CallPtr& call, std::string bytes) {
  auto request = parse_or_finish<v1::PutRequest>(call, bytes);
  if (!request) return;
  internal::v1::KvPutCommand command;
  *command.mutable_request() = std::move(*request);
  *command.mutable_limits() = limits();
  propose(call, bytes, "put", command);
}

void KvService::erase(const CallPtr& call, std::string bytes) {
  auto request = parse_or_finish<v1::DeleteRequest>(call, bytes);
  if (!request) return;
  if (Status status = check_delete(*request); !status.is_ok()) return call->finish(std::move(status));
  if (request->key().empty()) call->resource = shown(request->prefix()) + "*";
  internal::v1::KvDeleteCommand command;
  *command.mutable_request() = std::move(*request);
  propose(call, bytes, "delete", command);
}

void KvService::txn(const CallPtr& call, std::string bytes) {
  auto request = parse_or_finish<v1::TxnRequest>(call, bytes);
  if (!request) return;
  if (Status status = check_txn(*request, options_.txn_operations_max); !status.is_ok()) {
    return call->finish(std::move(status));
  }
  internal::v1::KvTxnCommand command;
  *command.mutable_request() = std::move(*request);
  *command.mutable_limits() = limits();
  propose(call, bytes, "txn", command);
}

void KvService::compact(const CallPtr& call, std::string bytes) {
  const auto request = parse_or_finish<v1::CompactRequest>(call, bytes);
  if (!request) return;
  internal::v1::KvCompactCommand command;
  command.set_revision(request->revision());
  propose(call, bytes, "compact", command, [this, call, physical = request->physical()](std::string answer) {
    if (!physical) call->reply(answer);
    // Whatever interrupts the sweeping, the compaction is made; the next leader goes on.
    env_.sweeper.sweep(scope_of(*call), [call, physical, answer = std::move(answer)](const Status&) mutable {
      if (physical) call->reply(std::move(answer));
    });
  });
}

void KvService::set_quota(const CallPtr& call, std::string bytes) {
  auto request = parse_or_finish<v1::SetStoreQuotaRequest>(call, bytes);
  if (!request) return;
  internal::v1::KvQuotaCommand command;
  *command.mutable_request() = std::move(*request);
  *command.mutable_limits() = limits();
  propose(call, bytes, "quota", command);
}

void KvService::get_store(const CallPtr& call) {
  read(call, [this](const CallPtr& call, const GroupView& view) {
    const machine::Scope scope = scope_of(*call);
    call->reply(shown_store(scope, read_head(view, scope), limits()).SerializeAsString());
  });
}

template <typename Run, typename Request>
void KvService::read_in_steps(const CallPtr& call, Request request) {
  read(call, [this, request = std::move(request)](const CallPtr& call, GroupView view) {
    auto run = Run::make(request, scope_of(*call), read_head(view, scope_of(*call)));
    if (!run) return call->finish(std::move(run.error()));
    auto reading = std::make_shared<Steps<Run>>(call, std::move(view), std::move(*run), env_.work);
    env_.work.post([reading] { reading->step(); });
  });
}

void KvService::history(const CallPtr& call, v1::GetHistoryRequest request) {
  read(call, [this, request = std::move(request)](const CallPtr& call, GroupView view) {
    env_.work.post([call, request, view = std::move(view)] {
      const machine::Scope scope = scope_of(*call);
      auto answer = history_answer(view, scope, read_head(view, scope), request);
      if (!answer) return call->finish(std::move(answer.error()));
      call->reply(std::move(*answer));
    });
  });
}

void KvService::roll_back(const CallPtr& call, std::string bytes) {
  auto request = parse_or_finish<v1::RollbackRequest>(call, bytes);
  if (!request) return;
  if (Status status = check_rollback(*request); !status.is_ok()) return call->finish(std::move(status));
  if (request->validate_only()) return read_in_steps<RollbackPreview>(call, std::move(*request));
  internal::v1::KvRollbackCommand command;
  *command.mutable_request() = std::move(*request);
  *command.mutable_limits() = limits();
  propose(call, bytes, "rollback", command);
}

void KvService::probe_watches(const CallPtr& call, const v1::ProbeWatchesRequest& request) {
  read(call, [this, ids = std::vector<int64_t>(request.watch_ids().begin(), request.watch_ids().end())](
                 const CallPtr& call, const GroupView& view) mutable {
    watches_->probe(call, std::move(ids), read_head(view, scope_of(*call)).revision);
  });
}

void KvService::get(const CallPtr& call, v1::GetRequest request) {
  read(call, [request = std::move(request)](const CallPtr& call, const GroupView& view) {
    const machine::Scope scope = scope_of(*call);
    uint64_t at = UINT64_MAX;
    uint64_t current = at;
    // The newest version is one look-up; what the store's revision is does not matter for it.
    if (request.revision() > 0) {
      const Head head = read_head(view, scope);
      auto checked = revision_to_read(head, request.revision());
      if (!checked) return call->finish(std::move(checked.error()));
      at = *checked;
      current = head.revision;
    }
    const auto row = version_at(view, scope, request.key(), at, current);
    if (!row) return call->finish(key_not_found(request.key()));
    call->reply(encode_pair(request.key(), *decode_version(*row)));
  });
}

void KvService::range(const CallPtr& call, v1::RangeRequest request) {
  read(call, [this, request = std::move(request)](const CallPtr& call, GroupView view) {
    auto run = RangeRun::make(request, scope_of(*call), read_head(view, scope_of(*call)));
    if (!run) return call->finish(std::move(run.error()));
    auto reading = std::make_shared<Steps<RangeRun>>(call, std::move(view), std::move(*run), env_.work);
    if (reading->run.is_short()) return reading->step();
    env_.work.post([reading] { reading->step(); });
  });
}

}  // namespace uccp::kv
