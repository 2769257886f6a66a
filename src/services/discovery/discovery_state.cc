#include "services/discovery/discovery_state.h"

#include <google/protobuf/util/field_mask_util.h>

#include "base/bytes.h"
#include "base/check.h"
#include "machine/planted.h"
#include "services/discovery/discovery_rows.h"

namespace uccp::discovery {
namespace {

using internal::v1::DeregisterServiceCommand;
using internal::v1::RegisterServiceCommand;
using internal::v1::ServiceCounts;
using internal::v1::UpdateServiceCommand;
using machine::ApplyContext;
using machine::ApplyResult;

Status check_size(const v1::ServiceRegistration& s) {
  const size_t size = s.ByteSizeLong();
  if (size <= kServiceBytesMax) return Status::ok();
  return Status(Code::kInvalid, "SERVICE_TOO_LARGE",
                "the registration has " + std::to_string(size) + " bytes; at most " + std::to_string(kServiceBytesMax) +
                    " are taken")
      .with_field("service.metadata", "makes the registration too large");
}

Status check_etag(const ServiceRow& row, std::string_view if_match) {
  if (if_match.empty() || if_match == row.service().etag()) return Status::ok();
  return Status(Code::kConflict, "ETAG_MISMATCH",
                "the service '" + row.service().id() + "' has the etag " + row.service().etag() + ", not " +
                    std::string(if_match) + "; read it again and decide anew")
      .with_resource("service", row.service().id());
}

// Another instance must not have the endpoint of `s`.
Status check_endpoint(const KeyReader& state, const Scope& scope, const v1::ServiceRegistration& s) {
  const auto owner = kEndpoints.get(state, scope, endpoint_key(s));
  if (!owner || *owner == s.id()) return Status::ok();
  return Status(Code::kAlreadyExists, "ENDPOINT_TAKEN",
                s.address() + ":" + std::to_string(s.port()) + " of " + s.service_name() +
                    " belongs to the instance '" + *owner +
                    "'; deregister that one, or register without an id to update it")
      .with_resource("service", *owner);
}

ApplyResult apply_register(ApplyContext& context, std::string_view payload) {
  UCCP_TRY(const auto command, parse_command<RegisterServiceCommand>(payload));
  UCCP_TRY(Planned planned, plan_register(context.state(), context.scope(), command, stamp_of(context)));
  ServiceRow& row = planned.after;
  // A new generation of the lease voids an expiry that is on its way.
  if (planned.before) context.touch_lease(row.lease(), row.ttl_ms());
  else row.set_lease(context.create_lease(kDomain, lease_key(context.scope(), row.service().id()), row.ttl_ms()));
  return store(context, context.scope(), planned);
}

ApplyResult apply_update(ApplyContext& context, std::string_view payload) {
  UCCP_TRY(const auto command, parse_command<UpdateServiceCommand>(payload));
  UCCP_TRY(const Planned planned, plan_update(context.state(), context.scope(), command, stamp_of(context)));
  if (planned.before->ttl_ms() != planned.after.ttl_ms()) {
    context.touch_lease(planned.after.lease(), planned.after.ttl_ms());
  }
  return store(context, context.scope(), planned);
}

ApplyResult apply_deregister(ApplyContext& context, std::string_view payload) {
  UCCP_TRY(const auto command, parse_command<DeregisterServiceCommand>(payload));
  const auto row = load(context.state(), context.scope(), command.id());
  if (!row) return fail(service_not_found(command.id()));
  UCCP_RETURN_IF_ERROR(check_etag(*row, command.if_match()));
  remove(context, context.scope(), *row, ChangeKind::kRemoved, 0);
  return std::string();
}

}  // namespace

Status service_not_found(std::string_view id) {
  return Status(Code::kNotFound, "SERVICE_NOT_FOUND",
                "no service instance '" + std::string(id) +
                    "' is registered in this namespace; it may have expired: register again")
      .with_resource("service", std::string(id));
}

std::map<std::string, machine::ApplyFunction, std::less<>> DiscoveryState::commands() {
  return {{"register", apply_register},
          {"update", apply_update},
          {"deregister", apply_deregister},
          {"health", apply_health},
          {"observe", apply_observe}};
}

void DiscoveryState::on_lease_expired(ApplyContext& context, machine::LeaseId lease, std::string_view key) {
  ByteReader in(key);
  Scope scope;
  scope.tenant = in.bytes();
  scope.name_space = in.bytes();
  const std::string_view id = in.bytes();
  const uint8_t what = in.at_end() ? 0 : in.u8();
  UCCP_CHECK(in.at_end(), "the key of a service lease is readable");
  if (what == kFailingLease) return failing_too_long(context, scope, id, lease);
  if (what == kCircuitLease) return circuit_cooled(context, scope, id, lease);
  if (machine::planted_bug("keep_expired") && context.index().value % 3 == 0) return;
  if (const auto row = load(context.state(), scope, id)) remove(context, scope, *row, ChangeKind::kExpired, lease);
}

// --- planning -------------------------------------------------------------------------------------------------------

namespace {

// The instance that a registration means: by id, else by endpoint.
Result<std::optional<ServiceRow>> find_registered(const KeyReader& state, const Scope& scope,
                                                  const v1::ServiceRegistration& wanted) {
  if (!wanted.id().empty()) {
    auto row = load(state, scope, wanted.id());
    if (row && row->service().service_name() != wanted.service_name()) {
      return fail(Status(Code::kAlreadyExists, "SERVICE_ID_TAKEN",
                         "the id '" + wanted.id() + "' belongs to an instance of '" + row->service().service_name() +
                             "', not of '" + wanted.service_name() + "'; choose another id")
                      .with_resource("service", wanted.id()));
    }
    if (row) return row;
  }
  if (const auto owner = kEndpoints.get(state, scope, endpoint_key(wanted))) return load(state, scope, *owner);
  return std::nullopt;
}

Status check_quota(const KeyReader& state, const Scope& scope, uint64_t instances_max) {
  const uint64_t registered = read_counts(state, scope).registered();
  if (registered < instances_max) return Status::ok();
  return Status(Code::kExhausted, "INSTANCES_EXHAUSTED",
                "the namespace '" + scope.name_space + "' has " + std::to_string(registered) +
                    " service instances, as many as it may; deregister some or raise its limit");
}

}  // namespace

Result<Planned> plan_register(const KeyReader& state, const Scope& scope, const RegisterServiceCommand& command,
                              const Stamp& stamp) {
  UCCP_TRY(std::optional<ServiceRow> before, find_registered(state, scope, command.service()));
  Planned planned;
  ServiceRow& row = planned.after;
  v1::ServiceRegistration& s = *row.mutable_service();
  s = command.service();
  s.set_namespace_(scope.name_space);
  set_defaults(s);
  row.set_self_health(v1::HEALTH_STATUS_HEALTHY);
  row.set_seen_us(stamp.wall.us);
  if (before) {
    const v1::ServiceRegistration& old = before->service();
    s.set_id(old.id());
    *s.mutable_create_time() = old.create_time();
    *s.mutable_update_time() = old.update_time();
    s.set_revision(old.revision());
    s.set_etag(old.etag());
    row.set_lease(before->lease());
    row.set_created_index(before->created_index());
    // What others found out about it does not end with a new registration.
    if (before->has_load_milli()) row.set_load_milli(before->load_milli());
    if (before->has_checks() && hash_of_checks(old) == hash_of_checks(s)) *row.mutable_checks() = before->checks();
    if (before->has_circuit()) *row.mutable_circuit() = before->circuit();
  } else {
    UCCP_RETURN_IF_ERROR(check_quota(state, scope, command.instances_max()));
    if (s.id().empty()) s.set_id(command.new_id());
    set_time(*s.mutable_create_time(), stamp.wall);
    row.set_created_index(stamp.index.value);
  }
  UCCP_RETURN_IF_ERROR(check_endpoint(state, scope, s));
  derive(row, stamp.feature_level);
  planned.changed = !before || serialize(s) != serialize(before->service());
  if (planned.changed) set_version(s, stamp);
  UCCP_RETURN_IF_ERROR(check_size(s));
  planned.before = std::move(before);
  return planned;
}

Result<Planned> plan_update(const KeyReader& state, const Scope& scope, const UpdateServiceCommand& command,
                            const Stamp& stamp) {
  const auto before = load(state, scope, command.service().id());
  if (!before) return fail(service_not_found(command.service().id()));
  UCCP_RETURN_IF_ERROR(check_etag(*before, command.if_match()));
  Planned planned{before, *before, true};
  v1::ServiceRegistration& s = *planned.after.mutable_service();
  google::protobuf::FieldMask mask;
  for (const std::string& path : command.paths()) mask.add_paths(path);
  // A named field is replaced as a whole, or cleared if it is absent.
  google::protobuf::util::FieldMaskUtil::MergeOptions options;
  options.set_replace_message_fields(true);
  options.set_replace_repeated_fields(true);
  google::protobuf::util::FieldMaskUtil::MergeMessageTo(command.service(), mask, options, &s);
  if (s.address().empty() || s.port() == 0) {
    return fail(Status(Code::kInvalid, "FIELD_INVALID", "an instance has an address and a port")
                    .with_field(s.port() == 0 ? "service.port" : "service.address", "cannot be cleared"));
  }
  set_defaults(s);
  UCCP_RETURN_IF_ERROR(check_endpoint(state, scope, s));
  if (hash_of_checks(before->service()) != hash_of_checks(s)) planned.after.clear_checks();
  derive(planned.after, stamp.feature_level);
  planned.changed = serialize(s) != serialize(before->service());
  if (planned.changed) set_version(s, stamp);
  UCCP_RETURN_IF_ERROR(check_size(s));
  return planned;
}

// --- queries --------------------------------------------------------------------------------------------------------

std::optional<InstanceRef> find_instance(const KeyReader& state, const Scope& scope, std::string_view id) {
  const auto stored = kIds.get(state, scope, id);
  if (!stored) return std::nullopt;
  ByteReader in(*stored);
  InstanceRef ref;
  ref.lease = in.u64();
  ref.ttl_ms = static_cast<int64_t>(in.u64());
  ref.health = static_cast<v1::HealthStatus>(in.u8());
  ref.name = in.rest();
  UCCP_CHECK(in.ok(), "a stored reference to a service is readable");
  return ref;
}

std::optional<std::string> row_at(const KeyReader& state, const Scope& scope, std::string_view name,
                                  std::string_view id) {
  return kServices.get(state, scope, row_key(name, id));
}

std::optional<std::string> find_row(const KeyReader& state, const Scope& scope, std::string_view id) {
  const auto ref = find_instance(state, scope, id);
  if (!ref) return std::nullopt;
  return row_at(state, scope, ref->name, id);
}

void scan_services(const KeyReader& state, const Scope& scope, std::string_view name, std::string_view after,
                   const VisitRow& visit) {
  const std::string prefix = name.empty() ? std::string() : ByteWriter().key_part(name).take();
  // "\0" behind a key is the first key after it.
  const std::string from = after.empty() ? std::string() : std::string(after) + '\0';
  kServices.scan(state, scope, prefix, from, visit);
}

void scan_by_creation(const KeyReader& state, const Scope& scope, std::string_view after, const VisitRow& visit) {
  // A position is the key behind (table, tenant): it begins with the namespace.
  const std::string tenant = machine::table_key::begin(kCreationTable).key_part(scope.tenant).take();
  const std::string prefix =
      scope.name_space.empty() ? tenant : machine::table_key::scope_prefix(kCreationTable, scope);
  const std::string from = after.empty() ? prefix : tenant + std::string(after) + '\0';
  state.scan(from, machine::prefix_end(prefix), [&](std::string_view key, std::string_view name) {
    const std::string_view position = key.substr(tenant.size());
    ByteReader in(position);
    const Scope at{scope.tenant, in.key_part()};
    static_cast<void>(in.u64());
    const auto row = row_at(state, at, name, in.rest());
    UCCP_CHECK(row.has_value(), "every service in the order of creation has a row");
    return visit(position, *row);
  });
}

Counts count_services(const KeyReader& state) {
  Counts sum;
  const std::string prefix = machine::table_key::begin(kCountTable).take();
  state.scan(prefix, machine::prefix_end(prefix), [&](std::string_view, std::string_view value) {
    ServiceCounts counts;
    UCCP_CHECK(counts.ParseFromArray(value.data(), static_cast<int>(value.size())), "stored counts are readable");
    sum.registered += counts.registered();
    sum.available += counts.available();
    return true;
  });
  return sum;
}

}  // namespace uccp::discovery
