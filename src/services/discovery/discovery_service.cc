#include "services/discovery/discovery_service.h"

#include <cmath>
#include <cstdlib>

#include "base/hash.h"
#include "call/contract.h"
#include "call/validate.h"
#include "call/wire.h"
#include "machine/resource_id.h"
#include "services/discovery/discovery_query.h"
#include "services/discovery/discovery_watch.h"

namespace uccp::discovery {
namespace {

using call::CallPtr;
using internal::v1::DeregisterServiceCommand;
using internal::v1::RegisterServiceCommand;
using internal::v1::ServiceHealthCommand;
using internal::v1::UpdateServiceCommand;

// A heartbeat only has to find the lease of an instance; a stale view that misses it is followed by a fresh one.
constexpr int64_t kHeartbeatBoundMs = 5000;
// A reported load that moved less than this, in thousandths, is not worth a log entry.
constexpr int32_t kLoadStepMilli = 50;
// Counts for metrics may be old: a scrape must not wait.
constexpr int64_t kMetricsBoundMs = 24 * 3600 * 1000;

Scope scope_of(const call::Call& call) { return {call.principal.tenant, call.name_space}; }

std::string method_name(std::string_view rpc) { return "uccp.v1.ServiceDiscovery/" + std::string(rpc); }

// Hash of what the caller asked for, without the key of the request: the same key with another hash is a conflict.
Result<uint64_t> hash_of_request(const call::Method& method, std::string_view request) {
  std::string copy(request);
  if (!method.request_id.empty()) call::set_string(method.request_id, copy, "");
  UCCP_TRY(const std::string fixed, call::canonical(*method.request, copy));
  return hash64(fixed);
}

// Canonical form drops what only the server may set. Requires a valid request of this type.
template <typename Request>
Result<Request> parse_canonical(const call::Method& method, std::string_view request) {
  UCCP_TRY(const std::string fixed, call::canonical(*method.request, request));
  Request parsed;
  if (parsed.ParseFromString(fixed)) return parsed;
  return fail(Code::kInvalid, "WIRE_INVALID", "the request cannot be parsed");
}

void put_session(const CallPtr& call, LogIndex index) {
  call->set_header("Uccp-Session", machine::session_token({{kCoreGroup, index}}));
}

bool may_change(const call::FieldPlan& field) { return !field.immutable && !field.output_only; }

// The fields that an update changes, by proto name.
Result<std::vector<std::string>> update_paths(const v1::UpdateServiceMetadataRequest& request) {
  const call::MessagePlan& plan = call::Contract::get().plan("uccp.v1.ServiceRegistration");
  std::vector<std::string> paths;
  const auto& mask = request.update_mask().paths();
  const bool all = mask.size() == 1 && mask[0] == "*";
  if (mask.empty() || all) {
    const std::string service = request.service().SerializeAsString();
    for (const call::FieldPlan& field : plan.fields) {
      auto path = call::FieldPath::compile(plan, field.name);
      if (may_change(field) && (all || (path && call::has_field(*path, service)))) paths.push_back(field.name);
    }
    return paths;
  }
  for (const std::string& name : mask) {
    auto path = call::FieldPath::compile(plan, name);
    std::string fixed;
    bool changeable = path.has_value();
    if (path) {
      for (const call::FieldPlan* step : path->steps()) {
        changeable &= may_change(*step);
        fixed.append(fixed.empty() ? "" : ".").append(step->name);
      }
    }
    if (!changeable) {
      return fail(
          Status(Code::kInvalid, "FIELD_INVALID", "the update mask names '" + name + "', which cannot be changed")
              .with_field("updateMask", "names '" + name + "', which is unknown, immutable or set by the server",
                          "metadata,weight"));
    }
    paths.push_back(std::move(fixed));
  }
  return paths;
}

}  // namespace

struct DiscoveryService::LastCounts {
  std::mutex mutex;
  Counts counts;
};

DiscoveryService::DiscoveryService(DiscoveryOptions options, DiscoveryEnvironment environment)
    : options_(options),
      env_(environment),
      presence_(env_.clock.wall()),
      observations_(Observations::make(env_.proposer, env_.work, env_.clock, presence_, env_.feature_level)),
      counts_(std::make_shared<LastCounts>()) {
  const auto counts = [&reader = env_.reader, last = counts_] {
    reader.read(kCoreGroup, machine::ReadLevel::bounded(kMetricsBoundMs), [last](Result<machine::GroupView> view) {
      if (!view) return;
      const Counts counts = count_services(*view);
      std::lock_guard lock(last->mutex);
      last->counts = counts;
    });
    std::lock_guard lock(last->mutex);
    return last->counts;
  };
  env_.metrics.callback("uccp_services_registered", "Service instances that are registered",
                        [counts] { return static_cast<double>(counts().registered); });
  env_.metrics.callback("uccp_services_healthy", "Service instances that Discover answers",
                        [counts] { return static_cast<double>(counts().available); });
}

void DiscoveryService::add_handlers(call::HandlerTable& handlers) {
  using call::Contract;
  handlers.add(method_name("Register"),
               [this](const CallPtr& call, std::string request) { register_service(call, std::move(request)); });
  handlers.add(method_name("UpdateServiceMetadata"),
               [this](const CallPtr& call, std::string request) { update(call, std::move(request)); });
  handlers.add(method_name("Deregister"), [this](const CallPtr& call, std::string bytes) {
    auto hash = hash_of_request(*call->method, bytes);
    v1::DeregisterRequest request;
    if (!hash || !request.ParseFromString(bytes)) {
      return call->finish(Status(Code::kInvalid, "WIRE_INVALID", "the request cannot be parsed"));
    }
    deregister(call, std::move(request), *hash);
  });
  handlers.add_parsed<v1::HeartbeatRequest>(
      method_name("Heartbeat"), [this](const CallPtr& call, v1::HeartbeatRequest request) {
        heartbeat(call, std::move(request), machine::ReadLevel::bounded(kHeartbeatBoundMs));
      });
  handlers.add_parsed<v1::DiscoverRequest>(
      method_name("Discover"),
      [this](const CallPtr& call, v1::DiscoverRequest request) { discover(call, std::move(request)); });
  handlers.add_parsed<v1::GetServiceMetadataRequest>(
      method_name("GetServiceMetadata"),
      [this](const CallPtr& call, v1::GetServiceMetadataRequest request) { get(call, std::move(request)); });
  handlers.add(method_name("ListServices"),
               [this](const CallPtr& call, std::string request) { list(call, std::move(request)); });
  handlers.add_parsed<v1::WatchServicesRequest>(
      method_name("WatchServices"),
      [this](const CallPtr& call, v1::WatchServicesRequest request) { watch(call, std::move(request)); });
  handlers.add_parsed<v1::ReportServiceCallsRequest>(
      method_name("ReportServiceCalls"),
      [this](const CallPtr& call, const v1::ReportServiceCallsRequest& request) { report_calls(call, request); });
  handlers.add_parsed<v1::GetServiceCatalogRequest>(
      method_name("GetServiceCatalog"),
      [this](const CallPtr& call, const v1::GetServiceCatalogRequest& request) { search(call, request); });
  handlers.add_parsed<v1::GetDependencyGraphRequest>(
      method_name("GetDependencyGraph"),
      [this](const CallPtr& call, const v1::GetDependencyGraphRequest& request) { graph(call, request); });
  handlers.add_parsed<internal::v1::ReportChecksRequest>(
      "uccp.internal.v1.NodeLink/ReportChecks", [this](const CallPtr& call, internal::v1::ReportChecksRequest request) {
        report_checks(call, std::move(request));
      });
}

uint64_t DiscoveryService::draw() {
  std::lock_guard lock(random_mutex_);
  return env_.random.next();
}

void DiscoveryService::propose(const CallPtr& call, std::string_view command,
                               const google::protobuf::MessageLite& payload, uint64_t request_hash, Reply reply) {
  if (call->deadline && *call->deadline <= env_.clock.boot()) {
    return call->finish(Status(Code::kDeadline, "DEADLINE_EXCEEDED", "the deadline passed before the change was made"));
  }
  machine::Envelope envelope;
  envelope.scope = scope_of(*call);
  envelope.principal = call->principal.name;
  envelope.method = call->method->full_name;
  envelope.command = std::string(kDomain) + "." + std::string(command);
  envelope.resource = call->resource;
  // A heartbeat is repeatable by nature: a key that came with it must not freeze its effect.
  if (!call->method->request_id.empty()) envelope.dedup.request_id = call->request_id;
  envelope.dedup.request_hash = request_hash;
  envelope.traceparent = call->traceparent;
  envelope.audited = call->method->audit != call::AuditLevel::kNone;
  envelope.payload = serialize(payload);
  env_.proposer.propose(kCoreGroup, std::move(envelope),
                        [call, reply = std::move(reply)](Result<machine::Applied> applied) mutable {
                          if (!applied) return call->finish(std::move(applied.error()));
                          put_session(call, applied->index);
                          reply(call, std::move(*applied));
                        });
}

void DiscoveryService::read(const CallPtr& call, OnView on_view) {
  env_.reader.read(kCoreGroup, call->read_level,
                   [call, on_view = std::move(on_view)](Result<machine::GroupView> view) mutable {
                     if (!view) return call->finish(std::move(view.error()));
                     on_view(call, std::move(*view));
                   });
}

// Of what the answer says about when instances were heard of.
void DiscoveryService::put_age(const CallPtr& call) const {
  if (const auto age = presence_.age_ms(env_.clock.boot()))
    call->set_header("Uccp-Last-Seen-Age", std::to_string(*age));
}

void DiscoveryService::reply_row(const CallPtr& call, std::string_view row, LogIndex index) {
  put_session(call, index);
  put_age(call);
  call->reply(shown_service(row, presence_));
}

// --- changes --------------------------------------------------------------------------------------------------------

void DiscoveryService::register_service(const CallPtr& call, std::string bytes) {
  auto hash = hash_of_request(*call->method, bytes);
  if (!hash) return call->finish(std::move(hash.error()));
  auto request = parse_canonical<v1::RegisterRequest>(*call->method, bytes);
  if (!request) return call->finish(std::move(request.error()));
  RegisterServiceCommand command;
  *command.mutable_service() = std::move(*request->mutable_service());
  command.set_instances_max(options_.instances_max);
  if (command.service().id().empty()) {
    SeededRandom random(draw());
    command.set_new_id(machine::make_id("svc", env_.clock.wall(), random));
  }
  if (request->validate_only()) {
    return read(call, [this, command](const CallPtr& call, machine::GroupView view) {
      auto planned = plan_register(view, scope_of(*call), command, {env_.clock.wall(), view.applied()});
      if (!planned) return call->finish(std::move(planned.error()));
      reply_row(call, serialize(planned->after), view.applied());
    });
  }
  propose(call, "register", command, *hash, [this](const CallPtr& call, machine::Applied applied) {
    call->reply(shown_service(applied.response, presence_));
  });
}

void DiscoveryService::update(const CallPtr& call, std::string bytes) {
  auto hash = hash_of_request(*call->method, bytes);
  if (!hash) return call->finish(std::move(hash.error()));
  auto request = parse_canonical<v1::UpdateServiceMetadataRequest>(*call->method, bytes);
  if (!request) return call->finish(std::move(request.error()));
  auto paths = update_paths(*request);
  if (!paths) return call->finish(std::move(paths.error()));
  UpdateServiceCommand command;
  command.set_if_match(request->if_match());
  for (std::string& path : *paths) command.add_paths(std::move(path));
  *command.mutable_service() = std::move(*request->mutable_service());
  if (request->validate_only()) {
    return read(call, [this, command](const CallPtr& call, machine::GroupView view) {
      auto planned = plan_update(view, scope_of(*call), command, {env_.clock.wall(), view.applied()});
      if (!planned) return call->finish(std::move(planned.error()));
      reply_row(call, serialize(planned->after), view.applied());
    });
  }
  propose(call, "update", command, *hash, [this](const CallPtr& call, machine::Applied applied) {
    call->reply(shown_service(applied.response, presence_));
  });
}

void DiscoveryService::deregister(const CallPtr& call, v1::DeregisterRequest request, uint64_t request_hash) {
  DeregisterServiceCommand command;
  command.set_id(request.id());
  command.set_if_match(request.if_match());
  propose(call, "deregister", command, request_hash,
          [](const CallPtr& call, machine::Applied) { call->reply(v1::DeregisterResponse().SerializeAsString()); });
}

// --- heartbeats -----------------------------------------------------------------------------------------------------

void DiscoveryService::heartbeat(const CallPtr& call, v1::HeartbeatRequest request, const machine::ReadLevel& level) {
  const bool fresh = level.kind == machine::ReadLevel::Kind::kLinearizable;
  env_.reader.read(kCoreGroup, level, [this, call, fresh, request = std::move(request)](auto view) mutable {
    if (!view) return call->finish(std::move(view.error()));
    auto instance = find_instance(*view, scope_of(*call), request.id());
    if (instance && request.has_load()) note_load(call, request, *view, instance->name);
    if (instance) return keep_alive(call, std::move(request), std::move(*instance));
    if (fresh) return call->finish(service_not_found(request.id()));
    heartbeat(call, std::move(request), machine::ReadLevel::linearizable());
  });
}

void DiscoveryService::keep_alive(const CallPtr& call, v1::HeartbeatRequest request, InstanceRef instance) {
  const machine::LeaseId lease = instance.lease;
  env_.leases.keep_alive(
      kCoreGroup, lease,
      [this, call, request = std::move(request), instance = std::move(instance)](Result<int64_t> ttl_ms) {
        if (!ttl_ms) {
          const bool gone = ttl_ms.error().code() == Code::kNotFound;
          return call->finish(gone ? service_not_found(request.id()) : std::move(ttl_ms.error()));
        }
        presence_.heard(instance.lease, env_.clock.wall(), *ttl_ms);
        const v1::HealthStatus health = request.health_status() == v1::HEALTH_STATUS_UNSPECIFIED
                                            ? v1::HEALTH_STATUS_HEALTHY
                                            : request.health_status();
        if (health == instance.health) return answer_heartbeat(call, *ttl_ms);
        // Only a change of health is worth a log entry.
        ServiceHealthCommand command;
        command.set_id(request.id());
        command.set_status(health);
        propose(call, "health", command, 0,
                [this, ttl = *ttl_ms](const CallPtr& call, machine::Applied) { answer_heartbeat(call, ttl); });
      });
}

// A load is told when it has moved: it is worth a log entry then, shared with those of other instances.
void DiscoveryService::note_load(const CallPtr& call, const v1::HeartbeatRequest& request,
                                 const machine::GroupView& view, const std::string& name) {
  const auto row = row_at(view, scope_of(*call), name, request.id());
  const auto load = static_cast<int32_t>(std::lround(request.load() * 1000));
  const int32_t known = row ? view_row(*row).load_milli : load;
  if (known >= 0 && std::abs(load - known) < kLoadStepMilli && (load != 0 || known == 0)) return;
  internal::v1::ServiceObservation observation;
  observation.set_tenant(call->principal.tenant);
  observation.set_namespace_(call->name_space);
  observation.set_id(request.id());
  observation.set_load_milli(load);
  observations_->add(std::move(observation));
}

void DiscoveryService::answer_heartbeat(const CallPtr& call, int64_t ttl_ms) {
  v1::HeartbeatResponse response;
  response.mutable_ttl()->set_seconds(ttl_ms / 1000);
  response.mutable_ttl()->set_nanos(static_cast<int32_t>(ttl_ms % 1000) * 1'000'000);
  const int64_t expire_us = env_.clock.wall().us + ttl_ms * 1000;
  response.mutable_expire_time()->set_seconds(expire_us / 1'000'000);
  response.mutable_expire_time()->set_nanos(static_cast<int32_t>(expire_us % 1'000'000) * 1000);
  call->reply(response.SerializeAsString());
}

// --- reads ----------------------------------------------------------------------------------------------------------

void DiscoveryService::discover(const CallPtr& call, v1::DiscoverRequest request) {
  auto query = DiscoverQuery::compile(request);
  if (!query) return call->finish(std::move(query.error()));
  const bool weighted = request.order() == v1::DISCOVER_ORDER_WEIGHTED;
  auto answer = [this, weighted, query = std::move(*query)](const CallPtr& call, const machine::GroupView& view) {
    SeededRandom random(weighted ? draw() : 0);
    auto response = query.run(view, scope_of(*call), presence_, random);
    if (!response) return call->finish(std::move(response.error()));
    put_session(call, view.applied());
    put_age(call);
    call->reply(std::move(*response));
  };
  // One name is a short scan; all names may be long.
  if (!request.name().empty()) return read(call, std::move(answer));
  read(call, [this, answer = std::move(answer)](const CallPtr& call, machine::GroupView view) {
    env_.work.post([call, answer, view = std::move(view)] { answer(call, view); });
  });
}

void DiscoveryService::get(const CallPtr& call, v1::GetServiceMetadataRequest request) {
  read(call, [this, id = std::move(*request.mutable_id())](const CallPtr& call, machine::GroupView view) {
    const auto row = find_row(view, scope_of(*call), id);
    if (!row) return call->finish(service_not_found(id));
    reply_row(call, *row, view.applied());
  });
}

void DiscoveryService::list(const CallPtr& call, std::string request) {
  const bool everywhere = call->name_space == "-";
  const Scope scope = scope_of(*call);
  auto query = call::compile_list(*call->method, request,
                                  {.signer = &env_.page_tokens,
                                   .now = env_.clock.wall(),
                                   .scope = scope,
                                   // Keys of several namespaces are not in the order of creation.
                                   .key_order = everywhere ? "" : "createTime"});
  if (!query) return call->finish(std::move(query.error()));
  const Scope scanned{scope.tenant, everywhere ? "" : scope.name_space};
  read(call, [this, scanned, query = std::move(*query)](const CallPtr& call, machine::GroupView view) {
    env_.work.post([this, call, scanned, query, view = std::move(view)] {
      if (call->finished()) return;
      std::string item;
      auto page = call::paginate(query, [&](std::string_view after, const call::VisitRow& visit) {
        scan_by_creation(view, scanned, after, [&](std::string_view position, std::string_view bytes) {
          const RowView row = view_row(bytes);
          item.assign(row.service);
          append_times(item, row, presence_);
          return visit(position, item);
        });
      });
      if (!page) return call->finish(std::move(page.error()));
      put_session(call, view.applied());
      put_age(call);
      call->reply(call::encode_page(*call->method, *page));
    });
  });
}

services::ChangeTopic DiscoveryService::change_topic() const {
  return {.name = "$sys.services",
          .group = kCoreGroup,
          .feed = std::string(kTopic),
          .permission = "services.read",
          .resource_type = "uccp.v1.ServiceRegistration",
          .show = [this](const machine::Change& change) -> std::optional<services::ShownChange> {
            const auto kind = static_cast<v1::ServiceEventKind>(change.kind);
            return services::ShownChange{services::change_type("service", v1::ServiceEventKind_Name(kind)), change.key,
                                         shown_service(change.payload, presence_)};
          }};
}

void DiscoveryService::watch(const CallPtr& call, v1::WatchServicesRequest request) {
  auto stream = ServiceWatch::make(call, request, {env_.reader, env_.watcher, env_.work, env_.clock, presence_});
  if (!stream) return call->finish(std::move(stream.error()));
  (*stream)->start();
}

}  // namespace uccp::discovery
