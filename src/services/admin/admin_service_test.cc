#include "services/admin/admin_service.h"

#include <gtest/gtest.h>

namespace uccp::admin {
namespace {

class FixedClock final : public Clock {
 public:
  BootTime boot() const override { return boot_; }
  WallTime wall() const override { return {1'700'000'000'000'000}; }
  BootTime boot_{1'000'000};
};

class Settings final : public ConfigurationSource {
 public:
  std::vector<SettingInForce> settings() const override {
    return {{"tls.key", "s3cret", "", "file", "string", "Key.", false, true},
            {"tasks.retention", "7d", "7d", "default", "duration", "How long."},
            {"tasks.max", "12", "10", "flag", "int", "How many."}};
  }
  Status check(const std::vector<NewValue>&) const override { return Status::ok(); }
  void refresh(std::function<void()> done) override { done(); }
};

class Collector final : public call::Sink {
 public:
  void send(std::string message) override { messages.push_back(std::move(message)); }
  void finish(Status s) override { status = std::move(s); }
  size_t queued_bytes() const override { return 0; }
  std::vector<std::string> messages;
  Status status;
};

class AdminServiceTest : public ::testing::Test {
 protected:
  AdminServiceTest() { service_.add_handlers(handlers_); }

  template <typename Response, typename Request>
  Result<Response> ask(std::string_view method, const Request& request, bool known = true) {
    auto sink = std::make_shared<Collector>();
    auto call = std::make_shared<call::Call>();
    call->method = call::Contract::get().find("uccp.v1.Administration/" + std::string(method));
    call->sink = sink;
    if (known)
      call->principal = {.kind = call::Principal::Kind::kUser, .tenant = "t", .name = "alice", .roles = {"admin"}};
    (*handlers_.find(call->method))(call, request.SerializeAsString());
    if (!sink->status.is_ok()) return std::unexpected(sink->status);
    Response response;
    EXPECT_TRUE(response.ParseFromString(sink->messages.at(0)));
    return response;
  }

  FixedClock clock_;
  HealthRegistry health_;
  MetricsRegistry metrics_;
  Settings settings_;
  AdminService service_{{health_, metrics_, settings_, clock_, "n1", "c1", {}, {}, {}}};
  call::HandlerTable handlers_;
};

TEST_F(AdminServiceTest, HealthIsTheWorstOfTheNeededParts) {
  ComponentState storage, telemetry;
  health_.add("storage", {.needed_to_be_ready = true, .needed_to_live = true}, [&] { return storage; });
  health_.add("telemetry", {.needed_to_be_ready = false}, [&] { return telemetry; });
  clock_.boot_ = clock_.boot_.plus_ms(1500);
  auto health = ask<v1::Health>("GetHealth", v1::GetHealthRequest());
  EXPECT_EQ(health->status(), v1::HEALTH_STATUS_HEALTHY);
  EXPECT_TRUE(health->ready());
  EXPECT_EQ(health->components_size(), 2);
  EXPECT_EQ(health->uptime().nanos(), 500'000'000);
  telemetry = {v1::HEALTH_STATUS_UNHEALTHY, "no collector"};
  health = ask<v1::Health>("GetHealth", v1::GetHealthRequest());
  EXPECT_EQ(health->status(), v1::HEALTH_STATUS_DEGRADED);
  EXPECT_EQ(health->reason(), "telemetry: no collector");
  EXPECT_TRUE(health->ready());
  storage = {v1::HEALTH_STATUS_UNHEALTHY, "disk full"};
  health = ask<v1::Health>("GetHealth", v1::GetHealthRequest());
  EXPECT_EQ(health->status(), v1::HEALTH_STATUS_UNHEALTHY);
  EXPECT_FALSE(health->ready());
  EXPECT_FALSE(health_.report().live);
  v1::GetHealthRequest one;
  one.set_component("telemetry");
  EXPECT_EQ(ask<v1::Health>("GetHealth", one)->reason(), "no collector");
  one.set_component("nope");
  EXPECT_EQ(ask<v1::Health>("GetHealth", one)->status(), v1::HEALTH_STATUS_UNSPECIFIED);
}

TEST_F(AdminServiceTest, StrangersLearnOnlyTheStatus) {
  health_.add("storage", {}, [] { return ComponentState{v1::HEALTH_STATUS_DEGRADED, "slow"}; });
  v1::Health expected;
  expected.set_status(v1::HEALTH_STATUS_DEGRADED);
  EXPECT_EQ(ask<v1::Health>("GetHealth", v1::GetHealthRequest(), false)->SerializeAsString(),
            expected.SerializeAsString());
}

TEST_F(AdminServiceTest, MetricsComeAsTextAndAsSeries) {
  metrics_.counter("uccp_a_total", "A", {{"code", "o\"k"}}).add(3);
  metrics_.histogram("uccp_b_seconds", "B").observe(0.5);
  metrics_.gauge("uccp_c", "C").set(1);
  v1::GetMetricsRequest request;
  auto all = ask<v1::GetMetricsResponse>("GetMetrics", request);
  ASSERT_EQ(all->metrics_size(), 3);
  EXPECT_EQ(all->metrics(0).labels().at("code"), "o\"k");
  EXPECT_EQ(all->metrics(0).value(), 3);
  EXPECT_EQ(all->metrics(1).type(), "histogram");
  EXPECT_EQ(all->metrics(1).value(), 1);
  EXPECT_EQ(all->metrics(1).sum(), 0.5);
  EXPECT_EQ(all->text(), metrics_.text());
  request.set_prefix("uccp_c");
  EXPECT_EQ(ask<v1::GetMetricsResponse>("GetMetrics", request)->text(),
            "# HELP uccp_c C\n# TYPE uccp_c gauge\nuccp_c 1\n");
}

TEST_F(AdminServiceTest, VersionNamesProgramAndContract) {
  auto version = ask<v1::Version>("GetVersion", v1::GetVersionRequest());
  EXPECT_FALSE(version->version().empty());
  EXPECT_FALSE(version->commit().empty());
  EXPECT_EQ(version->api_versions(0), "v1");
  EXPECT_EQ(version->feature_level(), version->feature_level_max());
}

TEST_F(AdminServiceTest, SecretsOfTheConfigurationAreHidden) {
  v1::GetConfigurationRequest request;
  auto all = ask<v1::Configuration>("GetConfiguration", request);
  ASSERT_EQ(all->settings_size(), 3);
  EXPECT_EQ(all->settings(0).name(), "tasks.max");
  EXPECT_EQ(all->settings(0).value().number_value(), 12);
  EXPECT_EQ(all->settings(0).source(), "flag");
  EXPECT_EQ(all->settings(2).value().string_value(), "***");
  EXPECT_EQ(all->SerializeAsString().find("s3cret"), std::string::npos);
  EXPECT_FALSE(all->etag().empty());
  request.set_prefix("tasks.");
  EXPECT_EQ(ask<v1::Configuration>("GetConfiguration", request)->settings_size(), 2);
  request.set_prefix("nope");
  EXPECT_EQ(ask<v1::Configuration>("GetConfiguration", request).error().reason(), "SETTING_NOT_FOUND");
}

}  // namespace
}  // namespace uccp::admin
