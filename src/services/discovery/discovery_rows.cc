#include "services/discovery/discovery_rows.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "base/check.h"
#include "base/hash.h"

namespace uccp::discovery {
namespace {

using internal::v1::ServiceCounts;
using machine::ApplyContext;

std::string row_key(const v1::ServiceRegistration& s) { return discovery::row_key(s.service_name(), s.id()); }

std::string encode_ref(const ServiceRow& row) {
  ByteWriter out;
  out.u64(row.lease()).u64(static_cast<uint64_t>(row.ttl_ms()));
  const bool says = row.self_health() != v1::HEALTH_STATUS_UNSPECIFIED;
  out.u8(static_cast<uint8_t>(says ? row.self_health() : row.service().health_status()));
  out.raw(row.service().service_name());
  return out.take();
}

void add_to_counts(machine::Transaction& state, const Scope& scope, int registered, int available) {
  if (registered == 0 && available == 0) return;
  ServiceCounts counts = read_counts(state, scope);
  counts.set_registered(counts.registered() + static_cast<uint64_t>(static_cast<int64_t>(registered)));
  counts.set_available(counts.available() + static_cast<uint64_t>(static_cast<int64_t>(available)));
  if (counts.registered() == 0) kCounts.erase(state, scope, "");
  else kCounts.put(state, scope, "", serialize(counts));
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

std::string row_key(std::string_view name, std::string_view id) { return ByteWriter().key_part(name).raw(id).take(); }

std::string endpoint_key(const v1::ServiceRegistration& s) {
  ByteWriter out;
  out.key_part(s.service_name()).key_part(s.address()).u32(static_cast<uint32_t>(s.port()));
  return out.take();
}

std::string creation_key(uint64_t index, std::string_view id) { return ByteWriter().u64(index).raw(id).take(); }

std::string lease_key(const Scope& scope, std::string_view id) {
  return ByteWriter().bytes(scope.tenant).bytes(scope.name_space).bytes(id).take();
}

ServiceRow parse_row(std::string_view bytes) {
  ServiceRow row;
  UCCP_CHECK(row.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())), "a stored service is readable");
  // Rows of before there were checks.
  if (row.self_health() == v1::HEALTH_STATUS_UNSPECIFIED) row.set_self_health(row.service().health_status());
  return row;
}

std::optional<ServiceRow> load(const KeyReader& state, const Scope& scope, std::string_view id) {
  const auto bytes = find_row(state, scope, id);
  if (!bytes) return std::nullopt;
  return parse_row(*bytes);
}

Stamp stamp_of(const ApplyContext& context) {
  return {context.envelope().wall, context.index(), context.envelope().feature_level};
}

void set_time(google::protobuf::Timestamp& time, WallTime wall) {
  time.set_seconds(wall.us / 1'000'000);
  time.set_nanos(static_cast<int32_t>(wall.us % 1'000'000) * 1000);
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

ServiceCounts read_counts(const KeyReader& state, const Scope& scope) {
  ServiceCounts counts;
  if (const auto stored = kCounts.get(state, scope, "")) {
    UCCP_CHECK(counts.ParseFromString(*stored), "stored counts are readable");
  }
  return counts;
}

std::string store(ApplyContext& context, const Scope& scope, const Planned& planned) {
  const ServiceRow& row = planned.after;
  const v1::ServiceRegistration& s = row.service();
  machine::Transaction& state = context.state();
  if (planned.before) {
    const std::string old_endpoint = endpoint_key(planned.before->service());
    if (old_endpoint != endpoint_key(s)) kEndpoints.erase(state, scope, old_endpoint);
    // What was found out was about something else.
    if (planned.before->checks().deregister_lease() != 0 && row.checks().deregister_lease() == 0) {
      context.delete_lease(planned.before->checks().deregister_lease());
    }
  } else {
    kCreation.put_new(state, scope, creation_key(row.created_index(), s.id()), s.service_name());
  }
  std::string bytes = serialize(row);
  if (planned.before) kServices.put(state, scope, row_key(s), bytes);
  else kServices.put_new(state, scope, row_key(s), bytes);
  kIds.put(state, scope, s.id(), encode_ref(row));
  kEndpoints.put(state, scope, endpoint_key(s), s.id());
  const bool was_available = planned.before && planned.before->available();
  add_to_counts(state, scope, planned.before ? 0 : 1,
                static_cast<int>(row.available()) - static_cast<int>(was_available));
  if (planned.changed) {
    const ChangeKind kind = planned.before ? ChangeKind::kUpdated : ChangeKind::kAdded;
    context.emit_in(scope, kTopic, s.id(), static_cast<uint8_t>(kind), bytes);
  }
  return bytes;
}

void remove(ApplyContext& context, const Scope& scope, const ServiceRow& row, ChangeKind kind, machine::LeaseId ended) {
  const v1::ServiceRegistration& s = row.service();
  machine::Transaction& state = context.state();
  kServices.erase(state, scope, row_key(s));
  kIds.erase(state, scope, s.id());
  kEndpoints.erase(state, scope, endpoint_key(s));
  kCreation.erase(state, scope, creation_key(row.created_index(), s.id()));
  for (const machine::LeaseId lease : {row.lease(), row.checks().deregister_lease(), row.circuit().lease()}) {
    if (lease != 0 && lease != ended) context.delete_lease(lease);
  }
  add_to_counts(state, scope, -1, row.available() ? -1 : 0);
  context.emit_in(scope, kTopic, s.id(), static_cast<uint8_t>(kind), serialize(row));
}

}  // namespace uccp::discovery
