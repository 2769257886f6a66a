#include "services/discovery/discovery_state.h"

#include <gtest/gtest.h>

#include "machine/test_lab.h"

namespace uccp::discovery {
namespace {

using internal::v1::DeregisterServiceCommand;
using internal::v1::RegisterServiceCommand;
using internal::v1::ServiceHealthCommand;
using internal::v1::UpdateServiceCommand;

const Scope& kScope = machine::kLabScope;

// Applies commands to a machine, without raft.
class DiscoveryStateTest : public ::testing::Test {
 protected:
  // Each command a second after the other.
  machine::ApplyResult apply(std::string command, std::string payload, std::string request_id = "",
                             Scope scope = kScope) {
    auto result = lab_.apply(std::move(command), std::move(payload), std::move(request_id), std::move(scope));
    lab_.advance(1000);
    return result;
  }
  static v1::ServiceRegistration instance(std::string id, std::string name, int port) {
    v1::ServiceRegistration s;
    s.set_id(std::move(id));
    s.set_service_name(std::move(name));
    s.set_address("10.0.0.1");
    s.set_port(port);
    return s;
  }
  Result<ServiceRow> register_instance(v1::ServiceRegistration s, std::string request_id = "",
                                       uint64_t instances_max = 100, Scope scope = kScope) {
    RegisterServiceCommand command;
    *command.mutable_service() = std::move(s);
    command.set_new_id("svc_" + std::to_string(++made_));
    command.set_instances_max(instances_max);
    return row_of(apply("discovery.register", command.SerializeAsString(), std::move(request_id), std::move(scope)));
  }
  Result<ServiceRow> update(v1::ServiceRegistration s, std::vector<std::string> paths, std::string if_match = "") {
    UpdateServiceCommand command;
    *command.mutable_service() = std::move(s);
    for (auto& path : paths) command.add_paths(path);
    command.set_if_match(if_match);
    return row_of(apply("discovery.update", command.SerializeAsString()));
  }
  machine::ApplyResult deregister(std::string id, std::string if_match = "") {
    DeregisterServiceCommand command;
    command.set_id(id);
    command.set_if_match(if_match);
    return apply("discovery.deregister", command.SerializeAsString());
  }
  machine::ApplyResult expire(machine::LeaseId lease, uint64_t generation) { return lab_.expire(lease, generation); }
  static Result<ServiceRow> row_of(machine::ApplyResult result) {
    if (!result) return std::unexpected(result.error());
    ServiceRow row;
    EXPECT_TRUE(row.ParseFromString(*result));
    return row;
  }
  std::string ids(std::string_view name) {
    std::string out;
    scan_services(lab_.view(), kScope, name, "", [&](std::string_view, std::string_view bytes) {
      ServiceRow row;
      EXPECT_TRUE(row.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())));
      out.append(out.empty() ? "" : ",").append(row.service().id());
      return true;
    });
    return out;
  }
  ChangeKind change() {
    return lab_.last().changes.size() == 1 ? static_cast<ChangeKind>(lab_.last().changes[0].kind) : ChangeKind(0);
  }

  machine::MachineLab<DiscoveryState> lab_;
  int made_ = 0;
};

TEST_F(DiscoveryStateTest, ARegistrationIsHealthyWithDefaultsAndALease) {
  auto row = register_instance(instance("", "web", 80));
  ASSERT_TRUE(row.has_value());
  const auto& s = row->service();
  EXPECT_EQ(s.id(), "svc_1");
  EXPECT_EQ(s.namespace_(), "n");
  EXPECT_TRUE(s.healthy());
  EXPECT_EQ(s.health_status(), v1::HEALTH_STATUS_HEALTHY);
  EXPECT_EQ(s.ttl().seconds(), 30);
  EXPECT_EQ(s.weight(), 100);
  EXPECT_EQ(s.revision(), 1u);
  EXPECT_EQ(s.create_time().seconds(), 1'700'000'001);
  EXPECT_EQ(row->ttl_ms(), 30'000);
  EXPECT_EQ(lab_.machine().leases().at(row->lease()).ttl_ms, 30'000);
  EXPECT_EQ(change(), ChangeKind::kAdded);
  EXPECT_EQ(lab_.last().changes[0].scope, kScope);
}

TEST_F(DiscoveryStateTest, TheSameIdOrEndpointUpdatesThatInstance) {
  ASSERT_TRUE(register_instance(instance("", "web", 80)).has_value());
  auto again = instance("", "web", 80);
  again.set_version("2.0.0");
  auto row = register_instance(again);
  EXPECT_EQ(row->service().id(), "svc_1");
  EXPECT_EQ(row->service().create_time().seconds(), 1'700'000'001);
  EXPECT_EQ(change(), ChangeKind::kUpdated);
  auto moved = instance("svc_1", "web", 81);
  EXPECT_EQ(register_instance(moved)->service().port(), 81);
  // The old endpoint is free again.
  EXPECT_EQ(register_instance(instance("other", "web", 80))->service().id(), "other");
  EXPECT_EQ(ids("web"), "other,svc_1");
  EXPECT_EQ(count_services(lab_.view()).registered, 2u);
}

TEST_F(DiscoveryStateTest, TheSameContentAgainOnlyRenewsTheLease) {
  auto first = register_instance(instance("", "web", 80));
  auto second = register_instance(instance("", "web", 80));
  EXPECT_TRUE(lab_.last().changes.empty());
  EXPECT_EQ(second->service().etag(), first->service().etag());
  EXPECT_GT(second->seen_us(), first->seen_us());
  ASSERT_EQ(lab_.last().leases.size(), 1u);
  EXPECT_EQ(lab_.last().leases[0].generation, 2u);
}

TEST_F(DiscoveryStateTest, IdsAndEndpointsBelongToOneInstance) {
  ASSERT_TRUE(register_instance(instance("a", "web", 80)).has_value());
  ASSERT_TRUE(register_instance(instance("b", "web", 81)).has_value());
  EXPECT_EQ(register_instance(instance("a", "api", 80)).error().reason(), "SERVICE_ID_TAKEN");
  EXPECT_EQ(register_instance(instance("a", "web", 81)).error().reason(), "ENDPOINT_TAKEN");
  auto s = instance("a", "web", 81);
  EXPECT_EQ(update(s, {"port"}).error().reason(), "ENDPOINT_TAKEN");
  // Another namespace and another tenant have their own.
  EXPECT_TRUE(register_instance(instance("a", "api", 81), "", 100, {"t", "m"}).has_value());
  EXPECT_TRUE(register_instance(instance("a", "api", 81), "", 100, {"u", "n"}).has_value());
  EXPECT_EQ(ids(""), "a,b");
}

TEST_F(DiscoveryStateTest, TheQuotaCountsInstancesOfTheNamespace) {
  ASSERT_TRUE(register_instance(instance("a", "web", 80), "", 2).has_value());
  ASSERT_TRUE(register_instance(instance("b", "web", 81), "", 2).has_value());
  EXPECT_EQ(register_instance(instance("c", "web", 82), "", 2).error().reason(), "INSTANCES_EXHAUSTED");
  // An update is no new instance.
  EXPECT_TRUE(register_instance(instance("a", "web", 90), "", 2).has_value());
  ASSERT_TRUE(deregister("a").has_value());
  EXPECT_TRUE(register_instance(instance("c", "web", 82), "", 2).has_value());
}

TEST_F(DiscoveryStateTest, ARepeatedRequestIdRegistersOnce) {
  auto first = register_instance(instance("", "web", 80), "req-1");
  ASSERT_TRUE(deregister("svc_1").has_value());
  // The reply was lost and the client repeats: it gets the first answer, nothing comes back to life.
  EXPECT_EQ(register_instance(instance("", "web", 80), "req-1")->service().id(), first->service().id());
  EXPECT_EQ(ids("web"), "");
}

TEST_F(DiscoveryStateTest, ExpiryRemovesEverythingAndTellsTheScope) {
  auto row = register_instance(instance("a", "web", 80));
  ASSERT_TRUE(expire(row->lease(), 1).has_value());
  EXPECT_EQ(change(), ChangeKind::kExpired);
  EXPECT_EQ(lab_.last().changes[0].scope, kScope);
  EXPECT_EQ(ids("web"), "");
  EXPECT_EQ(count_services(lab_.view()).registered, 0u);
  EXPECT_FALSE(find_row(lab_.view(), kScope, "a").has_value());
  EXPECT_TRUE(lab_.machine().leases().empty());
  // Nothing is left but what the machine itself keeps: the endpoint can be taken by another id.
  EXPECT_EQ(register_instance(instance("b", "web", 80))->service().id(), "b");
}

TEST_F(DiscoveryStateTest, ARegistrationBeatsAnExpiryThatIsOnItsWay) {
  auto row = register_instance(instance("a", "web", 80));
  ASSERT_TRUE(register_instance(instance("a", "web", 80)).has_value());
  ASSERT_TRUE(expire(row->lease(), 1).has_value());
  EXPECT_EQ(ids("web"), "a");
  ASSERT_TRUE(expire(row->lease(), 2).has_value());
  EXPECT_EQ(ids("web"), "");
  // The other order: it expired first, so the same id is a new instance with a new lease.
  auto again = register_instance(instance("a", "web", 80));
  EXPECT_NE(again->lease(), row->lease());
  EXPECT_EQ(change(), ChangeKind::kAdded);
}

TEST_F(DiscoveryStateTest, AnUpdateChangesNamedFieldsAndClearsAbsentOnes) {
  auto s = instance("a", "web", 80);
  s.set_version("1.0.0");
  s.set_region("eu");
  (*s.mutable_metadata())["k"] = "v";
  ASSERT_TRUE(register_instance(s).has_value());
  v1::ServiceRegistration changed;
  changed.set_id("a");
  changed.set_version("1.1.0");
  auto row = update(changed, {"version", "metadata"});
  ASSERT_TRUE(row.has_value());
  EXPECT_EQ(row->service().version(), "1.1.0");
  EXPECT_EQ(row->service().metadata_size(), 0);
  EXPECT_EQ(row->service().region(), "eu");
  EXPECT_EQ(change(), ChangeKind::kUpdated);
  EXPECT_TRUE(lab_.last().leases.empty());
  EXPECT_EQ(update(changed, {"address"}).error().reason(), "FIELD_INVALID");
  changed.mutable_ttl()->set_seconds(60);
  EXPECT_EQ(update(changed, {"ttl"})->ttl_ms(), 60'000);
  EXPECT_EQ(lab_.last().leases.at(0).ttl_ms, 60'000);
}

TEST_F(DiscoveryStateTest, AnEtagOfTheLastReadIsNeeded) {
  auto row = register_instance(instance("a", "web", 80));
  const std::string etag = row->service().etag();
  auto s = instance("a", "web", 80);
  s.set_weight(5);
  ASSERT_TRUE(update(s, {"weight"}, etag).has_value());
  s.set_weight(6);
  EXPECT_EQ(update(s, {"weight"}, etag).error().reason(), "ETAG_MISMATCH");
  EXPECT_EQ(update(s, {"weight"}, etag).error().code(), Code::kConflict);
  EXPECT_EQ(deregister("a", etag).error().reason(), "ETAG_MISMATCH");
  EXPECT_TRUE(deregister("a").has_value());
  EXPECT_EQ(change(), ChangeKind::kRemoved);
  EXPECT_EQ(deregister("a").error().reason(), "SERVICE_NOT_FOUND");
}

TEST_F(DiscoveryStateTest, HealthAndDrainingDecideWhetherItIsAvailable) {
  ASSERT_TRUE(register_instance(instance("a", "web", 80)).has_value());
  ServiceHealthCommand command;
  command.set_id("a");
  const auto report = [&](v1::HealthStatus status) {
    command.set_status(status);
    return row_of(apply("discovery.health", command.SerializeAsString()));
  };
  EXPECT_TRUE(report(v1::HEALTH_STATUS_DEGRADED)->service().healthy());
  EXPECT_EQ(report(v1::HEALTH_STATUS_UNHEALTHY)->service().health_score(), 0);
  EXPECT_EQ(count_services(lab_.view()).available, 0u);
  EXPECT_EQ(find_instance(lab_.view(), kScope, "a")->health, v1::HEALTH_STATUS_UNHEALTHY);
  EXPECT_TRUE(report(v1::HEALTH_STATUS_HEALTHY)->available());
  (void)report(v1::HEALTH_STATUS_HEALTHY);
  EXPECT_TRUE(lab_.last().changes.empty());
  auto s = instance("a", "web", 80);
  s.set_draining(true);
  EXPECT_FALSE(update(s, {"draining"})->service().healthy());
  EXPECT_EQ(count_services(lab_.view()).available, 0u);
  EXPECT_EQ(count_services(lab_.view()).registered, 1u);
}

TEST_F(DiscoveryStateTest, CreationOrderCrossesNamespacesAndGoesOnBehindAPosition) {
  ASSERT_TRUE(register_instance(instance("z", "web", 80)).has_value());
  ASSERT_TRUE(register_instance(instance("a", "api", 80)).has_value());
  ASSERT_TRUE(register_instance(instance("m", "web", 80), "", 100, {"t", "o"}).has_value());
  ASSERT_TRUE(register_instance(instance("x", "web", 80), "", 100, {"u", "n"}).has_value());
  const auto listed = [&](const Scope& scope, std::string after, size_t skip_to = 0) {
    std::string out;
    std::string at;
    scan_by_creation(lab_.view(), scope, after, [&](std::string_view position, std::string_view bytes) {
      ServiceRow row;
      EXPECT_TRUE(row.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())));
      out += row.service().id();
      at = position;
      return skip_to == 0 || out.size() < skip_to;
    });
    return std::pair(out, at);
  };
  EXPECT_EQ(listed(kScope, "").first, "za");
  EXPECT_EQ(listed({"t", ""}, "").first, "zam");
  const auto [first, position] = listed({"t", ""}, "", 1);
  EXPECT_EQ(listed({"t", ""}, position).first, "am");
}

TEST(Serialize, MapsHaveOneOrder) {
  v1::ServiceRegistration a, b;
  for (int i = 0; i < 50; ++i) (*a.mutable_labels())["k" + std::to_string(i)] = "v";
  for (int i = 49; i >= 0; --i) (*b.mutable_labels())["k" + std::to_string(i)] = "v";
  EXPECT_EQ(serialize(a), serialize(b));
}

}  // namespace
}  // namespace uccp::discovery
