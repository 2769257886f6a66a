// Timeouts of consensus: what is taken, what is refused and how it is said.
#include "server/raft_settings.h"

#include <gtest/gtest.h>

#include "machine/machine.h"

namespace uccp::server {
namespace {

Status set_up(const std::string& yaml, node::NodeOptions& options) {
  const auto config = Config::load(yaml, "c.yaml", {}, {});
  if (!config) return config.error();
  return apply_raft_settings(*config, options);
}

std::string refusal(const std::string& yaml) {
  node::NodeOptions options;
  const Status status = set_up(yaml, options);
  EXPECT_EQ(status.code(), Code::kInvalid) << yaml;
  EXPECT_EQ(status.reason(), "CONFIG_INVALID");
  return status.message();
}

TEST(RaftSettings, DefaultsAreOneSecondAndHundredMilliseconds) {
  node::NodeOptions options;
  ASSERT_TRUE(set_up("", options).is_ok());
  EXPECT_EQ(options.tick_ms, 100);
  EXPECT_EQ(options.group.raft.election_ticks, 10u);
  EXPECT_EQ(options.group.raft.heartbeat_ticks, 1u);
  EXPECT_FALSE(options.group.raft.lease_reads);
}

TEST(RaftSettings, TicksAreMadeToFitTheHeartbeatAndTheTimeoutIsNeverShortened) {
  struct Case {
    int64_t election_ms, heartbeat_ms, tick_ms;
    uint32_t heartbeat_ticks, election_ticks;
  };
  for (const Case& c : {Case{1000, 250, 125, 2, 8}, Case{10'000, 500, 100, 5, 100}, Case{1000, 150, 150, 1, 7},
                        Case{1001, 100, 100, 1, 11}}) {
    node::NodeOptions options;
    ASSERT_TRUE(set_up("raft_election_timeout: " + std::to_string(c.election_ms) +
                           "ms\nraft_heartbeat_interval: " + std::to_string(c.heartbeat_ms) + "ms",
                       options)
                    .is_ok());
    EXPECT_EQ(options.tick_ms, c.tick_ms);
    EXPECT_EQ(options.group.raft.tick_ms, c.tick_ms);
    EXPECT_EQ(options.group.raft.heartbeat_ticks, c.heartbeat_ticks);
    EXPECT_EQ(options.group.raft.election_ticks, c.election_ticks);
    EXPECT_GE(options.group.raft.election_ticks * options.tick_ms, c.election_ms);
  }
}

TEST(RaftSettings, WhatANodeKnowsMayBeFiveSecondsOldOrAsLongAsIsSaid) {
  const auto age = [](const std::string& yaml) { return state_age_max_ms(*Config::load(yaml, "c.yaml", {}, {})); };
  EXPECT_EQ(*age(""), 5'000);
  EXPECT_EQ(*age("state_age_max: 1m"), 60'000);
  for (const std::string text : {"999ms", "2h"}) {
    const auto refused = age("state_age_max: " + text);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message().find("'state_age_max' is out of range; it must be 1000ms to 3600000ms"),
              std::string::npos);
  }
}

TEST(RaftSettings, TheFeatureLevelCanBeHeldBackAndNotBeMadeUp) {
  const auto limit = [](const std::string& yaml) { return feature_level_limit(*Config::load(yaml, "c.yaml", {}, {})); };
  EXPECT_EQ(*limit(""), machine::kFeatureLevelMax);
  EXPECT_EQ(*limit("feature_level_max: 0"), machine::kFeatureLevelMax);
  EXPECT_EQ(*limit("feature_level_max: 1"), 1u);
  const auto unknown = limit("feature_level_max: " + std::to_string(machine::kFeatureLevelMax + 1));
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().reason(), "CONFIG_INVALID");
  EXPECT_NE(unknown.error().message().find("feature_level_max"), std::string::npos);
  EXPECT_FALSE(Config::load("feature_level_max: -1", "c.yaml", {}, {}).has_value());
}

TEST(RaftSettings, TheLeaseIsShorterThanTheTimeoutByTheDriftAndTheRounding) {
  for (const auto& [yaml, election_ticks, margin] :
       {std::tuple{"raft_lease_reads: true", 10u, 2u},
        {"raft_lease_reads: true\nraft_election_timeout: 10s", 100u, 11u}}) {
    node::NodeOptions options;
    ASSERT_TRUE(set_up(yaml, options).is_ok());
    EXPECT_TRUE(options.group.raft.lease_reads);
    EXPECT_EQ(options.group.raft.election_ticks, election_ticks);
    EXPECT_EQ(options.group.raft.lease_margin_ticks, margin);
  }
}

TEST(RaftSettings, ValuesOutOfRangeAreRefusedWithPlaceAndRange) {
  EXPECT_EQ(refusal("raft_election_timeout: 999ms"),
            "c.yaml:1: '999ms' of 'raft_election_timeout' is out of range; it must be 1000ms to 10000ms");
  EXPECT_EQ(refusal("node_id: n1\nraft_election_timeout: 11s"),
            "c.yaml:2: '11s' of 'raft_election_timeout' is out of range; it must be 1000ms to 10000ms");
  EXPECT_EQ(refusal("raft_heartbeat_interval: 50ms"),
            "c.yaml:1: '50ms' of 'raft_heartbeat_interval' is out of range; it must be 100ms to 500ms");
  EXPECT_EQ(refusal("raft_heartbeat_interval: 0.6"),
            "c.yaml:1: '0.6' of 'raft_heartbeat_interval' is out of range; it must be 100ms to 500ms");
}

TEST(RaftSettings, ATimeoutOfFewHeartbeatsIsRefused) {
  EXPECT_NE(refusal("raft_heartbeat_interval: 300ms").find("at least 4 heartbeats"), std::string::npos);
}

}  // namespace
}  // namespace uccp::server
