// The checker on several nodes in virtual time: shares, thresholds, take-over, batches, flapping.
#include "services/discovery/health_checker.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "machine/machine.h"
#include "node/node.h"
#include "services/discovery/observations.h"
#include "sim/sim_clock.h"
#include "sim/sim_executor.h"
#include "storage/memory/memory_kv.h"
#include "storage/memory/memory_log_store.h"

namespace uccp::discovery {
namespace {

// One node with the state; three checkers that tell it.
class HealthCheckerTest : public ::testing::Test {
 protected:
  struct Prober final : HealthProbes {
    HealthCheckerTest* test = nullptr;
    void probe(ProbeTarget target, std::move_only_function<void(ProbeOutcome)> done) override {
      ++asked[target.port];
      const bool down = test->down_.contains(target.port);
      done({!down, down ? "refused" : ""});
    }
    std::map<int, int> asked;
  };

  HealthCheckerTest() {
    EXPECT_TRUE(node_.open({NodeId(1)}).is_ok());
    node_.start();
    EXPECT_TRUE(wait([&] { return node_.ready(); }));
    raise_level();
    for (uint64_t id = 1; id <= 3; ++id) {
      told_[id].observations = Observations::make(node_, work_, clock_, *told_[id].presence);
    }
    observations_ = told_[1].observations;
    for (uint64_t id = 1; id <= 3; ++id) {
      probers_[id].test = this;
      checkers_[id] = HealthChecker::make(
          NodeId(id), {node_, node_, work_, random_, probers_[id], metrics_,
                       [this, id](internal::v1::ReportChecksRequest request, auto done) {
                         if (cut_.contains(id)) return done(fail(Code::kUnavailable, "CUT", "cut"));
                         findings_ += request.findings().observations_size();
                         reports_ += request.findings().observations_size() > 0;
                         Observations& own = *told_[id].observations;
                         own.ask_heard(request);
                         observations_->report(std::move(request), [&own, asked = clock_.boot(),
                                                                    done = std::move(done)](auto answer) mutable {
                           if (answer) own.take_heard(*answer, asked);
                           done(std::move(answer));
                         });
                       }});
      checkers_[id]->start();
    }
  }
  ~HealthCheckerTest() override {
    for (auto& [id, checker] : checkers_) checker->stop();
    bool stopped = false;
    node_.stop([&] { stopped = true; });
    EXPECT_TRUE(wait([&] { return stopped; }));
    scheduler_.run_for_ms(100);
  }
  bool wait(const std::function<bool()>& condition) {
    return scheduler_.run_until(condition, scheduler_.now_us() + 60'000'000);
  }
  void raise_level() {
    machine::Envelope e;
    e.principal = "system";
    e.command = "machine.set_feature_level";
    e.payload = machine::encode_feature_level(machine::kFeatureLevelMax);
    bool done = false;
    node_.propose(kCoreGroup, std::move(e), [&](auto result) { done = result.has_value(); });
    EXPECT_TRUE(wait([&] { return done; }));
  }
  void register_on(int port, std::function<void(v1::HealthCheck&)> change = {}) {
    internal::v1::RegisterServiceCommand command;
    auto& s = *command.mutable_service();
    s.set_id("i" + std::to_string(port));
    s.set_service_name("web");
    s.set_address("10.0.0.1");
    s.set_port(port);
    s.mutable_ttl()->set_seconds(86'400);
    auto& check = *s.mutable_health_check();
    check.set_kind(v1::HEALTH_CHECK_KIND_TCP);
    check.mutable_interval()->set_seconds(1);
    if (change) change(check);
    command.set_instances_max(1000);
    machine::Envelope e;
    e.scope = {"t", "n"};
    e.principal = "p";
    e.command = "discovery.register";
    e.payload = command.SerializeAsString();
    bool done = false;
    node_.propose(kCoreGroup, std::move(e), [&](auto result) { done = result.has_value(); });
    EXPECT_TRUE(wait([&] { return done; }));
  }
  v1::HealthStatus status(int port) {
    v1::HealthStatus out{};
    node_.read(kCoreGroup, machine::ReadLevel::bounded(100'000), [&](auto view) {
      const auto row = find_row(*view, {"t", "n"}, "i" + std::to_string(port));
      ServiceRow parsed;
      if (row && parsed.ParseFromString(*row)) out = parsed.service().health_status();
    });
    return out;
  }
  int asked(int port) {
    int sum = 0;
    for (auto& [id, prober] : probers_) sum += prober.asked[port];
    return sum;
  }

  sim::SimScheduler scheduler_;
  sim::SimClock clock_{scheduler_.time()};
  sim::SimExecutor loop_{scheduler_}, io_{scheduler_}, watch_{scheduler_}, work_{scheduler_};
  MetricsRegistry metrics_;
  SeededRandom node_random_{1}, random_{2};
  storage::MemoryLogStore log_;
  storage::MemoryKv kv_;
  DiscoveryState state_;
  node::Node node_{{},
                   {.loop = loop_,
                    .io = io_,
                    .watch = watch_,
                    .clock = clock_,
                    .random = node_random_,
                    .log = log_,
                    .kv = kv_,
                    .metrics = metrics_,
                    .fatal = [](Status s) { ADD_FAILURE() << s.to_string(); }},
                   {{kCoreGroup, "core", {&state_}}}};
  // What each of the three knows of heartbeats; the first one leads.
  struct Told {
    std::unique_ptr<Presence> presence = std::make_unique<Presence>(WallTime{0});
    std::shared_ptr<Observations> observations;
  };
  std::map<uint64_t, Told> told_;
  std::shared_ptr<Observations> observations_;
  std::map<uint64_t, Prober> probers_;
  std::map<uint64_t, std::shared_ptr<HealthChecker>> checkers_;
  std::set<int> down_;
  std::set<uint64_t> cut_;
  int findings_ = 0, reports_ = 0;
};

TEST_F(HealthCheckerTest, HeartbeatsReachOtherNodesWithTheAnswersToTheirReports) {
  const auto seen = [&](uint64_t node, machine::LeaseId lease) {
    return told_[node].presence->times(lease, 0, 0).last_seen_us;
  };
  EXPECT_EQ(told_[2].presence->age_ms(clock_.boot()), std::nullopt);
  scheduler_.run_for_ms(5'000);
  const int64_t first = clock_.wall().us;
  told_[1].presence->heard(77, clock_.wall(), 30'000);
  told_[1].presence->heard(78, clock_.wall(), 60'000);
  scheduler_.run_for_ms(3'000);
  // To a millisecond, as ages go.
  EXPECT_NEAR(static_cast<double>(seen(2, 77)), static_cast<double>(first), 2'000);
  EXPECT_EQ(told_[2].presence->times(78, 0, 0).expire_us - seen(2, 78), 60'000'000);
  const int64_t second = clock_.wall().us;
  told_[1].presence->heard(77, clock_.wall(), 30'000);
  scheduler_.run_for_ms(3'000);
  EXPECT_NEAR(static_cast<double>(seen(3, 77)), static_cast<double>(second), 2'000);
  EXPECT_NEAR(static_cast<double>(seen(3, 78)), static_cast<double>(first), 2'000);

  EXPECT_EQ(told_[1].presence->age_ms(clock_.boot()), 0);
  EXPECT_LE(*told_[2].presence->age_ms(clock_.boot()), kCheckerReportMs + 1'000);
  cut_.insert(2);
  scheduler_.run_for_ms(20'000);
  EXPECT_GE(*told_[2].presence->age_ms(clock_.boot()), 20'000);
  // A leader that hears from nobody, itself included, is not sure any more.
  cut_.insert(1);
  scheduler_.run_for_ms(20'000);
  EXPECT_GE(*told_[1].presence->age_ms(clock_.boot()), 19'000);
}

TEST(Presence, WhatIsTooMuchForOneAnswerComesWithTheNext) {
  Presence leader(WallTime{0}), other(WallTime{0});
  for (machine::LeaseId lease = 1; lease <= 100; ++lease) {
    leader.heard(lease << 16, WallTime{static_cast<int64_t>(lease) * 1'000'000}, 30'000);
  }
  int64_t mark = 0;
  int answers = 0;
  for (; other.size() < 100 && answers < 10; ++answers) {
    std::vector<Presence::Heard> heard;
    mark = leader.heard_since(mark, 30, heard);
    EXPECT_LE(heard.size(), 30u);
    other.told(heard, BootTime{0}, 1, mark);
  }
  EXPECT_EQ(answers, 4);
  EXPECT_EQ(other.times(42 << 16, 0, 0).last_seen_us, 42'000'000);
}

TEST_F(HealthCheckerTest, EachCheckIsMadeByOneNodeAndAllHaveSome) {
  scheduler_.run_for_ms(5'000);
  for (int port = 1; port <= 60; ++port) register_on(port);
  scheduler_.run_for_ms(3'000);
  const int before = asked(7);
  scheduler_.run_for_ms(10'000);
  EXPECT_NEAR(asked(7) - before, 10, 1) << "once each interval, whoever does it";
  for (auto& [id, prober] : probers_) {
    int instances = 0;
    for (const auto& [port, times] : prober.asked) instances += times > 5;
    EXPECT_GT(instances, 8) << "node " << id;
  }
  EXPECT_EQ(findings_, 0) << "what goes as before is not told";
}

TEST_F(HealthCheckerTest, ThresholdsDecideAndFindingsAreBatched) {
  scheduler_.run_for_ms(5'000);
  for (int port = 1; port <= 40; ++port) {
    register_on(port, [](v1::HealthCheck& check) {
      check.set_unhealthy_threshold(3);
      check.set_healthy_threshold(2);
    });
  }
  scheduler_.run_for_ms(3'000);
  for (int port = 1; port <= 40; ++port) down_.insert(port);
  const int before = asked(7);
  EXPECT_TRUE(wait([&] { return status(7) == v1::HEALTH_STATUS_UNHEALTHY; }));
  EXPECT_EQ(asked(7) - before, 3);
  scheduler_.run_for_ms(3'000);
  for (int port = 1; port <= 40; ++port) EXPECT_EQ(status(port), v1::HEALTH_STATUS_UNHEALTHY) << port;
  EXPECT_LT(reports_, findings_ / 2 + 1) << "several in one report";
  down_.clear();
  EXPECT_TRUE(wait([&] { return status(7) != v1::HEALTH_STATUS_UNHEALTHY; }));
  EXPECT_TRUE(wait([&] { return status(7) == v1::HEALTH_STATUS_HEALTHY; })) << "the score recovers";
}

TEST_F(HealthCheckerTest, TheSharesOfANodeThatIsCutOffGoToTheOthers) {
  scheduler_.run_for_ms(5'000);
  for (int port = 1; port <= 30; ++port) register_on(port);
  scheduler_.run_for_ms(3'000);
  cut_.insert(2);
  scheduler_.run_for_ms(kCheckerSilentMs + kCheckerReportMs + 1'000);
  for (int port = 1; port <= 30; ++port) down_.insert(port);
  EXPECT_TRUE(wait([&] {
    for (int port = 1; port <= 30; ++port) {
      if (status(port) != v1::HEALTH_STATUS_UNHEALTHY) return false;
    }
    return true;
  }));
  // Back again, it goes on from what the others found: nothing turns healthy for a moment.
  cut_.clear();
  for (int i = 0; i < 100; ++i) {
    scheduler_.run_for_ms(100);
    for (int port = 1; port <= 30; ++port) ASSERT_EQ(status(port), v1::HEALTH_STATUS_UNHEALTHY) << port;
  }
}

TEST_F(HealthCheckerTest, ARegistrationThatGoesOrChangesEndsItsChecks) {
  scheduler_.run_for_ms(5'000);
  register_on(1);
  scheduler_.run_for_ms(3'000);
  const int before = asked(1);
  EXPECT_GT(before, 0);
  register_on(1, [](v1::HealthCheck& check) { check.set_port(2); });
  scheduler_.run_for_ms(3'000);
  EXPECT_EQ(asked(1), before);
  EXPECT_GT(asked(2), 0);
}

}  // namespace
}  // namespace uccp::discovery
