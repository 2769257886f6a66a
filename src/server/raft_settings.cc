#include "server/raft_settings.h"

#include <fmt/format.h>

#include <algorithm>

#include "machine/machine.h"

namespace uccp::server {
namespace {

constexpr int64_t kElectionMsMin = 1'000;
constexpr int64_t kElectionMsMax = 10'000;
constexpr int64_t kHeartbeatMsMin = 100;
constexpr int64_t kHeartbeatMsMax = 500;
constexpr int64_t kStateAgeMsMin = 1'000;
constexpr int64_t kStateAgeMsMax = 3'600'000;
// Two heartbeats may be lost and the third late before a follower gives its leader up.
constexpr int64_t kHeartbeatsPerElection = 4;
// Reads, leases of clients and transfers are looked at once a tick, so a tick stays near this.
constexpr int64_t kTickMs = 100;

Result<int64_t> read_ms(const Config& config, std::string_view key, int64_t min, int64_t max) {
  const int64_t ms = config.duration_ms(key);
  if (ms >= min && ms <= max) return ms;
  const Config::Value& value = config.values().find(key)->second;
  return fail(Code::kInvalid, "CONFIG_INVALID",
              fmt::format("{}: '{}' of '{}' is out of range; it must be {}ms to {}ms", value.origin, value.text, key,
                          min, max));
}

}  // namespace

Status apply_raft_settings(const Config& config, node::NodeOptions& options) {
  UCCP_TRY(const int64_t election_ms, read_ms(config, "raft_election_timeout", kElectionMsMin, kElectionMsMax));
  UCCP_TRY(const int64_t heartbeat_ms, read_ms(config, "raft_heartbeat_interval", kHeartbeatMsMin, kHeartbeatMsMax));
  if (election_ms < kHeartbeatsPerElection * heartbeat_ms) {
    return Status(
        Code::kInvalid, "CONFIG_INVALID",
        fmt::format("raft_election_timeout is {}ms and raft_heartbeat_interval {}ms; the timeout must be at least "
                    "{} heartbeats, or leaders are unseated by a few lost messages",
                    election_ms, heartbeat_ms, kHeartbeatsPerElection));
  }
  raft::Options& raft = options.group.raft;
  raft.heartbeat_ticks = static_cast<uint32_t>(heartbeat_ms / kTickMs);
  options.tick_ms = heartbeat_ms / raft.heartbeat_ticks;
  raft.tick_ms = static_cast<uint32_t>(options.tick_ms);
  raft.election_ticks = static_cast<uint32_t>((election_ms + options.tick_ms - 1) / options.tick_ms);
  raft.lease_reads = config.boolean("raft_lease_reads");
  // One tick for the rounding of either clock to ticks, besides the drift.
  raft.lease_margin_ticks = 1 + static_cast<uint32_t>((raft.election_ticks * kLeaseDriftPercent + 99) / 100);
  return Status::ok();
}

Result<int64_t> state_age_max_ms(const Config& config) {
  return read_ms(config, "state_age_max", kStateAgeMsMin, kStateAgeMsMax);
}

Result<uint32_t> feature_level_limit(const Config& config) {
  const int64_t level = config.integer("feature_level_max");
  if (level >= 0 && level <= machine::kFeatureLevelMax) {
    return level == 0 ? machine::kFeatureLevelMax : static_cast<uint32_t>(level);
  }
  const Config::Value& value = config.values().find("feature_level_max")->second;
  return fail(
      Code::kInvalid, "CONFIG_INVALID",
      fmt::format("{}: '{}' of 'feature_level_max' is out of range; this program knows the levels 1 to {}, and 0 "
                  "means the highest",
                  value.origin, value.text, machine::kFeatureLevelMax));
}

}  // namespace uccp::server
