// Health of an instance in the state: what it says of itself, what checks found, what callers told, and what follows
// for discovery. Pure; the searching is done elsewhere (health_checker.h, call_outcomes.h).
#include <algorithm>

#include "base/hash.h"
#include "services/discovery/discovery_rows.h"

namespace uccp::discovery {
namespace {

using internal::v1::ServiceChecks;
using internal::v1::ServiceObservation;
using machine::ApplyContext;
using machine::ApplyResult;

// Thousandths.
constexpr int32_t kWhole = 1000;
constexpr int32_t kDegradedSelf = 500;
// An instance of whose recent checks fewer passed is degraded.
constexpr int32_t kDegradedBelow = 750;
// Share of its weight that an instance on trial gets.
constexpr int32_t kTrialShare = 100;

int32_t score_of(const ServiceRow& row) {
  if (row.self_health() == v1::HEALTH_STATUS_UNHEALTHY || row.checks().failing()) return 0;
  const int32_t self = row.self_health() == v1::HEALTH_STATUS_DEGRADED ? kDegradedSelf : kWhole;
  return row.has_checks() ? self * row.checks().score_milli() / kWhole : self;
}

void set_health(const ServiceRow& row, v1::ServiceRegistration& s) {
  const ServiceChecks& checks = row.checks();
  s.clear_health_reason();
  if (row.self_health() == v1::HEALTH_STATUS_UNHEALTHY || checks.failing()) {
    s.set_health_status(v1::HEALTH_STATUS_UNHEALTHY);
    s.set_health_reason(checks.failing() ? checks.reason() : "the instance reports it");
  } else if (row.self_health() == v1::HEALTH_STATUS_DEGRADED) {
    s.set_health_status(v1::HEALTH_STATUS_DEGRADED);
    s.set_health_reason("the instance reports it");
  } else if (row.has_checks() && checks.score_milli() < kDegradedBelow) {
    s.set_health_status(v1::HEALTH_STATUS_DEGRADED);
    s.set_health_reason(checks.reason().empty() ? "checks failed a short time ago" : checks.reason());
  } else {
    s.set_health_status(v1::HEALTH_STATUS_HEALTHY);
  }
  s.set_health_score(score_of(row) / static_cast<double>(kWhole));
}

v1::CircuitState circuit_of(const ServiceRow& row) {
  const v1::CircuitState told = row.circuit().state();
  if (told == v1::CIRCUIT_STATE_OPEN || (row.checks().failing() && !row.checks().recovering())) {
    return v1::CIRCUIT_STATE_OPEN;
  }
  if (told == v1::CIRCUIT_STATE_HALF_OPEN || row.checks().failing()) return v1::CIRCUIT_STATE_HALF_OPEN;
  return v1::CIRCUIT_STATE_CLOSED;
}

int64_t deregister_after_ms(const v1::ServiceRegistration& s) {
  int64_t least = 0;
  const auto look = [&](const v1::HealthCheck& check) {
    const int64_t ms = check.deregister_after().seconds() * 1000 + check.deregister_after().nanos() / 1'000'000;
    if (ms > 0 && (least == 0 || ms < least)) least = ms;
  };
  if (s.has_health_check()) look(s.health_check());
  for (const auto& check : s.health_checks()) look(check);
  return least;
}

void take_checks(ApplyContext& context, const Scope& scope, const ServiceChecks& found, ServiceRow& row) {
  const machine::LeaseId lease = row.checks().deregister_lease();
  *row.mutable_checks() = found;
  ServiceChecks& checks = *row.mutable_checks();
  checks.set_score_milli(std::clamp(found.score_milli(), 0, kWhole));
  checks.set_deregister_lease(lease);
  const int64_t after_ms = deregister_after_ms(row.service());
  if (checks.failing() && lease == 0 && after_ms > 0) {
    const std::string key = ByteWriter().raw(lease_key(scope, row.service().id())).u8(kFailingLease).take();
    checks.set_deregister_lease(context.create_lease(kDomain, key, after_ms));
  } else if (!checks.failing() && lease != 0) {
    context.delete_lease(lease);
    checks.set_deregister_lease(0);
  }
}

void take_circuit(ApplyContext& context, const Scope& scope, v1::CircuitState told, ServiceRow& row) {
  if (told == v1::CIRCUIT_STATE_OPEN && row.circuit().state() != v1::CIRCUIT_STATE_OPEN) {
    const std::string key = ByteWriter().raw(lease_key(scope, row.service().id())).u8(kCircuitLease).take();
    row.mutable_circuit()->set_state(told);
    row.mutable_circuit()->set_lease(context.create_lease(kDomain, key, kCircuitOpenMs));
  } else if (told == v1::CIRCUIT_STATE_CLOSED && row.circuit().state() == v1::CIRCUIT_STATE_HALF_OPEN) {
    row.clear_circuit();
  }
}

// Derives, and writes what is different. A load alone is no change that watchers are told.
void settle(ApplyContext& context, const Scope& scope, const ServiceRow& before, ServiceRow after) {
  derive(after, context.envelope().feature_level);
  if (serialize(after) == serialize(before)) return;
  v1::ServiceRegistration seen = after.service(), was = before.service();
  seen.clear_load();
  was.clear_load();
  const bool changed = serialize(seen) != serialize(was);
  if (changed) set_version(*after.mutable_service(), stamp_of(context));
  store(context, scope, {before, std::move(after), changed});
}

}  // namespace

uint64_t hash_of_checks(const v1::ServiceRegistration& s) {
  v1::ServiceRegistration only;
  only.set_address(s.address());
  only.set_port(s.port());
  if (s.has_health_check()) *only.mutable_health_check() = s.health_check();
  *only.mutable_health_checks() = s.health_checks();
  return hash64(serialize(only));
}

void derive(ServiceRow& row, uint32_t feature_level) {
  v1::ServiceRegistration& s = *row.mutable_service();
  set_health(row, s);
  s.set_circuit_state(circuit_of(row));
  const bool works = s.health_status() != v1::HEALTH_STATUS_UNHEALTHY && s.circuit_state() != v1::CIRCUIT_STATE_OPEN;
  s.set_healthy(works && !s.draining());
  int64_t weight = static_cast<int64_t>(s.weight()) * score_of(row) / kWhole;
  if (s.circuit_state() == v1::CIRCUIT_STATE_HALF_OPEN) weight = weight * kTrialShare / kWhole;
  s.set_effective_weight(s.healthy() ? static_cast<int32_t>(std::max<int64_t>(weight, 1)) : 0);
  if (row.has_load_milli()) s.set_load(row.load_milli() / static_cast<double>(kWhole));
  else s.clear_load();
  row.set_available(s.healthy());
  row.set_priority(s.priority());
  row.set_weight(s.weight());
  row.set_effective_weight(s.effective_weight());
  row.set_health_score(s.health_score());
  row.set_ttl_ms(s.ttl().seconds() * 1000 + s.ttl().nanos() / 1'000'000);
  if (feature_level >= services::kCoordinationLevel) return;
  s.clear_circuit_state();
  s.clear_effective_weight();
  row.clear_effective_weight();
  row.clear_self_health();
}

ApplyResult apply_health(ApplyContext& context, std::string_view payload) {
  UCCP_TRY(const auto command, parse_command<internal::v1::ServiceHealthCommand>(payload));
  const auto before = load(context.state(), context.scope(), command.id());
  if (!before) return fail(service_not_found(command.id()));
  ServiceRow after = *before;
  after.set_self_health(command.status());
  settle(context, context.scope(), *before, std::move(after));
  return find_row(context.state(), context.scope(), command.id()).value_or("");
}

ApplyResult apply_observe(ApplyContext& context, std::string_view payload) {
  UCCP_TRY(const auto command, parse_command<internal::v1::ObserveServicesCommand>(payload));
  for (const ServiceObservation& seen : command.observations()) {
    const Scope scope{seen.tenant(), seen.namespace_()};
    const auto before = load(context.state(), scope, seen.id());
    if (!before) continue;
    ServiceRow after = *before;
    if (seen.has_load_milli()) after.set_load_milli(std::clamp(seen.load_milli(), 0, kWhole));
    if (seen.has_checks() && seen.checks_hash() == hash_of_checks(after.service())) {
      take_checks(context, scope, seen.checks(), after);
    }
    take_circuit(context, scope, seen.circuit(), after);
    settle(context, scope, *before, std::move(after));
  }
  return std::string();
}

void failing_too_long(ApplyContext& context, const Scope& scope, std::string_view id, machine::LeaseId lease) {
  const auto row = load(context.state(), scope, id);
  if (row && row->checks().deregister_lease() == lease) remove(context, scope, *row, ChangeKind::kRemoved, lease);
}

void circuit_cooled(ApplyContext& context, const Scope& scope, std::string_view id, machine::LeaseId lease) {
  const auto before = load(context.state(), scope, id);
  if (!before || before->circuit().lease() != lease) return;
  ServiceRow after = *before;
  after.mutable_circuit()->set_state(v1::CIRCUIT_STATE_HALF_OPEN);
  after.mutable_circuit()->set_lease(0);
  settle(context, scope, *before, std::move(after));
}

}  // namespace uccp::discovery
