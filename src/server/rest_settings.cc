#include "server/rest_settings.h"

#include <re2/re2.h>

#include <algorithm>

namespace uccp::server {

Result<doors::RestDoorOptions> rest_options_of(const Config& config) {
  static const re2::RE2 kOrigin(R"(\*|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?)");
  doors::RestDoorOptions options;
  UCCP_TRY(options.http.connections_max, config.integer_between("http_connections_max", 1, kConnectionsMost));
  const std::string& origins = config.text("cors_origins");
  for (size_t at = 0; at < origins.size();) {
    const size_t comma = std::min(origins.find(',', at), origins.size());
    const std::string origin = origins.substr(at, comma - at);
    if (!re2::RE2::FullMatch(origin, kOrigin)) {
      return fail(Code::kInvalid, "CONFIG_INVALID",
                  "cors_origins: '" + origin + "' is no origin, which is https://HOST, https://HOST:PORT or *");
    }
    options.cors_origins.push_back(origin);
    at = comma + 1;
  }
  return options;
}

}  // namespace uccp::server
