// What is known of the health of instances, and what follows: scores, weights, circuits, removal; shares of traffic;
// outcomes of calls; cycles. And the checker with many nodes in virtual time.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "machine/machine.h"
#include "services/discovery/call_outcomes.h"
#include "services/discovery/dependency_graph.h"
#include "services/discovery/discovery_rows.h"
#include "services/discovery/traffic.h"
#include "storage/memory/memory_kv.h"

namespace uccp::discovery {
namespace {

using internal::v1::ServiceObservation;

const Scope kScope{"t", "n"};

class DiscoveryHealthTest : public ::testing::Test {
 protected:
  DiscoveryHealthTest() : machine_(kCoreGroup, kv_, {&state_}) {
    EXPECT_TRUE(machine_.open().is_ok());
    registration_.set_id("a");
    registration_.set_service_name("web");
    registration_.set_address("10.0.0.1");
    registration_.set_port(80);
    registration_.set_weight(200);
    auto& check = *registration_.mutable_health_check();
    check.set_kind(v1::HEALTH_CHECK_KIND_TCP);
    check.mutable_deregister_after()->set_seconds(60);
    register_it();
  }

  machine::ApplyResult apply(std::string command, std::string payload, Scope scope = kScope) {
    machine::Envelope e;
    e.scope = std::move(scope);
    e.principal = "p";
    e.feature_level = level_;
    e.command = std::move(command);
    e.boot = {1'000'000};
    e.wall = {wall_us_ += 1'000'000};
    e.payload = std::move(payload);
    const Entry entry{Term(1), machine_.applied().next(), EntryKind::kCommand, machine::encode_envelope(e)};
    auto batch = machine_.apply({&entry, 1});
    EXPECT_TRUE(batch.has_value());
    EXPECT_TRUE(machine_.verify_digest().is_ok());
    for (const auto& change : batch->leases) {
      if (change.ttl_ms < 0) leases_.erase(change.lease);
      else leases_[change.lease] = {change.ttl_ms, change.generation};
    }
    changes_ = batch->changes.size();
    return batch->results[0].result;
  }
  void register_it() {
    internal::v1::RegisterServiceCommand command;
    *command.mutable_service() = registration_;
    command.set_instances_max(10);
    EXPECT_TRUE(apply("discovery.register", command.SerializeAsString()).has_value());
  }
  void observe(const ServiceObservation& seen) {
    internal::v1::ObserveServicesCommand command;
    *command.add_observations() = seen;
    command.mutable_observations(0)->set_tenant(kScope.tenant);
    command.mutable_observations(0)->set_namespace_(kScope.name_space);
    command.mutable_observations(0)->set_id("a");
    EXPECT_TRUE(apply("discovery.observe", command.SerializeAsString(), {}).has_value());
  }
  void find(bool failing, int32_t score, bool recovering = false, uint64_t hash = 0) {
    ServiceObservation seen;
    seen.mutable_checks()->set_failing(failing);
    seen.mutable_checks()->set_recovering(recovering);
    seen.mutable_checks()->set_score_milli(score);
    seen.mutable_checks()->set_reason(failing ? "refused" : "");
    seen.set_checks_hash(hash != 0 ? hash : hash_of_checks(registration_));
    observe(seen);
  }
  void circuit(v1::CircuitState state) {
    ServiceObservation seen;
    seen.set_circuit(state);
    observe(seen);
  }
  // Ends the lease that was begun with this ttl.
  void end_lease(int64_t ttl_ms) {
    for (const auto& [lease, with] : leases_) {
      if (with.first != ttl_ms) continue;
      EXPECT_TRUE(apply("machine.expire", machine::encode_expire(lease, with.second, Term(1)), {}).has_value());
      leases_.erase(lease);
      return;
    }
    ADD_FAILURE() << "no lease of " << ttl_ms << " ms";
  }
  std::string seen() {
    const auto row = load(machine_.view(), kScope, "a");
    if (!row) return "gone";
    const auto& s = row->service();
    EXPECT_EQ(s.healthy(), row->available());
    EXPECT_EQ(count_services(machine_.view()).available, s.healthy() ? 1u : 0u);
    return v1::HealthStatus_Name(s.health_status()).substr(14) + " " +
           v1::CircuitState_Name(s.circuit_state()).substr(14) + " " + std::to_string(s.effective_weight());
  }

  storage::MemoryKv kv_;
  DiscoveryState state_;
  machine::Machine machine_;
  v1::ServiceRegistration registration_;
  int64_t wall_us_ = 1'700'000'000'000'000;
  std::map<machine::LeaseId, std::pair<int64_t, uint64_t>> leases_;
  size_t changes_ = 0;
  uint32_t level_ = services::kCoordinationLevel;
};

TEST_F(DiscoveryHealthTest, AtAnOlderLevelRowsAreWhatTheyWere) {
  level_ = 1;
  registration_.set_id("b");
  registration_.set_port(81);
  register_it();
  const auto bytes = *find_row(machine_.view(), kScope, "b");
  ServiceRow row;
  ASSERT_TRUE(row.ParseFromString(bytes));
  EXPECT_EQ(row.self_health(), v1::HEALTH_STATUS_UNSPECIFIED);
  EXPECT_EQ(row.effective_weight(), 0);
  EXPECT_EQ(row.service().circuit_state(), v1::CIRCUIT_STATE_UNSPECIFIED);
  EXPECT_EQ(row.service().health_status(), v1::HEALTH_STATUS_HEALTHY);
  level_ = 2;
  registration_.set_version("2");
  register_it();
  EXPECT_EQ(load(machine_.view(), kScope, "b")->effective_weight(), 200);
}

TEST_F(DiscoveryHealthTest, WeightFollowsTheScore) {
  EXPECT_EQ(seen(), "HEALTHY CLOSED 200");
  find(false, 900);
  EXPECT_EQ(seen(), "HEALTHY CLOSED 180");
  find(false, 700);
  EXPECT_EQ(seen(), "DEGRADED CLOSED 140");
  find(false, 1);
  EXPECT_EQ(seen(), "DEGRADED CLOSED 1") << "whoever is discovered has a weight";
  find(true, 0);
  EXPECT_EQ(seen(), "UNHEALTHY OPEN 0");
  find(true, 300, true);
  EXPECT_EQ(seen(), "UNHEALTHY HALF_OPEN 0");
  find(false, 1000);
  EXPECT_EQ(seen(), "HEALTHY CLOSED 200");
}

TEST_F(DiscoveryHealthTest, TheWorseOfReportAndChecksCounts) {
  internal::v1::ServiceHealthCommand says;
  says.set_id("a");
  says.set_status(v1::HEALTH_STATUS_DEGRADED);
  EXPECT_TRUE(apply("discovery.health", says.SerializeAsString()).has_value());
  EXPECT_EQ(seen(), "DEGRADED CLOSED 100");
  find(false, 500);
  EXPECT_EQ(seen(), "DEGRADED CLOSED 50");
  find(true, 0);
  says.set_status(v1::HEALTH_STATUS_HEALTHY);
  EXPECT_TRUE(apply("discovery.health", says.SerializeAsString()).has_value());
  EXPECT_EQ(seen(), "UNHEALTHY OPEN 0") << "saying so does not help";
}

TEST_F(DiscoveryHealthTest, FindingsOfOtherChecksAreDropped) {
  find(true, 0, false, 12345);
  EXPECT_EQ(seen(), "HEALTHY CLOSED 200");
  find(true, 0);
  register_it();
  EXPECT_EQ(seen(), "UNHEALTHY OPEN 0") << "the same again is no excuse";
  registration_.mutable_health_check()->set_endpoint("other");
  register_it();
  EXPECT_EQ(seen(), "HEALTHY CLOSED 200") << "other checks know nothing yet";
  EXPECT_EQ(leases_.size(), 1u) << "the time until removal ended with them";
}

TEST_F(DiscoveryHealthTest, FailingTooLongRemovesUnlessItRecovers) {
  find(true, 0);
  find(true, 0);
  EXPECT_EQ(leases_.size(), 2u) << "the time runs from the first finding";
  find(false, 300);
  EXPECT_EQ(leases_.size(), 1u);
  find(true, 0);
  end_lease(60'000);
  EXPECT_EQ(seen(), "gone");
  EXPECT_TRUE(leases_.empty()) << "its ttl ended with it";
}

TEST_F(DiscoveryHealthTest, ACircuitOpensCoolsAndCloses) {
  circuit(v1::CIRCUIT_STATE_OPEN);
  EXPECT_EQ(seen(), "HEALTHY OPEN 0");
  circuit(v1::CIRCUIT_STATE_CLOSED);
  EXPECT_EQ(seen(), "HEALTHY OPEN 0") << "only a trial closes it";
  end_lease(kCircuitOpenMs);
  EXPECT_EQ(seen(), "HEALTHY HALF_OPEN 20");
  circuit(v1::CIRCUIT_STATE_OPEN);
  end_lease(kCircuitOpenMs);
  circuit(v1::CIRCUIT_STATE_CLOSED);
  EXPECT_EQ(seen(), "HEALTHY CLOSED 200");
  circuit(v1::CIRCUIT_STATE_OPEN);
  internal::v1::DeregisterServiceCommand gone;
  gone.set_id("a");
  EXPECT_TRUE(apply("discovery.deregister", gone.SerializeAsString()).has_value());
  EXPECT_TRUE(leases_.empty());
}

TEST_F(DiscoveryHealthTest, ALoadIsNoEventAndKeepsTheEtag) {
  const auto before = load(machine_.view(), kScope, "a")->service().etag();
  ServiceObservation seen_load;
  seen_load.set_load_milli(250);
  observe(seen_load);
  EXPECT_EQ(changes_, 0u);
  const auto row = *load(machine_.view(), kScope, "a");
  EXPECT_EQ(row.service().etag(), before);
  EXPECT_EQ(row.service().load(), 0.25);
  find(false, 500);
  EXPECT_EQ(changes_, 1u);
  EXPECT_NE(load(machine_.view(), kScope, "a")->service().etag(), before);
}

TEST(Traffic, SharesFollowWeightsAndRollouts) {
  const auto shares = [](std::vector<TrafficMember> members) {
    std::string out;
    for (const double share : traffic_shares(members)) out += std::to_string(std::lround(share * 1000)) + " ";
    return out;
  };
  constexpr auto kStable = v1::DEPLOYMENT_ROLE_STABLE, kCanary = v1::DEPLOYMENT_ROLE_CANARY;
  constexpr auto kBlue = v1::DEPLOYMENT_ROLE_BLUE, kGreen = v1::DEPLOYMENT_ROLE_GREEN;
  EXPECT_EQ(shares({{300, {}}, {100, {}}}), "750 250 ");
  EXPECT_EQ(shares({{100, {kStable}}, {100, {kStable}}, {100, {kCanary, "", 10}}}), "450 450 100 ");
  EXPECT_EQ(shares({{100, {kBlue, "", 100}}, {100, {kGreen}}}), "1000 0 ");
  EXPECT_EQ(shares({{0, {kBlue, "", 100}}, {100, {kGreen}}}), "0 1000 ") << "a side that is down leaves its share";
  EXPECT_EQ(shares({{100, {kBlue, "", 80}}, {100, {kGreen, "", 80}}}), "500 500 ") << "more than all is scaled down";
  EXPECT_EQ(shares({{100, {kCanary, "", 5}}}), "1000 ") << "nobody else is there";
  EXPECT_EQ(shares({}), "");
}

TEST(CallOutcomes, OpensAtHalfOfEnoughCallsWithinTheWindow) {
  CallOutcomes outcomes;
  const auto add = [&](uint64_t ok, uint64_t bad, v1::CircuitState state, int64_t at_ms) {
    return outcomes.add({7, ok, bad}, state, BootTime{at_ms * 1000});
  };
  constexpr auto kClosed = v1::CIRCUIT_STATE_CLOSED, kOpen = v1::CIRCUIT_STATE_OPEN,
                 kHalf = v1::CIRCUIT_STATE_HALF_OPEN;
  EXPECT_EQ(add(0, 19, kClosed, 100), std::nullopt) << "too few calls";
  EXPECT_EQ(add(20, 0, kClosed, 12'000), std::nullopt) << "the failures are forgotten";
  EXPECT_EQ(add(0, 19, kClosed, 15'000), std::nullopt);
  EXPECT_EQ(add(0, 1, kClosed, 16'000), kOpen);
  EXPECT_EQ(add(0, 100, kOpen, 17'000), std::nullopt);
  EXPECT_EQ(add(4, 0, kHalf, 27'000), std::nullopt);
  EXPECT_EQ(add(1, 0, kHalf, 28'000), kClosed);
  EXPECT_EQ(add(100, 1, kHalf, 29'000), kOpen);
  for (uint64_t lease = 0; lease < 3000; ++lease) {
    outcomes.add({lease, 1, 0}, kClosed, BootTime{static_cast<int64_t>(lease) * 100'000});
  }
  EXPECT_LT(outcomes.size(), 1500u) << "what is older than the window is dropped";
}

TEST(DependencyGraph, FindsCycles) {
  using Cycles = std::vector<std::vector<size_t>>;
  EXPECT_EQ(find_cycles({{1}, {2}, {}}), Cycles());
  EXPECT_EQ(find_cycles({{1}, {2}, {0}, {3}, {0}}), (Cycles{{0, 1, 2}, {3}}));
  EXPECT_EQ(find_cycles({{1}, {0, 2}, {3}, {2}}), (Cycles{{0, 1}, {2, 3}}));
  std::vector<std::vector<size_t>> chain;
  for (size_t i = 1; i <= 100'000; ++i) chain.push_back({i % 100'000});
  EXPECT_EQ(find_cycles(chain).at(0).size(), 100'000u) << "without recursion";
}

}  // namespace
}  // namespace uccp::discovery
