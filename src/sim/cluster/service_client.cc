#include "sim/cluster/service_client.h"

#include <set>

#include "call/contract.h"
#include "services/discovery/discovery_state.h"

namespace uccp::sim {
namespace {

using discovery::ServiceRow;

// Instances that the changes kept in the state leave over, and those that a list shows: the same ones.
std::string compare_list_with_changes(const machine::GroupView& state) {
  std::set<std::string> expected;
  const auto changes = machine::read_changes(state, LogIndex(0), SIZE_MAX);
  if (!changes) return "";
  for (const machine::Change& change : *changes) {
    if (change.topic != discovery::kTopic) continue;
    const auto kind = static_cast<discovery::ChangeKind>(change.kind);
    const bool gone = kind == discovery::ChangeKind::kRemoved || kind == discovery::ChangeKind::kExpired;
    if (gone) expected.erase(change.key);
    else expected.insert(change.key);
  }
  std::set<std::string> listed;
  discovery::scan_services(state, {"t", "n"}, "", "", [&](std::string_view, std::string_view bytes) {
    ServiceRow row;
    if (row.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) listed.insert(row.service().id());
    return true;
  });
  if (listed == expected) return "";
  return std::to_string(listed.size()) + " instances are listed and " + std::to_string(expected.size()) +
         " follow from the changes, at index " + std::to_string(state.applied().value);
}

// Leases are looked at once a tick.
constexpr int64_t kLateUs = 60'000;

}  // namespace

std::string lease_name(machine::LeaseId lease) { return "lease " + std::to_string(lease); }

ServiceClient::ServiceClient(SimCluster& cluster, size_t number)
    : SimClient(cluster, "service-" + std::to_string(number)),
      id_("instance-" + std::to_string(number)),
      service_("service-" + std::to_string(number % 2)),
      port_(1000 + static_cast<int64_t>(number)),
      ttl_ms_(600 + below(2000)) {}

void ServiceClient::start() { later(below(200'000)); }

void ServiceClient::later(int64_t us) {
  after_us(us, [this] { beat(); });
}

void ServiceClient::beat() {
  if (cluster_.healed()) {
    ended_ = true;
    return;
  }
  if (lease_ == 0) return enroll();
  const int64_t choice = below(100);
  if (choice < 3) {
    // Silent until it must have expired.
    lease_ = 0;
    return later(ttl_ms_ * 1000 * 2);
  }
  if (choice < 6) return deregister();
  if (choice < 12) return report_health();
  if (choice < 15) return list();
  if (choice < 30) return discover();
  if (choice < 45) {
    // Just when its time is over: before, behind or together with the expiry.
    const int64_t at_us = renewed_us_ + ttl_ms_ * 1000 - kLateUs / 4 + below(kLateUs);
    return after_us(at_us - cluster_.now_us(), [this] { enroll(); });
  }
  heartbeat();
}

void ServiceClient::enroll() {
  internal::v1::RegisterServiceCommand command;
  auto& service = *command.mutable_service();
  service.set_id(id_);
  service.set_service_name(service_);
  service.set_address("10.0.0.1");
  service.set_port(static_cast<int32_t>(port_));
  service.mutable_ttl()->set_seconds(ttl_ms_ / 1000);
  service.mutable_ttl()->set_nanos(static_cast<int32_t>(ttl_ms_ % 1000 * 1'000'000));
  command.set_new_id(id_);
  command.set_instances_max(1000);
  write(kCoreGroup, envelope("discovery.register", command.SerializeAsString()),
        [this](Result<machine::Applied> result, int64_t called_us) {
          ServiceRow row;
          if (result && row.ParseFromString(result->response)) {
            lease_ = row.lease();
            cluster_.checkers().ttl.renewed(lease_name(lease_), called_us, ttl_ms_);
            renewed_us_ = cluster_.now_us();
          }
          later(below(ttl_ms_ * 1000 / 3));
        });
}

void ServiceClient::heartbeat() {
  try_once(kCoreGroup, SimCluster::keep_alive(kCoreGroup, lease_),
           [this, lease = lease_](const Result<machine::Applied>& result, int64_t called_us) {
             if (result) {
               cluster_.checkers().ttl.renewed(lease_name(lease), called_us, ttl_ms_);
               renewed_us_ = cluster_.now_us();
             } else if (result.error().code() == Code::kNotFound) {
               lease_ = 0;
             }
             later(below(ttl_ms_ * 1000 / 3));
           });
}

void ServiceClient::list() {
  read(kCoreGroup, machine::ReadLevel::linearizable(), compare_list_with_changes,
       [this](const Result<machine::Applied>& result, int64_t) {
         if (result && !result->response.empty()) {
           cluster_.checkers().violations.add("services", name() + ": " + result->response);
         }
         later(below(50'000));
       });
}

// Of any node: what it shows is right as of the index that it names, and not older than it may be.
void ServiceClient::discover() {
  static const call::Method* const discover = call::Contract::get().find("uccp.v1.ServiceDiscovery/Discover");
  const std::string wanted = "service-" + std::to_string(below(2));
  v1::DiscoverRequest request;
  request.set_name(wanted);
  ServiceCall call{.method = discover, .request = request.SerializeAsString(), .deadline_ms = 400};
  const int64_t bound_ms = chance(0.5) ? 50 + below(1000) : 0;
  call.level = bound_ms > 0 ? machine::ReadLevel::bounded(bound_ms) : machine::ReadLevel::linearizable();
  ask_any_node(std::move(call), [this, wanted, bound_ms](const Result<machine::Applied>& result, int64_t called_us) {
    v1::DiscoverResponse response;
    if (result && response.ParseFromString(result->response)) {
      std::set<std::string> shown;
      for (const auto& service : response.services()) shown.insert(service.id());
      const LogIndex index(response.revision());
      cluster_.checkers().listings.listed(name(), index, wanted, shown);
      if (bound_ms > 0) cluster_.checkers().freshness.bounded(kCoreGroup, called_us, bound_ms, index);
    } else if (!result && result.error().code() != Code::kDeadline) {
      cluster_.checkers().violations.add("services", name() + ": " + result.error().to_string());
    }
    later(below(50'000));
  });
}

void ServiceClient::deregister() {
  internal::v1::DeregisterServiceCommand command;
  command.set_id(id_);
  lease_ = 0;
  write(kCoreGroup, envelope("discovery.deregister", command.SerializeAsString()),
        [this](const Result<machine::Applied>&, int64_t) { later(below(500'000)); });
}

void ServiceClient::report_health() {
  internal::v1::ServiceHealthCommand command;
  command.set_id(id_);
  static constexpr v1::HealthStatus kStates[] = {v1::HEALTH_STATUS_HEALTHY, v1::HEALTH_STATUS_DEGRADED,
                                                 v1::HEALTH_STATUS_UNHEALTHY};
  command.set_status(kStates[below(std::size(kStates))]);
  write(kCoreGroup, envelope("discovery.health", command.SerializeAsString()),
        [this](const Result<machine::Applied>&, int64_t) { later(below(ttl_ms_ * 1000 / 3)); });
}

}  // namespace uccp::sim
