#include "agent/object_settings.h"

#include <cstdlib>

#include "agent/duration_text.h"
#include "base/log.h"
#include "runtime/blocking_stream.h"

namespace uccp::agent {
namespace {

constexpr int64_t kLeaseMinMs = 1'000;
constexpr uint64_t kMemoryShare = 4;

std::string from_environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Null: there is none. Errors: those of open_tier().
Result<std::shared_ptr<shm::Tier>> open_tier_of(const ObjectSettings& settings) {
  if (settings.tier.empty()) return nullptr;
  const bool is_s3 = settings.tier.starts_with("s3://");
  UCCP_TRY(
      auto tier,
      shm::open_tier({.url = settings.tier,
                      .user = is_s3 ? from_environment("AWS_ACCESS_KEY_ID") : "",
                      .secret = from_environment(is_s3 ? "AWS_SECRET_ACCESS_KEY" : "UCCP_AGENT_OBJECTS_TIER_PASSWORD"),
                      .ca_file = settings.tier_ca}));
  return std::shared_ptr<shm::Tier>(std::move(tier));
}

}  // namespace

std::string wrong_settings(const ObjectSettings& settings) {
  if (!shm::parse_policy(settings.eviction) || parse_duration_ms(settings.ttl) <= 0)
    return "--objects-eviction is s3-fifo, lru, lfu or ttl, --objects-ttl a time such as 10m";
  if (!runtime::parse_host_port(settings.listen) || parse_duration_ms(settings.lease) < kLeaseMinMs)
    return "--objects-listen is HOST:PORT, --objects-lease a time of 1s or more";
  if (!shm::parse_compression(settings.compression) || !shm::parse_compression(settings.tier_compression))
    return "--objects-compression and --objects-tier-compression are none, lz4, zstd or gzip";
  const auto tier = open_tier_of(settings);
  return tier ? "" : "--objects-tier: " + std::string(tier.error().message());
}

std::unique_ptr<ObjectServer> share_objects(const ObjectSettings& settings, const ObjectMachine& machine,
                                            const Clock& clock, FileSystem& files) {
  ObjectServerOptions options{.data_directory = machine.data_directory};
  options.store.memory_bytes_max = settings.memory.value_or(machine.memory_bytes / kMemoryShare);
  options.store.disk_bytes_max = settings.disk;
  options.store.policy = *shm::parse_policy(settings.eviction);
  options.store.ttl_ms = parse_duration_ms(settings.ttl);
  options.memory_share = settings.share / 100.0;
  options.ready_bytes = settings.ready;
  options.store.compression = *shm::parse_compression(settings.compression);
  options.tiering.tier = *open_tier_of(settings);
  options.tiering.compression = *shm::parse_compression(settings.tier_compression);
  options.exchange.door.listen = settings.listen;
  options.exchange.door.advertised = settings.advertise;
  const std::string host = runtime::parse_host_port(settings.listen)->host;
  if (settings.advertise.empty() && (host == "0.0.0.0" || host == "::"))
    options.exchange.door.advertised = machine.host_name;
  options.exchange.zone = machine.zone;
  options.exchange.lease_ms = parse_duration_ms(settings.lease);
  if (options.store.memory_bytes_max == 0) return nullptr;
  auto server = ObjectServer::start(clock, files, std::move(options));
  if (server) return std::move(*server);
  log::warn("processes of this machine share no objects", {{"error", server.error().message()}});
  return nullptr;
}

}  // namespace uccp::agent
