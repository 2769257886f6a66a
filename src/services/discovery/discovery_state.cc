#include "services/discovery/discovery_state.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/util/field_mask_util.h>

#include "base/bytes.h"
#include "base/check.h"

namespace uccp::discovery {
namespace {

using internal::v1::DeregisterServiceCommand;
using internal::v1::RegisterServiceCommand;
using internal::v1::ServiceCounts;
using internal::v1::ServiceHealthCommand;
using internal::v1::UpdateServiceCommand;
using machine::ApplyContext;
using machine::ApplyResult;
using machine::BytesTable;

constexpr BytesTable kServices(kServiceTable);
constexpr BytesTable kIds(kIdTable);
constexpr BytesTable kEndpoints(kEndpointTable);
constexpr BytesTable kCreation(kCreationTable);
constexpr BytesTable kCounts(kCountTable);

constexpr double kDegradedScore = 0.5;

std::string row_key(std::string_view name, std::string_view id) {
  ByteWriter out;
  out.key_part(name).raw(id);
  return out.take();
}
std::string row_key(const v1::ServiceRegistration& s) { return row_key(s.service_name(), s.id()); }

std::string endpoint_key(const v1::ServiceRegistration& s) {
  ByteWriter out;
  out.key_part(s.service_name()).key_part(s.address()).u32(static_cast<uint32_t>(s.port()));
  return out.take();
}

std::string creation_key(uint64_t index, std::string_view id) {
  ByteWriter out;
  out.u64(index).raw(id);
  return out.take();
}

// The lease carries the scope: an expiry is a command of the system and has none of its own.
std::string lease_key(const Scope& scope, std::string_view id) {
  ByteWriter out;
  out.bytes(scope.tenant).bytes(scope.name_space).bytes(id);
  return out.take();
}

std::string encode_ref(const ServiceRow& row) {
  ByteWriter out;
  out.u64(row.lease()).u64(static_cast<uint64_t>(row.ttl_ms()));
  out.u8(static_cast<uint8_t>(row.service().health_status())).raw(row.service().service_name());
  return out.take();
}

ServiceRow parse_row(std::string_view bytes) {
  ServiceRow row;
  UCCP_CHECK(row.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())), "a stored service is readable");
  return row;
}

template <typename Command>
Result<Command> parse(std::string_view payload) {
  Command command;
  if (command.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) return command;
  return fail(Code::kInvalid, "COMMAND_INVALID", "the command's payload cannot be read");
}

void set_time(google::protobuf::Timestamp& time, WallTime wall) {
  time.set_seconds(wall.us / 1'000'000);
  time.set_nanos(static_cast<int32_t>(wall.us % 1'000'000) * 1000);
}

void set_health(v1::ServiceRegistration& s, v1::HealthStatus status) {
  s.set_health_status(status);
  s.set_health_score(status == v1::HEALTH_STATUS_HEALTHY    ? 1.0
                     : status == v1::HEALTH_STATUS_DEGRADED ? kDegradedScore
                                                            : 0.0);
  if (status == v1::HEALTH_STATUS_HEALTHY) s.clear_health_reason();
  else s.set_health_reason("the instance reports it");
}

// Fills what follows from the registration.
void derive(ServiceRow& row) {
  v1::ServiceRegistration& s = *row.mutable_service();
  const bool works = s.health_status() != v1::HEALTH_STATUS_UNHEALTHY;
  s.set_healthy(works && !s.draining());
  row.set_available(s.healthy());
  row.set_priority(s.priority());
  row.set_weight(s.weight());
  row.set_health_score(s.health_score());
  row.set_ttl_ms(s.ttl().seconds() * 1000 + s.ttl().nanos() / 1'000'000);
}

void set_defaults(v1::ServiceRegistration& s) {
  if (!s.has_ttl()) s.mutable_ttl()->set_seconds(kTtlDefaultMs / 1000);
  if (s.weight() == 0) s.set_weight(kWeightDefault);
}

void set_version(v1::ServiceRegistration& s, const Stamp& stamp) {
  set_time(*s.mutable_update_time(), stamp.wall);
  s.set_revision(stamp.index.value);
  s.set_etag(std::to_string(stamp.index.value));
}

Status check_size(const v1::ServiceRegistration& s) {
  const size_t size = s.ByteSizeLong();
  if (size <= kServiceBytesMax) return Status::ok();
  return Status(Code::kInvalid, "SERVICE_TOO_LARGE",
                "the registration has " + std::to_string(size) + " bytes; at most " +
                    std::to_string(kServiceBytesMax) + " are taken")
      .with_field("service.metadata", "makes the registration too large");
}

Status check_etag(const ServiceRow& row, std::string_view if_match) {
  if (if_match.empty() || if_match == row.service().etag()) return Status::ok();
  return Status(Code::kConflict, "ETAG_MISMATCH",
                "the service '" + row.service().id() + "' has the etag " + row.service().etag() + ", not " +
                    std::string(if_match) + "; read it again and decide anew")
      .with_resource("service", row.service().id());
}

std::optional<ServiceRow> load(const KeyReader& state, const Scope& scope, std::string_view id) {
  const auto bytes = find_row(state, scope, id);
  if (!bytes) return std::nullopt;
  return parse_row(*bytes);
}

// Another instance must not have the endpoint of `s`.
Status check_endpoint(const KeyReader& state, const Scope& scope, const v1::ServiceRegistration& s) {
  const auto owner = kEndpoints.get(state, scope, endpoint_key(s));
  if (!owner || *owner == s.id()) return Status::ok();
  return Status(Code::kAlreadyExists, "ENDPOINT_TAKEN",
                s.address() + ":" + std::to_string(s.port()) + " of " + s.service_name() + " belongs to the instance '" +
                    *owner + "'; deregister that one, or register without an id to update it")
      .with_resource("service", *owner);
}

ServiceCounts read_counts(const KeyReader& state, const Scope& scope) {
  ServiceCounts counts;
  if (const auto stored = kCounts.get(state, scope, "")) {
    UCCP_CHECK(counts.ParseFromString(*stored), "stored counts are readable");
  }
  return counts;
}

void add_to_counts(machine::Transaction& state, const Scope& scope, int registered, int available) {
  if (registered == 0 && available == 0) return;
  ServiceCounts counts = read_counts(state, scope);
  counts.set_registered(counts.registered() + static_cast<uint64_t>(static_cast<int64_t>(registered)));
  counts.set_available(counts.available() + static_cast<uint64_t>(static_cast<int64_t>(available)));
  if (counts.registered() == 0) kCounts.erase(state, scope, "");
  else kCounts.put(state, scope, "", serialize(counts));
}

// Writes the row with its indexes.
std::string store(ApplyContext& context, const Planned& planned) {
  const ServiceRow& row = planned.after;
  const v1::ServiceRegistration& s = row.service();
  machine::Transaction& state = context.state();
  const Scope& scope = context.scope();
  if (planned.before) {
    const std::string old_endpoint = endpoint_key(planned.before->service());
    if (old_endpoint != endpoint_key(s)) kEndpoints.erase(state, scope, old_endpoint);
  } else {
    kCreation.put(state, scope, creation_key(row.created_index(), s.id()), s.service_name());
  }
  std::string bytes = serialize(row);
  kServices.put(state, scope, row_key(s), bytes);
  kIds.put(state, scope, s.id(), encode_ref(row));
  kEndpoints.put(state, scope, endpoint_key(s), s.id());
  const bool was_available = planned.before && planned.before->available();
  add_to_counts(state, scope, planned.before ? 0 : 1, static_cast<int>(row.available()) - static_cast<int>(was_available));
  if (planned.changed) {
    const ChangeKind kind = planned.before ? ChangeKind::kUpdated : ChangeKind::kAdded;
    context.emit(kTopic, s.id(), static_cast<uint8_t>(kind), bytes);
  }
  return bytes;
}

void remove(ApplyContext& context, const Scope& scope, const ServiceRow& row, ChangeKind kind) {
  const v1::ServiceRegistration& s = row.service();
  machine::Transaction& state = context.state();
  kServices.erase(state, scope, row_key(s));
  kIds.erase(state, scope, s.id());
  kEndpoints.erase(state, scope, endpoint_key(s));
  kCreation.erase(state, scope, creation_key(row.created_index(), s.id()));
  add_to_counts(state, scope, -1, row.available() ? -1 : 0);
  context.emit_in(scope, kTopic, s.id(), static_cast<uint8_t>(kind), serialize(row));
}

Stamp stamp_of(const ApplyContext& context) { return {context.envelope().wall, context.index()}; }

ApplyResult apply_register(ApplyContext& context, std::string_view payload) {
  UCCP_TRY(const auto command, parse<RegisterServiceCommand>(payload));
  UCCP_TRY(Planned planned, plan_register(context.state(), context.scope(), command, stamp_of(context)));
  ServiceRow& row = planned.after;
  // A new generation of the lease voids an expiry that is on its way.
  if (planned.before) context.touch_lease(row.lease(), row.ttl_ms());
  else row.set_lease(context.create_lease(kDomain, lease_key(context.scope(), row.service().id()), row.ttl_ms()));
  return store(context, planned);
}

ApplyResult apply_update(ApplyContext& context, std::string_view payload) {
  UCCP_TRY(const auto command, parse<UpdateServiceCommand>(payload));
  UCCP_TRY(const Planned planned, plan_update(context.state(), context.scope(), command, stamp_of(context)));
  if (planned.before->ttl_ms() != planned.after.ttl_ms()) {
    context.touch_lease(planned.after.lease(), planned.after.ttl_ms());
  }
  return store(context, planned);
}

ApplyResult apply_deregister(ApplyContext& context, std::string_view payload) {
  UCCP_TRY(const auto command, parse<DeregisterServiceCommand>(payload));
  const auto row = load(context.state(), context.scope(), command.id());
  if (!row) return fail(service_not_found(command.id()));
  UCCP_RETURN_IF_ERROR(check_etag(*row, command.if_match()));
  context.delete_lease(row->lease());
  remove(context, context.scope(), *row, ChangeKind::kRemoved);
  return std::string();
}

ApplyResult apply_health(ApplyContext& context, std::string_view payload) {
  UCCP_TRY(const auto command, parse<ServiceHealthCommand>(payload));
  const auto before = load(context.state(), context.scope(), command.id());
  if (!before) return fail(service_not_found(command.id()));
  Planned planned{*before, *before, command.status() != before->service().health_status()};
  if (planned.changed) {
    set_health(*planned.after.mutable_service(), command.status());
    set_version(*planned.after.mutable_service(), stamp_of(context));
    derive(planned.after);
  }
  return store(context, planned);
}

}  // namespace

std::string serialize(const google::protobuf::MessageLite& message) {
  std::string out;
  {
    google::protobuf::io::StringOutputStream stream(&out);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    UCCP_CHECK(message.SerializeToCodedStream(&coded), "a message without required fields can be serialized");
  }
  return out;
}

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
          {"health", apply_health}};
}

void DiscoveryState::on_lease_expired(ApplyContext& context, machine::LeaseId lease, std::string_view key) {
  ByteReader in(key);
  Scope scope;
  scope.tenant = in.bytes();
  scope.name_space = in.bytes();
  const std::string_view id = in.bytes();
  UCCP_CHECK(in.at_end(), "the key of a service lease is readable");
  if (const auto row = load(context.state(), scope, id)) remove(context, scope, *row, ChangeKind::kExpired);
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
  set_health(s, v1::HEALTH_STATUS_HEALTHY);
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
  } else {
    UCCP_RETURN_IF_ERROR(check_quota(state, scope, command.instances_max()));
    if (s.id().empty()) s.set_id(command.new_id());
    set_time(*s.mutable_create_time(), stamp.wall);
    row.set_created_index(stamp.index.value);
  }
  UCCP_RETURN_IF_ERROR(check_endpoint(state, scope, s));
  derive(row);
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
  derive(planned.after);
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
