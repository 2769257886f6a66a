#include "server/config.h"

#include <gtest/gtest.h>

namespace uccp::server {
namespace {

using Values = std::map<std::string, std::string>;

Result<Config> load(const std::string& yaml, const Values& environment = {}, const Values& flags = {}) {
  return Config::load(yaml, "uccp.yaml", environment, flags);
}
std::string refusal(const std::string& yaml, const Values& environment = {}, const Values& flags = {}) {
  const auto config = load(yaml, environment, flags);
  if (config) return "taken";
  EXPECT_EQ(config.error().reason(), "CONFIG_INVALID");
  return config.error().message();
}
std::string origin_of(const Config& config, std::string_view key) { return config.values().find(key)->second.origin; }

TEST(Config, AFlagIsOverTheEnvironmentThatIsOverTheFile) {
  const auto config = load("grpc_port: 1\nhttps_port: 1\nmetrics_port: 1\n", {{"GRPC_PORT", "2"}, {"HTTPS_PORT", "2"}},
                           {{"grpc-port", "3"}});
  ASSERT_TRUE(config);
  EXPECT_EQ(config->integer("grpc_port"), 3);
  EXPECT_EQ(config->integer("https_port"), 2);
  EXPECT_EQ(config->integer("metrics_port"), 1);
  EXPECT_EQ(config->integer("raft_port"), 50061);
  EXPECT_EQ(origin_of(*config, "grpc_port"), "--grpc-port");
  EXPECT_EQ(origin_of(*config, "https_port"), "HTTPS_PORT");
  EXPECT_EQ(origin_of(*config, "metrics_port"), "uccp.yaml:3");
  EXPECT_EQ(origin_of(*config, "raft_port"), "default");
}

TEST(Config, WhatTheClusterSetsIsOverTheFileAndUnderTheNodesOwn) {
  const auto config =
      load("log_level: WARN\nsession_ttl: 1h\n", {{"SESSION_TTL", "2h"}}, {{"rate-limits", "tenant:5"}});
  ASSERT_TRUE(config);
  const Config with = config->with_cluster(
      {{"log_level", "DEBUG"}, {"session_ttl", "3h"}, {"rate_limits", "tenant:6"}, {"calls_in_flight_max", "many"}});
  EXPECT_EQ(with.text("log_level"), "DEBUG");
  EXPECT_EQ(with.text("session_ttl"), "2h");
  EXPECT_EQ(with.text("rate_limits"), "tenant:5");
  EXPECT_EQ(with.text("calls_in_flight_max"), "2000") << "what is malformed changes nothing";
}

TEST(Config, AnUnknownKeyNamesItsPlaceAndTheNearestOne) {
  EXPECT_EQ(refusal("node_id: n1\ngrcp_port: 1\n"),
            "uccp.yaml:2: there is no configuration key 'grcp_port'; did you mean 'grpc_port'? 'uccp config explain' "
            "lists all");
  EXPECT_EQ(refusal("", {}, {{"htps-port", "1"}}),
            "--htps-port: there is no configuration key 'htps_port'; did you mean 'https_port'? 'uccp config explain' "
            "lists all");
  EXPECT_EQ(refusal("", {{"PATH", "/bin"}, {"GRCP_PORT", "1"}}), "taken")
      << "the environment has much that is not ours";
}

TEST(Config, AValueOfTheWrongTypeSaysWhatIsExpected) {
  EXPECT_EQ(refusal("grpc_port: 70000"),
            "uccp.yaml:1: '70000' of 'grpc_port' is not a port, 0 (any free one) to 65535");
  EXPECT_EQ(refusal("", {{"ENABLE_MTLS", "perhaps"}}), "ENABLE_MTLS: 'perhaps' of 'enable_mtls' is not true or false");
  EXPECT_EQ(refusal("", {}, {{"task-timeout", "soon"}}),
            "--task-timeout: 'soon' of 'task_timeout' is not a duration such as 90s, 5m or 1h30m");
  EXPECT_EQ(refusal("snapshot_threshold: -1"), "uccp.yaml:1: '-1' of 'snapshot_threshold' is not an integer");
  EXPECT_EQ(refusal("node_id: [n1]"), "uccp.yaml:1: the value must be one word or text");
  EXPECT_EQ(refusal("- a"), "uccp.yaml: the file must hold 'key: value' lines");
  EXPECT_NE(refusal("node_id: ["), "taken");
}

TEST(Config, NumbersHaveALeastAndAMost) {
  const auto config = load("", {{"HTTP_CONNECTIONS_MAX", "0"}});
  ASSERT_TRUE(config);
  const auto number = config->integer_between("http_connections_max", 1, 9);
  ASSERT_FALSE(number);
  EXPECT_EQ(number.error().message(),
            "HTTP_CONNECTIONS_MAX: '0' of 'http_connections_max' is out of range; it must be 1 to 9");
  EXPECT_EQ(config->integer_between("grpc_connections_max", 1, 10'000), 10'000u);
}

TEST(Config, AnEmptyValueIsUnset) {
  const auto config = load("grpc_port:\noidc_issuer_url: \"\"\n", {{"BACKUP_DIR", ""}});
  ASSERT_TRUE(config);
  EXPECT_FALSE(config->is_set("grpc_port"));
  EXPECT_FALSE(config->is_set("oidc_issuer_url"));
  EXPECT_FALSE(config->is_set("backup_dir"));
}

TEST(Config, SecretsAreNeitherExplainedNorTold) {
  const auto config = load("", {{"VAULT_TOKEN", "hush"}, {"DNS_TOKEN", "hush"}});
  ASSERT_TRUE(config);
  EXPECT_EQ(config->explain().find("hush"), std::string::npos);
  EXPECT_NE(config->explain().find("(hidden)"), std::string::npos);
  EXPECT_EQ(config->unused(), std::vector<std::string>{"VAULT_TOKEN (vault_token)"});
}

TEST(Config, EveryDefaultIsOfItsType) {
  for (const ConfigKey& key : config_keys()) {
    EXPECT_TRUE(Config::check(key.name, std::string(key.fallback)).is_ok()) << key.name;
    EXPECT_FALSE(key.help.empty()) << key.name;
    EXPECT_EQ(find_config_key(key.name), &key) << key.name << " is there twice";
  }
}

TEST(Config, DurationsHaveUnitsThatMayBeJoined) {
  EXPECT_EQ(parse_duration_ms("90s"), 90'000);
  EXPECT_EQ(parse_duration_ms("1h30m"), 5'400'000);
  EXPECT_EQ(parse_duration_ms("250ms"), 250);
  EXPECT_EQ(parse_duration_ms("1.5s"), 1'500);
  EXPECT_EQ(parse_duration_ms("2d"), 172'800'000);
  EXPECT_EQ(parse_duration_ms("7"), 7'000);
  for (const char* wrong : {"", "s", "-1s", "1x", "1h-", "soon", "1e12s"})
    EXPECT_FALSE(parse_duration_ms(wrong)) << wrong;
}

}  // namespace
}  // namespace uccp::server
