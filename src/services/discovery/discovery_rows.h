// The rows of service discovery: their keys, how an instance is written with its indexes, and what follows from what is
// known of its health. For the apply functions of this folder. Loop thread.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"
#include "services/discovery/discovery_state.h"

namespace uccp::discovery {

inline constexpr machine::BytesTable kServices(kServiceTable);
inline constexpr machine::BytesTable kIds(kIdTable);
inline constexpr machine::BytesTable kEndpoints(kEndpointTable);
inline constexpr machine::BytesTable kCreation(kCreationTable);
inline constexpr machine::BytesTable kCounts(kCountTable);

// What ends with a lease, the last byte of its key; the instance itself has none.
inline constexpr uint8_t kFailingLease = 1;  // an instance whose checks fail
inline constexpr uint8_t kCircuitLease = 2;  // the open state of its circuit

std::string row_key(std::string_view name, std::string_view id);
std::string endpoint_key(const v1::ServiceRegistration& s);
std::string creation_key(uint64_t index, std::string_view id);
// The lease carries the scope: an expiry is a command of the system and has none of its own.
std::string lease_key(const Scope& scope, std::string_view id);

ServiceRow parse_row(std::string_view bytes);
std::optional<ServiceRow> load(const KeyReader& state, const Scope& scope, std::string_view id);

Stamp stamp_of(const machine::ApplyContext& context);
void set_time(google::protobuf::Timestamp& time, WallTime wall);
void set_defaults(v1::ServiceRegistration& s);
void set_version(v1::ServiceRegistration& s, const Stamp& stamp);

// Fills what follows from the registration, from what the instance reports of itself, from checks and from the circuit.
// Below kCoordinationLevel a row is what it was before there were the latter two.
void derive(ServiceRow& row, uint32_t feature_level);

internal::v1::ServiceCounts read_counts(const KeyReader& state, const Scope& scope);

// Writes the row with its indexes; answers its bytes. Watchers are told if it `changed`.
std::string store(machine::ApplyContext& context, const Scope& scope, const Planned& planned);
// Removes the row, its indexes and its leases. `ended`: the lease that ended by itself, 0: none.
void remove(machine::ApplyContext& context, const Scope& scope, const ServiceRow& row, ChangeKind kind,
            machine::LeaseId ended);

// Commands about health (discovery_health.cc).
machine::ApplyResult apply_health(machine::ApplyContext& context, std::string_view payload);
machine::ApplyResult apply_observe(machine::ApplyContext& context, std::string_view payload);
void failing_too_long(machine::ApplyContext& context, const Scope& scope, std::string_view id, machine::LeaseId lease);
void circuit_cooled(machine::ApplyContext& context, const Scope& scope, std::string_view id, machine::LeaseId lease);

template <typename Command>
Result<Command> parse_command(std::string_view payload) {
  Command command;
  if (command.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) return command;
  return fail(Code::kInvalid, "COMMAND_INVALID", "the command's payload cannot be read");
}

}  // namespace uccp::discovery
