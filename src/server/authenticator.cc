#include "server/authenticator.h"

#include <charconv>

#include "call/pipeline/roles.h"
#include "runtime/pki.h"

namespace uccp::server {
namespace {

// "spiffe://uccp/tenant/<tenant>/principal/<name>".
bool parse_principal_uri(std::string_view uri, std::string& tenant, std::string& name) {
  constexpr std::string_view kPrefix = "spiffe://uccp/tenant/";
  constexpr std::string_view kMiddle = "/principal/";
  if (!uri.starts_with(kPrefix)) return false;
  uri.remove_prefix(kPrefix.size());
  const size_t middle = uri.find(kMiddle);
  if (middle == std::string_view::npos || middle == 0) return false;
  tenant = uri.substr(0, middle);
  name = uri.substr(middle + kMiddle.size());
  return !name.empty();
}

call::Principal::Kind kind_of(const std::vector<std::string>& roles) {
  for (const std::string& role : roles) {
    if (role == "agent") return call::Principal::Kind::kAgent;
  }
  return call::Principal::Kind::kUser;
}

}  // namespace

bool parse_node_uri(std::string_view uri, std::string& cluster_id, NodeId& node) {
  constexpr std::string_view kPrefix = "spiffe://uccp/cluster/";
  constexpr std::string_view kMiddle = "/node/";
  if (!uri.starts_with(kPrefix)) return false;
  uri.remove_prefix(kPrefix.size());
  const size_t middle = uri.find(kMiddle);
  if (middle == std::string_view::npos) return false;
  cluster_id = uri.substr(0, middle);
  std::string_view number = uri.substr(middle + kMiddle.size());
  if (number.starts_with('n')) number.remove_prefix(1);
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), node.value);
  return error == std::errc() && end == number.data() + number.size() && node;
}

Result<call::Principal> KeyAuthenticator::authenticate(const call::Credentials& credentials) {
  return credentials.bearer_token.empty() ? from_certificate(credentials.certificate_pem)
                                          : from_token(credentials.bearer_token);
}

Result<call::Principal> KeyAuthenticator::from_token(const std::string& token) const {
  UCCP_TRY(const runtime::TokenClaims claims, verifier_.verify(token, clock_.wall()));
  call::Principal principal;
  principal.kind = kind_of(claims.roles);
  principal.tenant = claims.tenant;
  principal.name = claims.subject;
  principal.roles = claims.roles;
  principal.namespaces = claims.namespaces;
  principal.expires_us = claims.expires_at_s * 1'000'000;
  if (principal.tenant.empty()) {
    return fail(Code::kUnauthenticated, "TOKEN_TENANT", "the token names no tenant; ask its issuer for one that does");
  }
  return principal;
}

Result<call::Principal> KeyAuthenticator::from_certificate(const std::string& pem) const {
  // The door has verified the chain; here it is only read.
  auto info = runtime::inspect_certificate(pem);
  if (!info) {
    return fail(Code::kUnauthenticated, "CERTIFICATE_INVALID", "the client certificate cannot be read");
  }
  call::Principal principal;
  principal.roles = info->organizations;
  principal.kind = kind_of(principal.roles);
  principal.expires_us = info->not_after.us;
  for (const std::string& uri : info->uris) {
    if (parse_principal_uri(uri, principal.tenant, principal.name)) return principal;
    std::string cluster_id;
    NodeId node;
    if (!parse_node_uri(uri, cluster_id, node)) continue;
    if (cluster_id != cluster_id_) {
      return fail(Code::kUnauthenticated, "CERTIFICATE_CLUSTER",
                  "the certificate is that of a node of cluster " + cluster_id + ", and this is cluster " + cluster_id_);
    }
    principal.kind = call::Principal::Kind::kNode;
    principal.tenant = "system";
    principal.name = "n" + std::to_string(node.value);
    principal.roles = {"node"};
    return principal;
  }
  return fail(Code::kUnauthenticated, "CERTIFICATE_PRINCIPAL",
              "the client certificate of '" + info->common_name +
                  "' names no principal (a URI spiffe://uccp/tenant/TENANT/principal/NAME)");
}

}  // namespace uccp::server
