#include "server/door_settings.h"

#include <string>

namespace uccp::server {
namespace {

constexpr int64_t kConnectionsMost = 1'000'000;
constexpr int64_t kStreamsMost = 1'000'000;

}  // namespace

Result<doors::RestDoorOptions> rest_options_of(const Config& config) {
  doors::RestDoorOptions options;
  UCCP_TRY(options.http.connections_max, config.integer_between("http_connections_max", 1, kConnectionsMost));
  UCCP_TRY(options.cors_origins, parse_origins(config.text("cors_origins")));
  return options;
}

Result<doors::GrpcDoorOptions> grpc_options_of(const Config& config, std::string_view prefix) {
  const std::string name(prefix);
  doors::GrpcDoorOptions options;
  UCCP_TRY(options.connections_max, config.integer_between(name + "_connections_max", 1, kConnectionsMost));
  UCCP_TRY(const uint64_t streams, config.integer_between(name + "_streams_max", 1, kStreamsMost));
  options.streams_per_connection_max = static_cast<uint32_t>(streams);
  return options;
}

}  // namespace uccp::server
