// The replicated state of service discovery: tables, commands and the queries on them. Pure.
//
// Invariants: an instance has one row, keyed by (service name, id) so that one scan finds all instances of a service;
// the id, endpoint and creation tables have exactly one entry for each row; counts are the number of rows; every row
// has a lease, and the instance ends with it. The service name of an instance never changes, so its row never moves.
// Apply on the loop thread; queries on any thread with a view of their own.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/status.h"
#include "machine/domain.h"
#include "machine/table.h"
#include "services/feature_types.h"
#include "uccp/internal/v1/discovery_state.pb.h"

namespace uccp::discovery {

// Tables of the core group; the numbers are part of the on-disk format.
inline constexpr machine::TableId kServiceTable = 16;   // (name, id) -> ServiceRow
inline constexpr machine::TableId kIdTable = 17;        // id -> InstanceRef
inline constexpr machine::TableId kEndpointTable = 18;  // (name, address, port) -> id
inline constexpr machine::TableId kCreationTable = 19;  // (index of the first registration, id) -> name
inline constexpr machine::TableId kCountTable = 20;     // "" -> ServiceCounts

inline constexpr std::string_view kDomain = "discovery";
inline constexpr std::string_view kTopic = "services";

inline constexpr int64_t kTtlDefaultMs = 30'000;
inline constexpr int32_t kWeightDefault = 100;
// A registration has to fit a command with room for its envelope.
inline constexpr size_t kServiceBytesMax = 768u << 10;
inline constexpr uint64_t kInstancesMaxDefault = 1'000'000;
// Time that a circuit stays open before the instance is tried again.
inline constexpr int64_t kCircuitOpenMs = 10'000;
inline constexpr int kObservationsMax = 1'000;

// Kinds of changes; the numbers of uccp.v1.ServiceEventKind. The payload is the ServiceRow after the change, of a
// removal the one before it.
enum class ChangeKind : uint8_t { kAdded = 1, kUpdated = 2, kRemoved = 3, kExpired = 4 };

class DiscoveryState final : public machine::Domain {
 public:
  std::string_view name() const override { return kDomain; }
  // register, update, deregister, health, observe: each takes its command of discovery_state.proto and answers the
  // ServiceRow after it (deregister, observe: nothing).
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
  void on_lease_expired(machine::ApplyContext& context, machine::LeaseId lease, std::string_view key) override;
};

using internal::v1::ServiceRow;
using machine::KeyReader;
using machine::Scope;

// What a heartbeat needs to know of an instance.
struct InstanceRef {
  machine::LeaseId lease = 0;
  int64_t ttl_ms = 0;
  v1::HealthStatus health = v1::HEALTH_STATUS_UNSPECIFIED;
  std::string name;
};
std::optional<InstanceRef> find_instance(const KeyReader& state, const Scope& scope, std::string_view id);
// Serialized ServiceRow.
std::optional<std::string> find_row(const KeyReader& state, const Scope& scope, std::string_view id);
std::optional<std::string> row_at(const KeyReader& state, const Scope& scope, std::string_view name,
                                  std::string_view id);

// Visits serialized rows behind the position `after` (empty: from the first) until `visit` returns false: of one
// service by id, or all by (name, id) if `name` is empty.
using VisitRow = std::function<bool(std::string_view position, std::string_view row)>;
void scan_services(const KeyReader& state, const Scope& scope, std::string_view name, std::string_view after,
                   const VisitRow& visit);
// The same in the order of creation. With an empty namespace in `scope`, the rows of all namespaces of the tenant, by
// (namespace, creation).
void scan_by_creation(const KeyReader& state, const Scope& scope, std::string_view after, const VisitRow& visit);

struct Counts {
  uint64_t registered = 0;
  uint64_t available = 0;
};
// Of all tenants and namespaces together.
Counts count_services(const KeyReader& state);

// What a command would do. Commands with validate_only stop here.
struct Stamp {
  WallTime wall;
  LogIndex index;
  uint32_t feature_level = services::kCoordinationLevel;
};
struct Planned {
  std::optional<ServiceRow> before;
  ServiceRow after;
  bool changed = true;  // false: the same content again; only the lease starts anew
};
// Errors: already_exists SERVICE_ID_TAKEN, ENDPOINT_TAKEN; exhausted INSTANCES_EXHAUSTED; invalid SERVICE_TOO_LARGE.
Result<Planned> plan_register(const KeyReader& state, const Scope& scope,
                              const internal::v1::RegisterServiceCommand& command, const Stamp& stamp);
// Errors: not_found SERVICE_NOT_FOUND; conflict ETAG_MISMATCH; already_exists ENDPOINT_TAKEN; invalid
// SERVICE_TOO_LARGE.
Result<Planned> plan_update(const KeyReader& state, const Scope& scope,
                            const internal::v1::UpdateServiceCommand& command, const Stamp& stamp);

// Identifies the checks of an instance and what they are made of.
uint64_t hash_of_checks(const v1::ServiceRegistration& s);

Status service_not_found(std::string_view id);

// Protobuf's own order of map entries differs from process to process; stored bytes must not.
std::string serialize(const google::protobuf::MessageLite& message);

}  // namespace uccp::discovery
