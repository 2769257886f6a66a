// Leases of keys: grant, revoke, keep alive, look at. How long one has left is known on the leader only.
#include "base/bytes.h"
#include "services/kv/kv_answers.h"
#include "services/kv/kv_service.h"
#include "services/message_types.h"

namespace uccp::kv {
namespace {

using call::CallPtr;
using machine::GroupView;
using machine::ReadLevel;
using services::ms_of;
using services::set_ms;

constexpr int64_t kKeepAliveBoundMs = 5'000;
constexpr int64_t kTtlDefaultMs = 30'000;
constexpr size_t kKeysShownMax = 100'000;

// The lease is gone from the leader's memory: it ended.
Status ended(int64_t id, Status status) {
  return status.code() == Code::kNotFound ? lease_not_found(id) : std::move(status);
}

}  // namespace

void KvService::add_lease_handlers(call::HandlerTable& handlers) {
  handlers.add(method_name("GrantLease"),
               [this](const CallPtr& call, std::string bytes) { grant(call, std::move(bytes)); });
  handlers.add(method_name("RevokeLease"),
               [this](const CallPtr& call, std::string bytes) { revoke(call, std::move(bytes)); });
  handlers.add_parsed<v1::KeepLeaseAliveRequest>(
      method_name("KeepLeaseAlive"), [this](const CallPtr& call, const v1::KeepLeaseAliveRequest& request) {
        keep_alive(call, request.id(), ReadLevel::bounded(kKeepAliveBoundMs));
      });
  handlers.add_parsed<v1::GetLeaseRequest>(
      method_name("GetLease"),
      [this](const CallPtr& call, const v1::GetLeaseRequest& request) { get_lease(call, request); });
  handlers.add(method_name("ListLeases"),
               [this](const CallPtr& call, std::string bytes) { list_leases(call, std::move(bytes)); });
}

void KvService::grant(const CallPtr& call, std::string bytes) {
  const auto request = parse_or_finish<v1::GrantLeaseRequest>(call, bytes);
  if (!request) return;
  internal::v1::KvGrantCommand command;
  command.set_id(request->id());
  command.set_ttl_ms(request->has_ttl() ? ms_of(request->ttl()) : kTtlDefaultMs);
  *command.mutable_limits() = limits();
  propose(call, bytes, "grant", command);
}

void KvService::revoke(const CallPtr& call, std::string bytes) {
  const auto request = parse_or_finish<v1::RevokeLeaseRequest>(call, bytes);
  if (!request) return;
  internal::v1::KvRevokeCommand command;
  command.set_id(request->id());
  propose(call, bytes, "revoke", command);
}

void KvService::keep_alive(const CallPtr& call, int64_t id, const ReadLevel& level) {
  const bool fresh = level.kind == ReadLevel::Kind::kLinearizable;
  env_.reader.read(kCoreGroup, level, [this, call, id, fresh](Result<GroupView> view) {
    if (!view) return call->finish(std::move(view.error()));
    const auto row = read_lease(*view, scope_of(*call), id);
    // It may be younger than the state that was looked at.
    if (!row && !fresh) return keep_alive(call, id, ReadLevel::linearizable());
    if (!row) return call->finish(lease_not_found(id));
    env_.leases.keep_alive(kCoreGroup, row->lease, [call, id, row = *row](Result<int64_t> ttl_ms) {
      if (!ttl_ms) return call->finish(ended(id, std::move(ttl_ms.error())));
      v1::KeyLease lease = shown_lease(scope_of(*call), id, row);
      set_ms(lease.mutable_remaining(), *ttl_ms);
      call->reply(lease.SerializeAsString());
    });
  });
}

void KvService::get_lease(const CallPtr& call, const v1::GetLeaseRequest& request) {
  read(call, [this, request](const CallPtr& call, const GroupView& view) {
    const machine::Scope scope = scope_of(*call);
    const int64_t id = request.id();
    const auto row = read_lease(view, scope, id);
    if (!row) return call->finish(lease_not_found(id));
    v1::KeyLease lease = shown_lease(scope, id, *row);
    lease.set_revision(static_cast<int64_t>(read_head(view, scope).revision));
    if (request.keys()) {
      const std::string prefix = lease_key_key(scope, id, "");
      view.scan(prefix, machine::prefix_end(prefix), [&](std::string_view key, std::string_view) {
        lease.add_keys(std::string(key.substr(prefix.size())));
        return static_cast<size_t>(lease.keys_size()) < kKeysShownMax;
      });
    }
    env_.leases.time_left(kCoreGroup, row->lease,
                          [call, id, lease = std::move(lease)](Result<int64_t> left_ms) mutable {
                            if (!left_ms) return call->finish(ended(id, std::move(left_ms.error())));
                            set_ms(lease.mutable_remaining(), *left_ms);
                            call->reply(lease.SerializeAsString());
                          });
  });
}

void KvService::list_leases(const CallPtr& call, std::string bytes) {
  const machine::Scope scope = scope_of(*call);
  auto query = call::compile_list(
      *call->method, bytes, {.signer = &env_.page_tokens, .now = env_.clock.wall(), .scope = scope, .key_order = "id"});
  if (!query) return call->finish(std::move(query.error()));
  read(call, [this, scope, query = std::move(*query)](const CallPtr& call, GroupView view) {
    env_.work.post([call, scope, query, view = std::move(view)] {
      if (call->finished()) return;
      const std::string prefix = machine::table_key::scope_prefix(kLeaseTable, scope);
      auto page = call::paginate(query, [&](std::string_view after, const call::VisitRow& visit) {
        const std::string from = after.empty() ? prefix : prefix + std::string(after) + '\0';
        view.scan(from, machine::prefix_end(prefix), [&](std::string_view key, std::string_view row) {
          const std::string_view id = key.substr(prefix.size());
          const auto number = static_cast<int64_t>(ByteReader(id).u64());
          return visit(id, shown_lease(scope, number, decode_lease(row)).SerializeAsString());
        });
      });
      if (!page) return call->finish(std::move(page.error()));
      call->reply(call::encode_page(*call->method, *page));
    });
  });
}

}  // namespace uccp::kv
