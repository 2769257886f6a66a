#include "server/discovery_document.h"

#include <simdjson.h>

namespace uccp::server {

Result<std::string> keys_url(const std::string& json, const std::string& issuer) {
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  std::string_view named;
  std::string_view url;
  if (parser.parse(json).get(root) != simdjson::SUCCESS || root["issuer"].get(named) != simdjson::SUCCESS ||
      root["jwks_uri"].get(url) != simdjson::SUCCESS) {
    return fail(Code::kInvalid, "DISCOVERY_INVALID",
                "the discovery document of " + issuer + " has no issuer or no jwks_uri");
  }
  if (named != issuer) {
    return fail(
        Code::kInvalid, "DISCOVERY_INVALID",
        "the discovery document of " + issuer + " is that of " + std::string(named) + "; set oidc_issuer_url to that");
  }
  return std::string(url);
}

}  // namespace uccp::server
